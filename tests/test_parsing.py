"""What is printed for a setting of a wrong type: what to write, in words."""

import pytest
import yaml

from mbv2det.cli.settings import SettingsParser
from mbv2det.errors import ConfigError

QUOTES = 'put numbers and words such as yes, no, on, off in quotes: ["yes", "no"]'


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("data.classes=[yes,no]", f"auto or a list of text, got [True, False]; {QUOTES}"),
        ("data.classes=[1,3]", f"auto or a list of text, got [1, 3]; {QUOTES}"),
        ("data.classes=person", "auto or a list of text, got person; a list of one is written [pe"),
        ("data.mask_classes=person", "voc or a list of text or null, got person; a list of one"),
        ("data.image_size=big", "a whole number or [whole number, whole number], got big"),
        (
            "data.image_size=[1,2,3]",
            "a whole number or [whole number, whole number], got [1, 2, 3]",
        ),
        ("augment.scale=3", "[number, number] or null, got 3"),
        ("trainer.max_epochs=x", "a whole number or null, got x"),
        (
            "trainer.logger=neptun",
            "csv or tensorboard or wandb or mlflow or Logger or list or true or false or null, got "
            "neptun",
        ),
        ("heads.detection=5", "SSDLiteConfig or null, got 5"),
    ],
)
def test_value_of_a_wrong_type_says_what_to_write(capsys, argument, line):
    with pytest.raises(SystemExit):
        SettingsParser("", prog="train").parse(["ssdlite_voc", f"--{argument}"])
    error = capsys.readouterr().err
    key = argument.split("=")[0]
    assert f"train: error: {key}: expected {line}" in error
    assert error.count("\n") == 1
    assert "Union" not in error


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            {"data": {"image_size": None}},
            "data.image_size: expected a whole number or [whole number,",
        ),
        ({"data": {"batch_size": None}}, "data.batch_size: expected a whole number, got null"),
        ({"optim": {"lr": None}}, "optim.lr: expected a number, got null"),
        (
            {"data": {"classes": ""}},
            "data.classes: expected auto or a list of text, got an empty va",
        ),
        (
            {"heads": {"detection": ""}},
            "heads.detection: expected SSDLiteConfig or null, got an em",
        ),
        ({"heads": {"detection": {"name": {"a": 1}}}}, "heads.detection.name: expected one of ssd"),
        (
            {"trainer": {"max_epochs": ""}},
            "trainer.max_epochs: expected a whole number or null, got",
        ),
        ({"data": {"train": None}}, "data.train: expected a section of settings, got None"),
        ({"optim": None}, "optim: expected a section of settings, got None"),
    ],
)
def test_a_setting_without_a_value_in_a_file_is_one_line(tmp_path, capsys, setting, line):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"heads": {"detection": {"name": "ssdlite"}}} | setting))
    try:
        SettingsParser("", prog="train").parse([str(file)])
        error = ""
    except SystemExit:
        error = capsys.readouterr().err.strip()
    except ConfigError as caught:
        error = str(caught)
    assert line in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--seed", "train: error: --seed: expected a value, got none"),
        ("--data.root", "train: error: --data.root: expected a value, got none"),
        ("--most-images=x", "train: error: most_images: expected a whole number, got x"),
    ],
)
def test_an_error_of_the_command_line_does_not_name_the_file(capsys, argument, line):
    parser = SettingsParser("", prog="train")
    parser.add_option("--most-images", type=int)
    with pytest.raises(SystemExit):
        parser.parse(["ssdlite_shapes", argument])
    assert capsys.readouterr().err.strip() == line

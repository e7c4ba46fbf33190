"""What is printed for a setting of a wrong type: what to write, in words."""

import pytest

from mbv2det.cli.settings import SettingsParser

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

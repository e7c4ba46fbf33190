"""Every data format has its own settings, and refuses those of others."""

from dataclasses import fields

import pytest
from runs import write_config

from mbv2det.cli.settings import SettingsParser
from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.formats import FORMATS
from mbv2det.data.formats.settings import check_settings
from mbv2det.errors import ConfigError

SPLIT_VALUES = {
    "annotations": "a.json", "images": "images", "masks": "masks", "list": "a.txt",
    "split": "train", "year": 2007, "mask_split": "val", "mask_year": 2007,
}  # fmt: skip
DATA_VALUES = {
    "mask_values": (0, 1), "mask_colors": ((0, 0, 0),), "ignore_color": (1, 2, 3),
    "mask_channel": 0, "mask_name": "{stem}_mask", "image_name": "{stem}_image",
    "missing_labels": "no_objects", "ignore_index": None,
}  # fmt: skip
VALUES = {**SPLIT_VALUES, **DATA_VALUES}


def check(format, key):
    in_split = key in SPLIT_VALUES
    data = DataConfig(format=format, **({} if in_split else {key: VALUES[key]}))
    check_settings(data, val=SplitConfig(**({key: VALUES[key]} if in_split else {})))


def test_every_setting_of_a_split_belongs_to_a_format():
    keys = {f.name for f in fields(SplitConfig)}
    assert keys == set(SPLIT_VALUES)
    assert keys == {key for format in FORMATS.values() for key in format.split_keys}


@pytest.mark.parametrize("key", VALUES)
@pytest.mark.parametrize("format", FORMATS)
def test_a_setting_is_taken_or_refused_with_the_formats_that_have_it(format, key):
    def keys(name):
        return FORMATS[name].split_keys if key in SPLIT_VALUES else FORMATS[name].settings

    if key in keys(format):
        check(format, key)
        return
    with pytest.raises(ConfigError, match=rf"\.{key}: expected none, since") as caught:
        check(format, key)
    named = str(caught.value).rsplit("belongs to ", 1)[1].split(" and ")
    assert named == [name for name in FORMATS if key in keys(name)]


def parsed(config, *arguments):
    return SettingsParser("test").parse([str(config), *arguments]).config.data


def test_the_command_line_may_describe_data_of_another_format_than_the_file(tmp_path):
    config = write_config(tmp_path)  # of COCO's format
    data = parsed(config, "--data.format=voc", "--data.embedded=false", "--data.train.split=train")
    check_settings(data, train=data.train, val=data.val)
    assert data.train.split == "train"
    voc = tmp_path / "voc.yaml"
    voc.write_text(
        "heads: {detection: {name: ssdlite}}\n"
        "data: {format: voc, ignore_index: null, train: {split: train, year: 2007}}\n"
    )
    data = parsed(voc, "--data.format=coco", "--data.train.images=a", "--data.val.images=b")
    check_settings(data, train=data.train, val=data.val)
    assert data.train == SplitConfig(images="a")
    assert data.ignore_index == 255
    # Neither does a name that both formats have mean the same in both.
    data = parsed(voc, "--data.format=yolo", "--data.val.split=test")
    assert data.train == SplitConfig()
    assert data.val == SplitConfig(split="test")
    assert parsed(voc, "--data.format=voc").train == SplitConfig(split="train", year=2007)


def test_a_setting_on_the_command_line_is_kept_and_refused(tmp_path):
    data = parsed(write_config(tmp_path), "--data.format=folder", "--data.train.split=train")
    with pytest.raises(ConfigError, match=r"data\.train\.split: expected none"):
        check_settings(data, train=data.train)


def test_a_setting_of_another_format_in_the_file_is_refused(tmp_path):
    config = write_config(tmp_path)
    data = parsed(config, "--data.format=coco", "--data.train.masks=m")
    with pytest.raises(ConfigError, match="belongs to voc and folder"):
        check_settings(data, train=data.train)


def test_the_year_that_earlier_versions_always_wrote_is_accepted():
    check_settings(DataConfig(format="coco"), train=SplitConfig(year=2012, images="a"))

"""Damaged annotation files are read, or refused in one line that names a file."""

import random

import data_formats
import pytest

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.splits import read_split
from mbv2det.errors import ConfigError, DataError

TEXTS = (".json", ".xml", ".txt", ".yaml")
VALUES = [
    "null", "true", "[]", "{}", '"x"', "-1", "1e400", "NaN", "99999999999999999999", "[[1]]", "",
    '"\\u0000"', "..", "/etc/passwd", "../../x.png", "é", "0.5", "<a/>", "&x;", "<!DOCTYPE a>",
    "*a", "&a", "!!python/object:os.system", "\x00", "\ud7ff", "1,2;3", "%", "\\",
]  # fmt: skip
MUTATIONS = 60


def mutate(content, rng):
    """Returns text with one token replaced, or bytes changed, cut, doubled or added."""
    kind = rng.randrange(5)
    place = rng.randrange(len(content) + 1)
    if kind == 0:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + content[max(0, place - 40) :]
    marks = b" \n,:;<>\"'[]{}="
    tokens, start = [], 0
    for end, byte in enumerate(content):
        if byte in marks:
            tokens.append((start, end))
            start = end + 1
    start, end = rng.choice([t for t in tokens if t[1] > t[0]])
    return content[:start] + rng.choice(VALUES).encode() + content[end:]


def attempt(root, data, split):
    config, where = DataConfig(root=str(root), **data), SplitConfig(**split)
    boxes = data["format"] != "folder"
    masks = data["format"] != "voc"
    annotations = read_split(config, where, "data.train", boxes=boxes, masks=masks)
    for index in range(len(annotations)):
        annotations.mask(index)
        annotations.instances(index, (24, 40))


@pytest.mark.parametrize("name", [*data_formats.BOXES, "classes_txt"])
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, name):
    if name == "classes_txt":
        data, _ = data_formats.yolo(tmp_path)
        (tmp_path / "classes.txt").write_text("\n".join(data_formats.NAMES))
        split = {"annotations": "classes.txt", "images": "train/images"}
    else:
        data, split = data_formats.BOXES[name](tmp_path)
    files = sorted(p for p in tmp_path.rglob("*") if p.suffix in TEXTS)
    originals = {path: path.read_bytes() for path in files}
    rng, lines = random.Random(name), []
    for _ in range(MUTATIONS):
        path = rng.choice(files)
        path.write_bytes(mutate(originals[path], rng))
        try:
            attempt(tmp_path, data, split)
        except (DataError, ConfigError) as error:
            lines.append(str(error))
        path.write_bytes(originals[path])
    assert lines
    for line in lines:
        assert "\n" not in line
        assert str(tmp_path) in line or line.startswith("data.")

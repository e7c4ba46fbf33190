"""Damages the files of small data sets at random and reads them.

    python tests/benchmarks/fuzz_readers.py [--cases 20000] [--seed 0]

Each case changes one file: an image, COCO's JSON, VOC's XML, a list of names or a configuration. It
may be read, or be refused by a `DataError` or `ConfigError` of one line. Anything else is a
fault, and so are more than two seconds of processor time. Prints the counts; exit code 1 on faults.
"""

import argparse
import copy
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from faster_coco_eval.core import mask as rle
from PIL import Image

from mbv2det.cli.settings import SettingsParser
from mbv2det.data.coco import read_coco
from mbv2det.data.dataset import read_sample
from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.errors import ConfigError, DataError
from mbv2det.structures import SampleKey

_SLOW = 2.0  # seconds of processor time of one case
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1e308, -1e308, 10**40, 0.5, "", "1", "x", "\0", "é", [], {}, [[]],
    [1], {"a": 1}, float("nan"), float("inf"), "../../etc/passwd", [None], "9" * 5000, -(2**63),
]  # fmt: skip

_CODE = bytes(rle.frPyObjects([[2, 2, 20, 3, 9, 19]], 24, 32)[0]["counts"]).decode()
COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 30, "width": 40},
        {"id": 2, "file_name": "b.png", "height": 24, "width": 32},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 9, 9], "area": 80, "iscrowd": 0}
        | {"segmentation": [[1, 2, 9, 2, 9, 9]]},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0, 0, 8, 8.5], "iscrowd": 1}
        | {"segmentation": {"size": [24, 32], "counts": [100, 200, 468]}},
        {"id": 3, "image_id": 2, "category_id": 7, "bbox": [3, 3, 8, 8]}
        | {"segmentation": {"size": [24, 32], "counts": _CODE}},
    ],
}
XML = """<?xml version="1.0"?><annotation><size><width>40</width><height>30</height></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin>
<xmax>20</xmax><ymax>22</ymax></bndbox></object></annotation>"""
CONFIG = {
    "seed": 0,
    "heads": {"detection": {"name": "ssdlite"}},
    "data": {"root": "data", "classes": ["a", "b"], "image_size": [96, 128], "batch_size": 4},
    "optim": {"name": "adamw", "lr": 0.002},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


def make_files(root: Path) -> None:
    """Writes the undamaged files."""
    for folder in ("images", "xml"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (30, 40)), ("b.png", (24, 32))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / "images" / name)
    (root / "coco.json").write_text(json.dumps(COCO))
    (root / "xml/a.xml").write_text(XML)
    (root / "list.txt").write_text("a\n")
    (root / "config.yaml").write_text(yaml.safe_dump(CONFIG))


def read_coco_files(root: Path) -> None:
    """Reads the JSON, and every image with its boxes and mask."""
    split = read_coco(root / "coco.json", root / "images", masks=True)
    for index in range(len(split)):
        read_sample(split, SampleKey(0, index))


def read_voc_files(root: Path) -> None:
    """Reads the list, the XML and the image."""
    split = read_voc([VOCSource(root / "images", root / "xml", root / "list.txt")])
    for index in range(len(split)):
        read_sample(split, SampleKey(0, index))


def read_config(root: Path) -> None:
    """Reads the configuration."""
    message = io.StringIO()
    try:
        with redirect_stderr(message):
            SettingsParser("", prog="train").parse([str(root / "config.yaml")])
    except SystemExit:
        line = message.getvalue().strip()
        if "Union subtypes" in line or "\n" in line:
            raise AssertionError(f"no plain line: {line[:300]}") from None
        raise ConfigError(line) from None


# Reader and share of the cases by damaged file; reading a configuration takes half a second.
FILES: dict[str, tuple[Callable[[Path], None], float]] = {
    "coco.json": (read_coco_files, 0.35),
    "images/a.jpg": (read_coco_files, 0.2),
    "images/b.png": (read_coco_files, 0.195),
    "xml/a.xml": (read_voc_files, 0.15),
    "list.txt": (read_voc_files, 0.1),
    "config.yaml": (read_config, 0.005),
}


def damaged(content: bytes, random_: random.Random) -> bytes:
    """Returns content with some bytes changed, cut, repeated or inserted."""
    data = bytearray(content)
    for _ in range(random_.randint(1, 4)):
        position = random_.randrange(len(data) + 1)
        kind = random_.randrange(5)
        if kind == 0 and position < len(data):
            data[position] = random_.randrange(256)
        elif kind == 1:
            del data[position:]
        elif kind == 2:
            del data[position : position + random_.randint(1, 20)]
        elif kind == 3:
            data[position:position] = random_.randbytes(random_.randint(1, 8))
        else:
            data[position:position] = data[position : position + 30] * random_.randint(1, 5)
    return bytes(data)


def replaced(content: Any, random_: random.Random) -> Any:
    """Returns nested values with one of them replaced, or a key removed."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    parent, key = random_.choice(places)
    if isinstance(parent, dict) and random_.random() < 0.2:
        del parent[key]
    else:
        parent[key] = random_.choice(_VALUES)
    return content


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def mutated(name: str, content: bytes, random_: random.Random) -> bytes:
    """Returns the content of a damaged file."""
    if random_.random() < 0.6:
        if name == "coco.json":
            return json.dumps(replaced(COCO, random_)).encode()
        if name == "config.yaml":
            return yaml.safe_dump(replaced(CONFIG, random_)).encode()
        if name == "xml/a.xml":
            value = str(random_.choice(_VALUES))
            parts = content.decode().split(">")
            place = random_.randrange(len(parts) - 1)
            parts[place] = value + parts[place]
            return ">".join(parts).encode()
    return damaged(content, random_)


def run_case(root: Path, name: str, random_: random.Random) -> str:
    """Damages one file, reads it, puts it back, and returns what came out."""
    file, (reader, _) = root / name, FILES[name]
    original = file.read_bytes()
    file.write_bytes(mutated(name, original, random_))
    started = time.process_time()
    try:
        reader(root)
        result = "read"
    except (DataError, ConfigError) as error:
        result = "refused" if "\n" not in str(error) else f"FAULT: {error}"
    except Exception:
        result = f"FAULT: {traceback.format_exc()}"
    if time.process_time() - started > _SLOW:
        result = f"FAULT: {time.process_time() - started:.1f} s"
    if result.startswith("FAULT"):
        shutil.copy(file, Path(tempfile.gettempdir()) / f"fault_{file.name}")
    file.write_bytes(original)
    return result


def _place(fault: str) -> str:
    """Returns the last line of our code in a traceback, and the kind of the error."""
    lines = fault.strip().splitlines()
    ours = [line.strip() for line in lines if "mbv2det" in line and line.strip().startswith("File")]
    return "\n".join([name for name in (*ours[-1:], lines[-1][:200]) if name])


def main() -> None:
    """Runs the cases and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        for reader, _ in FILES.values():
            reader(Path(folder))  # the undamaged files are read
        for name, (_, share) in FILES.items():
            random_ = random.Random(f"{arguments.seed} {name}")
            for _ in range(round(arguments.cases * share)):
                result = run_case(Path(folder), name, random_)
                counts[name, result.split(":")[0]] += 1
                if result.startswith("FAULT"):
                    faults[_place(result)] += 1
    for (name, result), count in sorted(counts.items()):
        print(f"{name:14} {result:8} {count}")
    for fault, count in faults.most_common():
        print(f"\n{count} times:\n{fault[:800]}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from mbv2det.data.voc import VOCSource

REAL_DATA = Path(__file__).parents[2] / "shared/data"
REAL_WEIGHTS = Path(__file__).parents[2] / "shared/weights"

# The same examples in every run, and no time limit on a single one: other processes may be busy.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# Ids are neither consecutive nor sorted; image 31 has no objects.
COCO = {
    "images": [
        {"id": 40, "file_name": "d.png", "height": 30, "width": 40},
        {"id": 7, "file_name": "a.png", "height": 40, "width": 30},
        {"id": 31, "file_name": "c.png", "height": 24, "width": 24},
        {"id": 12, "file_name": "b.png", "height": 32, "width": 48},
        {"id": 52, "file_name": "e.png", "height": 50, "width": 36},
    ],
    "annotations": [
        {"id": 1, "image_id": 40, "category_id": 90, "bbox": [4, 5, 20, 10], "area": 150},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [1.5, 2, 8, 30.5], "area": 200},
        {"id": 3, "image_id": 12, "category_id": 18, "bbox": [0, 0, 48, 32], "iscrowd": 1},
        {"id": 4, "image_id": 40, "category_id": 3, "bbox": [10, 8, 6, 6], "area": 36},
        {"id": 5, "image_id": 52, "category_id": 18, "bbox": [6, 6, 20, 30], "area": 500},
    ],
    "categories": [
        {"id": 90, "name": "toothbrush"},
        {"id": 3, "name": "car"},
        {"id": 18, "name": "dog"},
    ],
}

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@pytest.fixture(autouse=True)
def seeded():
    """Seeds torch, so that random numbers depend neither on other tests nor on the process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data():
    """Returns path of a folder of real data; skips the test where there is none."""

    def folder(name):
        if not (REAL_DATA / name).is_dir():
            pytest.skip(f"needs real data: no folder shared/data/{name} beside the project")
        return REAL_DATA / name

    return folder


@pytest.fixture(scope="session")
def real_weights():
    """Returns path of a file of trained weights; skips the test where there is none."""

    def file(name):
        if not (REAL_WEIGHTS / name).is_file():
            pytest.skip(f"needs trained weights: no file shared/weights/{name} beside the project")
        return REAL_WEIGHTS / name

    return file


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small gain nothing from threads, and lose much where other cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_noise(path, height, width):
    """Returns an image of random pixels, the same for the same file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)


@pytest.fixture(scope="session")
def make_coco():
    """Writes a COCO folder and returns the JSON's path and the images'.

    Keyword arguments replace the JSON's keys, or remove them if None.
    """

    def make(root, **changes):
        for image in COCO["images"]:
            write_noise(root / "images" / image["file_name"], image["height"], image["width"])
        content = {key: value for key, value in (COCO | changes).items() if value is not None}
        (root / "instances.json").write_text(json.dumps(content))
        return root / "instances.json", root / "images"

    return make


def voc_object(name="dog", box=(5, 6, 20, 18), **tags):
    """Returns an <object>; a corner of None is left out, other tags are added."""
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(CORNERS, box, strict=True)
        if value is not None
    )
    extra = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags.items())
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{extra}</object>"


@pytest.fixture(scope="session")
def make_voc():
    """Writes a VOC folder of 30x40 images, given the XML of each one's objects."""

    def make(root, objects, list_lines=None):
        (root / "Annotations").mkdir(parents=True)
        size = "<size><width>40</width><height>30</height></size>"
        for stem, content in objects.items():
            write_noise(root / f"JPEGImages/{stem}.png", 30, 40)
            xml = f"<annotation>{size}{content}</annotation>"
            (root / f"Annotations/{stem}.xml").write_text(xml)
        if list_lines is not None:
            (root / "list.txt").write_text("\n".join(list_lines) + "\n")
        listed = None if list_lines is None else root / "list.txt"
        return VOCSource(root / "JPEGImages", root / "Annotations", listed)

    make.object = voc_object
    return make

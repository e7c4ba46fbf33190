"""Writes an annotation file of the size and the make of COCO's train2017, without images.

118,000 images, 860,000 objects with outlines, 1 in 80 of them a crowd of run lengths; polygons have
as many numbers as COCO's. The file is a function of its seed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

NUM_IMAGES = 118_000
NUM_OBJECTS = 860_000
_CROWDS = 80  # one object in so many
_SIZE = (480, 640)


def write_large_coco(path: Path, images: int = NUM_IMAGES, objects: int = NUM_OBJECTS) -> Path:
    """Writes the annotation file.

    Args:
        path: Where to write.
        images: Number of images.
        objects: Number of objects.
    """
    rng = np.random.default_rng(0)
    height, width = _SIZE
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": ')
        records = [
            {
                "license": 4,
                "file_name": f"{number:012d}.jpg",
                "coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2013-11-14 11:18:45",
                "id": number,
            }
            for number in rng.permutation(5 * images)[:images].tolist()
        ]
        ids = [record["id"] for record in records]
        file.write(json.dumps(records))
        categories = [{"id": k, "name": f"class {k}", "supercategory": "any"} for k in range(1, 81)]
        file.write(f', "categories": {json.dumps(categories)}, "annotations": [')
        owners = rng.integers(images, size=objects).tolist()
        for number, owner in enumerate(owners):
            record = _object(rng, number) | {"image_id": ids[owner]}
            file.write((", " if number else "") + json.dumps(record))
        file.write("]}")
    return path


def _object(rng: np.random.Generator, number: int) -> dict[str, Any]:
    height, width = _SIZE
    side = np.exp(rng.uniform(np.log(10), np.log(400), 2))
    sides = np.minimum(side, (width - 2, height - 2))
    corner = rng.uniform(0, (width, height) - sides)
    is_crowd = number % _CROWDS == 0
    outline = _run_lengths(rng) if is_crowd else _polygons(rng, corner, sides)
    return {
        "segmentation": outline,
        "area": round(float(sides.prod() * 0.6), 4),
        "iscrowd": int(is_crowd),
        "bbox": [round(float(v), 2) for v in (*corner, *sides)],
        "category_id": int(rng.integers(1, 81)),
        "id": number + 1,
    }


def _polygons(rng: np.random.Generator, corner: Any, sides: Any) -> list[list[float]]:
    """Returns stars around the centre of the box: one, or sometimes two."""
    polygons = []
    for _ in range(1 + int(rng.random() < 0.15)):
        count = 4 + int(rng.exponential(20))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        radii = rng.uniform(0.6, 1, count)[:, None] * sides / 2
        points = corner + sides / 2 + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        polygons.append(points.round(2).ravel().tolist())
    return polygons


def _run_lengths(rng: np.random.Generator) -> dict[str, Any]:
    height, width = _SIZE
    cuts = np.sort(rng.choice(height * width, 400, replace=False))
    counts = np.diff(cuts, prepend=0, append=height * width)
    return {"counts": counts.tolist(), "size": [height, width]}

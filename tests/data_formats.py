"""One small data set in every format: writers for tests, and the data set itself.

Two images, 24x40 and 30x36 (height x width); polygons at whole coordinates, so that every format
can hold them. Each writer returns the settings that read what it wrote, and can write other data.
"""

import json
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

import numpy as np
from conftest import write_noise
from faster_coco_eval.core import mask as rle
from PIL import Image

NAMES = ("cat", "dog", "red cup")


@dataclass(frozen=True)
class Thing:
    """An object: its class, and its outline [x, y, ...]."""

    name: str
    polygon: tuple[int, ...]

    @property
    def box(self):
        x, y = self.polygon[::2], self.polygon[1::2]
        return min(x), min(y), max(x), max(y)


IMAGES = {
    "one": (
        (24, 40),
        (
            Thing("cat", (2, 3, 14, 3, 14, 15, 2, 15)),
            Thing("dog", (20, 2, 38, 4, 30, 21)),
        ),
    ),
    "sub/two": (
        (30, 36),
        (
            Thing("red cup", (1, 1, 11, 1, 11, 25, 6, 28, 1, 25)),
            Thing("dog", (12, 5, 33, 5, 33, 27, 20, 27)),
        ),
    ),
}


class Content:
    """A data set to write.

    Size and objects of each image by its stem, the classes in order, and a colour for the
    background and each class.
    """

    suffix = ".png"

    def __init__(self, images, names, colors=()):
        self.images = images
        self.names = names
        self.colors = colors

    def write_images(self, folder):
        for stem, ((height, width), _) in self.images.items():
            write_noise(folder / f"{stem}{self.suffix}", height, width)

    def index_mask(self, stem):
        (height, width), things = self.images[stem]
        mask = np.zeros((height, width), np.uint8)
        for thing in things:
            mask[draw(thing.polygon, height, width) > 0] = self.names.index(thing.name) + 1
        return mask


COLORS = ((0, 0, 0), (128, 0, 64), (10, 200, 30), (255, 255, 255))

SMALL = Content(IMAGES, NAMES, COLORS)


def pairs(polygon):
    return list(zip(polygon[::2], polygon[1::2], strict=True))


def coco(root, data=SMALL):
    data.write_images(root / "images")
    images, annotations = [], []
    for image_id, (stem, ((height, width), things)) in enumerate(data.images.items(), start=1):
        images.append(
            {"id": image_id, "file_name": f"{stem}{data.suffix}", "height": height, "width": width}
        )
        for thing in things:
            x_min, y_min, x_max, y_max = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": data.names.index(thing.name) + 1,
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "segmentation": [list(thing.polygon)],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(data.names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "a.json").write_text(json.dumps(content))
    return {"format": "coco"}, {"annotations": "a.json", "images": "images"}


def roboflow_coco(root, data=SMALL):
    coco(root, data)
    (root / "a.json").rename(root / "images/_annotations.coco.json")
    return {"format": "coco"}, {"images": "images"}


def yolo(root, data=SMALL, polygons=True, beside=False):
    images = root / ("train" if beside else "train/images")
    data.write_images(images)
    for stem, ((height, width), things) in data.images.items():
        lines = []
        for thing in things:
            x_min, y_min, x_max, y_max = thing.box
            w, h = x_max - x_min, y_max - y_min
            numbers = [(x_min + w / 2) / width, (y_min + h / 2) / height, w / width, h / height]
            if polygons:
                numbers = [v / (height if i % 2 else width) for i, v in enumerate(thing.polygon)]
            lines.append(" ".join(map(str, [data.names.index(thing.name), *numbers])))
        path = (images if beside else root / "train/labels") / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    folder = "../train" if beside else "../train/images"
    (root / "data.yaml").write_text(
        f"train: {folder}\nnc: {len(data.names)}\nnames: {json.dumps(data.names)}\n"
    )
    return {"format": "yolo"}, {}


def yolo_boxes(root, data=SMALL):
    return yolo(root, data, polygons=False)


def yolo_beside(root, data=SMALL):
    return yolo(root, data, beside=True)


def labelme(root, data=SMALL):
    data.write_images(root / "images")
    for stem, ((height, width), things) in data.images.items():
        shapes = [
            {"label": t.name, "points": pairs(t.polygon), "shape_type": "polygon", "flags": {}}
            for t in things
        ]
        content = {
            "version": "5.5.0",
            "shapes": shapes,
            "imagePath": f"C:\\data\\{stem.split('/')[-1]}{data.suffix}",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        (root / f"images/{stem}.json").write_text(json.dumps(content))
    return {"format": "labelme"}, {"images": "images"}


def cvat(root, data=SMALL, as_masks=False):
    data.write_images(root / "images")
    lines = []
    for index, (stem, ((height, width), things)) in enumerate(data.images.items()):
        lines.append(
            f'<image id="{index}" name="{stem}{data.suffix}" width="{width}" height="{height}">'
        )
        for thing in things:
            if as_masks:
                lines.append(cvat_mask(thing, height, width))
                continue
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs(thing.polygon))
            lines.append(f"<polygon label={quoteattr(thing.name)} points='{points}' z_order='0'/>")
        lines.append("</image>")
    labels = "".join(f"<label><name>{name}</name></label>" for name in data.names)
    head = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    text = f"<?xml version='1.0' encoding='utf-8'?><annotations>{head}{''.join(lines)}"
    (root / "annotations.xml").write_text(f"{text}</annotations>")
    return {"format": "cvat"}, {"images": "images"}


def cvat_masks(root, data=SMALL):
    return cvat(root, data, as_masks=True)


def draw(polygon, height, width):
    return rle.decode(rle.merge(rle.frPyObjects([list(map(float, polygon))], height, width)))


def cvat_mask(thing, height, width):
    mask = draw(thing.polygon, height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    runs, value, length = [], 0, 0
    for pixel in part.ravel():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    runs.append(length)
    place = f"left='{left}' top='{top}' width='{part.shape[1]}' height='{part.shape[0]}'"
    return f"<mask label={quoteattr(thing.name)} rle='{', '.join(map(str, runs))}' {place}/>"


def voc_boxes(root, data=SMALL):
    data.write_images(root / "train")
    for stem, ((height, width), things) in data.images.items():
        objects = "".join(
            f"<object><name>{t.name}</name><bndbox><xmin>{t.box[0] + 1}</xmin>"
            f"<ymin>{t.box[1] + 1}</ymin><xmax>{t.box[2]}</xmax><ymax>{t.box[3]}</ymax></bndbox>"
            "</object>"
            for t in things
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (root / f"train/{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return {"format": "voc"}, {"images": "train", "annotations": "train"}


def index_mask(stem):
    return SMALL.index_mask(stem)


LABELS = ("background", *NAMES)


def folder(root, data=SMALL):
    data.write_images(root / "images")
    for stem in data.images:
        path = root / f"masks/{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.index_mask(stem)).save(path)
    return {"format": "folder", "classes": LABELS}, {}


def color_folder(root, data=SMALL):
    """Writes masks by colour beside the images, with a suffix."""
    data.write_images(root / "images")
    for stem in data.images:
        pixels = np.array(data.colors, np.uint8)[data.index_mask(stem)]
        Image.fromarray(pixels).save(root / f"images/{stem}_mask.png")
    settings = {"classes": LABELS, "mask_colors": COLORS, "mask_name": "{stem}_mask.png"}
    return {"format": "folder", **settings}, {"masks": "images"}


BOXES = {
    f.__name__: f
    for f in (
        coco, roboflow_coco, yolo, yolo_boxes, yolo_beside, labelme, cvat, cvat_masks, voc_boxes
    )
}  # fmt: skip
MASKS = {
    f.__name__: f
    for f in (
        coco, roboflow_coco, yolo, yolo_beside, labelme, cvat, cvat_masks, folder, color_folder
    )
}  # fmt: skip

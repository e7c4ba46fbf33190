"""The data formats by name, one a file: the settings of a split and how it is read."""

from typing import Any

from mbv2det.data.formats import coco, cvat, folder, labelme, voc, yolo
from mbv2det.data.formats.data_format import DataFormat

FORMATS: dict[str, DataFormat[Any]] = {
    "coco": coco.FORMAT,
    "voc": voc.FORMAT,
    "yolo": yolo.FORMAT,
    "labelme": labelme.FORMAT,
    "cvat": cvat.FORMAT,
    "folder": folder.FORMAT,
}

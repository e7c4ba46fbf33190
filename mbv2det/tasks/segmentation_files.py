"""Result files of segmentation: index PNGs, and a table of the classes in them."""

from pathlib import Path

import numpy as np

from mbv2det.atomic_write import atomic_write
from mbv2det.drawing import index_image
from mbv2det.labels import LabelMap
from mbv2det.tasks.result_files import MASKS, GrowingFile, ImageInfo, csv_line
from mbv2det.tasks.task import Prediction

_COLUMNS = ("file_name", "frame", "mask", "class", "value", "pixels", "share")


class IndexMaskFiles:
    """One index PNG per image, with the values of the data set and VOC's palette.

    `masks.csv` has a row for each class of each image: its value in the PNG, its number of pixels,
    and their share of the image.

    Args:
        folder: Where to write, in a subfolder `masks`.
        label_map: Labels of the pixels.
        min_score: Unused: labels have no score.
    """

    def __init__(self, folder: Path, label_map: LabelMap, min_score: float) -> None:
        self.folder = folder / MASKS
        self.label_map = label_map
        self.table = GrowingFile(folder / f"{MASKS}.csv", csv_line(_COLUMNS))

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the mask of one image and its rows of the table."""
        if prediction.segmentation is None:
            return
        labels = prediction.segmentation.labels.cpu().numpy()
        file = self.folder / f"{image.name}.png"
        with atomic_write(file) as part:
            index_image(labels, self.label_map).save(part, format="png")
        mask = file.relative_to(self.folder.parent).as_posix()
        frame = "" if image.frame is None else image.frame
        rows = [
            (image.file_name, frame, mask, *class_row)
            for class_row in pixel_counts(labels, self.label_map)
        ]
        self.table.add([csv_line(row) for row in rows])

    def close(self) -> list[str]:
        """Closes the table; tells where the files are."""
        self.table.close()
        return [f"index PNGs: {self.folder}; their classes: {self.table.path}"]


def pixel_counts(labels: np.ndarray, label_map: LabelMap) -> list[tuple[str, int, int, float]]:
    """Returns name, value, number of pixels and their share of the image for each class in a mask.

    Args:
        labels: Label of each pixel, shape (H, W).
        label_map: Labels of the pixels.
    """
    counts = np.bincount(labels.ravel(), minlength=len(label_map))[: len(label_map)]
    classes = zip(label_map.names, label_map.ids, counts.tolist(), strict=True)
    return [
        (name, value, count, round(count / labels.size, 5))
        for name, value, count in classes
        if count
    ]

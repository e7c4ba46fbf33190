"""Result files of detection: COCO's JSON, a table, and labels in YOLO's format."""

from pathlib import Path
from typing import Any

from mbv2det.atomic_write import atomic_write
from mbv2det.labels import LabelMap
from mbv2det.structures import Detections
from mbv2det.tasks.result_files import GrowingFile, ImageInfo, csv_line, json_list, json_text
from mbv2det.tasks.task import Prediction

_COLUMNS = (
    "file_name", "frame", "class", "score", "x_min", "y_min", "x_max", "y_max", "image_id",
)  # fmt: skip


class CocoResults:
    """All detections in COCO's results format: `results.json`.

    Args:
        folder: Where to write.
        label_map: Classes of the detections.
        min_score: Score above which the closing line counts detections; the file has all.
    """

    def __init__(self, folder: Path, label_map: LabelMap, min_score: float) -> None:
        self.file = json_list(folder / "results.json")
        self.label_map = label_map
        self.min_score = min_score
        self.num_records = 0
        self.num_shown = 0

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the detections of one image."""
        if prediction.detection is not None:
            records = coco_records(image, prediction.detection, self.label_map)
            self.file.add([json_text(record) for record in records])
            self.num_records += len(records)
            self.num_shown += sum(record["score"] >= self.min_score for record in records)

    def close(self) -> list[str]:
        """Closes the file."""
        self.file.close()
        return [
            f"{self.num_shown} objects with a score of at least {self.min_score}; "
            f"all {self.num_records} candidates: {self.file.path}"
        ]


def coco_records(
    image: ImageInfo, detections: Detections, label_map: LabelMap
) -> list[dict[str, Any]]:
    """Returns COCO's result records of one image, with the names of file and class.

    Each has `image_id`, `file_name`, `category_id` (the id of the class in its data set),
    `category_name`, `bbox` ([x, y, width, height] in pixels of the original image) and `score`, and
    in a video `frame`.

    Args:
        image: Names of the image.
        detections: Objects, in pixels of the original image.
        label_map: Classes of the detections.
    """
    columns = (detections.boxes, detections.scores, detections.labels)
    return [
        {
            **image.record(),
            "category_id": label_map.ids[label],
            "category_name": label_map.names[label],
            "bbox": [round(v, 2) for v in (x_min, y_min, x_max - x_min, y_max - y_min)],
            "score": round(score, 5),
        }
        for (x_min, y_min, x_max, y_max), score, label in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]


class DetectionTable:
    """Detections as a table, one a row, corners in pixels of the original image: `results.csv`.

    Args:
        folder: Where to write.
        label_map: Classes of the detections.
        min_score: Lowest score of the detections that are written.
    """

    def __init__(self, folder: Path, label_map: LabelMap, min_score: float) -> None:
        self.file = GrowingFile(folder / "results.csv", csv_line(_COLUMNS))
        self.label_map = label_map
        self.min_score = min_score

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the rows of one image."""
        if prediction.detection is None:
            return
        shown = prediction.detection.at_least(self.min_score)
        frame = "" if image.frame is None else image.frame
        columns = (shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist())
        for box, score, label in zip(*columns, strict=True):
            corners = (round(value, 2) for value in box)
            name = self.label_map.names[label]
            row = (image.file_name, frame, name, round(score, 5), *corners, image.image_id)
            self.file.add([csv_line(row)])

    def close(self) -> list[str]:
        """Closes the file."""
        self.file.close()
        return [f"table: {self.file.path}"]


class YoloLabels:
    """One text file per image in YOLO's label format: `yolo/labels/NAME.txt`.

    Each line has the label of the class (its line in `yolo/classes.txt`, from 0) and centre x,
    centre y, width and height of the box as fractions of the image; an image without objects has an
    empty file.

    Args:
        folder: Where to write.
        label_map: Classes of the detections.
        min_score: Lowest score of the detections that are written.
    """

    def __init__(self, folder: Path, label_map: LabelMap, min_score: float) -> None:
        self.folder = folder / "yolo"
        self.min_score = min_score
        with atomic_write(self.folder / "classes.txt") as part:
            part.write_text("".join(f"{name}\n" for name in label_map.names), encoding="utf-8")

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the file of one image."""
        if prediction.detection is not None:
            shown = prediction.detection.at_least(self.min_score)
            with atomic_write(self.folder / "labels" / f"{image.name}.txt") as part:
                part.write_text("".join(f"{line}\n" for line in yolo_lines(shown, image.size)))

    def close(self) -> list[str]:
        """Tells where the files are."""
        return [f"YOLO labels: {self.folder}"]


def yolo_lines(detections: Detections, size: tuple[int, int]) -> list[str]:
    """Returns detections in YOLO's label format.

    Args:
        detections: Objects, in pixels of the original image.
        size: (height, width) of the image.
    """
    height, width = size
    lines = []
    columns = (detections.boxes.tolist(), detections.labels.tolist())
    for (x_min, y_min, x_max, y_max), label in zip(*columns, strict=True):
        centre = (x_min + x_max) / 2 / width, (y_min + y_max) / 2 / height
        values = (*centre, (x_max - x_min) / width, (y_max - y_min) / height)
        lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]))
    return lines

"""Result files of segmentation: index PNGs."""

from pathlib import Path

from mbv2det.atomic_write import atomic_write
from mbv2det.drawing import index_image
from mbv2det.labels import LabelMap
from mbv2det.tasks.result_files import MASKS, ImageInfo
from mbv2det.tasks.task import Prediction


class IndexMaskFiles:
    """One index PNG per image, with the values of the data set and VOC's palette.

    Args:
        folder: Where to write, in a subfolder `masks`.
        label_map: Labels of the pixels.
        min_score: Unused: labels have no score.
    """

    def __init__(self, folder: Path, label_map: LabelMap, min_score: float) -> None:
        self.folder = folder / MASKS
        self.label_map = label_map

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the mask of one image."""
        if prediction.segmentation is not None:
            labels = prediction.segmentation.labels.cpu().numpy()
            with atomic_write(self.folder / f"{image.name}.png") as part:
                index_image(labels, self.label_map).save(part, format="png")

    def close(self) -> list[str]:
        """Tells where the files are."""
        return [f"index PNGs: {self.folder}"]

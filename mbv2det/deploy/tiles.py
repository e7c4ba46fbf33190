"""Detection by tiles: small objects in large images, with supervision's InferenceSlicer."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.image_predictor import ImagePredictor
from mbv2det.errors import ConfigError
from mbv2det.extras import require
from mbv2det.geometry import Frame
from mbv2det.preprocess import unchanged
from mbv2det.structures import Detections
from mbv2det.tasks.detection import DetectionTask
from mbv2det.tasks.task import Prediction

# Overlap of two boxes of a class, as the share of the smaller one that lies in the other, above
# which one object was seen twice; a piece of an object at the edge of a tile lies within the whole.
_SAME_OBJECT = 0.5


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles.

    Attributes:
        grid: Number of (rows, columns) of tiles; None where `side` says how large they are.
        side: Height and width of a tile in pixels; None with `grid`.
        overlap: Share of a tile that it has in common with the next one.
    """

    grid: tuple[int, int] | None = None
    side: int | None = None
    overlap: float = 0.2

    @classmethod
    def parse(cls, text: str, overlap: float = 0.2) -> "Tiling":
        """Returns the tiling of a command line: `ROWSxCOLUMNS`, or the side of a tile in pixels.

        Raises:
            ConfigError: For anything else, or for an overlap that is no share below one half.
        """
        if not 0 <= overlap < 0.5:
            raise ConfigError(
                f"--tile-overlap: expected a share from 0 to below 0.5, got {overlap}"
            )
        match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
        if match is None:
            raise ConfigError(
                f"--tiles: expected ROWSxCOLUMNS, such as 2x3, or the side of a tile in pixels, "
                f"such as 640, got {text}"
            )
        if match[2] is None:
            return cls(side=int(match[1]), overlap=overlap)
        return cls(grid=(int(match[1]), int(match[2])), overlap=overlap)

    @classmethod
    def of_options(cls, tiles: str | None, overlap: float | None) -> "Tiling | None":
        """Returns the tiling of the options `--tiles` and `--tile-overlap`; None without tiles.

        Raises:
            ConfigError: As for `parse`, or for an overlap without tiles.
        """
        if tiles is None:
            if overlap is not None:
                raise ConfigError("--tile-overlap: expected --tiles beside it, got none")
            return None
        return cls.parse(tiles, cls.overlap if overlap is None else overlap)

    def __str__(self) -> str:
        tiles = f"{self.side} pixels" if self.grid is None else f"{self.grid[0]}x{self.grid[1]}"
        return f"{tiles}, overlap {self.overlap}"

    def tile(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns size and overlap of the tiles of an image.

        Args:
            size: (height, width) of the image.

        Returns:
            (height, width) of a tile, and of its overlap with the next one, in pixels.
        """
        if self.grid is None:
            assert self.side is not None
            shared = int(self.side * self.overlap)
            return (self.side, self.side), (shared, shared)
        rows = _divide(size[0], self.grid[0], self.overlap)
        columns = _divide(size[1], self.grid[1], self.overlap)
        return (rows[0], columns[0]), (rows[1], columns[1])


def _divide(length: int, count: int, overlap: float) -> tuple[int, int]:
    """Returns length and overlap of `count` tiles along one side of an image, in pixels."""
    tile = min(length, math.ceil(length / (count - (count - 1) * overlap)))
    if count == 1 or tile == length:
        return tile, 0
    stride = math.ceil((length - tile) / (count - 1))
    return tile, tile - stride


class TiledPredictor:
    """A predictor that sees each image whole and in tiles, and merges the detections.

    It is called as the predictor is. Other tasks than detection see the whole image alone.

    Attributes:
        preprocessor: Leaves images as they are: tiles are cut from the original.
        max_batch: Images of a batch, which have one size: 1.

    Args:
        predictor: Predicts images and tiles.
        tiling: How images are cut.
        batch_size: Largest number of tiles that the network sees at once.

    Raises:
        ConfigError: If the predictor detects nothing.
    """

    def __init__(self, predictor: ImagePredictor, tiling: Tiling, batch_size: int = 8) -> None:
        if DetectionTask.name not in (task.name for task in predictor.tasks):
            raise ConfigError("--tiles: expected weights with a head for detection, got none")
        self.predictor = predictor
        self.tiling = tiling
        self.batch_size = batch_size
        self.info = predictor.info
        self.tasks = predictor.tasks
        self.preprocessor = unchanged
        self.max_batch = 1

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Prediction]:
        """Predicts images; the results are in the pixels of each image.

        Args:
            images: RGB images of any sizes.
        """
        return [
            replace(prediction, detection=self._merged(image, prediction.detection))
            for image, prediction in zip(images, self.predictor(images), strict=True)
        ]

    def predict_batch(
        self, images: UInt8[Tensor, "B 3 H W"], frames: Sequence[Frame]
    ) -> list[Prediction]:
        """Predicts a batch of images, for `measure`.

        Args:
            images: RGB images as `preprocessor` leaves them: in their own size.
            frames: Their frames, which map to themselves.
        """
        return self(list(images.permute(0, 2, 3, 1).numpy()))

    def _merged(
        self, image: UInt8[np.ndarray, "H W 3"], whole: Detections | None
    ) -> Detections | None:
        if whole is None:
            return None
        return detect_tiles(self.predictor, image, self.tiling, self.batch_size, whole)


def detect_tiles(
    predictor: ImagePredictor,
    image: UInt8[np.ndarray, "H W 3"],
    tiling: Tiling,
    batch_size: int = 8,
    whole: Detections | None = None,
) -> Detections:
    """Detects objects in the tiles of an image.

    Boxes that lie by half in a better one of their class are the same object seen twice (in two
    tiles, or in part) and dropped.

    Args:
        predictor: Predicts the tiles; it has a head for detection.
        image: RGB.
        tiling: How the image is cut.
        batch_size: Largest number of tiles that the network sees at once.
        whole: Detections of the whole image, which are merged with those of the tiles.

    Returns:
        Detections in pixels of the image, best score first, as many as the weights allow for.

    Raises:
        ConfigError: If supervision is not installed.
    """
    library = require("supervision", "supervision", "tiles")
    label_map = predictor.info.label_maps[DetectionTask.name]
    tile, overlap = tiling.tile((image.shape[0], image.shape[1]))

    def detect(tiles: list[np.ndarray]) -> list[object]:
        predictions = zip(predictor(tiles), tiles, strict=True)
        parts = [(p.detection, tile.shape) for p, tile in predictions if p.detection is not None]
        return [_within(d, shape).to_supervision(label_map) for d, shape in parts]

    slicer = library.InferenceSlicer(
        detect,
        slice_wh=tile[::-1],
        overlap_wh=overlap[::-1],
        overlap_filter=library.OverlapFilter.NONE,  # once, below, with the whole image
        batch_size=max(2, batch_size),  # one would be another signature of the callback
    )
    parts = [slicer(image), *([] if whole is None else [whole.to_supervision(label_map)])]
    merged = library.Detections.merge(parts).with_nms(
        _SAME_OBJECT, overlap_metric=library.OverlapMetric.IOS
    )
    detections = Detections(
        torch.from_numpy(merged.xyxy.astype(np.float32)),
        torch.from_numpy(merged.confidence.astype(np.float32)),
        torch.from_numpy(merged.class_id.astype(np.int64)),
    )
    order = detections.scores.argsort(descending=True, stable=True)
    return detections[order[: predictor.info.eval.max_detections]]


def _within(detections: Detections, shape: tuple[int, ...]) -> Detections:
    """Returns detections clipped to a tile, outside of which rounding may have put them."""
    height, width, _ = shape
    limits = torch.tensor([width, height, width, height], device=detections.boxes.device)
    boxes = torch.minimum(detections.boxes.clamp(min=0), limits)
    return replace(detections, boxes=boxes)

"""Segmentation from several sizes of an image and its mirror image: the paper's "MF" rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample


class MultiView(nn.Module):
    """A model that sees every image at several scales, and mirrored, before it labels the pixels.

    It stands in for the model: `forward` takes and gives the same. Under the segmentation's key are
    the logarithms of the mean probabilities over the views, on the pixels of the input; every other
    task keeps the outputs of the plain view.

    Args:
        model: Images to raw outputs by task name.
        scales: Of the views, sized as `view_size` says.
        flip: Adds the mirror image, left to right, of each.
        task: Key of the segmentation's outputs.

    Raises:
        ValueError: For no scale, or one that is not positive.

    Source: Sandler et al. 2018 (arXiv:1801.04381), section 6.3, table 7; predict_labels_multi_scale
        of TensorFlow's DeepLab. Differs: logits go straight to the pixels of the input, there by
        way of the plain view's cells where the scale is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        scales: Sequence[float],
        flip: bool = False,
        task: str = "segmentation",
    ) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise ValueError(f"expected one or more positive scales, but got {list(scales)}")
        self.model = model
        self.scales = tuple(scales)
        self.flip = flip
        self.task = task

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> dict[str, Any]:
        """Raw outputs by task name."""
        plain: dict[str, Any] = self.model(images)
        rows, columns = (
            torch.arange(size, device=images.device, dtype=torch.float32)
            for size in images.shape[-2:]
        )
        # One view is in memory at a time.
        views = self._views(images, plain, (rows, columns))
        total = sum(views, start=torch.zeros((), device=images.device))
        mean = total / (len(self.scales) * (1 + self.flip))
        logits = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        return plain | {self.task: SegmentationOutputs(logits, rows, columns)}

    def _views(
        self,
        images: Shaped[Tensor, "B 3 H W"],
        plain: Mapping[str, Any],
        pixels: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
    ) -> Iterator[Float[Tensor, "B L H W"]]:
        """Probabilities that each view gives for the pixels of the input."""
        for scale in self.scales:
            view = _scaled(images, scale)
            size = (view.shape[-2], view.shape[-1])
            outputs = plain if view is images else self.model(view)
            yield _probabilities(outputs[self.task], size, pixels)
            if self.flip:
                mirrored = self.model(view.flip(-1))[self.task]
                yield _probabilities(mirrored, size, pixels).flip(-1)


def view_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of the view of an image at a scale.

    Corners keep their places: 257 to 897 for the paper's scales of 0.5, 0.75, ... 1.75 and 513
    pixels.
    """
    height, width = size
    return round((height - 1) * scale) + 1, round((width - 1) * scale) + 1


def _scaled(images: Shaped[Tensor, "B 3 H W"], scale: float) -> Shaped[Tensor, "B 3 h w"]:
    """The images resized bilinearly, corners on corners; themselves where the size is theirs."""
    before = (images.shape[-2], images.shape[-1])
    size = view_size(before, scale)
    if size == before:
        return images
    return F.interpolate(images.float(), size=size, mode="bilinear", align_corners=True)


def _probabilities(
    outputs: SegmentationOutputs,
    size: tuple[int, int],
    pixels: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
) -> Float[Tensor, "B L H W"]:
    """Softmax at the pixels of the input.

    Args:
        outputs: Of a view.
        size: Of that view.
        pixels: Rows and columns of the input.
    """
    rows, columns = (
        # A side of one pixel has its two corners in the same place.
        positions * ((scaled - 1) / max(len(positions) - 1, 1))
        for positions, scaled in zip(pixels, size, strict=True)
    )
    logits = resample(outputs.logits, (outputs.rows, outputs.columns), (rows, columns))
    return logits.softmax(dim=1)

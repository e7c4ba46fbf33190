"""Multi-scale and flip inference for segmentation: the "MF" rows of the MobileNetV2 paper."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample


class MultiScaleFlip(nn.Module):
    """A model that averages the segmentation over several scales of each image and their mirrors.

    It replaces the model that it wraps: `forward` has the same inputs and outputs. The
    segmentation's logits are the logarithms of the mean probabilities over all views, on the pixels
    of the input, and have no auxiliary logits. The other tasks' outputs are those of the input at
    its own size.

    Args:
        model: Model from images to raw outputs by task name.
        scales: Scale of each view relative to the input; see `scaled_size`.
        flip: Whether to add the mirror image, left to right, of each view.
        task: Name of the segmentation task.

    Raises:
        ValueError: If there is no scale, or one that is not positive.

    Source: Sandler et al. 2018 (arXiv:1801.04381), section 6.3, table 7; predict_labels_multi_scale
        of TensorFlow's DeepLab. Differs: logits are interpolated directly to the pixels of the
        input; TensorFlow, at scales below 1, first interpolates to the cells of the unscaled view.
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
            raise ValueError(f"scales: expected one or more positive numbers, got {list(scales)}")
        self.model = model
        self.scales = tuple(scales)
        self.flip = flip
        self.task = task

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> dict[str, Any]:
        """Returns the raw outputs by task name."""
        unscaled: dict[str, Any] = self.model(images)
        rows, columns = (
            torch.arange(size, device=images.device, dtype=torch.float32)
            for size in images.shape[-2:]
        )
        # A generator, so that the probabilities of only one view are in memory at a time.
        views = self._view_probabilities(images, unscaled, (rows, columns))
        total = sum(views, start=torch.zeros((), device=images.device))
        mean = total / (len(self.scales) * (1 + self.flip))
        logits = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        return unscaled | {self.task: SegmentationOutputs(logits, rows, columns)}

    def _view_probabilities(
        self,
        images: Shaped[Tensor, "B 3 H W"],
        unscaled: Mapping[str, Any],
        pixels: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
    ) -> Iterator[Float[Tensor, "B L H W"]]:
        """Yields the label probabilities of each view at the pixels of the input.

        Args:
            images: Input images.
            unscaled: Raw outputs for them, reused for the view of their own size.
            pixels: Rows and columns of the input.
        """
        for scale in self.scales:
            view = _rescaled(images, scale)
            size = (view.shape[-2], view.shape[-1])
            outputs = unscaled if view is images else self.model(view)
            yield _probabilities(outputs[self.task], size, pixels)
            if self.flip:
                mirrored = self.model(view.flip(-1))[self.task]
                yield _probabilities(mirrored, size, pixels).flip(-1)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the size of a view of an image at a scale.

    The centres of the corner pixels stay in the corners, so a distance of n pixels between them
    becomes n * scale. For the paper's scales 0.5, 0.75, ... 1.75 and 513 pixels that gives 257 to
    897.

    Args:
        size: Size of the image, (height, width) in pixels.
        scale: Scale of the view.
    """
    height, width = size
    return round((height - 1) * scale) + 1, round((width - 1) * scale) + 1


def _rescaled(images: Shaped[Tensor, "B 3 H W"], scale: float) -> Shaped[Tensor, "B 3 h w"]:
    """Resizes images bilinearly with aligned corners; images of the new size are not changed."""
    size = (images.shape[-2], images.shape[-1])
    new_size = scaled_size(size, scale)
    if new_size == size:
        return images
    return F.interpolate(images.float(), size=new_size, mode="bilinear", align_corners=True)


def _probabilities(
    outputs: SegmentationOutputs,
    size: tuple[int, int],
    pixels: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
) -> Float[Tensor, "B L H W"]:
    """Returns the softmax of a view's logits, interpolated to the pixels of the input.

    Args:
        outputs: Raw segmentation outputs of the view.
        size: Size of the view, (height, width) in pixels.
        pixels: Rows and columns of the input.
    """
    rows, columns = (
        # On a side of one pixel, both corners are that pixel: max() avoids a division by 0.
        positions * ((scaled - 1) / max(len(positions) - 1, 1))
        for positions, scaled in zip(pixels, size, strict=True)
    )
    logits = resample(outputs.logits, (outputs.rows, outputs.columns), (rows, columns))
    return logits.softmax(dim=1)

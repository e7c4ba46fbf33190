"""The settings of the augmentation."""

from dataclasses import dataclass
from typing import Any

from mbv2det.model_config import expect


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the training split; a probability of 0 switches one off.

    Attributes:
        flip: Probability of a horizontal flip.
        photometric: Probability of each of brightness, contrast, saturation and hue jitter.
        expand: Probability of zooming out: the image is placed on a larger canvas of the mean
            colour.
        expand_max: Largest side of that canvas, in sides of the image.
        iou_crop: Whether to crop by overlap with an object, as SSD does.
        crop_min_scale: Smallest side of a crop, in sides of the image.
        scale: Smallest and largest random scale, relative to the scale in evaluation, followed by a
            crop of the input size, as DeepLab does; null for none.
        mosaic: Probability of four images in one, around a random centre, each at the size of the
            network input, as in YOLOv4.
        mosaic_share: Share of the epochs, from the first, that have mosaics. YOLOX ends them 15
            of its 300 epochs before the end.
        copy_paste: Probability of pasting objects of another image. It needs outlines of the
            objects; where there are masks and no boxes, regions of labels are pasted.
        reduced_decoding: Whether a JPEG that is far larger than its crops need is decoded at 1/2,
            1/4 or 1/8 of its size: a photograph of 12 megapixels in a third of the time. Not with
            transforms, which may count in pixels.
        transforms: Transforms of albumentations, or of your own, that follow these in order, each
            as {class_path: albumentations.GaussNoise, init_args: {std_range: [0.1, 0.2]}}. They
            move boxes and masks too, and are tried out when the training starts. `show_batch`
            draws what they do.
    """

    flip: float = 0.5
    photometric: float = 0.5
    expand: float = 0.5
    expand_max: float = 4.0
    iou_crop: bool = True
    crop_min_scale: float = 0.3
    scale: tuple[float, float] | None = None
    mosaic: float = 0.0
    mosaic_share: float = 0.75
    copy_paste: float = 0.0
    reduced_decoding: bool = True
    transforms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for key in ("flip", "photometric", "expand", "mosaic", "mosaic_share", "copy_paste"):
            value = getattr(self, key)
            expect(f"augment.{key}", value, 0 <= value <= 1, "from 0 to 1")
        expect("augment.expand_max", self.expand_max, self.expand_max >= 1, "at least 1")
        scale = self.crop_min_scale
        expect("augment.crop_min_scale", scale, 0 < scale <= 1, "above 0 and at most 1")
        if self.scale is not None:
            low, high = self.scale
            expect(
                "augment.scale",
                self.scale,
                0 < low <= high,
                "two ascending scales above 0",
            )

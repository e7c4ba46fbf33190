"""Detection and segmentation for small devices: SSDLite and DeepLabv3 on MobileNetV2.

`MobileNetV2` stands alone: importing it loads torch but no training or prediction code, which is
loaded by the first call of `load` or `load_backbone`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature as Feature
from mbv2det.backbones.mobilenet_v2 import MobileNetV2 as MobileNetV2

if TYPE_CHECKING:
    from mbv2det.deploy.load import Backend, Dtype
    from mbv2det.deploy.predictor import Predictor


def load(
    path: str | Path,
    backend: "Backend | None" = None,
    device: str = "auto",
    threads: int | None = None,
    *,
    dtype: "Dtype" = "float32",
    compile: bool = False,
) -> "Predictor":
    """Loads a predictor from a weights or exported file; see `mbv2det.deploy.load.load`."""
    from mbv2det.deploy.load import load as load_file

    return load_file(path, backend, device, threads, dtype=dtype, compile=compile)


def load_backbone(
    path: str | Path,
    out_features: Sequence[Feature] | None = None,
    output_stride: Literal[8, 16, 32] = 32,
) -> Backbone:
    """Loads a backbone with its weights; see `mbv2det.deploy.predictor.load_backbone`."""
    from mbv2det.deploy import predictor

    return predictor.load_backbone(path, out_features, output_stride)

"""MobileNetV2 with SSDLite heads: training, evaluation and prediction for small devices.

`MobileNetV2` stands alone: importing it brings torch and nothing of the training stack, which is
loaded when `load` is first called.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mbv2det.backbones.mobilenet_v2 import MobileNetV2 as MobileNetV2

if TYPE_CHECKING:
    from mbv2det.deploy.predictor import Predictor


def load(path: str | Path, device: str = "cpu") -> "Predictor":
    """A ready predictor from a weights file; see `mbv2det.deploy.predictor.load`."""
    from mbv2det.deploy import predictor

    return predictor.load(path, device)

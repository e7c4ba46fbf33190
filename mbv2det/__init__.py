"""MobileNetV2 with SSDLite heads: training, evaluation and prediction for small devices."""

from mbv2det.backbones.mobilenet_v2 import MobileNetV2 as MobileNetV2

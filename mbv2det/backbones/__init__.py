"""Feature extractors. They import torch and nothing of the toolkit's other libraries."""

from mbv2det.backbones.features import FeatureSpec as FeatureSpec
from mbv2det.backbones.mobilenet_v2 import MobileNetV2 as MobileNetV2

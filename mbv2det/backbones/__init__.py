"""Feature extractors. They import torch and nothing of the toolkit's other libraries.

All but `resnet`, which wraps torchvision's and is imported by its own name.
"""

from mbv2det.backbones.features import Backbone as Backbone
from mbv2det.backbones.features import FeatureSpec as FeatureSpec
from mbv2det.backbones.features import Taps as Taps
from mbv2det.backbones.mobilenet_v1 import MobileNetV1 as MobileNetV1
from mbv2det.backbones.mobilenet_v2 import MobileNetV2 as MobileNetV2

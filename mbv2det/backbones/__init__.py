"""Backbones: networks from images to named features.

They need torch and none of the toolkit's other libraries. The exception is `resnet`, which wraps
torchvision's networks; this package does not import it.
"""

from mbv2det.backbones.backbone import Backbone as Backbone
from mbv2det.backbones.feature import Feature as Feature
from mbv2det.backbones.feature import FeatureSpec as FeatureSpec
from mbv2det.backbones.feature import HeadFeatures as HeadFeatures
from mbv2det.backbones.mobilenet_v1 import MobileNetV1 as MobileNetV1
from mbv2det.backbones.mobilenet_v2 import MobileNetV2 as MobileNetV2

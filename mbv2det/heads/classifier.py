"""The classifier of a backbone as a head of a model."""

from dataclasses import dataclass
from typing import Literal

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.classifier import Classifier
from mbv2det.backbones.feature import Feature, HeadFeatures
from mbv2det.labels import LabelMap
from mbv2det.model_config import HeadConfig, carried


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(HeadConfig):
    """Settings of the classifier of whole images, which comes with imported weights.

    It predicts but is not trained.

    Attributes:
        name: classifier.
        dropout: Dropout probability before the logits.
    """

    name: Literal["classifier"] = carried("classifier")
    dropout: float = 0.2

    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the last feature."""
        return (available.last,)

    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> Classifier:
        """Builds the network of the head, with initial weights."""
        return Classifier(
            backbone.feature_specs,
            len(label_map),
            head_features=backbone.head_features,
            dropout=self.dropout,
        )

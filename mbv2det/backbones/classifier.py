"""Classification of whole images from one feature of a backbone."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures


class Classifier(nn.Module):
    """Class logits of whole images: average over the grid, dropout, linear layer.

    It is the classifier of a backbone (`Backbone.classify`) and the classification head of a model
    with several tasks.

    Args:
        feature_specs: Channels and strides of the backbone's features.
        num_classes: Number of logits.
        head_features: The backbone's features for each kind of head.
        dropout: Dropout probability of the averages.

    Attributes:
        input_feature: The feature that is classified.
    """

    def __init__(
        self,
        feature_specs: Mapping[Feature, FeatureSpec],
        num_classes: int,
        *,
        head_features: HeadFeatures,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.input_feature = head_features.last
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(feature_specs[self.input_feature].channels, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, features: Mapping[Feature, Tensor], image_size: tuple[int, int]
    ) -> Float[Tensor, "B K"]:
        """Returns the class logits of each image.

        Args:
            features: Feature maps of the backbone, `input_feature` among them.
            image_size: (height, width) of the network input in pixels; the logits do not depend
                on it.
        """
        average = features[self.input_feature].mean(dim=(2, 3))
        return self.linear(self.dropout(average))

    def class_layers(self) -> list[nn.Module]:
        """Returns the layers whose outputs are class logits."""
        return [self.linear]

"""What a training starts from: fresh weights, those of a backbone, or those of a whole model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mbv2det.build import build_preprocess, shapes_of
from mbv2det.cli.session import Settings
from mbv2det.config import HeadsConfig, ModelConfig
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.readers import load_backbone_weights, read_backbone, read_model
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.transfer import Transfer, transfer

# Settings that say what weights compute, and so come with them. All others say how to train.
_SHAPES = ("name", "width_mult", "scale_last_layer", "bottleneck", "shortcut")
_CARRIED = {
    "backbone": ("padding", "norm_eps"),
    "heads.detection": ("name", "class_loss", "min_scale", "max_scale", "norm_eps"),
    "heads.segmentation": ("name", "aspp", "decoder", "channels", "norm_eps"),
}


@dataclass(frozen=True)
class Start:
    """The network that is trained and the weights that it begins with.

    Attributes:
        model: Architecture.
        preprocess: Of its images.
        backbone: Weights of the backbone alone.
        whole: Weights of a whole model.
        winners: Settings that were chosen between the weights and the configuration, by key.
    """

    model: ModelConfig
    preprocess: PreprocessSpec
    backbone: WeightsSource | None = None
    whole: WeightsSource | None = None
    winners: Mapping[str, Any] = field(default_factory=dict)

    def fill(self, model: DensePredictor, labels: Mapping[str, LabelMap]) -> Transfer:
        """Loads the weights into the freshly built network.

        Args:
            model: Of `self.model`.
            labels: Of the data that will be trained on.
        """
        if self.whole is not None:
            return transfer(self.whole, model, self.model, labels)
        if self.backbone is None:
            return Transfer()
        load_backbone_weights(model.backbone, self.backbone)
        names = frozenset(f"backbone.{name}" for name in model.backbone.state_dict())
        return Transfer([f"backbone.weights: {self.backbone.source}"], loaded=names)


def starting_point(settings: Settings, checkpoint: Path | None = None) -> Start:
    """Network and weights as the configuration and the weights that it names say.

    Args:
        settings: Where `weights` or `backbone.weights` may name a file.
        checkpoint: Of a run that is resumed, which holds what those files said.

    Raises:
        ConfigError: If a file is damaged or does not fit.
    """
    config = settings.config
    if config.weights is not None and config.backbone.weights is not None:
        raise ConfigError("weights: expected either weights or backbone.weights, got both")
    if config.weights is not None:
        return _from_model(settings, read_model(checkpoint or Path(config.weights)))
    if config.backbone.weights is not None:
        return _from_backbone(settings, read_backbone(checkpoint or Path(config.backbone.weights)))
    # A share file tells nobody where its maker kept things.
    model = ModelConfig(replace(config.backbone, weights=None), config.heads)
    return Start(model, build_preprocess(config.data))


def _from_backbone(settings: Settings, source: WeightsSource) -> Start:
    """The configured network, with what its backbone's weights imply."""
    config, stored = settings.config, source.info
    source.renamed(shapes_of(stored))  # a file that is not what it says is of no use
    for key in _SHAPES:
        _expect_same_shape(key, source, getattr(config.backbone, key))
    asked = replace(config.backbone, weights=None)
    winners = _winners(settings, "backbone", stored.model.backbone, asked, _CARRIED["backbone"])
    backbone = replace(asked, **winners)
    preprocess = replace(
        build_preprocess(config.data), mean=stored.preprocess.mean, std=stored.preprocess.std
    )
    return Start(
        ModelConfig(backbone, config.heads),
        preprocess,
        backbone=source,
        winners=_by_key("backbone", winners),
    )


def _from_model(settings: Settings, source: WeightsSource) -> Start:
    """The weights' network, with heads and training settings as configured."""
    config, stored = settings.config, source.info
    if not any(f"heads.{task}" in _CARRIED for task in stored.model.heads.tasks):
        raise ConfigError(
            f"weights: expected a head for detection or segmentation, got none in {source.source}; "
            "give its backbone as backbone.weights"
        )
    source.renamed(shapes_of(stored))
    for key in _SHAPES:
        if settings.insists_on(f"backbone.{key}"):
            _expect_same_shape(key, source, getattr(config.backbone, key))
    asked, old = replace(config.backbone, weights=None), stored.model.backbone
    chosen = _winners(settings, "backbone", old, asked, (*_SHAPES, *_CARRIED["backbone"]))
    backbone, winners = replace(asked, **chosen), _by_key("backbone", chosen)
    heads = {}
    for task in config.heads.tasks:
        head, old_head, key = (
            getattr(config.heads, task),
            getattr(stored.model.heads, task),
            f"heads.{task}",
        )
        chosen = {}
        if old_head is not None:
            chosen = _winners(settings, key, old_head, head, _CARRIED[key])
        heads[task] = replace(head, **chosen)
        winners |= _by_key(key, chosen)
    spec, data = stored.preprocess, config.data
    preprocess = replace(
        spec,
        size=settings.winner("data.image_size", spec.size, data.size),
        resize=settings.winner("data.resize", spec.resize, data.resize),
    )
    winners |= {"data.image_size": list(preprocess.size), "data.resize": preprocess.resize}
    model = ModelConfig(backbone, HeadsConfig(**heads))
    return Start(model, preprocess, whole=source, winners=winners)


def _expect_same_shape(key: str, source: WeightsSource, asked: Any) -> None:
    """Refuses a setting that would change the shapes of the weights' backbone."""
    stored = getattr(source.info.model.backbone, key)
    if asked != stored:
        raise ConfigError(f"backbone.{key}: expected {stored}, as in {source.source}, got {asked}")


def _winners(
    settings: Settings, part: str, stored: Any, asked: Any, carried: Sequence[str]
) -> dict[str, Any]:
    """The settings that come with the weights, or are insisted on."""
    return {
        key: settings.winner(f"{part}.{key}", getattr(stored, key), getattr(asked, key))
        for key in carried
    }


def _by_key(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{key}": value for key, value in values.items()}

"""What a training starts from: fresh weights, those of a backbone, or those of a whole model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mbv2det.build import build_preprocess
from mbv2det.cli.session import Settings
from mbv2det.config import BackboneConfig, HeadsConfig, ModelConfig
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.foreign import Foreign
from mbv2det.weights.sources import fill_backbone, read_backbone, read_model
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
    """

    model: ModelConfig
    preprocess: PreprocessSpec
    backbone: Foreign | None = None
    whole: Foreign | None = None

    def fill(self, model: DensePredictor, labels: Mapping[str, LabelMap]) -> Transfer:
        """Loads the weights into the freshly built network.

        Args:
            model: Of `self.model`.
            labels: Of the data that will be trained on.
        """
        if self.whole is not None:
            return transfer(self.whole, model, self.model, labels)
        if self.backbone is None:
            return Transfer([], frozenset())
        fill_backbone(model.backbone, self.backbone)
        # A classifier's features are a start: `backbone_lr_mult` says how fast they learn.
        return Transfer([f"backbone.weights: {self.backbone.source}"], frozenset())


def starting_point(settings: Settings) -> Start:
    """Network and weights as the configuration and the weights that it names say.

    Raises:
        ConfigError: If a file is damaged or does not fit.
    """
    config = settings.config
    if config.weights is not None:
        if config.backbone.weights is not None:
            raise ConfigError("weights: expected either weights or backbone.weights, got both")
        return _from_model(settings, read_model(Path(config.weights)))
    if config.backbone.weights is not None:
        return _from_backbone(settings, read_backbone(Path(config.backbone.weights)))
    # A share file tells nobody where its maker kept things.
    model = ModelConfig(replace(config.backbone, weights=None), config.heads)
    return Start(model, build_preprocess(config.data))


def _from_backbone(settings: Settings, source: Foreign) -> Start:
    config, stored = settings.config, source.info
    asked = replace(config.backbone, weights=None)
    for key in _SHAPES:
        wanted, got = getattr(stored.model.backbone, key), getattr(asked, key)
        if wanted != got:
            raise ConfigError(
                f"backbone.{key}: expected {wanted}, as in {source.source}, got {got}"
            )
    backbone = _merged(settings, "backbone", stored.model.backbone, asked, _CARRIED["backbone"])
    preprocess = replace(
        build_preprocess(config.data), mean=stored.preprocess.mean, std=stored.preprocess.std
    )
    return Start(ModelConfig(backbone, config.heads), preprocess, backbone=source)


def _from_model(settings: Settings, source: Foreign) -> Start:
    config, stored = settings.config, source.info
    if not any(f"heads.{task}" in _CARRIED for task in stored.model.heads.tasks):
        raise ConfigError(
            f"weights: expected a head for detection or segmentation, got none in {source.source}; "
            "give its backbone as backbone.weights"
        )
    asked = replace(config.backbone, weights=None)
    carried = (*_SHAPES, *_CARRIED["backbone"])
    backbone: BackboneConfig
    backbone = _merged(settings, "backbone", stored.model.backbone, asked, carried)
    heads = {}
    for task in config.heads.tasks:
        head, old = getattr(config.heads, task), getattr(stored.model.heads, task)
        key = f"heads.{task}"
        heads[task] = head if old is None else _merged(settings, key, old, head, _CARRIED[key])
    spec = stored.preprocess
    preprocess = replace(
        spec,
        size=settings.winner("data.image_size", spec.size, config.data.size),
        resize=settings.winner("data.resize", spec.resize, config.data.resize),
    )
    return Start(ModelConfig(backbone, HeadsConfig(**heads)), preprocess, whole=source)


def _merged(settings: Settings, part: str, stored: Any, asked: Any, carried: Sequence[str]) -> Any:
    """The settings asked for, with those that come with the weights."""
    values = {
        key: settings.winner(f"{part}.{key}", getattr(stored, key), getattr(asked, key))
        for key in carried
    }
    return replace(asked, **values)

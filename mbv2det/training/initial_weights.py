"""The weights that training starts from: random, those of a backbone, or of a whole model."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mbv2det.build import build_preprocess, tensor_shapes
from mbv2det.config import Config, DataConfig
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.model_config import (
    BackboneConfig,
    HeadConfig,
    ModelConfig,
    carried_settings,
    shape_settings,
)
from mbv2det.preprocess import PreprocessSpec
from mbv2det.resolve import Overrides, Resolution, check_shapes, in_section, resolve
from mbv2det.tasks import TASKS, TrainableTask
from mbv2det.weights.readers import load_backbone_weights, read_backbone, read_model
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.transfer import Transfer, transfer


@dataclass(frozen=True)
class InitialWeights:
    """The network that is trained, and the weights that it starts from.

    Attributes:
        model: Architecture, after resolution.
        preprocess: Preprocessing of the images, after resolution.
        backbone: Weights of the backbone alone; None if there are none.
        whole: Weights of a whole model; None if there are none.
        resolution: Settings that are stored with the weights, after resolution.
    """

    model: ModelConfig
    preprocess: PreprocessSpec
    backbone: WeightsSource | None = None
    whole: WeightsSource | None = None
    resolution: Resolution = Resolution({})

    def load_into(self, model: MultiTaskModel, label_maps: Mapping[str, LabelMap]) -> Transfer:
        """Loads the weights into a newly built network.

        Args:
            model: Network built from `self.model`.
            label_maps: Classes of the training data, by task.
        """
        if self.whole is not None:
            return transfer(self.whole, model, self.model, label_maps)
        if self.backbone is None:
            return Transfer()
        load_backbone_weights(model.backbone, self.backbone)
        names = frozenset(f"backbone.{name}" for name in model.backbone.state_dict())
        return Transfer([f"backbone.weights: {self.backbone.source}"], loaded=names)


def initial_weights(
    config: Config, overrides: Overrides, checkpoint: Path | None = None
) -> InitialWeights:
    """Reads the weights that the configuration names, and resolves the settings stored with them.

    Args:
        config: Settings, where `weights` or `backbone.weights` may name a file.
        overrides: Settings by which the user overrides those of the weights.
        checkpoint: Checkpoint of a run that is resumed; it is read instead of those files.

    Raises:
        ConfigError: If a file is damaged or does not fit the configuration.
    """
    if config.weights is not None and config.backbone.weights is not None:
        raise ConfigError("weights: expected either weights or backbone.weights, got both")
    if config.weights is not None:
        return _from_model(config, overrides, read_model(checkpoint or config.weights))
    if config.backbone.weights is not None:
        source = read_backbone(checkpoint or config.backbone.weights)
        return _from_backbone(config, overrides, source)
    return InitialWeights(config.model(), build_preprocess(config.data))


def _from_backbone(config: Config, overrides: Overrides, source: WeightsSource) -> InitialWeights:
    """Returns the configured network with the backbone of the weights."""
    configured, stored = config.backbone.architecture(), source.info.model.backbone
    source.renamed(tensor_shapes(source.info))  # raises an error for a damaged file
    shapes, configured_shapes = (
        in_section("backbone", shape_settings(c)) for c in (stored, configured)
    )
    check_shapes(shapes, configured_shapes, shapes, source.source)
    carried, configured_carried = (
        in_section("backbone", carried_settings(c)) for c in (stored, configured)
    )
    resolution = resolve(carried, configured_carried, overrides)
    spec = source.info.preprocess
    return InitialWeights(
        ModelConfig(resolution.update("backbone", configured), config.heads),
        replace(build_preprocess(config.data), mean=spec.mean, std=spec.std),
        backbone=source,
        resolution=resolution,
    )


def _from_model(config: Config, overrides: Overrides, source: WeightsSource) -> InitialWeights:
    """Returns the network of the weights, with heads and training settings as configured."""
    info = source.info
    if not any(issubclass(TASKS[task], TrainableTask) for task in info.model.heads):
        raise ConfigError(
            f"weights: expected a head for detection or segmentation, got none in {source.source}; "
            "to use its backbone, set backbone.weights"
        )
    # The transfer is between our names; this also raises an error for a damaged file.
    tensors = source.renamed(tensor_shapes(info))
    source = WeightsSource(source.source, tensors, info, name_of=lambda name: name)
    configured = config.model()
    shapes, configured_shapes = (
        in_section("backbone", shape_settings(model.backbone)) for model in (info.model, configured)
    )
    overridden = [key for key in shapes if overrides.source(key)]
    check_shapes(shapes, configured_shapes, overridden, source.source)
    resolution = resolve(
        _network_settings(info.model.backbone, info.preprocess),
        _network_settings(configured.backbone, config.data),
        overrides,
    )
    heads = {}
    for task, head in configured.heads.items():
        stored_head = info.model.heads.get(task)
        heads[task], decisions = _resolve_head(f"heads.{task}", stored_head, head, overrides)
        resolution = resolution.joined(decisions)
    height, width = resolution.values["data.image_size"]
    return InitialWeights(
        ModelConfig(resolution.update("backbone", configured.backbone), heads),
        replace(info.preprocess, size=(height, width), resize=resolution.values["data.resize"]),
        whole=source,
        resolution=resolution,
    )


def _network_settings(
    backbone: BackboneConfig, image: PreprocessSpec | DataConfig
) -> dict[str, Any]:
    """Returns the settings stored with the weights of a whole model, without those of its heads."""
    return {
        **in_section("backbone", shape_settings(backbone) | carried_settings(backbone)),
        "data.image_size": list(image.size),
        "data.resize": image.resize,
    }


def _resolve_head(
    section: str, stored: HeadConfig | None, configured: HeadConfig, overrides: Overrides
) -> tuple[HeadConfig, Resolution]:
    """Returns the settings of a head: stored for what it computes, configured for its training."""
    if stored is None:
        return configured, Resolution({})
    if type(stored) is type(configured):
        carried, configured_carried = (
            in_section(section, carried_settings(head)) for head in (stored, configured)
        )
        resolution = resolve(carried, configured_carried, overrides)
        return resolution.update(section, configured), resolution
    # Heads of different classes have different settings: the choice of the name decides all of
    # them.
    resolution = resolve(
        {f"{section}.name": stored.name}, {f"{section}.name": configured.name}, overrides
    )
    if resolution.overridden:
        return configured, resolution
    shared = {f.name for f in fields(configured)} & {f.name for f in fields(stored)}
    training = shared - carried_settings(stored).keys()
    return replace(stored, **{name: getattr(configured, name) for name in training}), resolution

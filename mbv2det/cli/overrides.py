"""What a command overrides of the settings that a weights file stores, and what it does not."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.labels import with_background
from mbv2det.model_config import ModelConfig
from mbv2det.resolve import Difference, Overrides, in_section, resolve
from mbv2det.weights.header import WeightsInfo


def resolved(stored: WeightsInfo, settings: Settings) -> WeightsInfo:
    """Returns the header of the weights with the settings that the command line overrides.

    Settings that change the shape of a tensor cannot be overridden. Logs every setting of the
    configuration that is not used.
    """
    log_architecture(stored, settings)
    info, differences = with_overrides(stored, settings)
    for difference in differences:
        log(str(difference))
    return info


def with_overrides(
    stored: WeightsInfo, settings: Settings
) -> tuple[WeightsInfo, tuple[Difference, ...]]:
    """Returns what `resolved` does, and the settings on which weights and configuration differ."""
    config, spec, thresholds = settings.config, stored.preprocess, stored.eval
    resolution = resolve(
        {
            **in_section("eval", asdict(thresholds)),
            "data.image_size": spec.size,
            "data.resize": spec.resize,
            "backbone.output_stride": stored.model.backbone.output_stride,
        },
        {
            **in_section("eval", asdict(config.eval.thresholds())),
            "data.image_size": config.data.size,
            "data.resize": config.data.resize,
            "backbone.output_stride": config.backbone.output_stride,
        },
        Overrides(settings.given, config.override_weights),
    )
    values = resolution.values
    info = replace(
        stored,
        model=replace(stored.model, backbone=resolution.update("backbone", stored.model.backbone)),
        eval=resolution.update("eval", thresholds),
        preprocess=replace(spec, size=values["data.image_size"], resize=values["data.resize"]),
    )
    return info, resolution.differences


def log_architecture(stored: WeightsInfo, settings: Settings) -> None:
    """Logs differences of network and classes between the configuration and the weights."""
    config = settings.config
    stored_settings, configured = (
        _architecture(model, config.tasks) for model in (stored.model, config.model())
    )
    for key, value in stored_settings.items():
        if configured.get(key) != value:
            log(f"{key}: {value} in the weights, which keep it; {configured.get(key)} configured")
    names = config.data.classes
    for task, label_map in stored.label_maps.items():
        if names == "auto" or task not in config.tasks:
            continue
        if label_map.names not in (names, with_background(names)):
            log(
                f"data.classes: not used; the weights' {task} classes: {', '.join(label_map.names)}"
            )


def _architecture(model: ModelConfig, tasks: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of a network by dotted name, without other tasks and output stride."""
    settings = in_section("backbone", asdict(model.backbone))
    for task in tasks:
        if task in model.heads:
            settings |= in_section(f"heads.{task}", asdict(model.heads[task]))
    del settings["backbone.output_stride"]
    return settings

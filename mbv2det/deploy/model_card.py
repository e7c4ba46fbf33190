"""The page of a model on the Hugging Face Hub: what it is, how good it is, and what made it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from mbv2det.counting import count_parameters
from mbv2det.model import MultiTaskModel
from mbv2det.tasks import Task
from mbv2det.weights.header import WeightsInfo

_TEMPLATE = Path(__file__).with_name("model_card.md")


def model_card(
    model: MultiTaskModel, tasks: Sequence[Task], info: WeightsInfo, data: ModelCardData
) -> ModelCard:
    """The page of a model on the Hugging Face Hub, filled in from the header of its weights.

    Args:
        model: The network.
        tasks: Tasks of the network.
        info: Header of the weights file.
        data: Metadata that every model of this toolkit has.
    """
    spec, backbone = info.preprocess, info.model.backbone
    names = [task.name for task in tasks]
    if tasks:
        data.pipeline_tag = tasks[0].hub_pipeline
    heads = [head.name for head in info.model.heads.values()]
    data.tags = [*(data.tags or []), backbone.name, *heads]
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=f"{backbone.name} for {' and '.join(names) or 'features'}",
        tasks=" and ".join(name.capitalize() for name in names) or "Features",
        network=f"{backbone.name}, width {backbone.width_mult}",
        parameters=f"{count_parameters(model):,}",
        metrics=list(_metric_rows(info.metrics)),
        command=info.command,
        size=f"{spec.size[0]} x {spec.size[1]} pixels (height x width)",
        mean=spec.mean,
        std=spec.std,
        resize=spec.resize,
        labels=[{"task": name, "names": ", ".join(info.label_maps[name].names)} for name in names],
    )


def _metric_rows(metrics: dict[str, Any]) -> Iterator[dict[str, str]]:
    for task, block in metrics.items():
        if isinstance(block, dict):
            values = {name: v for name, v in block.items() if isinstance(v, float)}
            values["images"] = block["images"]
            for name, value in values.items():
                shown = f"{value:.3f}" if isinstance(value, float) else str(value)
                yield {"task": task, "name": name, "value": shown}

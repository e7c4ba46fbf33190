"""The page that a model shows on the Hugging Face Hub: what it is, how good, made by what."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from mbv2det.counting import count_parameters
from mbv2det.model import DensePredictor
from mbv2det.weights.share_file import WeightsInfo

_TEMPLATE = Path(__file__).with_name("model_card.md")
_PIPELINES = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}


def model_card(model: DensePredictor, info: WeightsInfo, data: ModelCardData) -> ModelCard:
    """The page, filled in from the weights' own header.

    Args:
        model: The network.
        info: What its weights file says.
        data: Metadata that every model of this toolkit has.
    """
    tasks, spec, backbone = info.model.heads.tasks, info.preprocess, info.model.backbone
    if tasks:
        data.pipeline_tag = _PIPELINES[tasks[0]]
    heads = [getattr(info.model.heads, task) for task in tasks]
    data.tags = [*(data.tags or []), backbone.name, *(h.name for h in heads if hasattr(h, "name"))]
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=f"{backbone.name} for {' and '.join(tasks) or 'features'}",
        tasks=" and ".join(task.capitalize() for task in tasks) or "Features",
        network=f"{backbone.name}, width {backbone.width_mult}",
        parameters=f"{count_parameters(model):,}",
        metrics=list(_metric_rows(info.metrics)),
        command=info.command,
        size=f"{spec.size[0]} x {spec.size[1]} pixels (height x width)",
        mean=spec.mean,
        std=spec.std,
        resize=spec.resize,
        labels=[{"task": t, "names": ", ".join(info.label_maps[t].names)} for t in tasks],
    )


def _metric_rows(metrics: dict[str, Any]) -> Iterator[dict[str, str]]:
    for task, block in metrics.items():
        if isinstance(block, dict):
            values = {name: v for name, v in block.items() if isinstance(v, float)}
            values["images"] = block["images"]
            for name, value in values.items():
                shown = f"{value:.3f}" if isinstance(value, float) else str(value)
                yield {"task": task, "name": name, "value": shown}

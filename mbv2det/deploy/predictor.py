"""Weights ready for use: images in, detections, label maps and classes out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from jaxtyping import UInt8

from mbv2det.atomic_write import write_json
from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature
from mbv2det.build import (
    build_backbone,
    build_model,
    build_predicting_tasks,
    seen_by,
)
from mbv2det.config import HeadsConfig, ModelConfig
from mbv2det.data.dataset import collate
from mbv2det.data.images import read_image
from mbv2det.deploy.model_card import model_card
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.model import DensePredictor
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample, SampleKey
from mbv2det.weights.readers import load_backbone_weights, read_backbone, read_model
from mbv2det.weights.share_file import WeightsInfo, encode_info, save_weights
from mbv2det.weights.source import WeightsSource

_HUB_WEIGHTS = "model.safetensors"
_HUB_CONFIG = "config.json"


class Predictor(ModelHubMixin, library_name="mbv2det"):
    """Runs a model on images as its weights expect them.

    `save_pretrained(folder)`, `push_to_hub(repository)` and `Predictor.from_pretrained(folder or
    repository)` are huggingface_hub's.

    Args:
        model: With its weights.
        info: What the weights file said: preprocessing, labels, thresholds.
        device: To run on.
    """

    def __init__(
        self, model: DensePredictor, info: WeightsInfo, device: torch.device | str = "cpu"
    ) -> None:
        try:
            self.model = model.eval().to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"device: expected one of this machine's, got {device} ({reason})"
            ) from None
        self.info = info
        self.device = device
        self.tasks = build_predicting_tasks(info.model, info.eval, info.label_maps)
        self.preprocessor = Preprocessor(info.preprocess)

    @torch.inference_mode()
    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[dict[str, Any]]:
        """What each image shows, by task name, in the image's own pixels.

        Args:
            images: RGB, of any sizes.
        """
        samples = [
            self.preprocessor(Sample(SampleKey(0, i), image, Frame(image.shape[:2])))
            for i, image in enumerate(images)
        ]
        batch = collate(samples).to(self.device)
        outputs = seen_by(self.model, self.info.eval, self.info.model.heads.tasks)(batch.images)
        found = {task.name: task.predict(outputs[task.name], batch.frames) for task in self.tasks}
        return [{name: found[name][i] for name in found} for i in range(len(images))]

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(save_directory / _HUB_WEIGHTS, self.model.state_dict(), self.info)
        # The Hub counts downloads by this file; the header of the weights is what is read.
        header = {"mbv2det": json.loads(encode_info(self.info))}
        write_json(save_directory / _HUB_CONFIG, header)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # an unknown argument is an error, not lost
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: torch.device | str = "cpu",
    ) -> "Predictor":
        file = Path(model_id) / _HUB_WEIGHTS
        if not Path(model_id).is_dir():
            file = Path(
                hf_hub_download(
                    model_id,
                    _HUB_WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        model, info = load_model(file)
        return cls(model, info, device)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model's page on the Hub."""
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        return model_card(self.model, self.info, data)

    def predict_file(self, path: str | Path) -> dict[str, Any]:
        """What one image file shows, by task name."""
        return self([read_image(path)[0]])[0]


def load(path: str | Path, device: torch.device | str = "cpu") -> Predictor:
    """A predictor from a weights file.

    Args:
        path: A `.safetensors` file of this toolkit, or a `.ckpt` of one of its runs.
        device: To run on.

    Raises:
        ConfigError: If the file is missing, damaged or foreign.
    """
    model, info = load_model(Path(path))
    return Predictor(model, info, device)


def load_backbone(
    path: str | Path,
    out_features: Sequence[Feature] | None = None,
    output_stride: Literal[8, 16, 32] = 32,
) -> Backbone:
    """A backbone with its weights, for other projects.

    Args:
        path: A `.safetensors` file of this toolkit, a `.ckpt` of one of its runs, or torchvision's
            state dict.
        out_features: Features that it returns; by default the last that the file has
            (DeepLabv3 ends with `layer_18`).
        output_stride: Input pixels per cell of the last feature: 32, 16 or 8.

    Returns:
        In evaluation mode, with a classifier where the file has one. It takes images normalised as
        the weights were trained: by the mean and standard deviation in the file's header
        (`mbv2det.load(path).info.preprocess`), of torchvision's by ImageNet's.

    Raises:
        ConfigError: If the file is missing, damaged or foreign.
    """
    source = read_backbone(Path(path))
    labels = source.info.label_maps.get("classification")
    if out_features is None:
        with torch.device("meta"):
            out_features = [Feature(list(build_backbone(source.info.model).layers)[-1])]
    settings = replace(source.info.model.backbone, output_stride=output_stride)
    backbone = build_backbone(
        ModelConfig(settings, HeadsConfig()),
        num_classes=None if labels is None else len(labels),
        out_features=out_features,
    )
    load_backbone_weights(backbone, source)
    return backbone.eval()


def load_model(path: Path) -> tuple[DensePredictor, WeightsInfo]:
    """The network of a weights file, and what the file says about it.

    Raises:
        ConfigError: As `load`.
    """
    source = read_model(path)
    return assemble(source), source.info


def assemble(source: WeightsSource) -> DensePredictor:
    """The network that a description speaks of, with its weights.

    Raises:
        MismatchError: If a tensor is missing, unknown or of another shape.
    """
    info = source.info
    model = build_model(info.model, info.preprocess, info.label_maps)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(source.renamed(shapes))
    return model

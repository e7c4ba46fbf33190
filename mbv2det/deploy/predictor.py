"""Weights ready for use: images in, predictions out."""

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
from mbv2det.build import build, build_backbone, build_tasks, evaluation_model, load_network
from mbv2det.data.dataset import collate
from mbv2det.data.images import read_image
from mbv2det.deploy.model_card import model_card
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.model import MultiTaskModel
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample, SampleKey
from mbv2det.tasks.classification import ClassificationTask
from mbv2det.tasks.task import Prediction, predict_all
from mbv2det.weights.header import WeightsInfo, encode_info
from mbv2det.weights.readers import load_backbone_weights, read_backbone, read_model
from mbv2det.weights.share_file import save_weights

_HUB_WEIGHTS = "model.safetensors"
_HUB_CONFIG = "config.json"


class Predictor(ModelHubMixin, library_name="mbv2det"):
    """Predicts images with the preprocessing, classes and thresholds of its weights.

    `save_pretrained(folder)`, `push_to_hub(repository)` and `Predictor.from_pretrained(folder or
    repository)` are those of huggingface_hub.

    Args:
        model: Network with its weights.
        info: Header of the weights file.
        device: Device to run on; "auto" takes a GPU if there is one.

    Attributes:
        info: Header of the weights file: architecture, preprocessing, classes, thresholds, metrics.
        tasks: Tasks of the model.
    """

    def __init__(
        self, model: MultiTaskModel, info: WeightsInfo, device: torch.device | str = "auto"
    ) -> None:
        self.device = _device(device)
        try:
            self.model = model.eval().to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"device: expected auto, or one of this machine's devices, got {device} ({reason})"
            ) from None
        self.info = info
        self.tasks = build_tasks(info.model, info.eval, info.label_maps)
        self.preprocessor = Preprocessor(info.preprocess)

    @torch.inference_mode()
    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Prediction]:
        """Predicts images; the results are in the pixels of each image.

        Args:
            images: RGB images of any sizes.
        """
        samples = [
            self.preprocessor(Sample(SampleKey(0, i), image, Frame(image.shape[:2])))
            for i, image in enumerate(images)
        ]
        batch = collate(samples).to(self.device)
        outputs = evaluation_model(self.model, self.tasks, self.info.eval)(batch.images)
        return predict_all(self.tasks, outputs, batch.frames)

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
        device: torch.device | str = "auto",
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
        return model_card(self.model, self.tasks, self.info, data)

    def predict_file(self, path: str | Path) -> Prediction:
        """Predicts one image file."""
        return self([read_image(path)[0]])[0]


def _device(device: torch.device | str) -> torch.device | str:
    """The device of a name, where "auto" is a GPU if there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def load(path: str | Path, device: torch.device | str = "auto") -> Predictor:
    """Loads a predictor from a weights file.

    Args:
        path: A `.safetensors` file of this toolkit, or a `.ckpt` of one of its runs.
        device: Device to run on; "auto" takes a GPU if there is one.

    Raises:
        ConfigError: If the file is missing, damaged or of another toolkit.
    """
    model, info = load_model(Path(path))
    return Predictor(model, info, device)


def load_backbone(
    path: str | Path,
    out_features: Sequence[Feature] | None = None,
    output_stride: Literal[8, 16, 32] = 32,
) -> Backbone:
    """Loads a backbone with its weights, for use in other projects.

    Args:
        path: A `.safetensors` file of this toolkit, a `.ckpt` of one of its runs, or a state dict
            of torchvision.
        out_features: Features to return; by default the last one that the file has (weights of
            DeepLabv3 end with `layer_18`).
        output_stride: Input pixels per cell of the last feature map: 32, 16 or 8.

    Returns:
        The backbone in evaluation mode, with a classifier if the file has one. It takes images that
        are normalised as the weights were trained: with the mean and standard deviation in the
        file's header (`mbv2det.load(path).info.preprocess`), or ImageNet's for torchvision's.

    Raises:
        ConfigError: If the file is missing, damaged or of another network.
    """
    source = read_backbone(Path(path))
    config = replace(source.info.model.backbone, output_stride=output_stride)
    if out_features is None:
        with torch.device("meta"):
            stored, _ = build(source.info)
        out_features = [Feature(list(stored.backbone.layers)[-1])]
    label_map = source.info.label_maps.get(ClassificationTask.name)
    backbone = build_backbone(
        config,
        num_classes=None if label_map is None else len(label_map),
        out_features=out_features,
    )
    load_backbone_weights(backbone, source)
    return backbone.eval()


def load_model(path: Path) -> tuple[MultiTaskModel, WeightsInfo]:
    """Loads the network of a weights file, and the file's header.

    Raises:
        ConfigError: As for `load`.
    """
    source = read_model(path)
    model, _ = load_network(source)
    return model, source.info

"""Weights ready for use: images in, predictions out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.atomic_write import write_json
from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature
from mbv2det.build import build, build_backbone, build_tasks, load_network
from mbv2det.deploy.image_input import ImageInput, pixels_of
from mbv2det.deploy.model_card import model_card
from mbv2det.deploy.runtimes.pytorch import PyTorchRuntime
from mbv2det.deploy.runtimes.runtime import Runtime
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.model import MultiTaskModel
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample, SampleKey
from mbv2det.tasks.classification import ClassificationTask
from mbv2det.tasks.task import Prediction, predict_all
from mbv2det.weights.header import WeightsInfo, encode_info
from mbv2det.weights.readers import (
    HUB_WEIGHTS,
    load_backbone_weights,
    read_backbone,
    read_model,
)
from mbv2det.weights.share_file import save_weights

_HUB_CONFIG = "config.json"


class Predictor(ModelHubMixin, library_name="mbv2det"):
    """Predicts images with the preprocessing, classes and thresholds of its weights.

    `mbv2det.load` makes one from a file. Several threads may use it at once.

    `save_pretrained(folder)`, `push_to_hub(repository)` and `Predictor.from_pretrained(folder or
    repository)` are those of huggingface_hub; they need the network in PyTorch.

    Args:
        runtime: Runs the network.
        info: Header of the weights.
        model: Network in PyTorch; None for an exported file.
        read: Turns what the runtime returns for a batch, and the frames of its images, into
            predictions; None for the raw outputs of the heads.
        preprocessor: Preprocessing of the images; None for that of the header.

    Attributes:
        runtime: Runs the network.
        info: Header of the weights: architecture, preprocessing, classes, thresholds, metrics.
        tasks: Tasks of the network.
        preprocessor: Preprocessing of the images.
    """

    def __init__(
        self,
        runtime: Runtime,
        info: WeightsInfo,
        model: MultiTaskModel | None = None,
        read: Callable[[Mapping[str, Any], Sequence[Frame]], list[Prediction]] | None = None,
        preprocessor: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.runtime = runtime
        self.info = info
        self.tasks = build_tasks(info.model, info.eval, info.label_maps)
        self.preprocessor = Preprocessor(info.preprocess) if preprocessor is None else preprocessor
        self._model = model
        self._read = partial(predict_all, self.tasks) if read is None else read

    @classmethod
    def of_model(
        cls,
        model: MultiTaskModel,
        info: WeightsInfo,
        device: torch.device | str = "auto",
        **options: Any,
    ) -> "Predictor":
        """Returns the predictor of a network in PyTorch.

        Args:
            model: Network with its weights; it stays as it is.
            info: Header of the weights.
            device: Device to run on; "auto" takes a GPU if there is one.
            **options: Options of `PyTorchRuntime`.

        Raises:
            ConfigError: If there is no such device.
        """
        tasks = build_tasks(info.model, info.eval, info.label_maps)
        runtime = PyTorchRuntime(model, tasks, info.eval, device, **options)
        return cls(runtime, info, model)

    @property
    def model(self) -> MultiTaskModel:
        """The network in PyTorch, as it was trained.

        Raises:
            ConfigError: If the predictor runs an exported file.
        """
        if self._model is None:
            raise ConfigError(
                f"model: expected a weights file, got an exported one, which {self.runtime.name} "
                "runs; load the .safetensors file it was made from"
            )
        return self._model

    @property
    def max_batch(self) -> int | None:
        """Largest number of images that the network gets at once; None if there is no limit."""
        return self.runtime.max_batch

    def __call__(self, images: Sequence[ImageInput]) -> list[Prediction]:
        """Predicts a batch of images; results are in the pixels of each (upright) image.

        Args:
            images: Paths, bytes of files, images of PIL, or arrays (H, W, 3) of uint8 RGB values,
                of any sizes.

        Returns:
            One prediction for each image, in order.

        Raises:
            DataError: If one of them is no image.
        """
        if isinstance(images, str | bytes):
            raise TypeError("images: expected a list of images; predict() takes a single one")
        predictions: list[Prediction] = []
        samples = [self._sample(image) for image in images]
        # One batch, unless the graph resizes images of different sizes by itself.
        for _, group in groupby(samples, key=lambda sample: sample.image.shape):
            batch = list(group)
            pixels = torch.from_numpy(np.stack([sample.image for sample in batch]))
            frames = [sample.frame for sample in batch]
            predictions += self.predict_batch(pixels.permute(0, 3, 1, 2), frames)
        return predictions

    def predict(self, image: ImageInput) -> Prediction:
        """Predicts one image: a path, bytes of a file, an image of PIL or an array.

        Raises:
            DataError: If it is no image.
        """
        return self([image])[0]

    def predict_file(self, path: str | Path) -> Prediction:
        """Predicts one image file."""
        return self.predict(path)

    @torch.inference_mode()
    def predict_batch(
        self, images: UInt8[Tensor, "B 3 H W"], frames: Sequence[Frame]
    ) -> list[Prediction]:
        """Predicts images that are preprocessed already.

        Args:
            images: RGB images, as from `preprocessor`.
            frames: Frame of each image, as from `preprocessor`.
        """
        size = self.max_batch or len(images)
        predictions: list[Prediction] = []
        for start in range(0, len(images), size):
            outputs = self.runtime(images[start : start + size])
            predictions += self._read(outputs, frames[start : start + size])
        return predictions

    def _sample(self, image: ImageInput) -> Sample:
        pixels = pixels_of(image, self.info.preprocess.value_range)
        frame = Frame((pixels.shape[0], pixels.shape[1]))
        return self.preprocessor(Sample(SampleKey(0, 0), pixels, frame))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(save_directory / HUB_WEIGHTS, self.model.state_dict(), self.info)
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
        file = Path(model_id) / HUB_WEIGHTS
        if not Path(model_id).is_dir():
            file = Path(
                hf_hub_download(
                    model_id,
                    HUB_WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        model, info = load_model(file)
        return cls.of_model(model, info, device)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model's page on the Hub."""
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        return model_card(self.model, self.tasks, self.info, data)


def load_backbone(
    path: str | Path,
    out_features: Sequence[Feature] | None = None,
    output_stride: Literal[8, 16, 32] = 32,
) -> Backbone:
    """Loads a backbone with its weights, for use in other projects.

    Args:
        path: A `.safetensors` file of this toolkit, a `.ckpt` of one of its runs, a state dict of
            torchvision, or weights from elsewhere, as for `mbv2det.weights.readers.read_backbone`.
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
    source = read_backbone(path)
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


def load_model(path: str | Path) -> tuple[MultiTaskModel, WeightsInfo]:
    """Loads the network of a weights file in evaluation mode, and the file's header.

    Raises:
        ConfigError: As for `load`.
    """
    source = read_model(path)
    model, _ = load_network(source)
    return model.eval(), source.info

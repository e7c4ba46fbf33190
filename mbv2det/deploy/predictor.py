"""Weights ready for use: images in, detections and label maps out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.build import build_model, build_tasks, seen_by
from mbv2det.data.dataset import collate
from mbv2det.data.images import read_image
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.model import DensePredictor
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample, SampleKey
from mbv2det.weights.files import WeightsInfo, load_weights


class Predictor:
    """Runs a model on images as its weights expect them.

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
        self.tasks = build_tasks(info.model, info.eval, info.labels)
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


def load_model(path: Path) -> tuple[DensePredictor, WeightsInfo]:
    """The network of a weights file, and what the file says about it.

    Raises:
        ConfigError: As `load`.
    """
    state, info = load_weights(path)
    return assemble(state, info, path), info


def assemble(state: Mapping[str, Tensor], info: WeightsInfo, path: str | Path) -> DensePredictor:
    """The network that a description speaks of, with its weights.

    Args:
        state: Every tensor, by the network's names.
        info: Architecture, preprocessing and labels.
        path: Of the file, for messages.

    Raises:
        ConfigError: If a tensor is missing, unknown or of another shape.
    """
    model = build_model(info.model, info.preprocess, info.labels)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | state.keys()):
        found = state[name].shape if name in state else None
        if found != expected.get(name):
            raise ConfigError(
                f"weights: {path}: {name}: expected {_shape(expected.get(name))}, "
                f"got {_shape(found)}"
            )
    model.load_state_dict(state)
    return model


def _shape(shape: torch.Size | None) -> str:
    return "no such tensor" if shape is None else f"shape {tuple(shape)}"

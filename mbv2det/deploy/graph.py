"""An exported network: the graph that goes into the file, and the description beside it.

The graph takes RGB images as uint8 (B, 3, height, width) and normalises them itself. It may also
resize them. Its outputs are those of the output layer of each task.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from mbv2det.deploy.graph_input import graph_input
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.model import MultiTaskModel
from mbv2det.output_layer import OutputLayer
from mbv2det.preprocess import PreprocessSpec
from mbv2det.tasks import Task
from mbv2det.tasks.task import Prediction
from mbv2det.weights.header import HEADER, WeightsInfo, decode_info, encode_info

GRAPH = "mbv2det_graph"  # key of the description in an exported file, beside `HEADER`
INPUT = "images"  # name of the graph's input
_VERSION = 1


@dataclass(frozen=True)
class GraphInfo:
    """Description of an exported file.

    Attributes:
        format: Name of the file's format.
        precision: Precision of weights and features: fp32, fp16, bf16 or int8.
        choices: Choice of each task's output option, by task name; empty for a task without one.
        outputs: Names of the graph's outputs, in order.
        dynamic_batch: Whether the graph takes any number of images at once, or one.
        resizes: Whether the graph takes images of any size and resizes them.
        constants: Values that belong to the outputs and are the same for every image.
        source: Name of the weights file.
        sha256: SHA-256 of the weights file.
        versions: Versions of the packages that wrote the file.
        float_parts: Parts of the network that an int8 file computes in float32, beside the output
            layers and the normalisation of the images.
    """

    format: str
    precision: str
    choices: Mapping[str, str]
    outputs: tuple[str, ...]
    dynamic_batch: bool
    resizes: bool = False
    constants: Mapping[str, list[Any]] = field(default_factory=dict)
    source: str = ""
    sha256: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    float_parts: tuple[str, ...] = ()

    @property
    def max_batch(self) -> int | None:
        """Largest number of images of a call; None if there is no limit.

        Images of any size seldom have the same one.
        """
        return None if self.dynamic_batch and not self.resizes else 1


class ExportedNetwork(nn.Module):
    """A network with the output layer of each task: what an exported file computes.

    Args:
        model: Network, prepared for prediction.
        layers: Output layer of each task, by task name.
        spec: Preprocessing of the network.
        resizes: Whether it takes images of any size and resizes them.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        layers: Mapping[str, OutputLayer],
        spec: PreprocessSpec,
        *,
        resizes: bool = False,
    ) -> None:
        super().__init__()
        self.resizes = resizes
        self.input = graph_input(spec, resizes=resizes)
        self.model = model
        self.layers = nn.ModuleDict(layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(name for layer in self.output_layers.values() for name in layer.names)

    @property
    def output_layers(self) -> dict[str, OutputLayer]:
        """The output layer of each task, by task name."""
        return {
            name: layer for name, layer in self.layers.items() if isinstance(layer, OutputLayer)
        }

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        """Returns the outputs in the order of `names`.

        Args:
            images: RGB images 0..255 of the network's input size, or of any size if it resizes; of
                uint8, or of float32 for a format without it.
        """
        images, frame = self.input(images)
        outputs = self.model(images)
        results: tuple[Tensor, ...] = ()
        for task, layer in self.layers.items():
            results += layer(outputs[task], frame)
        return results

    @torch.inference_mode()
    def named(self, images: UInt8[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Returns the outputs by name."""
        return dict(zip(self.names, self(images), strict=True))

    @torch.inference_mode()
    def constants(self, images: UInt8[Tensor, "B 3 H W"]) -> dict[str, list[Any]]:
        """Returns the constants of the output layers as plain values.

        Args:
            images: Any images that it takes.
        """
        images, _ = self.input(images)
        outputs = self.model(images)
        return {
            name: tensor.tolist()
            for task, layer in self.output_layers.items()
            for name, tensor in layer.constants(outputs[task]).items()
        }


@dataclass(frozen=True)
class GraphReader:
    """Turns the outputs of an exported file into predictions.

    Attributes:
        layers: Output layer of each task, by task name.
        constants: Constants of the file.
    """

    layers: Mapping[str, OutputLayer]
    constants: Mapping[str, Tensor]

    def __call__(self, outputs: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[Prediction]:
        """Returns the prediction of each image.

        Args:
            outputs: Outputs of the file by name.
            frames: Frame of each image.
        """
        tensors = {**self.constants, **outputs}
        columns = {name: layer.read(tensors, frames) for name, layer in self.layers.items()}
        return [
            Prediction(**{name: column[row] for name, column in columns.items()})
            for row in range(len(frames))
        ]


def output_layers(tasks: Sequence[Task], choices: Mapping[str, str]) -> dict[str, OutputLayer]:
    """Returns the output layer of each task, by task name.

    Args:
        tasks: Tasks of the network.
        choices: Choice of each task's output option, by task name.
    """
    return {task.name: task.output_layer(choices.get(task.name, "")) for task in tasks}


def graph_reader(tasks: Sequence[Task], graph: GraphInfo) -> GraphReader:
    """Returns the reader of a file's outputs.

    Args:
        tasks: Tasks of the network.
        graph: Description of the file.
    """
    constants = {name: torch.tensor(values) for name, values in graph.constants.items()}
    return GraphReader(output_layers(tasks, graph.choices), constants)


def encode_metadata(info: WeightsInfo, graph: GraphInfo) -> dict[str, str]:
    """Returns the texts that every exported file carries, by key."""
    return {HEADER: encode_info(info), GRAPH: json.dumps({"version": _VERSION, **asdict(graph)})}


def decode_metadata(metadata: Mapping[str, str], file: str) -> tuple[WeightsInfo, GraphInfo]:
    """Reads the texts that `encode_metadata` wrote.

    Args:
        metadata: Texts of the file, by key.
        file: Name of the file, for messages.

    Raises:
        ConfigError: If the file is not one of this toolkit, or of another version.
    """
    if HEADER not in metadata or GRAPH not in metadata:
        raise ConfigError(
            f"{file}: expected a file that mbv2det exported, got one without its header"
        )
    values = json.loads(metadata[GRAPH])
    version = values.pop("version", None)
    if version != _VERSION:
        raise ConfigError(f"{file}: expected an exported file of version {_VERSION}, got {version}")
    for key in ("outputs", "float_parts"):
        values[key] = tuple(values.get(key, ()))
    return decode_info(metadata[HEADER], file), GraphInfo(**values)

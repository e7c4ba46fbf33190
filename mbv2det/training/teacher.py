"""The teacher of a training with distillation (`distill.weights`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.build import load_network
from mbv2det.console import log
from mbv2det.counting import count_parameters
from mbv2det.distillation import DistillationLoss, DistillConfig
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.structures import LossTerms
from mbv2det.tasks.task import TrainableTask
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.readers import read_model
from mbv2det.weights.source import WeightsSource


@dataclass(frozen=True)
class Teacher:
    """A trained network, and the losses that compare the network in training with it.

    It is no `nn.Module`, so that a module which has a teacher has neither its parameters nor its
    state: nothing that is optimised, averaged or saved contains it.

    Attributes:
        model: Network of the teacher, frozen and in evaluation mode.
        losses: Loss for each task.
        weight: Weight of the losses (`distill.weight`).
    """

    model: MultiTaskModel
    losses: Mapping[str, DistillationLoss]
    weight: float

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        """Returns itself: a copy of the student, such as its average, needs no other teacher."""
        return self

    def terms(
        self, outputs: Mapping[str, Any], images: UInt8[Tensor, "B 3 H W"]
    ) -> dict[str, LossTerms]:
        """Returns the loss terms of distillation by task.

        Args:
            outputs: Raw outputs of the student by task.
            images: Images for which the student returned them.
        """
        taught = self.outputs(images)
        return {task: loss(outputs[task], taught[task]) for task, loss in self.losses.items()}

    @torch.no_grad()
    def outputs(self, images: UInt8[Tensor, "B 3 H W"]) -> dict[str, Any]:
        """Returns the raw outputs of the teacher by task, on the device of the images."""
        if next(self.model.parameters()).device != images.device:
            self.model.to(images.device)
        return self.model(images)


def load_teacher(
    settings: DistillConfig,
    student: MultiTaskModel,
    tasks: Sequence[TrainableTask],
    image_size: tuple[int, int],
) -> Teacher | None:
    """Loads a teacher, checks that it suits the student, and logs what it is.

    Args:
        settings: Weights file of the teacher, and how it teaches.
        student: Network to train.
        tasks: Tasks of the student.
        image_size: (height, width) of the student's input in pixels.

    Returns:
        The teacher; None if the settings name none.

    Raises:
        ConfigError: If the file is missing or damaged, or its network does not have the student's
            heads, classes, and anchors or points.
    """
    if settings.weights is None:
        return None
    path = settings.weights
    try:
        source = read_model(path)
        losses = {task.name: _loss(task, source.info, settings.temperature) for task in tasks}
        teacher = Teacher(_frozen_network(source, losses), losses, settings.weight)
        _check_outputs(teacher, student, image_size)
    except ConfigError as error:
        message = str(error).removeprefix("weights: ").removeprefix(f"{path}: ")
        raise ConfigError(f"distill.weights: {path}: {message}") from None
    sizes = [count_parameters(network) for network in (teacher.model, student)]
    backbone = source.info.model.backbone
    log(
        f"distill.weights: {path}: {backbone.name}, {sizes[0]:,} parameters, "
        f"{sizes[0] / sizes[1]:.1f} times those of the network that it teaches"
    )
    return teacher


def _loss(task: TrainableTask, info: WeightsInfo, temperature: float) -> DistillationLoss:
    """Returns the loss of a task, for a teacher with its head and classes."""
    head = info.model.heads.get(task.name)
    if head is None:
        raise ConfigError(
            f"expected a teacher with a head for {task.name}, got one for "
            f"{' and '.join(info.model.heads) or 'nothing'}; set heads.{task.name} to null, or "
            "train a teacher with this head"
        )
    loss = task.distillation(head, temperature)
    _check_classes(task.name, task.label_map, info.label_maps[task.name])
    return loss


def _check_classes(task: str, label_map: LabelMap, taught: LabelMap) -> None:
    """Refuses a teacher with other classes, or with the same ones in another order."""
    expected, got = label_map.names, taught.names
    if expected == got:
        return
    missing = [name for name in expected if name not in got]
    others = [name for name in got if name not in expected]
    different = [
        *([f"it lacks {_some(missing)}"] if missing else []),
        *([f"it has {_some(others)} besides"] if others else []),
    ]
    if not different:
        label = next(i for i in range(len(expected)) if expected[i] != got[i])
        different = [f"class {label} is {expected[label]} in the data and {got[label]} in it"]
    raise ConfigError(
        f"expected a teacher with the {len(expected)} classes of the data for {task}, in their "
        f"order, got {len(got)}: {'; '.join(different)}; give data.classes of the teacher, or "
        "train one on these classes"
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _frozen_network(source: WeightsSource, tasks: Mapping[str, Any]) -> MultiTaskModel:
    """Returns the network of a file in evaluation mode, without gradients and heads of others."""
    network, _ = load_network(source)
    for name in set(network.heads) - set(tasks):
        del network.heads[name]
    return network.requires_grad_(False).eval()


@torch.no_grad()
def _check_outputs(teacher: Teacher, student: MultiTaskModel, image_size: tuple[int, int]) -> None:
    """Refuses a teacher whose outputs are not those of the student's anchors or points."""
    was_training = student.training
    image = torch.zeros(1, 3, *image_size, dtype=torch.uint8)
    outputs, taught = student.eval()(image), teacher.outputs(image)
    student.train(was_training)
    for task, loss in teacher.losses.items():
        loss.check(outputs[task], taught[task])

"""Transfer of a whole model's weights to a network for other classes.

The backbone and all layers whose shape does not depend on the classes are copied. Of the layers
that compute class logits, the rows of the classes that both networks have by name are copied; the
rows of new classes keep their initial values.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from torch import Tensor, nn

from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.model_config import ModelConfig
from mbv2det.weights.source import Mismatch, MismatchError, WeightsSource

_MAX_LISTED = 10  # names in a list before it is cut


@dataclass(frozen=True)
class Transfer:
    """The tensors that were loaded into a network before its training.

    Attributes:
        lines: Lines of a summary for the user.
        loaded: Names of the network's tensors that come from a file as a whole.
        transferred: Names of the loaded tensors that come from the weights of a whole model; they
            are trained for a task already and learn at a lower rate.
    """

    lines: list[str] = field(default_factory=list)
    loaded: frozenset[str] = frozenset()
    transferred: frozenset[str] = frozenset()


def transfer(
    source: WeightsSource,
    model: MultiTaskModel,
    config: ModelConfig,
    label_maps: Mapping[str, LabelMap],
) -> Transfer:
    """Loads all weights that fit into a newly initialised network, in place.

    Args:
        source: Weights of a whole model of this toolkit.
        model: Network to load into.
        config: Architecture of the network.
        label_maps: Label map of each task of the network.

    Raises:
        MismatchError: If the backbones have layers of different shapes.
    """
    state = model.state_dict()
    lines, transferred = _copy_backbone(source, state)
    stored = source.info
    for task, head in config.heads.items():
        if task in stored.label_maps:
            slots = Slots(
                new=head.logit_names(label_maps[task]),
                old=stored.model.heads[task].logit_names(stored.label_maps[task]),
            )
            class_layers = _class_layer_names(model.heads[task])
            head_lines, names = _copy_head(source.tensors, state, task, class_layers, slots)
            lines, transferred = lines + head_lines, transferred + names
        else:
            lines.append(f"heads.{task}: not in the weights; newly initialised")
    unused = [task for task in stored.model.heads if task not in config.heads]
    lines += [f"heads.{task}: in the weights, but not configured; left out" for task in unused]
    model.load_state_dict(state)
    lines = [f"weights: {source.source}", *(f"  {line}" for line in lines)]
    return Transfer(lines, frozenset(transferred), frozenset(transferred))


class ClassLayers(Protocol):
    """A head with a list of its class layers, as all heads have."""

    def class_layers(self) -> Sequence[nn.Module]:
        """Returns the layers whose outputs are class logits, possibly of several anchors."""
        ...


@dataclass(frozen=True)
class Slots:
    """Names of the class slots of a head: its classes, and background if it has logits.

    Attributes:
        new: Names of the network's slots, in the order of its logits.
        old: Names of the weights' slots, in the order of their logits.
    """

    new: tuple[str, ...]
    old: tuple[str, ...]

    @property
    def old_slots(self) -> list[int | None]:
        """Old slot of each new one, matched by name; None for a new class."""
        old = LabelMap.of_masks(self.old)
        return [old.find(name) for name in self.new]

    def copy_rows(self, initial: Tensor, stored: Tensor) -> Tensor:
        """Returns the initial rows, with the rows of known classes replaced by stored ones.

        Args:
            initial: Weight or bias of the network's class layer, with one row per anchor and slot.
            stored: The same tensor in the weights.
        """
        rows, old_rows = (
            tensor.unflatten(0, (-1, len(names)))
            for tensor, names in ((initial.clone(), self.new), (stored, self.old))
        )
        for slot, old_slot in enumerate(self.old_slots):
            if old_slot is not None:
                rows[:, slot] = old_rows[:, old_slot]
        return rows.flatten(0, 1)

    def lines(self) -> list[str]:
        """Returns lines with the classes that are copied, new and left out."""
        pairs = list(zip(self.new, self.old_slots, strict=True))
        copied = [name for name, old_slot in pairs if old_slot is not None]
        new = [name for name, old_slot in pairs if old_slot is None]
        unused = [name for slot, name in enumerate(self.old) if slot not in self.old_slots]
        lines = [f"{len(copied)} of {len(self.new)} classes copied by name{_listed(copied)}"]
        if new:
            lines.append(f"{len(new)} classes newly initialised{_listed(new)}")
        if unused:
            lines.append(f"{len(unused)} classes of the weights left out{_listed(unused)}")
        return lines


def _class_layer_names(head: nn.Module) -> set[str]:
    """Returns the names, within a head, of the layers with a row for every class."""
    layers = cast(ClassLayers, head).class_layers()
    return {name for name, module in head.named_modules() if any(module is x for x in layers)}


def _copy_backbone(source: WeightsSource, state: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Copies the layers that both backbones have; one may have fewer layers than the other.

    Returns:
        Summary, and names of the copied tensors.
    """
    names = [name for name in state if name.startswith("backbone.")]
    mismatches = []
    for name in names:
        stored = source.tensors.get(name, state[name])
        if stored.shape != state[name].shape:
            shapes = str(tuple(state[name].shape)), str(tuple(stored.shape))
            mismatches.append(Mismatch("wrong shape", name, *shapes))
        state[name] = stored
    if mismatches:
        raise MismatchError(source.source, mismatches)
    new_layers = {name.split(".")[2] for name in names if name not in source.tensors}
    suffix = f"; newly initialised{_listed(sorted(new_layers))}" if new_layers else ""
    copied = [name for name in names if name in source.tensors]
    return [f"backbone: {len(copied)} tensors copied{suffix}"], copied


def _copy_head(
    tensors: Mapping[str, Tensor],
    state: dict[str, Tensor],
    task: str,
    class_layers: Collection[str],
    slots: Slots,
) -> tuple[list[str], list[str]]:
    """Copies the tensors of one head that fit.

    Args:
        tensors: Tensors of the weights by name.
        state: State dict of the network, which is changed in place.
        task: Task of the head.
        class_layers: Names, within the head, of the layers with a row for every class.
        slots: Class slots of the network and of the weights.

    Returns:
        Summary, and names of the tensors that were copied as a whole.
    """
    prefix = f"heads.{task}."
    copied, by_class, new = [], [], []
    for name in [n for n in state if n.startswith(prefix)]:
        short, stored, initial = name.removeprefix(prefix), tensors.get(name), state[name]
        layer = short.rpartition(".")[0]
        weight = f"{prefix}{layer}.weight"
        if stored is None:
            new.append(short)
        elif layer in class_layers and _differ_in_classes_only(
            tensors.get(weight), state[weight], slots
        ):
            state[name] = slots.copy_rows(initial, stored)
            by_class.append(name)
        elif layer not in class_layers and stored.shape == initial.shape:
            state[name] = stored
            copied.append(name)
        else:
            new.append(short)
    lines = [f"{len(copied)} tensors copied, {len(by_class)} class by class"]
    lines += slots.lines() if by_class else [f"all {len(slots.new)} classes newly initialised"]
    lines += [f"{len(new)} tensors newly initialised{_listed(new)}"] if new else []
    complete = copied if None in slots.old_slots else copied + by_class
    return [f"heads.{task}: {line}" for line in lines], complete


def _differ_in_classes_only(stored: Tensor | None, initial: Tensor, slots: Slots) -> bool:
    """Returns whether the weights of two class layers have the same anchors and inputs."""
    if stored is None:
        return False
    num_anchors = len(stored) // len(slots.old), len(initial) // len(slots.new)
    return num_anchors[0] == num_anchors[1] and stored.shape[1:] == initial.shape[1:]


def _listed(names: Sequence[str]) -> str:
    """Returns ": a, b, c", cut after some names; nothing for no names."""
    more = ", ..." if len(names) > _MAX_LISTED else ""
    return f": {', '.join(names[:_MAX_LISTED])}{more}" if names else ""

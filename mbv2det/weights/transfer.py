"""A whole model's weights in a network for other classes.

The backbone and every tensor that does not count classes are kept; of those that do, the rows of
classes that both have by name are copied, and the others keep their fresh start.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from torch import Tensor, nn

from mbv2det.config import DetectionHeadConfig, HeadsConfig, ModelConfig
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.model import DensePredictor
from mbv2det.weights.foreign import Foreign, Mismatch, MismatchError

_SHOWN = 10  # names of a list


@dataclass(frozen=True)
class Transfer:
    """What was done.

    Attributes:
        lines: It in words.
        loaded: Names of the network's tensors that come from the file to the last number.
        kept: The same, where the file holds a whole model: what was learnt for such a task.
    """

    lines: list[str] = field(default_factory=list)
    loaded: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()


def transfer(
    source: Foreign, model: DensePredictor, config: ModelConfig, labels: Mapping[str, LabelMap]
) -> Transfer:
    """Fills a freshly initialised network as far as the weights reach.

    Args:
        source: A whole model of ours.
        model: The network.
        config: Of the network.
        labels: Of the network, by task.

    Raises:
        MismatchError: If the backbone is another one.
    """
    state = model.state_dict()
    lines, kept = _copy_backbone(source, state)
    stored = source.info
    for task in config.heads.tasks:
        if task in stored.labels:
            new = _slots(config.heads, task, labels[task])
            old = _slots(stored.model.heads, task, stored.labels[task])
            layers = _class_layers(model.heads[task])
            of_head, found = _copy_head(source.tensors, state, task, layers, Slots(new, old))
            lines, kept = lines + of_head, kept + found
        else:
            lines.append(f"heads.{task}: the weights have none; it starts anew")
    unused = [task for task in stored.model.heads.tasks if task not in config.heads.tasks]
    lines += [f"heads.{task}: in the weights, not configured; left out" for task in unused]
    model.load_state_dict(state)
    lines = [f"weights: {source.source}", *(f"  {line}" for line in lines)]
    return Transfer(lines, frozenset(kept), frozenset(kept))


class ClassLayers(Protocol):
    """What every head has."""

    def class_layers(self) -> Sequence[nn.Module]:
        """Layers whose outputs are logits, perhaps of several anchors."""
        ...


@dataclass(frozen=True)
class Slots:
    """What the logits of one place stand for, here and in the weights.

    Attributes:
        new: Names, here.
        old: Names, in the weights.
    """

    new: tuple[str, ...]
    old: tuple[str, ...]

    @property
    def places(self) -> list[int | None]:
        """Which old slot each new one is, by name; None for new classes."""
        old = LabelMap.of_masks(self.old)
        return [old.find(name) for name in self.new]

    def copied(self, fresh: Tensor, stored: Tensor) -> Tensor:
        """The fresh rows with those of the known classes from the weights, anchor by anchor."""
        rows, old = (
            tensor.unflatten(0, (-1, len(names)))
            for tensor, names in ((fresh.clone(), self.new), (stored, self.old))
        )
        for position, place in enumerate(self.places):
            if place is not None:
                rows[:, position] = old[:, place]
        return rows.flatten(0, 1)

    def lines(self) -> list[str]:
        """Which classes are known, which are new, which are dropped."""
        known = [
            name for name, place in zip(self.new, self.places, strict=True) if place is not None
        ]
        new = [name for name in self.new if name not in known]
        kept = {place for place in self.places if place is not None}
        gone = [name for label, name in enumerate(self.old) if label not in kept]
        found = [f"{len(known)} of {len(self.new)} classes kept by name{_list(known)}"]
        found += [f"{len(new)} classes start anew{_list(new)}"] if new else []
        return (
            [*found, f"{len(gone)} classes of the weights left out{_list(gone)}"] if gone else found
        )


def _slots(heads: HeadsConfig, task: str, labels: LabelMap) -> tuple[str, ...]:
    head = getattr(heads, task)
    background = isinstance(head, DetectionHeadConfig) and head.has_background
    return (BACKGROUND, *labels.names) if background else labels.names


def _class_layers(head: nn.Module) -> set[str]:
    """Names, within a head, of the layers whose weight and bias have a row for every class."""
    layers = cast(ClassLayers, head).class_layers()
    return {name for name, module in head.named_modules() if any(module is x for x in layers)}


def _copy_backbone(source: Foreign, state: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Fills the layers that both have: one network may end earlier, as its heads read less.

    Returns:
        Lines, and names of what was kept.
    """
    names = [name for name in state if name.startswith("backbone.")]
    rows = []
    for name in names:
        old = source.tensors.get(name, state[name])
        if old.shape != state[name].shape:
            shapes = str(tuple(state[name].shape)), str(tuple(old.shape))
            rows.append(Mismatch("of another shape", name, *shapes))
        state[name] = old
    if rows:
        raise MismatchError(source.source, rows)
    fresh = {name.split(".")[2] for name in names if name not in source.tensors}
    anew = f"; starts anew{_list(sorted(fresh))}" if fresh else ""
    kept = [name for name in names if name in source.tensors]
    return [f"backbone: {len(kept)} tensors kept{anew}"], kept


def _copy_head(
    source: Mapping[str, Tensor],
    state: dict[str, Tensor],
    task: str,
    class_layers: Collection[str],
    slots: Slots,
) -> tuple[list[str], list[str]]:
    """Fills one head's tensors.

    Returns:
        Lines, and names of what was kept whole.
    """
    prefix = f"heads.{task}."
    kept, by_class, fresh = [], [], []
    for name in [n for n in state if n.startswith(prefix)]:
        short, old, new = name.removeprefix(prefix), source.get(name), state[name]
        layer = short.rpartition(".")[0]
        weight = f"{prefix}{layer}.weight"
        if old is None:
            fresh.append(short)
        elif layer in class_layers and _by_class(source.get(weight), state[weight], slots):
            state[name] = slots.copied(new, old)
            by_class.append(name)
        elif layer not in class_layers and old.shape == new.shape:
            state[name] = old
            kept.append(name)
        else:
            fresh.append(short)
    lines = [f"{len(kept)} tensors kept, {len(by_class)} by class"]
    lines += slots.lines() if by_class else [f"all {len(slots.new)} classes start anew"]
    lines += [f"{len(fresh)} tensors start anew{_list(fresh)}"] if fresh else []
    whole = kept if None in slots.places else kept + by_class
    return [f"heads.{task}: {line}" for line in lines], whole


def _by_class(old: Tensor | None, new: Tensor, slots: Slots) -> bool:
    """Whether the weights of two class layers differ in their classes alone."""
    if old is None:
        return False
    anchors = len(old) // len(slots.old), len(new) // len(slots.new)
    return anchors[0] == anchors[1] and old.shape[1:] == new.shape[1:]


def _list(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}" if names else ""

"""The user's own transforms (`augment.transforms`): built from their names, and applied."""

import difflib
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import Parameter, isclass, signature
from typing import Any

import albumentations as A
import numpy as np

from mbv2det.data.sample_transform import SampleTransform
from mbv2det.data.transform_trial import moves_boxes, one_line, try_out
from mbv2det.errors import ConfigError
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import IGNORE_INDEX, Sample

_KEY = "augment.transforms"
_FORM = "{class_path: albumentations.NAME, init_args: {...}}"


class UserTransforms:
    """The transforms that a configuration lists, applied in order.

    Args:
        entries: `class_path` and `init_args` of each.
        spec: Preprocessing of the run. Its fill colour, and `IGNORE_INDEX` in masks, are used
            beyond the image where an entry does not say what is.
        annotation: What has to move with the image: boxes, masks or both.

    Raises:
        ConfigError: If a transform does not exist, if its arguments are wrong, or if it cannot move
            what it has to.
    """

    def __init__(
        self,
        entries: Sequence[Mapping[str, Any]],
        spec: PreprocessSpec,
        annotation: Collection[str],
    ) -> None:
        transforms = [_build(f"{_KEY}[{i}]", entry, spec) for i, entry in enumerate(entries)]
        named = enumerate(transforms)
        leaves = dict(pair for i, one in named for pair in _leaves(f"{_KEY}[{i}]", one))
        for key, leaf in leaves.items():
            try_out(key, leaf, spec, annotation)
        movable = any(moves_boxes(leaf) for leaf in leaves.values())
        self._transform = SampleTransform(transforms, moves_boxes=movable) if transforms else None

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Returns the transformed sample.

        Raises:
            ConfigError: If a transform fails on this image.
        """
        if self._transform is None:
            return sample
        try:
            return self._transform(sample, generator)
        except Exception as error:
            height, width = sample.image.shape[:2]
            raise ConfigError(
                f"{_KEY}: expected transforms for images of any size, got an error for one of "
                f"{height}x{width} pixels (height x width): {one_line(error)}"
            ) from error


def _build(key: str, entry: Any, spec: PreprocessSpec) -> Any:
    """Returns the transform of an entry, with those of the entries within its arguments."""
    if not isinstance(entry, Mapping) or not {"class_path"} <= set(entry) <= {
        "class_path",
        "init_args",
    }:
        raise ConfigError(f"{key}: expected {_FORM}, got {entry!r:.100}")
    path, given = entry["class_path"], entry.get("init_args") or {}
    found = _find(f"{key}.class_path", path)
    arguments = _known_arguments(f"{key}.init_args", given, found)
    if issubclass(found, A.BaseCompose):
        arguments = {
            name: _built_within(f"{key}.init_args.{name}", value, spec)
            for name, value in arguments.items()
        }
    # Transforms with a schema would otherwise warn of wrong arguments, and use their defaults.
    strict = {"strict": True} if "InitSchema" in vars(found) else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some transforms recommend others
            return found(**_fills(found, spec) | arguments | strict)
    except Exception as error:
        raise ConfigError(_wrong_argument(f"{key}.init_args", error)) from None


def _built_within(key: str, value: Any, spec: PreprocessSpec) -> Any:
    """Returns an argument of a choice or sequence, with the transforms that it describes."""
    if isinstance(value, Mapping):
        return _build(key, value, spec)
    if isinstance(value, list) and any(isinstance(element, Mapping) for element in value):
        return [_build(f"{key}[{i}]", element, spec) for i, element in enumerate(value)]
    return value


def _find(key: str, path: Any) -> type:
    """Returns the class with a dotted name.

    Raises:
        ConfigError: If there is none, or if it is no transform.
    """
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(import_module(module), name, None) if module else None
    except ImportError as error:
        raise ConfigError(
            f"{key}: expected a class such as albumentations.GaussNoise, got {path} ({error})"
        ) from None
    if not isclass(found) or not issubclass(found, A.BasicTransform | A.BaseCompose):
        near = difflib.get_close_matches(name, _names(), n=1)
        hint = f"; did you mean albumentations.{near[0]}?" if near else ""
        raise ConfigError(f"{key}: expected a transform of albumentations, got {path}{hint}")
    if issubclass(found, A.Compose):
        raise ConfigError(f"{key}: expected albumentations.Sequential for a sequence, got {path}")
    return found


def _names() -> list[str]:
    kinds = A.BasicTransform | A.BaseCompose
    return [name for name, found in vars(A).items() if isclass(found) and issubclass(found, kinds)]


def _known_arguments(key: str, given: Any, found: type) -> dict[str, Any]:
    """Returns the arguments of a class.

    Raises:
        ConfigError: For one that it does not have.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}: expected arguments by name, got {given!r:.100}")
    parameters = signature(found).parameters
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
        return dict(given)
    for name in given:
        if name not in parameters:
            near = difflib.get_close_matches(str(name), parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(parameters)}"
            raise ConfigError(f"{key}.{name}: {found.__name__} has no such argument; {hint}")
    return dict(given)


def _fills(found: type, spec: PreprocessSpec) -> dict[str, Any]:
    """Returns what a transform fills the pixels beyond the image with; its own default is 0."""
    if not {"border_mode", "fill", "fill_mask"} <= set(signature(found).parameters):
        return {}
    return {"fill": spec.fill, "fill_mask": IGNORE_INDEX}


def _wrong_argument(key: str, error: Exception) -> str:
    """Returns a line about arguments that a class refuses."""
    list_faults = getattr(error.__cause__, "errors", None)  # of pydantic, by argument
    if list_faults is None:
        return f"{key}: {one_line(error)}"
    fault = list_faults()[0]
    name = ".".join(str(part) for part in fault["loc"][:1])
    return f"{key}{'.' if name else ''}{name}: {fault['msg']}, got {fault['input']!r:.100}"


def _leaves(key: str, transform: Any) -> Iterator[tuple[str, Any]]:
    """Yields the transforms that are no choice or sequence of others, with their settings."""
    if not isinstance(transform, A.BaseCompose):
        yield key, transform
        return
    for i, child in enumerate(transform.transforms):
        yield from _leaves(f"{key}.init_args.transforms[{i}]", child)

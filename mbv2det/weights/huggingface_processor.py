"""preprocessor_config.json of transformers' models: the preprocessing of images, checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mbv2det.preprocess import PreprocessSpec
from mbv2det.tasks import ClassificationTask, SegmentationTask
from mbv2det.weights.huggingface_json import (
    Allowed,
    check_settings,
    is_integer,
    is_number,
    read_json,
)

_FILE = "preprocessor_config.json"
_INTERPOLATIONS = ("nearest", "Lanczos", "bilinear", "bicubic", "box", "Hamming")  # PIL's numbers
_BILINEAR = 2
# Default side of the network input, and the number of pixels by which the shorter side of the image
# is longer than it before the centre crop.
_SIDES = {ClassificationTask.name: 224, SegmentationTask.name: 513}
_MARGIN = 32


def _is_size(value: object, *keys: str) -> bool:
    """Returns whether a value is the length of one side, or a length for each of `keys`."""
    if isinstance(value, dict):
        return value.keys() == set(keys) and all(is_integer(side, 1) for side in value.values())
    return is_integer(value, 1)


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_number, value))


_FIXED = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_flip_channel_order": False,
}
_ALLOWED: Allowed = {
    "do_center_crop": ("true or false", lambda v: isinstance(v, bool)),
    "do_normalize": ("true or false", lambda v: isinstance(v, bool)),
    "resample": ("0 to 5, one of PIL's", lambda v: is_integer(v, 0) and v < 6),
    "size": (
        "pixels of the shortest_edge, or of height and width",
        lambda v: _is_size(v, "shortest_edge") or _is_size(v, "height", "width"),
    ),
    "crop_size": ("pixels of height and width", lambda v: _is_size(v, "height", "width")),
    "image_mean": ("three numbers", _is_colour),
    "image_std": ("three numbers above 0", lambda v: _is_colour(v) and min(v) > 0),
}


def read_processor(folder: Path | None, task: str | None) -> dict[str, Any]:
    """Reads preprocessor_config.json, with transformers' defaults for missing settings.

    Args:
        folder: Folder of the file; if it is None or has no such file, the defaults are returned.
        task: Task of the head, which the default sizes depend on; None for a backbone alone.

    Raises:
        ConfigError: If the file has a setting that our preprocessing cannot have.
    """
    side = _SIDES[task or ClassificationTask.name]
    defaults = {
        "do_center_crop": True,
        "do_normalize": True,
        "resample": _BILINEAR,
        "size": side + _MARGIN,
        "crop_size": side,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    path = None if folder is None else folder / _FILE
    if path is None or not path.is_file():
        return defaults
    # transformers uses its default for null.
    stored = {key: value for key, value in read_json(path).items() if value is not None}
    check_settings(path, stored, _FIXED, _ALLOWED)
    return defaults | stored


def preprocess_spec(
    processor: Mapping[str, Any], task: str | None
) -> tuple[PreprocessSpec, list[str]]:
    """Returns our preprocessing for a processor's settings, and notes on where they differ.

    Args:
        processor: Settings that `read_processor` returns.
        task: Task of the head; images for segmentation are fitted into the input and padded, those
            for other tasks are stretched.
    """
    resized, cropped = _height_width(processor["size"]), _height_width(processor["crop_size"])
    has_crop = processor["do_center_crop"]
    size = cropped if has_crop else resized
    stretches = isinstance(processor["size"], dict) and "height" in processor["size"]
    uses_whole_image = stretches and size == resized
    resize: Literal["stretch", "fit"]
    resize = "fit" if task == SegmentationTask.name and not uses_whole_image else "stretch"
    notes = []
    if not uses_whole_image:
        our_resize = "fitted into" if resize == "fit" else "stretched to"
        their_resize = (
            f"images to {_pixels(resized)}" if stretches else f"the shorter side to {resized[0]}"
        )
        crop = f" and cuts out {_pixels(cropped)} in the middle" if has_crop else ""
        notes.append(
            f"preprocessing: the whole image is {our_resize} {_pixels(size)}; transformers "
            f"scales {their_resize}{crop}"
        )
    if processor["resample"] != _BILINEAR:
        name = _INTERPOLATIONS[processor["resample"]]
        notes.append(f"preprocessing: interpolation is bilinear; the processor's is {name}")
    if not processor["do_normalize"]:
        return PreprocessSpec(size, resize, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), notes
    mean, std = _colour(processor["image_mean"]), _colour(processor["image_std"])
    return PreprocessSpec(size, resize, mean, std), notes


def _height_width(value: int | Mapping[str, int]) -> tuple[int, int]:
    """Returns (height, width); both are the value if it is a single number."""
    if isinstance(value, int):
        return value, value
    shortest = value.get("shortest_edge", 0)
    return value.get("height", shortest), value.get("width", shortest)


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue

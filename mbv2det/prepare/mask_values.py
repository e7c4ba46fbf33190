"""What the pixels of mask files are: label values, colours, or values in one channel."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mbv2det.console import track
from mbv2det.data.annotations import evenly_spaced
from mbv2det.data.image_errors import image_errors
from mbv2det.data.mask_reading import Color, MaskReading
from mbv2det.errors import DataError
from mbv2det.structures import IGNORE_INDEX

_MOST_VALUES = 64  # different values, or colours, of a mask; photographs have thousands
_MOST_READ = 2000  # masks
_MANY = 200  # masks from which a progress bar is shown
_SMALL = 64  # values below it count labels; larger ones make masks visible
_VOC_VOID = (224, 224, 192)


@dataclass(frozen=True)
class MaskValues:
    """The values of the pixels of masks.

    Attributes:
        values: The values of index masks, ascending, without the ignored one.
        ignore_index: Value of ignored pixels; None if there is none.
        channel: Channel that has the values; None for masks of one value per pixel.
        colors: The colours of masks by colour, the most frequent first; empty for others.
        num_masks: Number of masks that were read.
    """

    values: tuple[int, ...] = ()
    ignore_index: int | None = None
    channel: int | None = None
    colors: tuple[Color, ...] = ()
    num_masks: int = 0


def is_mask(path: Path) -> bool:
    """Returns True for an image file with few different values or colours."""
    try:
        with image_errors(path), Image.open(path) as image:
            if image.format == "JPEG":
                return False
            pixels = np.asarray(image)
    except DataError:
        return False
    if pixels.ndim == 2:
        return len(np.unique(pixels)) <= _MOST_VALUES and int(pixels.max()) <= IGNORE_INDEX
    has_few_colors = len(_color_counts(pixels)) <= _MOST_VALUES
    return has_few_colors or _channel_of(_values_of_channels(pixels)) is not None


def read_values(paths: Sequence[Path], *, colors_named: bool = False) -> MaskValues:
    """Reads up to 2,000 evenly spaced masks.

    Args:
        paths: The masks.
        colors_named: Whether a table names colours: then no single channel has the values.

    Raises:
        DataError: If they are no masks, or have too many different values.
    """
    paths = [paths[index] for index in evenly_spaced(len(paths), _MOST_READ)]
    quiet = len(paths) < _MANY
    channel = None if colors_named else _common_channel(paths[:20])
    reading, counts = MaskReading(channel=channel), np.zeros(IGNORE_INDEX + 1, np.int64)
    for path in track(paths, "Reading masks", quiet=quiet):
        try:
            values = reading.read(path)
        except DataError:
            return _read_colors(paths)
        if values.min() < 0 or values.max() > IGNORE_INDEX:
            raise DataError(f"{path}: expected values from 0 to 255, got {int(values.max())}")
        counts += np.bincount(values.ravel(), minlength=len(counts))
    found = np.flatnonzero(counts).tolist()
    ignored = _ignored(found)
    labels = tuple(value for value in found if value != ignored)
    return MaskValues(labels, ignored, channel, num_masks=len(paths))


def _ignored(values: list[int]) -> int | None:
    """Returns 255 where the other values count labels: it is VOC's value of ignored pixels."""
    others = [value for value in values if value != IGNORE_INDEX]
    is_ignored = len(others) > 1 and max(others) < _SMALL
    return IGNORE_INDEX if is_ignored and IGNORE_INDEX in values else None


def _read_colors(paths: Sequence[Path]) -> MaskValues:
    counts: Counter[Color] = Counter()
    for path in paths:
        with image_errors(path, "a mask"), Image.open(path) as image:
            counts += _color_counts(np.asarray(image.convert("RGB")))
        if len(counts) > IGNORE_INDEX:
            raise DataError(f"{path}: expected masks of at most 255 colours, got more")
    return MaskValues(
        colors=tuple(color for color, _ in counts.most_common()), num_masks=len(paths)
    )


def _color_counts(pixels: np.ndarray) -> Counter[Color]:
    colors = pixels[:, :, : min(3, pixels.shape[2])].reshape(-1, min(3, pixels.shape[2]))
    padded = np.zeros((len(colors), 3), np.int64)
    padded[:, : colors.shape[1]] = colors
    codes, counts = np.unique(padded @ [1 << 16, 1 << 8, 1], return_counts=True)
    return Counter(
        {
            (code >> 16, code >> 8 & 255, code & 255): count
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }
    )


def _common_channel(paths: Sequence[Path]) -> int | None:
    """Returns the channel that has the values in all of some masks."""
    seen: dict[int, set[int]] = defaultdict(set)
    for path in paths:
        with image_errors(path, "a mask"), Image.open(path) as image:
            pixels = np.asarray(image)
        for channel, values in _values_of_channels(pixels).items():
            seen[channel] |= values
    return _channel_of(seen)


def _values_of_channels(pixels: np.ndarray) -> dict[int, set[int]]:
    """Returns the values of each channel that is not constant; none for a mask of one channel."""
    if pixels.ndim == 2:
        return {}
    values = (set(np.unique(channel).tolist()) for channel in np.moveaxis(pixels, 2, 0))
    return {channel: of for channel, of in enumerate(values) if len(of) > 1}


def _channel_of(values: Mapping[int, set[int]]) -> int | None:
    """Returns the one channel whose values count labels, where the others are no copies of it.

    The others are constant, or have many values, such as the numbers of instances.
    """
    labels = set(range(_SMALL)) | {IGNORE_INDEX}
    counting = [channel for channel, of in values.items() if of <= labels]
    return counting[0] if len(counting) == 1 else None


def ignored_color(colors: Sequence[Color], named: Sequence[Color]) -> Color | None:
    """Returns the colour of ignored pixels: VOC's, or the only one that a table does not name."""
    unknown = [color for color in colors if color not in named] if named else []
    if len(unknown) == 1:
        return unknown[0]
    return _VOC_VOID if _VOC_VOID in colors and not named else None

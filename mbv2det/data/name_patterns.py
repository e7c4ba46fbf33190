"""Patterns of the names of images and masks, such as `{stem}_mask.png`."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from mbv2det.errors import ConfigError

STEM = "{stem}"


@dataclass(frozen=True)
class NamePatterns:
    """The names of images and of their masks.

    A pattern applies to the last part of a path. Without a suffix it applies to files of any
    suffix of an image.

    Attributes:
        image: Pattern of image files.
        mask: Pattern of mask files.
    """

    image: str = STEM
    mask: str = STEM

    def __post_init__(self) -> None:
        for key, pattern in (("image_name", self.image), ("mask_name", self.mask)):
            if pattern.count(STEM) != 1 or "/" in pattern or "\\" in pattern:
                raise ConfigError(
                    f"data.{key}: expected a file name with {STEM} once, such as "
                    f"{STEM}_mask.png, got {pattern!r}"
                )

    def image_stem(self, file: str) -> str | None:
        """Returns the folders and {stem} of an image file; None if it does not fit the pattern."""
        return _stem(self._image, file)

    def mask_stem(self, file: str) -> str | None:
        """Returns the folders and {stem} of a mask file; None if it does not fit the pattern."""
        return _stem(self._mask, file)

    @cached_property
    def _image(self) -> re.Pattern[str]:
        return _compile(self.image)

    @cached_property
    def _mask(self) -> re.Pattern[str]:
        return _compile(self.mask)


def mask_pattern_of(stem: str, file: str) -> str | None:
    """Returns the pattern by which a file is the mask of an image, None if its name has no stem.

    The stem is a word of the name: image `a` and file `mask_a.png` have `mask_{stem}.png`.
    """
    name, word = PurePosixPath(file).name, re.escape(PurePosixPath(stem).name)
    match = re.search(rf"(?<![^\W_]){word}(?![^\W_])", name)
    return name[: match.start()] + STEM + name[match.end() :] if match else None


def _compile(pattern: str) -> re.Pattern[str]:
    before, after = (re.escape(part) for part in pattern.split(STEM))
    any_suffix = "" if PurePosixPath(pattern.replace(STEM, "x")).suffix else r"\.[^.]+"
    return re.compile(f"{before}(?P<stem>.+){after}{any_suffix}", re.IGNORECASE)


def _stem(pattern: re.Pattern[str], file: str) -> str | None:
    path = PurePosixPath(file)
    match = pattern.fullmatch(path.name)
    return (path.parent / match["stem"]).as_posix() if match else None

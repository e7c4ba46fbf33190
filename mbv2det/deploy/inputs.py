"""The inputs of a prediction: image files, folders, globs, videos, cameras and streams.

Every argument of the command becomes one or several sources; a source yields its images in order.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

from mbv2det.console import log
from mbv2det.data.images import SUFFIXES, read_image
from mbv2det.data.value_range import ValueRange
from mbv2det.deploy.pictures import distinct
from mbv2det.deploy.source import InputImage, Source, Unreadable
from mbv2det.deploy.video import VideoSource
from mbv2det.errors import ConfigError, DataError
from mbv2det.tasks.result_files import MASKS, PICTURES, VIDEOS, ImageInfo

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class InputFile:
    """A file that an argument names or contains.

    Attributes:
        path: Path of the file.
        relative: The same relative to the argument: to the folder, or to the part of a glob that
            has no wildcard.
    """

    path: Path
    relative: Path


@dataclass(frozen=True)
class ImageFiles:
    """Image files as a source.

    Attributes:
        files: Path of each file, and its names in result files; the size is not known yet.
        value_range: Values of images of more than 8 bits that become 0 and 255.
    """

    files: Sequence[tuple[Path, ImageInfo]]
    value_range: ValueRange | None = None

    def num_images(self) -> int:
        """Returns the number of files."""
        return len(self.files)

    def __iter__(self) -> Iterator[InputImage | Unreadable]:
        for path, info in self.files:
            try:
                pixels, faults = read_image(path, value_range=self.value_range)
            except DataError as error:
                yield Unreadable(str(error))
                continue
            size = (pixels.shape[0], pixels.shape[1])
            yield InputImage(replace(info, size=size), pixels, faults=faults)


def find_sources(
    inputs: Sequence[str], out: Path | None = None, value_range: ValueRange | None = None
) -> list[Source]:
    """Returns the sources that the arguments of a command name.

    Args:
        inputs: Image or video files, folders that are searched to any depth, globs, `camera:0` or a
            number for a camera, and addresses of streams.
        out: Folder of results; pictures, videos and masks of an earlier run there are no inputs.
        value_range: Values of images of more than 8 bits that become 0 and 255.

    Raises:
        ConfigError: For an input that does not exist, or if there is no image at all.
    """
    live = [text for text in inputs if _is_live(text)]
    files = [file for text in inputs if text not in live for file in _files_of(text, out)]
    if not files and not live:
        known = ", ".join((*SUFFIXES, *VIDEO_SUFFIXES))
        raise ConfigError(f"INPUT: no images or videos ({known}) in {inputs[0]}")
    sources = [*_file_sources(files), *_live_sources(live)]
    return [
        replace(source, value_range=value_range) if isinstance(source, ImageFiles) else source
        for source in sources
    ]


def _is_live(text: str) -> bool:
    return _camera(text) is not None or "://" in text


def _camera(text: str) -> int | None:
    """Returns the number of the camera that an argument names; a file of that name comes first."""
    match = re.fullmatch(r"(?:camera:)?(\d+)", text)
    return int(match[1]) if match and not Path(text).exists() else None


def _files_of(text: str, out: Path | None) -> list[InputFile]:
    path = Path(text)
    if path.is_dir():
        return _files_in(path, path, out)
    if path.exists():
        return [InputFile(path, Path(path.name))]
    if glob.has_magic(text):
        root = _fixed_part(path)
        found = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        files = [file for p in found if p.is_dir() for file in _files_in(p, root, out)]
        files += [InputFile(p, p.relative_to(root)) for p in found if p.is_file() and _is_media(p)]
        if files:
            return files
        raise ConfigError(f"INPUT: expected images or videos, found none that match {text}")
    raise ConfigError(
        f"INPUT: expected an image, a video, a folder, a glob, camera:N or an address, found none "
        f"at {text}"
    )


def _fixed_part(pattern: Path) -> Path:
    """Returns the folders of a pattern before the first wildcard."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES)


def _files_in(folder: Path, root: Path, out: Path | None) -> list[InputFile]:
    """Returns images and videos in a folder; counts hidden files and earlier results instead."""
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_media(path)]
    hidden = [path for path in inside if _is_hidden(path.relative_to(folder))]
    written = [] if out is None else [(out / name).resolve() for name in (PICTURES, VIDEOS, MASKS)]
    results = [path for path in inside if not set(written).isdisjoint(path.resolve().parents)]
    for reason, left_out in (("hidden files", hidden), ("files of earlier results", results)):
        if left_out:
            log(f"{folder}: {len(left_out)} {reason} left out, the first {left_out[0]}")
    excluded = {*hidden, *results}
    return [InputFile(path, path.relative_to(root)) for path in inside if path not in excluded]


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _file_sources(files: Sequence[InputFile]) -> Iterator[Source]:
    """Sources of files, each of them once, in order; images that follow each other are one."""
    once = list({os.path.abspath(file.path): file for file in files}.values())
    file_names = distinct_paths(once)
    names = distinct([Path(file_name).with_suffix("").as_posix() for file_name in file_names])
    numbers: set[int] = set()
    pairs = zip(once, file_names, names, strict=True)
    for is_video, group in groupby(pairs, lambda pair: _is_video(pair[0].path)):
        if is_video:
            yield from (VideoSource(str(f.path), file_name, name) for f, file_name, name in group)
        else:
            yield ImageFiles(
                [
                    (file.path, ImageInfo(name, file_name, (0, 0), number=_number(name, numbers)))
                    for file, file_name, name in group
                ]
            )


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def distinct_paths(files: Sequence[InputFile]) -> list[str]:
    """Returns a unique path for each file: relative to its input, where that is enough.

    Files whose relative paths are equal get as many of their folders as tell them apart.
    """
    whole = [Path(os.path.abspath(file.path)).parts for file in files]
    lengths = [len(file.relative.parts) for file in files]
    while True:
        tails = [parts[-length:] for parts, length in zip(whole, lengths, strict=True)]
        counts: dict[tuple[str, ...], int] = {}
        for tail in tails:
            counts[tail] = counts.get(tail, 0) + 1
        if len(counts) == len(tails):
            return [Path(*tail).as_posix() for tail in tails]
        lengths = [length + (counts[tail] > 1) for length, tail in zip(lengths, tails, strict=True)]


def _number(name: str, taken: set[int]) -> int | None:
    """Returns the number that a name is, if no earlier image has it."""
    if not name.isdecimal() or int(name) in taken:
        return None
    taken.add(int(name))
    return int(name)


def _live_sources(inputs: Sequence[str]) -> Iterator[Source]:
    for text in inputs:
        camera = _camera(text)
        if camera is not None:
            yield VideoSource(camera, f"camera:{camera}", f"camera_{camera}")
        else:
            address = urlsplit(text)  # what names it in results has no password
            place = f"{address.hostname or ''}{address.path}"
            name = re.sub(r"\W+", "_", place).strip("_")
            yield VideoSource(text, f"{address.scheme}://{place}", name or "stream")

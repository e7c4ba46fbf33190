"""Packed annotation files: what a large COCO file says, ready to be used in the next run.

A packed file holds flat arrays (safetensors) and the hash of the annotation file that they were
read from. It is used only if that hash is the one of the annotation file as it is now, so it cannot
be out of date. It lies beside the annotation file, or, where that folder cannot be written to, in
the user's folder of caches. It may be deleted at any time.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mbv2det.atomic_write import atomic_write
from mbv2det.console import log
from mbv2det.data.coco_content import CocoContent, parse_content
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.objects import Objects
from mbv2det.data.outlines import Outlines
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

# Smaller files are read in less than half a second.
PACKED_FROM = 20_000_000  # bytes

_VERSION = "1"  # of the packed files; another one is not read
_PART = 1 << 24  # bytes that a thread hashes at a time
_OUTLINES = "outlines."
_OBJECTS = ("starts", "boxes", "labels", "areas", "crowd")


def load_content(path: Path, *, outlines: bool) -> CocoContent:
    """Reads an annotation file, or what an earlier run packed of it.

    Args:
        path: Annotation file.
        outlines: Whether to read the outlines of the objects.

    Raises:
        DataError: If the file is missing or no COCO annotation.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a COCO annotation file, found none")
    try:
        if path.stat().st_size < PACKED_FROM:
            return parse_content(path, path.read_bytes(), outlines=outlines)
        digest = _digest(path)
        packed = _read_first(path, digest, outlines)
        if packed is None:
            packed = parse_content(path, path.read_bytes(), outlines=outlines)
            _write(path, digest, packed)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return packed


def _digest(path: Path) -> str:
    """Returns a SHA-256 of the SHA-256 of each part of a file, which threads compute."""
    starts = range(0, path.stat().st_size, _PART)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(partial(_part_digest, path), starts))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _part_digest(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(_PART)).digest()


def _places(path: Path, digest: str, outlines: bool) -> Iterator[Path]:
    """Yields where the packed file may be: beside the annotation, then in the user's caches."""
    suffix = "outlines" if outlines else "boxes"
    yield path.with_name(f"{path.name}.{suffix}.packed")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield caches / "mbv2det" / f"{digest}.{suffix}.packed"


def _read_first(path: Path, digest: str, outlines: bool) -> CocoContent | None:
    """Reads the first packed file of this hash; one with outlines also serves without them."""
    for with_outlines in sorted({outlines, True}):
        for place in _places(path, digest, with_outlines):
            if place.is_file():
                content = _read(place, digest, outlines)
                if content is not None:
                    return content
    return None


def _read(place: Path, digest: str, outlines: bool) -> CocoContent | None:
    """Reads a packed file; returns None if it is damaged, or of another file or version."""
    try:
        with safe_open(place, "np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("version"), metadata.get("digest")) != (_VERSION, digest):
                return None
            names = [n for n in file.keys() if outlines or not n.startswith(_OUTLINES)]  # noqa: SIM118
            return _unpacked({name: file.get_tensor(name) for name in names}, outlines)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        log(f"{place}: damaged; the annotation is read again")
        return None


def _write(path: Path, digest: str, content: CocoContent) -> None:
    """Writes a packed file where that is possible; without one, the next start takes longer."""
    arrays = _packed(content)
    metadata = {"version": _VERSION, "digest": digest}
    for place in _places(path, digest, content.outlines is not None):
        try:
            with atomic_write(place) as part:
                save_file(arrays, part, metadata)
        except (OSError, SafetensorError):
            continue
        log(f"{path}: packed in {place} for the next start")
        return
    log(f"{path}: no place for a packed copy; the next start reads it again")


def _packed(content: CocoContent) -> dict[str, np.ndarray]:
    objects, outlines = content.objects, content.outlines
    texts = {
        "image_ids": content.image_ids,
        "file_names": content.file_names,
        "classes": [objects.label_map.names, objects.label_map.ids],
        "faults": content.faults.files,
    }
    arrays = {name: _text_array(value) for name, value in texts.items()}
    arrays |= {"sizes": content.sizes} | {name: getattr(objects, name) for name in _OBJECTS}
    if outlines is not None:
        arrays |= {_OUTLINES + f.name: getattr(outlines, f.name) for f in fields(Outlines)}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _unpacked(arrays: Mapping[str, np.ndarray], outlines: bool) -> CocoContent:
    names, ids = _text(arrays["classes"])
    faults = FaultCounts()
    faults.files.update(_text(arrays["faults"]))
    num_images, num_objects = len(arrays["sizes"]), len(arrays["boxes"])
    return CocoContent(
        _text(arrays["image_ids"]),
        _text(arrays["file_names"]),
        arrays["sizes"],
        Objects(
            LabelMap(tuple(names), tuple(ids)),
            annotated=np.ones(num_images, bool),
            difficult=np.zeros(num_objects, bool),
            **{name: arrays[name] for name in _OBJECTS},
        ),
        Outlines(**{f.name: arrays[_OUTLINES + f.name] for f in fields(Outlines)})
        if outlines
        else None,
        faults,
    )


def _text_array(value: Any) -> np.ndarray:
    """Returns a value as the bytes of its JSON."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _text(array: np.ndarray) -> Any:
    return json.loads(array.tobytes())

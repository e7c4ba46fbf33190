"""Files by their address: downloaded once into torch's cache, resumed, checked.

A part of a file lies beside it as `.part`; the next try goes on from there by HTTP ranges, unless
the file on the server has changed, and the complete file takes its name at once. None of the
installed libraries does that for any address: torch.hub starts again, and huggingface_hub keeps
whole pieces of 10 MB alone.
"""

import hashlib
import re
from email.message import Message
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from math import ceil
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock

from mbv2det.console import log, track
from mbv2det.errors import ConfigError

_TIMEOUT_S = 30
_CHUNK = 2**16  # bytes
_CHECKSUM = re.compile(r"sha256=([0-9a-f]{64})")


def is_address(source: str) -> bool:
    """Returns whether a source of weights is an address of the web."""
    return source.startswith(("https://", "http://"))


def download(address: str) -> Path:
    """Returns the file at an address, from the cache or downloaded into it.

    The cache is torch's, `$TORCH_HOME/hub` or `~/.cache/torch/hub`, where torchvision's weights lie
    too. Processes that want the same file wait for the first of them.

    Args:
        address: Address of a file; `#sha256=` and 64 hexadecimal digits at its end are compared
            with the file's, also if it lies in the cache.

    Raises:
        ConfigError: If the file cannot be downloaded or written, or has another checksum.
    """
    url, _, fragment = address.partition("#")
    sha256 = _checksum(fragment, address)
    path = _cached(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not (path.is_file() and sha256 in ("", _sha256_of(path))):
                _download(url, path, sha256)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror or error}); TORCH_HOME sets another folder"
        ) from None
    return path


def _checksum(fragment: str, address: str) -> str:
    match = _CHECKSUM.fullmatch(fragment.lower())
    if fragment and match is None:
        raise ConfigError(
            f"{address}: expected #sha256= and 64 hexadecimal digits after the address, got "
            f"#{fragment}"
        )
    return match[1] if match else ""


def _cached(url: str) -> Path:
    """Returns the place of a file in the cache: files of one name lie in folders of their own."""
    name = Path(unquote(urlsplit(url).path)).name
    if not name:
        raise ConfigError(f"{url}: expected the address of a file, got that of a folder")
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / "mbv2det" / folder / name


def _download(url: str, path: Path, sha256: str) -> None:
    """Downloads a file, or the rest of it, and checks it.

    Raises:
        ConfigError: If it cannot be downloaded, or has another checksum.
    """
    part = path.with_name(f"{path.name}.part")
    log(f"downloading {url}")
    try:
        _complete(part, url)
    except (OSError, HTTPException) as error:
        raise ConfigError(
            f"{url}: cannot be downloaded ({error}); download it elsewhere and give the file: "
            f"--weights={path.name}, or import_weights FORMAT {path.name}"
        ) from None
    part.with_suffix(".mark").unlink(missing_ok=True)
    got = _sha256_of(part)
    if sha256 not in ("", got):
        part.unlink()
        raise ConfigError(f"{url}: expected a file of sha256 {sha256}, got {got}; it is deleted")
    part.replace(path)


def _complete(part: Path, url: str) -> None:
    """Downloads what a part lacks; tries again as long as each try brings more of the file.

    Raises:
        OSError: If the file cannot be downloaded.
        HTTPException: If the server breaks the protocol.
    """
    while True:
        before = _size(part)
        try:
            return _append_rest(part, url)
        except HTTPError as error:
            error.close()
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not before:
                raise
            part.unlink()  # as long as the file, but not checked yet: it is downloaded again
        except (OSError, HTTPException):
            if _size(part) <= before:
                raise


def _append_rest(part: Path, url: str) -> None:
    """Appends what a part lacks, or replaces it where the file has changed or has no ranges."""
    request, mark = Request(url), part.with_suffix(".mark")
    if part.is_file() and mark.is_file():
        request.add_header("Range", f"bytes={_size(part)}-")
        request.add_header("If-Range", mark.read_text())
    with urlopen(request, timeout=_TIMEOUT_S) as answer:
        continues = answer.status == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if continues else "wb") as file:
            if not continues:
                mark.unlink(missing_ok=True)
                if new_mark := _mark(answer.headers):
                    mark.write_text(new_mark)
            _copy(answer, file, part.stem)


def _copy(answer: HTTPResponse, file: BinaryIO, name: str) -> None:
    """Appends an answer to a file, with a progress bar.

    Raises:
        OSError: If the answer ends before its announced length.
    """
    length, start = answer.length, file.tell()  # no length if the server announces none
    chunks = iter(partial(answer.read, _CHUNK), b"")
    for chunk in track(chunks, name, None if length is None else ceil(length / _CHUNK)):
        file.write(chunk)
    if length is not None and file.tell() != start + length:
        raise OSError(f"the connection ended after {file.tell()} of {start + length} bytes")


def _mark(headers: Message) -> str:
    """Returns what tells whether a file on the server is still the same; empty if nothing does.

    Source: RFC 9110, section 13.1.5: a strong ETag, or a date.
    """
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Repositories of the Hugging Face Hub: their files of weights and settings, in the Hub's cache."""

import re
from pathlib import Path

from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mbv2det.console import errors_alone, log
from mbv2det.errors import ConfigError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the preferred one first
_SETTINGS = ("config.json", "preprocessor_config.json")
_REPOSITORY = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
# Endings of files: such a source is a file that is missing, not a repository.
_FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".npz", ".pb", ".index", ".gz", ".tgz")

_FOUND = {
    GatedRepoError: "a repository whose terms must be accepted first",
    RevisionNotFoundError: "a repository without this revision",
    RepositoryNotFoundError: "no such repository; a private one needs a token in HF_TOKEN",
}


def is_repository(source: str) -> bool:
    """Returns whether a source of weights reads `OWNER/NAME` or `OWNER/NAME@REVISION`."""
    return _REPOSITORY.fullmatch(source) is not None and not source.endswith(_FILES)


def fetch_repository(source: str) -> Path:
    """Returns the folder of a repository's weights and settings, from the Hub's cache or the Hub.

    Files that lie in the cache are used if the Hub cannot be reached. The token of `hf auth login`
    or `HF_TOKEN` opens private repositories.

    Args:
        source: `OWNER/NAME`, or with a branch, a tag or a commit `OWNER/NAME@REVISION`.

    Raises:
        ConfigError: If there is no such repository or revision, if it has no weights, or if it
            cannot be downloaded.
    """
    match = _REPOSITORY.fullmatch(source)
    assert match is not None
    repository, revision = match["id"], match["revision"]
    log(f"weights: {source} of the Hub, {constants.ENDPOINT}")
    try:
        # It would log each of its tries; the error of the last one is raised anyway.
        with errors_alone("huggingface_hub"):
            folder = _fetch_files(repository, revision)
    except (GatedRepoError, RevisionNotFoundError, RepositoryNotFoundError) as error:
        raise ConfigError(
            f"{source}: expected a file, a folder or a repository of the Hub, found no such file "
            f"and {_FOUND[type(error)]}"
        ) from None
    except Exception as error:  # those of httpx or httpx2, as the version of huggingface_hub has it
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigError(
            f"{source}: found no such file, and the repository of the Hub cannot be downloaded "
            f"({reason}); download {', '.join((*_SETTINGS, _WEIGHTS[0]))} of "
            f"{constants.ENDPOINT}/{repository} elsewhere and give their folder: "
            "--weights=FOLDER, or import_weights hf FOLDER"
        ) from None
    if folder is None:
        raise ConfigError(
            f"{source}: expected {' or '.join(_WEIGHTS)} in the repository of the Hub, found "
            "neither"
        )
    return folder


def _fetch_files(repository: str, revision: str | None) -> Path | None:
    """Returns the folder of a repository's weights and settings; None if it has no weights."""
    # The weights come last: once they are in the cache, so are the settings.
    for name in _SETTINGS:
        _fetch(repository, revision, name)
    files = (_fetch(repository, revision, name) for name in _WEIGHTS)
    return next((file.parent for file in files if file is not None), None)


def _fetch(repository: str, revision: str | None, name: str) -> Path | None:
    """Returns a file of a repository; None if the repository has no such file."""
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError:  # no connection, and the file is not in the cache
        if try_to_load_from_cache(repository, name, revision=revision) is not _CACHED_NO_EXIST:
            raise
        return None
    except EntryNotFoundError:
        return None

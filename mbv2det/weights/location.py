"""Where weights are: a path of this machine, an address, a release of TensorFlow's, or the Hub."""

from pathlib import Path

from mbv2det.weights.download import download, is_address
from mbv2det.weights.hub import fetch_repository, is_repository
from mbv2det.weights.releases import release_address


def local_path(source: str | Path) -> Path:
    """Returns the file or folder of a source of weights, which is downloaded if it is elsewhere.

    A path whose folder exists is one of this machine, whether there is such a file or not.

    Args:
        source: A path; an address (`https://...`, with `#sha256=...` to check the file); the name
            of a TensorFlow release; or a repository of the Hugging Face Hub, `OWNER/NAME` or
            `OWNER/NAME@REVISION`.

    Raises:
        ConfigError: If it cannot be downloaded.
    """
    if isinstance(source, str) and is_address(source):
        return download(source)
    path = Path(source)
    if isinstance(source, Path) or path.exists():
        return path
    address = release_address(source)
    if address is not None:
        return download(address)
    if is_repository(source) and not path.parent.is_dir():
        return fetch_repository(source)
    return path

"""What a result was measured with: machine, versions and the file of the weights."""

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("mbv2det", "torch", "torchvision", "numpy", "faster-coco-eval")


def describe_environment() -> dict[str, str]:
    """Returns names and values of machine and versions, in the order in which they are shown."""
    graphics = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "graphics card": graphics,
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def processor() -> str:
    """Returns the name of the processor, or of its instruction set where that is all there is."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

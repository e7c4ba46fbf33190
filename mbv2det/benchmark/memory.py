"""Peak memory of a network, measured in a process of its own."""

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from mbv2det.benchmark.subject import Images, Setup

_CALLS = 3  # the first ones allocate what later ones reuse
_STATUS = Path("/proc/self/status")


def peak_memory(setup: Setup, images: Images) -> int:
    """Returns the largest resident memory of a process that loads a network and predicts a batch.

    PyTorch and the other libraries are part of it.

    Args:
        setup: Network, and how it is run.
        images: Batch of images.

    Returns:
        Bytes.
    """
    # A new interpreter: a copy of this process would start with its memory.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measure, setup, images).result()


def _measure(setup: Setup, images: Images) -> int:
    torch.set_num_threads(setup.threads)
    subject = setup.load()
    for _ in range(_CALLS):
        subject.run(images)
    return _peak_of_this_process()


def _peak_of_this_process() -> int:
    """Returns bytes; Linux's rusage also counts the process that started this one."""
    if _STATUS.is_file():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

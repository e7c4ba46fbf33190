"""Large tensors on huge pages, which a training on a CPU runs faster with."""

import os

_VARIABLE = "THP_MEM_ALLOC_ENABLE"  # of PyTorch's allocator on Linux


def use_huge_pages() -> None:
    """Makes PyTorch ask the system for huge pages, for the rest of the process.

    PyTorch looks once, at its first tensor: this has to be called before the imports of a command.
    A value that the user has set stays.
    """
    os.environ.setdefault(_VARIABLE, "1")


def uses_huge_pages() -> bool:
    """Returns whether PyTorch was told to use huge pages."""
    return os.environ.get(_VARIABLE) == "1"

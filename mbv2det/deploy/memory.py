"""Keeps freed memory in the process, where the C library can be told to.

glibc gives large blocks back to the system when they are freed, and a network asks for the same
blocks again at its next call: the kernel then clears every page anew. With higher thresholds the
blocks stay in the process.
"""

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_MMAP_THRESHOLD = 1024**3  # more than any tensor of a batch
_TRIM_THRESHOLD = 2**31 - 1  # the largest int: freed memory at the heap's end is kept
_TOP_PAD = 64 * 1024 * 1024  # by which the heap grows at a time


def keep_freed_memory() -> bool:
    """Makes the C library keep freed memory for the next request, for the rest of the process.

    It is meant for the start of a command: it changes the allocator of the whole process, which is
    not the right of a library. Without glibc nothing happens.

    Returns:
        Whether the C library took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD),
        (_M_TOP_PAD, _TOP_PAD),
    )
    return sum(mallopt(parameter, value) for parameter, value in settings) == len(settings)

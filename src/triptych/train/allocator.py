"""Keep freed memory in the process, so that every step does not ask the system for the same pages again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's options, see mallopt(3)
_LARGEST = 1 << 30  # bytes; larger blocks still go back to the system when they are freed


def keep_memory() -> bool:
    """From now on the allocator reuses freed blocks of up to a gigabyte.  Returns whether it is one that can (glibc's).

    PyTorch gives the tensors of a step back when it ends.  As it is set by default, glibc hands blocks above 32 MB on
    to the system, which clears each page when the next step touches it; spectra of sounds are that large.  This holds
    for the whole process, which then stays about as large as its largest step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))

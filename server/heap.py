"""The C heap of a process with many threads: freed memory goes back to the system at once."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
THRESHOLD_BYTES: Final = 128 << 10  # glibc's own, which it raises to 32 MiB as blocks are freed


def return_freed_memory() -> bool:
    """Give every block of 128 KiB or more a mapping of its own, unmapped when it is freed.

    The peak falls to little more than what is alive (benchmarks/memory.py, cases "tight"), for a
    third more time per step on a CPU: for models that would not fit otherwise. Call it before
    torch allocates. False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, THRESHOLD_BYTES) == 1)

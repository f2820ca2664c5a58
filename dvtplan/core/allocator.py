"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt``."""
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Make this process keep memory that it has freed, for its next allocations.

    By default glibc returns every large block to the system when it is freed. The maps of a network are such blocks.
    They are allocated again in every pass, and the system then clears each page again: a third of a training step at
    960x320 on two cores. Does nothing where the C library has no ``mallopt``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, LARGEST)

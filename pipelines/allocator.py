"""Memory that training on a CPU frees and takes again in every step stays with the process."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Names and numbers of glibc's ``mallopt``."""
KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to give no block back to the kernel: each one would come back as page faults, a fifth of a step.

    Returns whether the allocator understood; other C libraries go on as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, 2**28)))

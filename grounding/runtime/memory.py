"""The memory that the C library keeps after it was freed."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> bool:
    """Gives unused memory back to the system, for example after work that needed much of it once.

    Returns:
        Whether the C library can; only glibc has ``malloc_trim``.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    return trim is not None


@cache
def _malloc_trim() -> Callable[[int], object] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

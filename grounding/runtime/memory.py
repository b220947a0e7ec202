"""Gives memory that is no longer used back to the system.

The C library keeps freed memory for later. The activations and maps of a photo are blocks of many sizes, which fragment
it: without this, a process that grounds photos has 260 MB more after some of them, and a server about 600 MB.
"""

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

SECONDS = 0.5  # between two calls; one takes about 15 ms, and the next photo takes the memory from the system again


class MemoryTrimmer:
    """Gives unused memory back, at most once in ``SECONDS``. It does nothing if the C library has no ``malloc_trim``.

    Args:
        clock: returns the time in seconds; it never goes backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        """Gives unused memory back, unless another thread does, or has just done so.

        Returns:
            Whether it did.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._clock() - self._last < SECONDS:
                return False
            done = give_back()
            self._last = self._clock()
            return done
        finally:
            self._lock.release()


trim = MemoryTrimmer()  # of this process: a grounder and the server's threads share it


def give_back() -> bool:
    """Gives unused memory back to the system, for example after work that needed much of it once.

    Returns:
        Whether the C library can; only glibc has ``malloc_trim``.
    """
    release = _malloc_trim()
    if release is not None:
        release(0)
    return release is not None


@cache
def _malloc_trim() -> Callable[[int], object] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

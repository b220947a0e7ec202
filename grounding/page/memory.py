"""Gives memory that is no longer used back to the system.

The C library keeps freed memory for later. The activations and maps of a photo are blocks of many sizes, which fragment
it: without this, a server that grounds photos has about 600 MB more after some of them.
"""

import threading
import time
from collections.abc import Callable

from grounding.runtime.memory import give_back

SECONDS = 1.0  # between two calls; one takes about 15 ms


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
        if self._clock() - self._last < SECONDS or not self._lock.acquire(blocking=False):
            return False
        try:
            done = give_back()
            self._last = self._clock()
        finally:
            self._lock.release()
        return done

"""Work that takes its time, on a few threads, with a queue that has an end."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Busy(Exception):  # noqa: N818, for it is no error
    """All threads work and all places in the queue are taken."""


class Desk:
    """Threads that work on requests, in the order of their arrival.

    Each has one thread of PyTorch's: several requests share the cores without waiting for one another.

    Args:
        workers: how many threads; queue: how many requests may wait.
    """

    def __init__(self, workers: int, queue: int):
        self._pool = ThreadPoolExecutor(workers, "desk", partial(torch.set_num_threads, 1))
        self._free = workers + queue

    async def do(self, work: Callable[[], Result]) -> Result:
        """What ``work()`` returns or raises. Whoever is cancelled while he waits leaves the queue.

        Raises:
            Busy: there is no place; call again later.
        """
        if self._free <= 0:
            raise Busy
        self._free -= 1
        future = self._pool.submit(work)
        future.add_done_callback(partial(self._release, asyncio.get_running_loop()))
        return await asyncio.wrap_future(future)

    def _release(self, loop: asyncio.AbstractEventLoop, _: Future) -> None:
        with suppress(RuntimeError):  # the loop has ended before the work
            loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._free += 1

    def close(self) -> None:
        """Drops what waits; what is worked on ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

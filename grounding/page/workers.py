"""Runs slow work for the server on a few threads, with a queue of limited length."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch

from grounding.runtime import memory

Result = TypeVar("Result")


class QueueFull(Exception):  # noqa: N818, because it is an expected state and not an error
    """All threads are busy and the queue is full."""


class WorkerPool:
    """Threads that process requests in the order of their arrival.

    PyTorch uses one core in each thread, so that requests do not wait for each other's cores.

    Args:
        workers: number of threads.
        queue: number of requests that may wait.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(workers, "worker", partial(torch.set_num_threads, 1))
        self._workers, self._free = workers, workers + queue

    def warm_up(self, work: Callable[[], object]) -> None:
        """Runs a function on each of the threads, and waits for all of them.

        Args:
            work: the function, without arguments.
        """
        for future in [self._pool.submit(work) for _ in range(self._workers)]:
            future.result()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Runs a function on one of the threads.

        If the caller is cancelled while the function waits in the queue, the function is not run.

        Args:
            work: the function, without arguments.

        Returns:
            Its result. An exception of the function is raised again.

        Raises:
            QueueFull: the queue is full; call again later.
        """
        if self._free <= 0:
            raise QueueFull
        self._free -= 1
        future = self._pool.submit(work)
        # in this order: the place is free before the caller has its result, and memory is given back after that
        future.add_done_callback(partial(self._on_done, asyncio.get_running_loop()))
        result = asyncio.wrap_future(future)
        future.add_done_callback(lambda _: memory.trim())
        return await result

    def close(self) -> None:
        """Drops the work in the queue. Work that has started is finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _on_done(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop may already be closed
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._free += 1

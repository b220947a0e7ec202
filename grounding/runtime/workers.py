"""Workers: processes that share work among a machine's cores, each with one thread."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from proposals.errors import InputError

THREADS = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"}
Item, Result = TypeVar("Item"), TypeVar("Result")


@contextmanager
def worker_pool(
    count: int, begin: Callable[..., object] | None = None, *given: Any
) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that end with this one, even if it is killed.

    Args:
        count: how many; 0 gives None, for ``in_order`` to work in this process.
        begin: each process calls it once with ``given``, before any work.
    """
    if not count:
        if begin is not None:
            begin(*given)
        yield None
        return
    # spawned: a child that is forked from a process with threads may hang
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (begin, given))
    before = {name: os.environ.get(name) for name in THREADS}
    # what the workers inherit: libraries count cores when they are imported
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


def in_order(
    pool: ProcessPoolExecutor | None, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Each item and what ``work`` made of it, in order, with at most ``ahead`` on their way.

    Raises:
        InputError: a worker was killed.
    """
    if pool is None:
        yield from ((item, work(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= ahead:
                first, made = waiting.popleft()
                yield first, made.result()
        while waiting:
            first, made = waiting.popleft()
            yield first, made.result()
    except BrokenProcessPool as error:
        raise InputError("a worker was killed, most likely for want of memory: set step.workers= to fewer") from error


def _begin(begin: Callable[..., object] | None, given: tuple) -> None:
    """A worker's start. It ends with the process that started it, even if that is killed."""
    if begin is not None:
        begin(*given)
    threading.Thread(target=_end_with, args=(parent_process().sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)

"""Worker processes: they share work among the cores of a machine, with one thread each."""

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
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def worker_pool(
    count: int, begin: Callable[..., object] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor | None]:
    """Starts worker processes, which end with this process even if it is killed.

    Args:
        count: how many; with 0 the work is done in this process.
        begin: each worker calls it once with the arguments, before any work.
        *arguments: of ``begin``.

    Yields:
        The pool for :func:`in_order`; None with ``count=0``.
    """
    if not count:
        if begin is not None:
            begin(*arguments)
        yield None
        return
    # "spawn", because a process that is forked from a process with threads may hang
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (begin, arguments))
    before = {name: os.environ.get(name) for name in THREADS}
    # Workers inherit these variables. Libraries read them when they are imported.
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
    """Applies a function to items in the workers, and yields the results in the order of the items.

    Args:
        pool: the pool that :func:`worker_pool` yields.
        work: the function.
        items: its arguments.
        ahead: the largest number of items that are submitted before their results are taken.

    Yields:
        (item, result).

    Raises:
        InputError: a worker was killed.
    """
    if pool is None:
        yield from ((item, work(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise InputError("a worker was killed, probably because memory ran out: lower step.workers") from error


def _begin(begin: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """Runs at the start of a worker, and makes it end with its parent process even if that is killed."""
    if begin is not None:
        begin(*arguments)
    parent = parent_process()
    assert parent is not None  # a worker has one
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)

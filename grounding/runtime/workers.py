"""Worker processes: they share work among the cores of a machine, with one thread each."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import deepcopy
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

from grounding.runtime import prepared
from grounding.runtime.forking import ready_context
from proposals.errors import InputError

THREADS = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"}
CGROUP_MEMORY = (  # of a container: folder, limit, usage, kept files; in versions 2 and 1 of the control groups
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# Memory for photos of 640 x 480 pixels: of the process from which workers are forked, and what each worker adds. It is
# 0.94 and 0.98 GB at most on Linux, with efficientnet (googlenet: 0.81 and 0.62); elsewhere free memory is not known.
READY_BYTES, WORKER_BYTES = 1_000_000_000, 1_100_000_000
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def worker_pool(
    count: int,
    begin: Callable[..., object] | None = None,
    *arguments: Any,
    rehearse: Callable[[], object] | None = None,
) -> Iterator[ProcessPoolExecutor | None]:
    """Starts worker processes, which end with this process even if it is killed.

    Args:
        count: how many; with 0 the work is done in this process.
        begin: called once with the arguments before any work, by each worker or by the process they are forked from.
        *arguments: of ``begin``.
        rehearse: called after ``begin`` by the process they are forked from, if there is one. What it loads and
            computes is there for all workers.

    Yields:
        The pool for :func:`in_order`; None with ``count=0``.
    """
    if not count:
        if begin is not None:
            begin(*arguments)
        yield None
        return
    if "torch" in sys.modules:  # one descriptor for each tensor, the default, fails if two tensors share their memory
        sys.modules["torch"].multiprocessing.set_sharing_strategy("file_system")

    def message(*more: Any) -> bytes:
        return bytes(ForkingPickler.dumps((begin, arguments, *more)))

    with _one_thread_each(), ready_context(message(rehearse)) as context:
        here, there = context.Pipe()
        # As initargs, large arguments would make this process wait for ever if a worker is killed while it starts: it
        # would write them into a pipe of which it holds the other end, too.
        pool = ProcessPoolExecutor(count, context, _begin, (there, context.Lock()))
        threading.Thread(target=_send, args=(here, message), daemon=True).start()
        try:
            yield pool
        finally:
            _end_broken(pool)
            pool.shutdown(cancel_futures=True)
            there.close()  # ends the thread that sends


def _end_broken(pool: ProcessPoolExecutor) -> None:
    """Ends the workers of a pool that has lost one. The pool waits for them, but a lost worker may hold their lock.

    The pool ends those that it knows when it notices the loss; one that is being started at this moment is forgotten.
    """
    if pool._broken:
        for process in list((pool._processes or {}).values()):
            process.kill()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers inherit these variables. Libraries read them when they are imported."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


def use_one_thread(proposer: object) -> None:
    """Makes a worker use one thread, for the network and for the proposals. Each core has its own worker.

    Args:
        proposer: see ``proposals.Proposer``; its attribute ``threads``, if it has one, becomes 1.
    """
    import torch  # the workers that only compute proposals do not need it

    torch.set_num_threads(1)
    for part in _with_threads(proposer):
        part.threads = 1


def one_threaded(proposer: Item) -> Item:
    """A proposer with one thread for each photo, for work on several photos at the same time.

    Args:
        proposer: see ``proposals.Proposer``.

    Returns:
        A copy with one thread; the proposer itself if it has no attribute ``threads``.
    """
    if not _with_threads(proposer):
        return proposer
    copied = deepcopy(proposer)
    for part in _with_threads(copied):
        part.threads = 1
    return copied


def _with_threads(proposer: Any) -> list[Any]:
    """The parts of a proposer that have a number of threads."""
    return [part for part in (proposer, getattr(proposer, "segments", None)) if hasattr(part, "threads")]


def free_memory(root: Path = Path("/")) -> int | None:
    """The memory that new processes can take without swapping.

    Args:
        root: the root of the file system.

    Returns:
        Bytes: what Linux counts as available, at most the rest of the container's limit; None on other systems. The
        contents of files that the system keeps in memory count as free, because it drops them for new processes.
    """
    available = _number(root / "proc/meminfo", "MemAvailable:")
    found = [] if available is None else [available * 1024]
    for folder, limit, usage, kept in CGROUP_MEMORY:
        with suppress(OSError, ValueError):  # no such file, or the limit is "max"
            left = int((root / folder / limit).read_text()) - int((root / folder / usage).read_text())
            found.append(left + (_number(root / folder / "memory.stat", kept) or 0))
    return max(min(found), 0) if found else None


def fitting_workers(workers: int) -> int:
    """The number of workers that ground photos and fit into the free memory.

    Args:
        workers: the largest number.

    Returns:
        2 or more; 0 if fewer fit or are allowed, because one worker would only add a process.
    """
    memory = free_memory()
    fitting = workers if memory is None else min(workers, (memory - READY_BYTES) // WORKER_BYTES)
    return fitting if fitting > 1 else 0


def _number(path: Path, name: str) -> int | None:
    """The number after a name, in a file of Linux with a name and a number on each line."""
    with suppress(OSError, ValueError):
        return next(
            (int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name} ")), None
        )
    return None


def in_order(
    pool: Executor | None, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Applies a function to items in the workers, and yields the results in the order of the items.

    Args:
        pool: the pool that :func:`worker_pool` yields, or a pool of threads; None for this thread.
        work: the function.
        items: its arguments.
        ahead: the largest number of items that are submitted before their results are taken.

    Yields:
        (item, result).

    Raises:
        InputError: a worker ended too early, for example because it was killed.
    """
    if pool is None:
        yield from ((item, work(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, _submit(pool, work, item)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise InputError("a worker ended too early, probably because memory ran out: use fewer workers") from error


def _submit(pool: Executor, work: Callable[[Item], Result], item: Item) -> "Future[Result]":
    try:
        return pool.submit(work, item)
    except (EOFError, ConnectionError) as error:  # the process from which workers are forked has ended
        raise BrokenProcessPool(str(error)) from error


def _send(here: Connection, message: Callable[[], bytes]) -> None:
    """Sends a message to each worker that asks for one. Each is made anew: a tensor in it can be received once."""
    with here, suppress(EOFError, OSError):
        while True:
            here.recv_bytes()
            here.send_bytes(message())


def _begin(there: Connection, lock: AbstractContextManager[bool]) -> None:
    """Runs at the start of a worker, and makes it end with its parent process even if that is killed."""
    if not prepared.ready:
        with lock:
            there.send_bytes(b"")
            begin, arguments = there.recv()
        if begin is not None:
            begin(*arguments)
    parent = parent_process()
    assert parent is not None  # a worker has one
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)

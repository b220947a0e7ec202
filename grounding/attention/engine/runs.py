"""The memory and threads of a pass, and when the sparse form of a signal is faster than the dense one.

Nothing here changes what is computed. A :class:`Run` belongs to one top-down pass, and every signal of the pass refers
to it.
"""

import mmap
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Job = TypeVar("Job")
Result = TypeVar("Result")

# A multiply-add between two winners takes about as long as 16 dense ones, for any number of words up to 16. A share s
# of winners leaves a share s^2 of the connections. So the sparse form is slower where words < 16 * s^2. Measured with
# AVX-512 on GoogLeNet and VGG16, 224 to 512 pixels: 8 to 23 with one thread, 11 to 30 with two, and more only where a
# pass takes less than 20 ms.
CROSSING = 16
# The number of rows per thread below which another thread costs more time than it saves: LIGHT for one multiplication
# per row, HEAVY for the product with a layer's weights.
LIGHT, HEAVY = 4096, 64


class Arena:
    """Memory for the signals of one pass. A block is used again as soon as no signal is in it.

    Allocating new memory would take as long as the pass itself, because the system clears each page first. The blocks
    are taken from the system and given back to it: the C library would keep them, as most of what a process holds.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def empty(self, rows: int, like: Tensor) -> Tensor:
        """Uninitialised memory.

        Args:
            rows: the number of rows.
            like: ``(any, lanes)``; the result has the same number of lanes and the same dtype.

        Returns:
            ``(rows, lanes)``.
        """
        size = rows * like.shape[1] * like.itemsize
        if not size:  # a layer without winners
            return like.new_empty(0, like.shape[1])
        holders = _holders(self._blocks)
        free = [block for block, number in zip(self._blocks, holders, strict=True) if number == FREE]
        fitting = [block for block in free if block.nbytes >= size]
        block = min(fitting, key=len) if fitting else self._grow(max(free, key=len, default=None), size)
        return torch.from_numpy(block[:size]).view(like.dtype).view(rows, like.shape[1])

    def _grow(self, small: np.ndarray | None, size: int) -> np.ndarray:
        """A new block of ``size`` bytes. It replaces a free block that is too small, if there is one."""
        self._blocks = [block for block in self._blocks if block is not small]
        self._blocks.append(_from_system(size))
        return self._blocks[-1]


def _from_system(size: int) -> np.ndarray:
    """A block of the system, in large pages if it allows them: it clears one of these faster than many small ones."""
    private = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}  # not shared with forked processes
    block = mmap.mmap(-1, size, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # on Linux
        with suppress(OSError):  # a kernel without large pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, np.uint8)


def _holders(blocks: list[np.ndarray]) -> list[int]:
    """The number of references to each block; a tensor in the block is one of them."""
    return [sys.getrefcount(block) for block in blocks]


# the count of a block to which only the list refers; it is measured, because it depends on the Python version
FREE = _holders([np.empty(1)])[0]


class Arenas:
    """The arenas of passes that have ended. The next passes use them again. Threads may share it."""

    def __init__(self) -> None:
        self._idle: deque[Arena] = deque()

    @contextmanager
    def borrow(self) -> Iterator[Arena]:
        """An arena that no other pass uses."""
        try:
            arena = self._idle.pop()
        except IndexError:
            arena = Arena()
        try:
            yield arena
        finally:
            self._idle.append(arena)


@dataclass
class Run:
    """One top-down pass.

    Attributes:
        arena: its memory.
        sparse: whether dense signals become sparse where they can.
        threads: how many threads it may use; 1 while other passes run at the same time.
        densified: how often a sparse signal had to become a dense one.
    """

    arena: Arena = field(default_factory=Arena)
    sparse: bool = True
    threads: int = 1
    densified: int = 0

    def share(self, work: Callable[[int, int], None], rows: int, least: int) -> None:
        """Calls ``work(share, shares)`` for every share of the rows, in as many threads as the pass may use.

        PyTorch's own parallel operations are not used within a pass: its idle threads spin and take the processors.

        Args:
            work: does one share of the work. Its arguments are the number of the share and the number of shares.
            rows: the number of rows of the whole work.
            least: the least number of rows per thread.
        """
        shares = min(self.threads, rows // least)
        if shares < 2:
            work(0, 1)
            return
        others = [_pool(self.threads - 1).submit(work, share, shares) for share in range(1, shares)]
        work(0, shares)
        for other in others:
            other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "top-down")


# a forked child has none of its parent's threads
os.register_at_fork(after_in_child=_pool.cache_clear)


def side_by_side(work: Callable[[Job, int], Result], jobs: Sequence[Job]) -> list[Result]:
    """Returns ``[work(job, threads) for job in jobs]``; one pass per thread, in as many threads as PyTorch uses.

    This is faster than several threads for one pass, which wait for one another at every layer. Use it only for passes
    that stay sparse, because PyTorch's dense operations use threads of their own.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) < 2:
        return [work(job, threads) for job in jobs]

    @torch.no_grad()
    def alone(job: Job) -> Result:
        return work(job, 1)

    return list(_pool(threads).map(alone, jobs))

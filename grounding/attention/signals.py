"""Signals on their way down, kept where they can arrive.

Only active neurons win, and which are active depends on the image alone. On the CPU a signal therefore goes down as
rows, one a winner, one lane a word: in a GoogLeNet a photo leaves one connection in twelve between two winners, and no
other costs anything. Where that does not hold (several images at once, a GPU, an operation that nobody taught rows) a
signal is a dense tensor (N * W, channels, h, w), words fastest. Both say the same.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from grounding.attention import kernels


class Winners:
    """The neurons of a layer of one image that can win: those with an activation > 0.

    Args:
        activation: (1, C, h, w) or (1, C), on the CPU, float32 or float64.

    Attributes:
        shape: (C, h, w) or (C,); layout: pointers (h * w + 1), positions and channels (rows), all int32, h and w.
    """

    def __init__(self, activation: Tensor):
        self.shape = activation.shape[1:]
        values = by_position(activation)
        pointers = np.empty(len(values) + 1, np.int32)
        positions, channels = np.empty((2, values.numel() + 1), np.int32)
        rows = kernels.find_winners(values.numpy(), pointers, positions, channels)
        height, width = self.shape[1:] if len(self.shape) == 3 else (1, 1)
        self._routes: dict[Winners, Routes] = {}
        self.layout = (pointers, positions[:rows].copy(), channels[:rows].copy(), height, width)

    def __len__(self) -> int:
        return len(self.layout[1])

    @cached_property
    def flat(self) -> Tensor:
        """(rows,) int64: position * C + channel."""
        _, positions, channels, _, _ = self.layout
        return torch.from_numpy(positions.astype(np.int64) * self.shape[0] + channels)

    @cached_property
    def row(self) -> np.ndarray:
        """(h * w, C) int32: the row of each neuron, -1 where it cannot win."""
        _, positions, channels, height, width = self.layout
        rows = np.full((height * width, self.shape[0]), -1, np.int32)
        kernels.number(positions, channels, rows)
        return rows

    def routes_from(self, other: "Winners") -> "Routes":
        """How a signal for other winners of the same layer becomes one for these."""
        if other not in self._routes:
            _, positions, channels, _, _ = other.layout
            self._routes[other] = Routes.to(self, self.row[positions, channels])
        return self._routes[other]

    def pick(self, values: Tensor, over: Tensor | None = None) -> np.ndarray:
        """The values (1, *shape) of the winners, over those of another tensor where there is one: (rows,)."""
        picked = np.empty(len(self), by_position(values).numpy().dtype)
        tensors = [by_position(t).numpy() for t in (values, over) if t is not None]
        (kernels.pick if over is None else kernels.pick_ratio)(*self.layout[1:3], *tensors, picked)
        return picked


def by_position(values: Tensor) -> Tensor:
    """(1, C, h, w) as (h * w, C); (1, C) as it is."""
    return values if values.ndim == 2 else values[0].permute(1, 2, 0).flatten(0, 1)


class Workspace(threading.local):
    """A thread's memory for signals, used again as soon as nobody holds the signal that lay in it.

    Fresh memory costs the system as much as the pass itself: it is handed out page by page, each cleared first.

    Attributes:
        alone: whether other threads run passes beside this one, which then shares its work with none.
        rows: whether dense signals become rows where they can.
        spilled: how often a signal of rows had to become a dense one.
    """

    alone, rows, spilled = False, True, 0

    def __init__(self):
        self._blocks: list[np.ndarray] = []

    def empty(self, rows: int, like: Tensor) -> Tensor:
        """(rows, lanes) of the lanes and dtype of a tensor, with any content."""
        size = rows * like.shape[1] * like.itemsize
        holders = _holders(self._blocks)
        free = [block for block, number in zip(self._blocks, holders, strict=True) if number == FREE]
        fitting = [block for block in free if block.nbytes >= size]
        block = min(fitting, key=len) if fitting else self._grow(max(free, key=len, default=None), size)
        return torch.from_numpy(block[:size]).view(like.dtype).view(rows, like.shape[1])

    def _grow(self, small: np.ndarray | None, size: int) -> np.ndarray:
        """A new block of so many bytes, in the place of one that is free but too small."""
        self._blocks = [block for block in self._blocks if block is not small]
        self._blocks.append(np.empty(size, np.uint8))
        return self._blocks[-1]


def _holders(blocks: list[np.ndarray]) -> list[int]:
    """How many refer to each block; a tensor that lies in it is one."""
    return [sys.getrefcount(block) for block in blocks]


# what is counted for a block that only the list holds: how many the loop adds is Python's affair
FREE = _holders([np.empty(1)])[0]
workspace = Workspace()


@dataclass(frozen=True, slots=True)
class Signal:
    """What comes down to a layer: ``values`` (rows, lanes), the first ``words`` lanes in use."""

    values: Tensor
    winners: Winners
    words: int

    @classmethod
    def of(cls, g: Tensor, winners: Winners) -> "Signal":
        """A dense signal (W, *shape) as rows; what comes to other neurons is dropped."""
        lanes = next(n for n in kernels.LANES if n >= len(g))
        rows = g.flatten(1).T if g.ndim == 2 else g.permute(2, 3, 1, 0).flatten(0, 2)
        values = g.new_zeros(len(winners), lanes)
        values[:, : len(g)] = rows[winners.flat]
        return cls(values, winners, len(g))

    def dense(self) -> Tensor:
        """(W, *shape), 0 where nobody wins."""
        shape = self.winners.shape
        full = self.values.new_zeros(shape.numel(), self.values.shape[1])
        full[self.winners.flat] = self.values
        full = full[:, : self.words]
        return full.T if len(shape) == 1 else full.view(*shape[1:], shape[0], -1).permute(3, 2, 0, 1)

    def on(self, winners: Winners) -> "Signal":
        """The same signal for other winners of the same layer."""
        return self if winners is self.winners else winners.routes_from(self.winners)(self)


AnySignal = Tensor | Signal


@dataclass(frozen=True, slots=True)
class Parts:
    """What comes down to a layer that was cut into parts, by their numbers."""

    signals: dict[int, AnySignal]


Job, Result = TypeVar("Job"), TypeVar("Result")


def dense(g: AnySignal) -> Tensor:
    """A signal as (N * W, *shape)."""
    if isinstance(g, Tensor):
        return g
    workspace.spilled += 1
    return g.dense()


def each(function: Callable[[Tensor], Tensor], g: AnySignal | Parts) -> AnySignal | Parts:
    """A function of the numbers, such as a truncation, on a signal of any form."""
    if isinstance(g, Parts):
        return Parts({i: each(function, part) for i, part in g.signals.items()})
    return Signal(function(g.values), g.winners, g.words) if isinstance(g, Signal) else function(g)


def merge(a: AnySignal | Parts, b: AnySignal | Parts) -> AnySignal | Parts:
    """The sum of two signals to one layer."""
    if isinstance(a, Parts):
        return Parts(a.signals | {i: merge(a.signals[i], g) if i in a.signals else g for i, g in b.signals.items()})
    if isinstance(a, Signal) and isinstance(b, Signal) and a.winners is b.winners:
        values = workspace.empty(len(a.values), a.values)
        arrays = a.values.numpy(), b.values.numpy(), values.numpy()
        shared(lambda *share: kernels.add(*share, *arrays), len(values), LIGHT)
        return Signal(values, a.winners, a.words)
    return dense(a) + dense(b)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 where the denominator is 0 (the paper's Z = 0)."""
    return torch.where(denominator == 0, 0, numerator / denominator)


class Factor:
    """numerator / denominator, element by element of a layer: what a signal to it is multiplied by.

    Args:
        numerator, denominator: (N, *shape); the factor is 0 where the denominator is.
        winners: those outside of which the factor is 0, so that a dense signal becomes one of rows here.
    """

    def __init__(self, numerator: Tensor, denominator: Tensor | None = None, winners: Winners | None = None):
        self._numerator, self._denominator, self._winners = numerator, denominator, winners
        self._rows = {winners: self._at(winners)} if winners is not None else {}

    def _at(self, winners: Winners) -> np.ndarray:
        return winners.pick(self._numerator, self._denominator)

    @cached_property
    def _dense(self) -> Tensor:
        return self._numerator if self._denominator is None else ratio(self._numerator, self._denominator)

    def __call__(self, g: AnySignal) -> AnySignal:
        """The signal times the factor."""
        if isinstance(g, Tensor) and (self._winners is None or not workspace.rows):
            return (g.unflatten(0, (len(self._dense), -1)) * self._dense.unsqueeze(1)).flatten(0, 1)
        g = Signal.of(g, self._winners) if isinstance(g, Tensor) else g
        if g.winners not in self._rows:
            self._rows[g.winners] = self._at(g.winners)
        values = workspace.empty(len(g.values), g.values)
        arrays = self._rows[g.winners], g.values.numpy(), values.numpy()
        shared(lambda *share: kernels.scale(*share, *arrays), len(values), LIGHT)
        return Signal(values, g.winners, g.words)


def transpose(g: Signal, weight: Tensor, geometry: tuple, winners: Winners) -> Signal:
    """What a convolution's inputs get: the transpose of ``weight`` (outputs, inputs, kernel height, kernel width), in
    channels_last, times g, at the winners among the inputs.

    Args:
        geometry: stride, padding, dilation, each (vertical, horizontal).
    """
    values = workspace.empty(len(winners), g.values)
    arrays = g.values.numpy(), weight.permute(0, 2, 3, 1).numpy(), geometry, values.numpy()
    layouts = winners.layout, g.winners.layout
    shared(lambda *share: kernels.transpose(*share, *layouts, *arrays), len(winners), HEAVY)
    return Signal(values, winners, g.words)


def grouped(targets: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pointers (number + 1) and rows: those with target t are rows[pointers[t] : pointers[t + 1]], in order."""
    pointers, rows = np.zeros(number + 1, np.int32), np.empty(len(targets), np.int32)
    kernels.group(targets, pointers, rows)
    return pointers, rows


class Routes:
    """Where each row of a signal goes in the layer below; several that meet add up.

    Args:
        pointers, rows: what comes to row i below are rows[pointers[i] : pointers[i + 1]] of the signal.
        winners: of the layer below.
        factor: what the sums are multiplied by.
    """

    def __init__(self, pointers: np.ndarray, rows: np.ndarray, winners: Winners, factor: float = 1.0):
        self._pointers, self._rows, self._winners, self._factor = pointers, rows, winners, factor

    @classmethod
    def to(cls, winners: Winners, targets: np.ndarray) -> "Routes":
        """Row i goes to the row targets[i] below, nowhere where that is -1."""
        return cls(*grouped(targets, len(winners)), winners)

    @classmethod
    def out_of_windows(
        cls, winners: Winners, above: Winners, size: tuple[int, int], stride: tuple[int, int]
    ) -> "Routes":
        """An average over windows (vertical, horizontal) hands each of its inputs the same."""
        _, positions, channels, _, width = winners.layout
        most = -(-size[0] // stride[0]) * -(-size[1] // stride[1])
        pointers, rows = np.empty(len(winners) + 1, np.int32), np.empty(len(winners) * most, np.int32)
        windows = above.layout[3:]
        count = kernels.find_windows(positions, channels, width, size, stride, above.row, windows, pointers, rows)
        return cls(pointers, rows[:count], winners, 1 / (size[0] * size[1]))

    def __call__(self, g: Signal) -> Signal:
        """The signal below."""
        values = workspace.empty(len(self._winners), g.values)
        arrays = self._pointers, self._rows, self._factor, g.values.numpy(), values.numpy()
        shared(lambda *share: kernels.collect(*share, *arrays), len(values), LIGHT)
        return Signal(values, self._winners, g.words)


def integrate(g: Signal, activation: Tensor) -> Tensor:
    """p = x . g (x of shape (1, C, h, w)), summed over channels: (W, h, w)."""
    mass = g.values.new_empty(g.winners.shape[1:].numel(), g.values.shape[1])
    arrays = g.winners.layout[0], g.winners.pick(activation), g.values.numpy(), mass.numpy()
    shared(lambda *share: kernels.integrate(*share, *arrays), len(mass), HEAVY)
    return mass[:, : g.words].T.unflatten(1, g.winners.shape[1:])


# rows of work below which a second thread costs more than it helps: for one number a row, and for a layer's weights
LIGHT, HEAVY = 4096, 64


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "top-down")


# a child of a fork has none of its parent's threads
os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """[work(job) for job in jobs], whole passes side by side in as many threads as torch uses.

    A pass by itself is cut at every layer, and threads that wait for one another lose time; passes do not wait. Only
    for passes that never spill: torch's dense operations have threads of their own.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) < 2 or workspace.alone:
        return [work(job) for job in jobs]

    @torch.no_grad()
    def by_itself(job: Job) -> Result:
        workspace.alone = True
        try:
            return work(job)
        finally:
            workspace.alone = False

    return list(_pool(threads).map(by_itself, jobs))


def shared(work: Callable[[int, int], None], rows: int, least: int) -> None:
    """Calls work(share, shares) for every share of the rows, as many as torch uses threads; this thread takes one.

    torch's own parallel operations are kept out of a pass: their idle threads spin and take the processors from ours.
    """
    threads = torch.get_num_threads()
    shares = min(threads, rows // least)
    if shares < 2 or workspace.alone:
        work(0, 1)
        return
    others = [_pool(threads - 1).submit(work, share, shares) for share in range(1, shares)]
    work(0, shares)
    for other in others:
        other.result()

"""The sparse engine: a signal has values only at the neurons that can win, one row per neuron and one lane per word.

Its operations find the winners in the forward pass and do not refer to the layers' values, so these are freed then.

Its results equal those of the dense engine. Where the sparse form does not apply (several images at once, a GPU, an
operation without a sparse implementation) a signal becomes dense, and sparse again at the next gate that allows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from grounding.attention.engine import kernels
from grounding.attention.engine.dense import DenseEngine, Descend, Down, Function, ratio, scale
from grounding.attention.engine.runs import HEAVY, LIGHT, Run
from grounding.attention.engine.winners import Routes, Winners, by_position, grouped
from grounding.attention.neurons import Neurons
from grounding.attention.weights import Geometry, Weights
from proposals.errors import InputError

Value = TypeVar("Value")


class Opaque:
    """A signal that only the engine can read. PyTorch's functions raise an error for it."""

    __slots__ = ()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise InputError(f"{function.__name__} got a signal instead of a tensor: in a rule of your own, wrap functions "
                         "of tensors in rules.engine.plain(...)")  # fmt: skip


@dataclass(frozen=True, slots=True)
class DenseSignal(Opaque):
    """A signal as a tensor ``values (N * W, *shape)``, in a run."""

    values: Tensor
    run: Run


@dataclass(frozen=True, slots=True)
class SparseSignal(Opaque):
    """A signal at the winners of a layer.

    Attributes:
        values: ``(rows, lanes)``, one row per winner.
        winners: the winners of the layer.
        words: the number of lanes in use; the lanes after these are padding.
        run: the pass that it belongs to.
    """

    values: Tensor
    winners: Winners
    words: int
    run: Run

    @classmethod
    def of(cls, g: Tensor, winners: Winners, run: Run) -> "SparseSignal":
        """A dense signal ``(W, *shape)`` in sparse form. The signal to neurons that are no winners is dropped."""
        lanes = next(n for n in kernels.LANES if n >= len(g))
        rows = g.flatten(1).T if g.ndim == 2 else g.permute(2, 3, 1, 0).flatten(0, 2)
        values = g.new_zeros(len(winners), lanes)
        values[:, : len(g)] = rows[winners.flat]
        return cls(values, winners, len(g), run)

    def dense(self) -> Tensor:
        """``(W, *shape)``, 0 for neurons that are no winners."""
        shape = self.winners.shape
        full = self.values.new_zeros(shape.numel(), self.values.shape[1])
        full[self.winners.flat] = self.values
        full = full[:, : self.words]
        return full.T if len(shape) == 1 else full.view(*shape[1:], shape[0], -1).permute(3, 2, 0, 1)

    def on(self, winners: Winners) -> "SparseSignal":
        """The same signal at other winners of the same layer."""
        return self if winners is self.winners else route(self, winners.routes_from(self.winners))


Signal = DenseSignal | SparseSignal


class Once(Generic[Value]):
    """A value that is computed when it is first needed; passes of several threads share it.

    Args:
        function: computes it.
    """

    def __init__(self, function: Callable[[], Value]):
        self._function, self._lock = function, Lock()

    def __call__(self) -> Value:
        """The value."""
        with self._lock:
            return self._value

    @cached_property
    def _value(self) -> Value:
        return self._function()


class Gate:
    """Multiplication by numerator / denominator; a dense signal becomes sparse here if there are ``winners``.

    Args:
        numerator: ``(N, *shape)``.
        denominator: of the same shape, or None for 1; the factor is 0 where it is 0.
        winners: the neurons outside of which the factor is 0, or None. With them, only their factors are kept: they
            take a fraction of the memory of the two tensors.
    """

    def __init__(self, numerator: Tensor, denominator: Tensor | None, winners: Winners | None):
        self._winners = winners
        self._parts = (numerator, denominator) if winners is None else None
        self._rows = {} if winners is None else {winners: winners.pick(numerator, denominator)}

    def _dense(self) -> Tensor:
        """The factor; once it is computed, it is kept instead of numerator and denominator."""
        numerator, denominator = self._parts or (self._spread(), None)
        if denominator is not None:
            numerator = ratio(numerator, denominator)
        self._parts = numerator, None
        return numerator

    def _spread(self) -> Tensor:
        assert self._winners is not None  # otherwise there are parts
        return self._winners.spread(self._rows[self._winners])

    def __call__(self, g: Signal) -> Signal:
        """The signal times the factor."""
        if isinstance(g, DenseSignal):
            winners = self._winners if g.run.sparse else None
            if winners is None:
                return replace(g, values=scale(g.values, self._dense()))
            g = SparseSignal.of(g.values, winners, g.run)
        if g.winners not in self._rows:
            self._rows[g.winners] = g.winners.pick(*(self._parts or (self._spread(),)))
        values = g.run.arena.empty(len(g.values), g.values)
        arrays = self._rows[g.winners], g.values.numpy(), values.numpy()
        g.run.share(lambda *share: kernels.scale(*share, *arrays), len(values), LIGHT)
        return replace(g, values=values)


class SparseEngine(DenseEngine):
    """The operations of the dense engine, at winners only where that is possible: for one image, on the CPU."""

    def __init__(self) -> None:
        # weak: the values of layers that no operation refers to are freed
        self._winners: WeakKeyDictionary[Neurons, Winners | None] = WeakKeyDictionary()
        self._lock = Lock()

    def winners(self, x: Neurons) -> Winners | None:
        """The neurons of a layer that can win; None if a signal to any neuron must be kept."""
        with self._lock:
            if x not in self._winners:
                self._winners[x] = self._find_winners(x)
            return self._winners[x]

    @staticmethod
    def _find_winners(x: Neurons) -> Winners | None:
        return Winners(x.value) if _may_be_sparse(x) else None

    def _winners_of_activations(self, x: Neurons) -> Winners | None:
        """The winners of activations; None for pre-activations, which can get mass even if their value is negative."""
        return self.winners(x) if x.excitation is None else None

    def visited(self, layer: Neurons) -> tuple[int, int]:
        """The number of activations > 0, and of all, if a signal to the others may be dropped."""
        if layer.excitation is not None or not _may_be_sparse(layer):
            return 0, 0
        return int((layer.value > 0).sum()), layer.value.numel()

    def signal(self, g: Tensor, run: Any = None) -> Signal:
        return DenseSignal(g, run or Run())

    def dense(self, g: Signal) -> Tensor:
        if isinstance(g, DenseSignal):
            return g.values
        g.run.densified += 1
        return g.dense()

    def gate(self, numerator: Tensor, denominator: Tensor | None = None, at: Neurons | None = None) -> Down:
        return Gate(numerator, denominator, None if at is None else self.winners(at))

    def transpose(self, weights: Weights, inputs: Neurons) -> Down:
        whole, winners = self._densely(super().transpose(weights, inputs)), self.winners(inputs)
        kernel = weights.kernel(inputs.value)

        def down(g: Signal) -> Signal:
            if isinstance(g, SparseSignal) and kernel and winners is not None:
                return self.convolve(g, *kernel, winners)
            below: Signal = whole(g)
            return below

        return down

    def convolve(self, g: SparseSignal, weight: Tensor, geometry: Geometry, winners: Winners) -> SparseSignal:
        """The transpose of a convolution, at the winners among its inputs.

        Args:
            g: the signal to its outputs.
            weight: ``(outputs, inputs, kernel height, kernel width)``, channels_last.
            geometry: stride, padding, dilation, each (vertical, horizontal).
            winners: the winners among the inputs.
        """
        values = g.run.arena.empty(len(winners), g.values)
        arrays = g.values.numpy(), weight.permute(0, 2, 3, 1).numpy(), geometry, values.numpy()
        layouts = winners.layout, g.winners.layout
        g.run.share(lambda *share: kernels.transpose(*share, *layouts, *arrays), len(winners), HEAVY)
        return SparseSignal(values, winners, g.words, g.run)

    def max_pool(self, inputs: Neurons, pooled: Neurons, where: Tensor, geometry: Sequence[Any]) -> Down:
        whole = self._densely(super().max_pool(inputs, pooled, where, geometry))
        below, above = self._winners_of_activations(inputs), self._winners_of_activations(pooled)

        def find() -> tuple[Routes, Winners] | None:
            if below is None or above is None:
                return None
            targets = np.empty(len(above), np.int32)
            kernels.find_targets(*above.layout[1:3], by_position(where).numpy(), below.rows(), targets)
            return Routes.to(below, targets), above

        return _routed(Once(find), whole)

    def linear(self, function: Function, inputs: Neurons, outputs: Neurons, windows: Any = None) -> Down:
        whole = self._densely(super().linear(function, inputs, outputs, windows))

        below = self._winners_of_activations(inputs) if windows else None
        above = self._winners_of_activations(outputs) if below is not None else None

        def find() -> tuple[Routes, Winners] | None:
            if below is None or above is None:
                return None
            return Routes.out_of_windows(below, above, *windows), above

        return _routed(Once(find), whole)

    def split(self, whole: Neurons, parts: Sequence[Neurons]) -> Descend:
        dense, winners_of_whole = super().split(whole, parts), self._winners_of_activations(whole)
        channels = [part.value.shape[1] for part in parts]
        winners_of_parts = [winner for part in parts if (winner := self.winners(part)) is not None]

        def find() -> tuple[list[Routes] | None, Winners | None]:
            if winners_of_whole is None or len(winners_of_parts) < len(channels):
                return None, winners_of_whole
            return _routes_to_parts(winners_of_whole, winners_of_parts, channels), winners_of_whole

        found = Once(find)

        def descend(g: Signal) -> list[Signal]:
            routes, winners = found() if isinstance(g, SparseSignal) else (None, None)
            if isinstance(g, SparseSignal) and routes and winners is not None:
                return [route(g.on(winners), part) for part in routes]
            return [DenseSignal(part, g.run) for part in dense(self.dense(g)) if part is not None]

        return descend

    def plain(self, function: Callable[[Tensor], Sequence[Tensor | None]]) -> Descend:
        def descend(g: Signal) -> list[Signal | None]:
            return [None if below is None else DenseSignal(below, g.run) for below in function(self.dense(g))]

        return descend

    def _densely(self, down: Down) -> Down:
        """Makes an operation of the dense engine usable for the signals of this engine."""
        return lambda g: DenseSignal(down(self.dense(g)), g.run)

    def each(self, function: Function, g: Signal) -> Signal:
        return replace(g, values=function(g.values))

    def add(self, a: Signal, b: Signal) -> Signal:
        if not (isinstance(a, SparseSignal) and isinstance(b, SparseSignal) and a.winners is b.winners):
            return DenseSignal(self.dense(a) + self.dense(b), a.run)
        values = a.run.arena.empty(len(a.values), a.values)
        arrays = a.values.numpy(), b.values.numpy(), values.numpy()
        a.run.share(lambda *share: kernels.add(*share, *arrays), len(values), LIGHT)
        return replace(a, values=values)

    def select(self, neurons: Neurons) -> Down:
        winners = self.winners(neurons)

        def down(g: Signal) -> Signal:
            return g.on(winners) if isinstance(g, SparseSignal) and winners is not None else g

        return down

    def compress(self, neurons: Neurons) -> Down:
        winners = self.winners(neurons)

        def down(g: Signal) -> Signal:
            if isinstance(g, SparseSignal) or not g.run.sparse or winners is None:
                return g
            return SparseSignal.of(g.values, winners, g.run)

        return down

    def integrate(self, x: Tensor, g: Signal) -> Tensor:
        if isinstance(g, DenseSignal):
            return super().integrate(x, g)
        mass = g.values.new_empty(g.winners.shape[1:].numel(), g.values.shape[1])
        arrays = g.winners.layout[0], g.winners.pick(x), g.values.numpy(), mass.numpy()
        g.run.share(lambda *share: kernels.integrate(*share, *arrays), len(mass), HEAVY)
        maps: Tensor = mass[:, : g.words].T.unflatten(1, g.winners.shape[1:])[None]
        return maps

    def largest(self, g: Signal) -> Tensor:
        if isinstance(g, DenseSignal):
            return super().largest(g)
        if not len(g.values):  # a layer without winners
            return g.values.new_zeros(g.words)
        return g.values[:, : g.words].abs().amax(0)

    def divide(self, g: Signal, by: Tensor) -> Signal:
        if isinstance(g, DenseSignal):
            divided: Tensor = super().divide(g.values, by)
            return replace(g, values=divided)
        return replace(g, values=g.values / F.pad(by, (0, g.values.shape[1] - g.words), value=1))


def _may_be_sparse(x: Neurons) -> bool:
    """Whether a signal to a layer may be dropped where its value is not > 0, and the kernels support the layer."""
    value = x.value
    fits = len(value) == 1 and value.ndim in (2, 4) and value.device.type == "cpu"
    return x.rectified and fits and value.dtype in (torch.float32, torch.float64)


def _routed(find: Callable[[], tuple[Routes, Winners] | None], whole: Down) -> Down:
    """Uses routes for sparse signals where there are some, and ``whole`` otherwise."""

    def down(g: Signal) -> Signal:
        found = find() if isinstance(g, SparseSignal) else None
        if found is None or not isinstance(g, SparseSignal):
            below: Signal = whole(g)
            return below
        return route(g.on(found[1]), found[0])

    return down


def _routes_to_parts(whole: Winners, parts: Sequence[Winners], channels: Sequence[int]) -> list[Routes]:
    """How the rows of a concatenation go to its parts."""
    part_of = np.repeat(np.arange(len(parts), dtype=np.int32), channels)
    ends, rows = grouped(part_of[whole.layout[2]], len(parts))
    each = [np.arange(len(winner) + 1, dtype=np.int32) for winner in parts]
    return [Routes(each[i], rows[ends[i] : ends[i + 1]], winner) for i, winner in enumerate(parts)]


def route(g: SparseSignal, routes: Routes) -> SparseSignal:
    """The signal in the layer below."""
    values = g.run.arena.empty(len(routes.winners), g.values)
    arrays = routes.pointers, routes.rows, routes.factor, g.values.numpy(), values.numpy()
    g.run.share(lambda *share: kernels.collect(*share, *arrays), len(values), LIGHT)
    return SparseSignal(values, routes.winners, g.words, g.run)

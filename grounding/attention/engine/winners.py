"""The neurons of a layer that can win, and how signals go from one such set to another.

Only active neurons can win, and the image alone decides which neurons are active. In a GoogLeNet, one connection in
twelve is between two winners; the others need no arithmetic.
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from grounding.attention.engine import kernels
from grounding.attention.weights import Pair


class Winners:
    """The neurons of a layer of one image with an activation > 0: one row each, by position and then by channel.

    Args:
        activation: ``(1, C, h, w)`` or ``(1, C)``, on the CPU, float32 or float64.

    Attributes:
        shape: ``(C, h, w)`` or ``(C,)``.
        layout: pointers ``(h * w + 1)``, positions ``(rows)`` and channels ``(rows)``, all int32; h; w.
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
        """``(rows,)`` int64: position * C + channel."""
        _, positions, channels, _, _ = self.layout
        return torch.from_numpy(positions.astype(np.int64) * self.shape[0] + channels)

    def rows(self) -> np.ndarray:
        """``(h * w, C)`` int32: the row of each neuron, -1 for a neuron that cannot win. It is not kept."""
        _, positions, channels, height, width = self.layout
        rows = np.full((height * width, self.shape[0]), -1, np.int32)
        kernels.number(positions, channels, rows)
        return rows

    def routes_from(self, other: "Winners") -> "Routes":
        """The routes from other winners of the same layer to these."""
        if other not in self._routes:
            _, positions, channels, _, _ = other.layout
            self._routes[other] = Routes.to(self, self.rows()[positions, channels])
        return self._routes[other]

    def pick(self, values: Tensor, over: Tensor | None = None) -> np.ndarray:
        """The values of the winners.

        Args:
            values: ``(1, *shape)``.
            over: a divisor of the same shape, or None; the result is 0 where the divisor is 0.

        Returns:
            ``(rows,)``.
        """
        picked = np.empty(len(self), by_position(values).numpy().dtype)
        tensors = [by_position(t).numpy() for t in (values, over) if t is not None]
        (kernels.pick if over is None else kernels.pick_ratio)(*self.layout[1:3], *tensors, picked)
        return picked

    def spread(self, values: np.ndarray) -> Tensor:
        """Values of the winners as ``(1, *shape)``, 0 elsewhere: the inverse of :meth:`pick`.

        Args:
            values: ``(rows,)``.
        """
        full = torch.zeros(self.shape.numel(), dtype=torch.from_numpy(values).dtype)
        full[self.flat] = torch.from_numpy(values)
        return full[None] if len(self.shape) == 1 else full.view(1, *self.shape[1:], -1).permute(0, 3, 1, 2)


def by_position(values: Tensor) -> Tensor:
    """``(1, C, h, w)`` as ``(h * w, C)``; ``(1, C)`` unchanged."""
    return values if values.ndim == 2 else values[0].permute(1, 2, 0).flatten(0, 1)


def grouped(targets: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pointers ``(number + 1)`` and rows: ``rows[pointers[t] : pointers[t + 1]]`` are the rows with target t."""
    pointers, rows = np.zeros(number + 1, np.int32), np.empty(len(targets), np.int32)
    kernels.group(targets, pointers, rows)
    return pointers, rows


class Routes:
    """Which rows of a signal go to which row in the layer below. Rows that go to the same row are added.

    Args:
        pointers: row i below gets the rows ``rows[pointers[i] : pointers[i + 1]]`` of the signal.
        rows: indices of rows of the signal.
        winners: the winners of the layer below.
        factor: multiplies the sums.
    """

    def __init__(self, pointers: np.ndarray, rows: np.ndarray, winners: Winners, factor: float = 1.0):
        self.pointers, self.rows, self.winners, self.factor = pointers, rows, winners, factor

    @classmethod
    def to(cls, winners: Winners, targets: np.ndarray) -> "Routes":
        """Routes by which row i goes to the row ``targets[i]`` below, or nowhere if that is -1."""
        return cls(*grouped(targets, len(winners)), winners)

    @classmethod
    def out_of_windows(cls, winners: Winners, above: Winners, size: Pair, stride: Pair) -> "Routes":
        """Routes back through an average over windows, which gives each input of a window the same share.

        Args:
            winners: the winners among the inputs.
            above: the winners among the averages.
            size: the size of a window, (vertical, horizontal).
            stride: the stride of the windows, (vertical, horizontal).
        """
        _, positions, channels, _, width = winners.layout
        most = -(-size[0] // stride[0]) * -(-size[1] // stride[1])
        pointers, rows = np.empty(len(winners) + 1, np.int32), np.empty(len(winners) * most, np.int32)
        windows = above.layout[3:]
        count = kernels.find_windows(positions, channels, width, size, stride, above.rows(), windows, pointers, rows)
        return cls(pointers, rows[:count], winners, 1 / (size[0] * size[1]))

"""The top-down pass, in which signals go from the classifier down to the targets; and the class that runs passes."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar

import torch
import torch.fx
from torch import Tensor

from grounding.attention.engine.dense import Signal
from grounding.attention.engine.runs import CROSSING, Arenas, Run, side_by_side
from grounding.attention.forward import ForwardPass
from grounding.attention.weights import Units
from proposals.errors import InputError

Node = torch.fx.Node
Result = TypeVar("Result")


class TopDownPass:
    """One pass of several words from the classifier down to the targets.

    Args:
        forward: the forward pass of the images.
        run: memory and threads of this pass.
    """

    def __init__(self, forward: ForwardPass, run: Run):
        self.forward, self._run = forward, run
        self._rules, self._engine = forward.rules, forward.rules.engine

    def enter(self, signals: Tensor, used: Tensor, dual: bool = False, both: bool = False) -> Signal:
        """The signal of words at the classifier's inputs.

        A word starts at every position of its score map, with shares that are the softmax of the scores. The dual unit
        (Sec. 3.3) has the negated weights and the same shares.

        Args:
            signals: ``(W, T)`` over the T tags in use, the same for each image; or ``(N, W, T)``.
            used: ``(T,)``, their indices.
            dual: whether to start at the dual units.
            both: whether to start at the units, and at the dual units as W words more.
        """
        net, forward = self.forward.net, self.forward
        signs = [1, -1] if both else [-1 if dual else 1]
        weight, bias = net.weight[used], None if net.bias is None else net.bias[used]
        units = Units(torch.cat([sign * weight for sign in signs]),
                      None if bias is None else torch.cat([sign * bias for sign in signs]))  # fmt: skip
        scores = forward.scores[:, used]
        shares = torch.cat([scores.flatten(2).softmax(2).view(scores.shape)] * len(signs), 1)
        signals = torch.stack([torch.block_diag(*[own] * len(signs)) for own in self._of_each(signals)])
        asked = torch.einsum("nwt,nt...->nwt...", signals, shares).flatten(0, 1)
        if forward.features.value.ndim == 2:
            asked = asked.flatten(1)
        return self._rules.enter(units, forward.features, self._engine.signal(asked, self._run))

    def _of_each(self, signals: Tensor) -> Tensor:
        """The signals of each image, ``(N, W, T)``."""
        return signals.expand(self.forward.images, *signals.shape[-2:])

    def begin(self, g: Tensor) -> Signal:
        """A signal ``(N * W, *features)`` at the classifier's inputs, ready to go down."""
        return self._rules.begin(self.forward.features)(self._engine.signal(g, self._run))

    def subtract(self, a: Signal, b: Signal, share: float = 1.0) -> Signal:
        """a - share * b, for two signals at the classifier's inputs."""
        negated = self._engine.each(torch.neg if share == 1 else lambda g: -share * g, b)
        return self._engine.add(a, negated)

    def mass(self, g: Signal) -> list[Tensor]:
        """p = x . g at each target, summed over channels (Sec. 3.2): ``(N, W, h, w)`` each."""
        return [self._engine.integrate(self.forward.neurons[node].z, arrived) for node, arrived in self._descend(g)]

    def magnitude(self, g: Signal) -> list[Tensor]:
        """The maximum over channels of abs(g) at each target: ``(N, W, h, w)`` each."""
        arrived = [self._engine.dense(signal) for _, signal in self._descend(g)]
        return [signal.abs().amax(1).unflatten(0, (self.forward.images, -1)) for signal in arrived]

    def weigh(self, signals: Tensor, used: Tensor) -> list[Tensor]:
        """The sum over the channels of the averaged layer with the classifier's weights: one map, ``(N, W, h, w)``.

        Raises:
            InputError: the layer has another number of channels than the classifier has inputs.
        """
        x = self.forward.averaged
        assert x is not None  # the target of CAM
        weights = self._of_each(signals) @ self.forward.net.weight[used]
        if x.shape[1] != weights.shape[2]:
            inputs = f"{weights.shape[2]} inputs for {x.shape[1]} channels"
            raise InputError(f"CAM needs a classifier over averaged features; this one has {inputs}")
        return [torch.einsum("nvc,nchw->nvhw", weights, x)]

    def _descend(self, g: Signal) -> list[tuple[Node, Signal]]:
        """Sends g down from the classifier's inputs, and returns what arrives at each target."""
        targets = self.forward.targets
        waiting: dict[Node, Any] = {self.forward.net.features: g}
        arrived: dict[Node, Signal] = {}
        for node, sources, descend in reversed(self.forward.steps):
            if node not in waiting:
                continue
            g = waiting.pop(node)
            if node in targets:
                arrived[node] = g
            for source, share in zip(sources, descend(g), strict=True):
                if share is not None:
                    waiting[source] = self._engine.add(waiting[source], share) if source in waiting else share
            if self._rules.rescaled:
                waiting = self._rescaled(waiting)
        arrived |= {node: waiting[node] for node in targets if node in waiting}
        return [(node, arrived[node]) for node in targets]

    def _rescaled(self, waiting: dict[Node, Any]) -> dict[Node, Any]:
        """All signals of a word divided by one number, so that they keep their proportions."""
        largest = reduce(torch.maximum, [self._engine.largest(g) for g in waiting.values()])
        by = torch.where(largest > 0, largest, 1)
        return {node: self._engine.divide(g, by) for node, g in waiting.items()}


class Passes:
    """Runs top-down passes. Gives each pass memory and threads, and chooses the faster form of its signals.

    Args:
        crossing: a pass is sparse if it has at least crossing * density^2 words, see ``engine/runs.py``.
    """

    def __init__(self, crossing: float = CROSSING):
        self._crossing = crossing

    def __call__(
        self, work: Callable[[TopDownPass, Tensor], Result], jobs: Sequence[tuple[ForwardPass, Tensor]], lanes: int = 1
    ) -> list[Result]:
        """Returns the result of ``work`` for every job, in order.

        Passes run side by side after a first pass in which no signal had to become dense.

        Args:
            work: takes a pass and the signals of its words.
            jobs: the forward pass of the images, and the signals ``(..., W, tags)``, one row per word.
            lanes: the number of signals that a word takes.
        """
        forward, signals = jobs[0]
        arenas = Arenas()  # not kept: between two photos they would be most of what a process holds
        sparse = lanes * signals.shape[-2] >= self._crossing * forward.density**2

        def one(job: tuple[ForwardPass, Tensor], threads: int) -> Result:
            with arenas.borrow() as arena:
                run = Run(arena, sparse, threads)
                try:
                    return work(TopDownPass(job[0], run), job[1])
                finally:
                    job[0].densifies = run.densified > 0

        first, rest = [], list(jobs)
        if sparse and forward.density and forward.densifies is None:
            first = [one(rest.pop(0), torch.get_num_threads())]
        if sparse and forward.density and not forward.densifies:
            return first + side_by_side(one, rest)
        return first + [one(job, torch.get_num_threads()) for job in rest]

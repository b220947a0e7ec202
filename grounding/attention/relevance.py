"""Layer-wise relevance propagation (LRP) as rule sets."""

import torch
from torch import Tensor

from grounding.attention.engine.dense import Descend, Function, Signal
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from grounding.attention.weights import Weights


class LRPEpsilon(RuleSet):
    """The epsilon rule (Bach et al. 2015, Eq. 58): R_x = x . W^T (R / (v + epsilon sign v)), v = W x + b.

    A nonlinearity passes the relevance unchanged.

    Attributes:
        epsilon: the stabiliser.
    """

    epsilon = 1e-6

    def source(self, value: Tensor) -> Neurons:
        return Neurons(value, rectified=False)

    def shifted(self, x: Neurons, number: Tensor) -> tuple[Neurons, Descend]:
        return Neurons(x.value + number, rectified=False), lambda g: [g]

    def weighted(self, layer: Weights, x: Neurons) -> tuple[Neurons, Descend]:
        value = layer.value(x.value)
        stabilised = value + self.epsilon * torch.where(value < 0, -1.0, 1.0).to(value)
        gate, transpose = self.engine.gate(value, stabilised), self.engine.transpose(layer, x)
        return Neurons(value, rectified=False), lambda g: [transpose(gate(g))]

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        activation = Neurons(value, rectified=rectifies)
        gate = self.engine.gate(value, x.value, at=activation)
        return activation, lambda g: [gate(g)]


class LRPAlphaBeta(LRPEpsilon):
    """The alpha-beta rule (Bach et al. 2015, Eq. 60): excitation and inhibition are normalised separately.

    R_x = alpha (xw)+ / sum (xw)+ R - beta (xw)- / sum (xw)- R. The bias is one of the terms of its sum.

    Attributes:
        alpha: the share of the excitation.
        beta: the share of the inhibition; alpha - beta = 1.
    """

    alpha, beta = 2.0, 1.0

    def weighted(self, layer: Weights, x: Neurons) -> tuple[Neurons, Descend]:
        value, (excited, inhibited) = layer.value(x.value), _sums(layer, x)
        # (xw)- <= 0: the inhibition is computed with both signs turned
        plus, minus = self.engine.gate(self.alpha * value, excited), self.engine.gate(self.beta * value, inhibited)
        positive, negative = (self.engine.transpose(part, x) for part in (layer.positive, layer.negative))

        def descend(g: Signal) -> list[Signal]:
            own, other = plus(g), minus(g)
            above = self._subtract(positive(own), negative(other))
            return [above] if x.rectified else [choose(above, self._subtract(negative(own), positive(other)))]

        def choose(above: Signal, below: Signal) -> Signal:
            """The first for inputs >= 0, minus the second for inputs < 0."""
            select = self.engine.plain(lambda g: [_by_sign(x.value, g, self.engine.dense(below))])
            return select(above)[0]

        return Neurons(value, rectified=False), descend

    def _subtract(self, a: Signal, b: Signal) -> Signal:
        return self.engine.add(a, self.engine.each(torch.neg, b))


def _sums(layer: Weights, x: Neurons) -> tuple[Tensor, Tensor]:
    """Sum (xw)+ and minus the sum of (xw)-, each with its part of the bias."""
    up, down = (None if layer.bias is None else (layer.bias * sign).clamp(min=0) for sign in (1, -1))
    if x.rectified:
        return layer.positive.up(x.value, up), layer.negative.up(x.value, down)
    ahead, behind = x.value.clamp(min=0), (-x.value).clamp(min=0)
    excited = layer.positive.up(ahead, up) + layer.negative.up(behind)
    return excited, layer.negative.up(ahead, down) + layer.positive.up(behind)


def _by_sign(x: Tensor, above: Tensor, below: Tensor) -> Tensor:
    negative = (x < 0).repeat_interleave(len(above) // len(x), 0)
    return torch.where(negative, -below, above)

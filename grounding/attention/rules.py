"""What a method does to a signal at a weighted layer, at a nonlinearity, at a scaling and at a sum: its table of rules.

Every table carries g = p / x down in place of the probability p (or the relevance R) that the papers write, x being the
value that it belongs to; p = x . g is taken once, at the target. The gradient has no p: its g is the gradient itself.

Excitation Backprop's g needs two steps a neuron. For a = relu(W x + b) and z = W+ x (the positive weights, without the
bias), Eq. 2 reads p_x = x . W+^T (p_a / z), 0 where z = 0; so g_x = W+^T (g_a . r) with the gate r = a / z.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from grounding.attention.layers import Descend, Stream, Weights, on_rows, vector_jacobian
from grounding.attention.signals import AnySignal, Factor, Signal, dense, each, merge, ratio, workspace
from proposals.errors import InputError


class Table:
    """What the walk asks of a method; the sums, scalings and products here are those of mass and relevance.

    Attributes:
        rescaled: whether a pass grows or shrinks without bound and is divided by its maximum at every layer.
    """

    rescaled = False

    def source(self, value: Tensor) -> Stream:
        """The stream of a layer below which nothing is walked: the target."""
        raise NotImplementedError

    def target(self, stream: Stream) -> Stream:
        """The stream of a target with another one below it."""
        return stream

    def closed(self, stream: Stream) -> bool:
        """Whether a further ReLU changes nothing."""
        return False

    def weighted(self, layer: Weights, x: Stream) -> tuple[Stream, Descend]:
        """A convolution, a linear layer or a lone batch norm."""
        raise NotImplementedError

    def activated(self, x: Stream, value: Tensor, function: Callable, rectifies: bool) -> tuple[Stream, Descend]:
        """``value`` = function(x), element by element."""
        raise NotImplementedError

    def entered(self, layer: Weights, x: Stream, shares: Tensor) -> AnySignal:
        """What the classifier's units send to its inputs: ``layer`` holds the units in use, ``shares`` (N * W, T,
        positions) what each word asks of each unit at each position, 1 in all for the word "unit t"."""
        return self.weighted(layer, x)[1](shares)[0]

    def begun(self, g: Tensor, x: Stream) -> AnySignal:
        """A dense signal to the classifier's inputs, in the form that the walk takes on."""
        return g

    def scaled(self, x: Stream, factor: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Stream, Descend]:
        """x times a factor (N, *shape) that is held fixed (``function`` says how it comes about): p passes unchanged,
        so g is multiplied by the factor itself (not by f(x) / x, which is 0 / 0 at 0)."""
        if (factor < 0).any():
            raise InputError("a scaling by a factor below 0 has no rule")
        excitation = None if x.excitation is None else x.excitation * factor
        times = Factor(factor)
        return Stream(x.value * factor, excitation, x.rectified), on_rows(lambda g: [times(g)])

    def shifted(self, x: Stream, number: float) -> tuple[Stream, Descend]:
        """x plus a number: a bias, which enters only through activations."""
        return replace(x, value=x.value + number, excitation=x.z), on_rows(lambda g: [g])

    def product(self, x: Stream, gate: Stream) -> tuple[Stream, Descend]:
        """Squeeze and excitation: the gate is a factor; which of the two it is, its size tells."""
        swapped = gate.value.numel() > x.value.numel()
        x, gate = (gate, x) if swapped else (x, gate)
        stream, descend = self.scaled(x, gate.value.expand_as(x.value), lambda v: v * gate.value)
        return stream, on_rows(lambda g: [None, *descend(g)] if swapped else [*descend(g), None])

    def added(self, left: Stream, right: Stream) -> tuple[Stream, Descend]:
        """Each side takes what comes down: with g = p / x both shares are in proportion to the side."""
        open_ = left.excitation is not None or right.excitation is not None
        both = left.rectified and right.rectified
        total = Stream(left.value + right.value, left.z + right.z if open_ else None, both)

        def descend(g: AnySignal) -> list[AnySignal]:
            return [self._side(g, left), self._side(g, right)]

        return total, on_rows(descend)

    def _side(self, g: AnySignal, side: Stream) -> AnySignal:
        closed = side.excitation is None and side.rectified
        return g.on(side.winners) if isinstance(g, Signal) and closed and side.winners is not None else g


class Excitation(Table):
    """Excitation Backprop (Zhang et al. 2016, Eq. 2): p_x = x . W+^T (p_a / z).

    Only the positive part of a value can win. A sum that a ReLU follows is one neuron with the inputs of both sides:
    an excitation z stays open until the next nonlinearity or weighted layer closes it.
    """

    def source(self, value: Tensor) -> Stream:
        return Stream(value, value.clamp(min=0)) if value.min() < 0 else Stream(value)

    def closed(self, stream: Stream) -> bool:
        return stream.excitation is None

    def weighted(self, layer: Weights, x: Stream) -> tuple[Stream, Descend]:
        gate = self._gate(x)
        total = Stream(layer.value(x.value), layer.up(x.activation, 1))
        return total, on_rows(lambda g: [gate(layer.down(g, x, 1))])

    def activated(self, x: Stream, value: Tensor, function: Callable, rectifies: bool) -> tuple[Stream, Descend]:
        closed = Stream(value) if rectifies else self.source(value)
        gate = Factor(closed.activation, x.z, closed.winners)
        return closed, on_rows(lambda g: [gate(g)])

    def entered(self, layer: Weights, x: Stream, shares: Tensor) -> AnySignal:
        z = layer.up(x.activation, 1)
        winning = (shares.unflatten(0, (len(z), -1)) * ratio(torch.ones_like(z), z).unsqueeze(1)).flatten(0, 1)
        return self.begun(layer.down(winning, x, 1), x)

    def begun(self, g: Tensor, x: Stream) -> AnySignal:
        g = self._gate(x)(g)
        return Signal.of(g, x.winners) if x.winners is not None and workspace.rows and isinstance(g, Tensor) else g

    def _gate(self, x: Stream) -> Callable[[AnySignal], AnySignal]:
        """The gate r = a / z of a neuron that ends here without a ReLU."""
        return (lambda g: g) if x.excitation is None else Factor(x.activation, x.excitation, x.winners)


class Unnormalised(Table):
    """Excitation Backprop without the factor Z (Table 2, w/o norm): p_x = x . W+^T p_a.

    Scales are meaningless and grow from layer to layer; every pass is divided by its maximum as it goes.
    """

    rescaled = True

    def source(self, value: Tensor) -> Stream:
        return Stream(value, value.clamp(min=0)) if value.min() < 0 else Stream(value)

    def target(self, stream: Stream) -> Stream:
        return self.source(stream.value)

    def shifted(self, x: Stream, number: float) -> tuple[Stream, Descend]:
        return Stream(x.value + number), on_rows(lambda g: [g])

    def weighted(self, layer: Weights, x: Stream) -> tuple[Stream, Descend]:
        value = layer.value(x.value)
        winning, alive = Factor(value.clamp(min=0)), self._alive(x)
        return Stream(value), on_rows(lambda g: [alive(layer.down(winning(g), x, 1))])

    def activated(self, x: Stream, value: Tensor, function: Callable, rectifies: bool) -> tuple[Stream, Descend]:
        activation = Stream(value)
        gate = Factor(value.clamp(min=0), x.value.clamp(min=0), activation.winners)
        return activation, on_rows(lambda g: [gate(g)])

    def entered(self, layer: Weights, x: Stream, shares: Tensor) -> AnySignal:
        return self._alive(x)(layer.down(shares, x, 1))

    def added(self, left: Stream, right: Stream) -> tuple[Stream, Descend]:
        sides = self._alive(left), self._alive(right)
        return Stream(left.value + right.value), on_rows(lambda g: [alive(g) for alive in sides])

    def _alive(self, x: Stream) -> Factor:
        """Only the positive part can win."""
        return Factor((x.value > 0).to(x.value), winners=x.winners)


class Gradient(Table):
    """The gradient of the unit's score (Simonyan et al. 2014)."""

    def source(self, value: Tensor) -> Stream:
        return Stream(value, rectified=False)

    def target(self, stream: Stream) -> Stream:
        # a gradient is read where its value is 0, too
        return Stream(stream.value, rectified=False)

    def weighted(self, layer: Weights, x: Stream) -> tuple[Stream, Descend]:
        return Stream(layer.value(x.value), rectified=False), on_rows(lambda g: [layer.down(g, x, 0)])

    def activated(self, x: Stream, value: Tensor, function: Callable, rectifies: bool) -> tuple[Stream, Descend]:
        activation = Stream(value, rectified=rectifies)
        slope = vector_jacobian(function, x.value, torch.ones_like(value))
        gate = Factor(slope, winners=activation.winners)
        return activation, on_rows(lambda g: [gate(g)])

    def scaled(self, x: Stream, factor: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Stream, Descend]:
        def descend(g: AnySignal) -> list[AnySignal]:
            g = dense(g)
            words = len(g) // len(x.value)
            return [vector_jacobian(function, x.value.repeat_interleave(words, 0), g)]

        return Stream(x.value * factor, rectified=x.rectified), on_rows(descend)

    def shifted(self, x: Stream, number: float) -> tuple[Stream, Descend]:
        return Stream(x.value + number, rectified=False), on_rows(lambda g: [g])

    def product(self, x: Stream, gate: Stream) -> tuple[Stream, Descend]:
        def descend(g: Tensor) -> list[Tensor]:
            return [self._times(g, gate.value, x.value), self._times(g, x.value, gate.value)]

        return Stream(x.value * gate.value, rectified=False), descend

    @staticmethod
    def _times(g: Tensor, other: Tensor, own: Tensor) -> Tensor:
        """g times the other factor, summed over what was broadcast."""
        product = (g.unflatten(0, (len(own), -1)) * other.unsqueeze(1)).flatten(0, 1)
        return product if own.shape[2:] == product.shape[2:] else product.sum((2, 3), keepdim=True)


class Deconvolution(Gradient):
    """Deconvolution (Zeiler and Fergus 2014): the gradient, but a ReLU rectifies the signal and not the value."""

    guided = False

    def activated(self, x: Stream, value: Tensor, function: Callable, rectifies: bool) -> tuple[Stream, Descend]:
        if not rectifies:
            return super().activated(x, value, function, rectifies)
        activation = Stream(value, rectified=self.guided)
        gate = Factor((x.value > 0).to(value), winners=activation.winners) if self.guided else (lambda g: g)
        return activation, on_rows(lambda g: [each(lambda v: v.clamp(min=0), gate(g))])


class GuidedDeconvolution(Deconvolution):
    """The improved form (Springenberg et al. 2015), which the paper uses: a ReLU rectifies both."""

    guided = True


class Relevance(Table):
    """Layer-wise relevance propagation, epsilon rule (Bach et al. 2015, Eq. 58): R_x = x . W^T (R / (v + eps sign v)),
    v = W x + b; a nonlinearity passes R as it is."""

    epsilon = 1e-6

    def shifted(self, x: Stream, number: float) -> tuple[Stream, Descend]:
        return Stream(x.value + number, rectified=False), on_rows(lambda g: [g])

    def source(self, value: Tensor) -> Stream:
        return Stream(value, rectified=False)

    def weighted(self, layer: Weights, x: Stream) -> tuple[Stream, Descend]:
        value = layer.value(x.value)
        kept = Factor(value, value + self.epsilon * torch.where(value < 0, -1.0, 1.0).to(value))
        return Stream(value, rectified=False), on_rows(lambda g: [layer.down(kept(g), x, 0)])

    def activated(self, x: Stream, value: Tensor, function: Callable, rectifies: bool) -> tuple[Stream, Descend]:
        activation = Stream(value, rectified=rectifies)
        gate = Factor(value, x.value, activation.winners)
        return activation, on_rows(lambda g: [gate(g)])


class AlphaBetaRelevance(Relevance):
    """The same with the alpha-beta rule (Eq. 60): excitation and inhibition, alpha - beta = 1, keep their own books:
    R_x = alpha (xw)+ / sum (xw)+ R - beta (xw)- / sum (xw)- R; the bias is one of the terms of its sum."""

    alpha, beta = 2.0, 1.0

    def weighted(self, layer: Weights, x: Stream) -> tuple[Stream, Descend]:
        value, bias = layer.value(x.value), layer.bias
        up, down = (None if bias is None else (bias * s).clamp(min=0) for s in (1, -1))
        ahead, behind = x.value.clamp(min=0), (-x.value).clamp(min=0)
        if x.rectified:
            excited, inhibited = layer.up(x.value, 1, up), layer.up(x.value, -1, down)
        else:
            excited = layer.up(ahead, 1, up) + layer.up(behind, -1)
            inhibited = layer.up(ahead, -1, down) + layer.up(behind, 1)
        # of the inhibited, (xw)- <= 0 and R / sum (xw)- are taken with both signs turned
        plus, minus = Factor(self.alpha * value, excited), Factor(self.beta * value, inhibited)

        def descend(g: AnySignal) -> list[AnySignal]:
            own, other = plus(g), minus(g)
            positive = merge(layer.down(own, x, 1), each(torch.neg, layer.down(other, x, -1)))
            if x.rectified:
                return [positive]
            negative = merge(layer.down(own, x, -1), each(torch.neg, layer.down(other, x, 1)))
            words = len(dense(positive)) // len(x.value)
            below = (x.value < 0).repeat_interleave(words, 0)
            return [torch.where(below, -dense(negative), dense(positive))]

        return Stream(value, rectified=False), on_rows(descend)

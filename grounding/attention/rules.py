"""Excitation Backprop: what happens to a signal at a weighted layer, a nonlinearity, a scaling and a sum.

A rule set says what one method does in these four cases. This file has the base class and Excitation Backprop;
``gradients.py`` has the gradient, deconvolution and guided backpropagation, ``relevance.py`` has LRP.

Signals. The papers send a probability p (or a relevance R) down. Here every rule set sends g = p / x instead, where x
is the value of the neuron. p = x . g is computed once, at the target. For the gradient method, g is the gradient.

Excitation Backprop then needs two steps per neuron. Let a = relu(W x + b) and let z = W+ x be the excitation, without
the bias.
Eq. 2 in matrix form is p_x = x . W+^T (p_a / z), and with p = x . g

    g_x = W+^T (g_a . a / z)

so the nonlinearity multiplies by the gate a / z, and the weighted layer by W+^T.
"""

from dataclasses import replace

import torch
from torch import Tensor

from grounding.attention.engine.dense import DenseEngine, Descend, Down, Function, Signal
from grounding.attention.neurons import Neurons
from grounding.attention.weights import Diagonal, Weights


class RuleSet:
    """What a method does at each kind of layer. This base class has the rules that several methods share.

    Every rule takes the neurons below a layer. It returns the neurons above the layer, and a function that takes a
    signal down from the neurons above to the neurons below.

    Args:
        engine: executes the steps of a top-down pass.

    Attributes:
        rescaled: whether signals grow or shrink without bound, so that a pass divides them by their maximum at every
            layer.
        differentiable: whether the method is a derivative: its signals pass gates, and operations without a rule.
    """

    rescaled = False
    differentiable = False

    def __init__(self, engine: DenseEngine):
        self.engine = engine

    def source(self, value: Tensor) -> Neurons:
        """The neurons of a value that was computed without rules, such as one from below the targets."""
        raise NotImplementedError

    def target(self, x: Neurons) -> Neurons:
        """The neurons of a target that has another target below it."""
        return x

    def closed(self, x: Neurons) -> bool:
        """Whether the values are already rectified, so that a further ReLU would change nothing."""
        return False

    def weighted(self, layer: Weights, x: Neurons) -> tuple[Neurons, Descend]:
        """A convolution, a linear layer, or a scale and a shift."""
        raise NotImplementedError

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        """A nonlinearity, element by element.

        Args:
            x: the pre-activations.
            value: function(x).
            function: the nonlinearity.
            rectifies: whether it is a ReLU: 0 below 0.
        """
        raise NotImplementedError

    def averaged(self, y: Neurons, down: Down) -> Down:
        """An average pool or a mean.

        Args:
            y: the averages.
            down: the way down of a linear operation with the weights 1 / n.
        """
        return down

    def pointwise(self, x: Neurons, value: Neurons) -> tuple[Neurons, Descend]:
        """A nonlinearity that is composed of several operations.

        Args:
            x: the pre-activations.
            value: their function, computed without rules.
        """
        whole, descend = self.activated(x, value.value, lambda v: v, rectifies=False)
        return whole, lambda g: [*descend(g), None]

    def enter(self, units: Weights, x: Neurons, shares: Signal) -> Signal:
        """The signal that reaches the classifier's inputs.

        Args:
            units: the output units in use.
            x: the classifier's inputs.
            shares: ``(N * W, T, *positions)``, how much of each word's mass starts at each unit and position.
        """
        return self.weighted(units, x)[1](shares)[0]

    def begin(self, x: Neurons) -> Down:
        """What happens to a signal at the classifier's inputs before it goes further down."""
        return lambda g: g

    def scaled(self, x: Neurons, factor: Tensor, function: Function) -> tuple[Neurons, Descend]:
        """x times a factor. The factor counts as a constant: p passes unchanged, so g is multiplied by the factor.

        Args:
            x: the values.
            factor: ``(N, *shape)``. Where it is below 0, nothing passes, because only a positive value can win. It
                cannot be computed as f(x) / x, which is 0 / 0 at x = 0.
            function: computes x times the factor; the gradient differentiates it.
        """
        positive = factor.clamp(min=0)
        pre = x.excitation is not None or bool((factor < 0).any())
        gate = self.engine.gate(positive)
        return Neurons(x.value * factor, x.z * positive if pre else None, x.rectified), lambda g: [gate(g)]

    def shifted(self, x: Neurons, number: Tensor) -> tuple[Neurons, Descend]:
        """x plus a constant: a bias, which takes no part in the competition."""
        return replace(x, value=x.value + number, excitation=x.z), lambda g: [g]

    def affine(self, x: Neurons, scale: Tensor | None, shift: Tensor | None) -> tuple[Neurons, Descend]:
        """x * scale + shift, such as a batch norm that could not be folded into a convolution.

        Args:
            x: the values.
            scale: a constant that can be broadcast to them, or None for 1.
            shift: a constant that can be broadcast to them, or None for 0.
        """
        if scale is None:
            return (x, lambda g: [g]) if shift is None else self.shifted(x, shift)
        if shift is None and (scale >= 0).all():
            return self.scaled(x, scale.expand_as(x.value), lambda v: v * scale)
        return self.weighted(Diagonal(scale, shift), x)

    def signed_affine(
        self, x: Neurons, negated: Neurons | None, scale: Tensor, shift: Tensor | None
    ) -> tuple[Neurons, Descend]:
        """:meth:`affine` of a weighted sum x whose negation is known, too.

        Args:
            x: the values.
            negated: the neurons with the negated weights; None if they were not computed.
            scale: a constant, negative for some elements.
            shift: a constant or None.
        """
        whole, descend = self.affine(x, scale, shift)
        return whole, lambda g: [*descend(g), *([] if negated is None else [None])]

    def product(self, x: Neurons, gate: Neurons) -> tuple[Neurons, Descend]:
        """A value times its gate, as in squeeze and excitation. The gate counts as a constant factor."""
        product, descend = self.scaled(x, gate.value, lambda v: v * gate.value)
        return product, lambda g: [*descend(g), None]

    def joint_product(self, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
        """A product of two values of which neither is the other's gate: each gets half of p."""
        gates = [self.engine.gate(other.activation / 2) for other in (right, left)]
        ends = [self.ended(left), self.ended(right)]
        whole = self.source(left.value * right.value)
        return whole, lambda g: [end(gate(g)) for end, gate in zip(ends, gates, strict=True)]

    def ended(self, x: Neurons) -> Down:
        """What happens to a signal where a neuron ends without a nonlinearity."""
        return lambda g: g

    def added(self, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
        """A sum: both sides get the same g = p / x, so each side gets mass in proportion to its value."""
        pre = left.excitation is not None or right.excitation is not None
        both = left.rectified and right.rectified
        total = Neurons(left.value + right.value, left.z + right.z if pre else None, both)
        sides = [self._side(left), self._side(right)]
        return total, lambda g: [side(g) for side in sides]

    def _side(self, x: Neurons) -> Down:
        return self.engine.select(x) if x.excitation is None and x.rectified else lambda g: g


class ExcitationBackprop(RuleSet):
    """Excitation Backprop (Zhang et al. 2016, Eq. 2): p_x = x . W+^T (p_a / z), z = W+ x.

    Only the positive part of a value can win. A sum that is followed by a ReLU is one neuron with the inputs of both
    sides, so its excitation is the sum of theirs.
    """

    def source(self, value: Tensor) -> Neurons:
        return Neurons(value, value.clamp(min=0)) if value.min() < 0 else Neurons(value)

    def closed(self, x: Neurons) -> bool:
        return x.excitation is None

    def weighted(self, layer: Weights, x: Neurons) -> tuple[Neurons, Descend]:
        gate, transpose = self.gate(x), self.engine.transpose(layer.positive, x)
        total = Neurons(layer.value(x.value), layer.positive.up(x.activation))
        return total, lambda g: [gate(transpose(g))]

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        activation = Neurons(value) if rectifies else self.source(value)
        gate = self.engine.gate(activation.activation, x.z, at=activation)
        return activation, lambda g: [gate(g)]

    def affine(self, x: Neurons, scale: Tensor | None, shift: Tensor | None) -> tuple[Neurons, Descend]:
        """A part of the weighted sum below it, as if it were folded: a scale > 0 scales the excitation, too.

        Where the scale is negative, no input can win, and the mass is lost.
        """
        if scale is None or (shift is None and (scale >= 0).all()):
            return super().affine(x, scale, shift)
        positive = scale.clamp(min=0)
        gate = self.engine.gate(positive.expand_as(x.value).contiguous())
        value = x.value * scale if shift is None else x.value * scale + shift
        return Neurons(value, x.z * positive, x.rectified), lambda g: [gate(g)]

    def signed_affine(
        self, x: Neurons, negated: Neurons | None, scale: Tensor, shift: Tensor | None
    ) -> tuple[Neurons, Descend]:
        assert negated is not None
        parts = [(x, scale.clamp(min=0)), (negated, (-scale).clamp(min=0))]
        gates = [self.engine.gate(factor.expand_as(x.value).contiguous()) for _, factor in parts]
        value = x.value * scale if shift is None else x.value * scale + shift
        excitation = x.z * parts[0][1] + negated.z * parts[1][1]
        return Neurons(value, excitation, x.rectified), lambda g: [gate(g) for gate in gates]

    def ended(self, x: Neurons) -> Down:
        return self.gate(x)

    def enter(self, units: Weights, x: Neurons, shares: Signal) -> Signal:
        z = units.positive.up(x.activation)
        normalised = self.engine.gate(torch.ones_like(z), z)(shares)
        return self.begin(x)(self.engine.transpose(units.positive, x)(normalised))

    def begin(self, x: Neurons) -> Down:
        gate, compress = self.gate(x), self.engine.compress(x)
        return lambda g: compress(gate(g))

    def gate(self, x: Neurons) -> Down:
        """Multiplies by the gate a / z if x is a pre-activation without a nonlinearity after it; otherwise nothing."""
        if x.excitation is None:
            return lambda g: g
        return self.engine.gate(x.activation, x.excitation, at=x)


class UnnormalisedExcitation(RuleSet):
    """Excitation Backprop without the normalisation by Z (Table 2, "w/o norm"): p_x = x . W+^T p_a.

    The scale of a signal has no meaning and grows from layer to layer, so every pass is rescaled.
    """

    rescaled = True

    def source(self, value: Tensor) -> Neurons:
        return Neurons(value, value.clamp(min=0)) if value.min() < 0 else Neurons(value)

    def target(self, x: Neurons) -> Neurons:
        return self.source(x.value)

    def shifted(self, x: Neurons, number: Tensor) -> tuple[Neurons, Descend]:
        return Neurons(x.value + number), lambda g: [g]

    def weighted(self, layer: Weights, x: Neurons) -> tuple[Neurons, Descend]:
        value = layer.value(x.value)
        winning, transpose, active = self.engine.gate(value.clamp(min=0)), self._transpose(layer, x), self._active(x)
        return Neurons(value), lambda g: [active(transpose(winning(g)))]

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        activation = Neurons(value)
        gate = self.engine.gate(value.clamp(min=0), x.value.clamp(min=0), at=activation)
        return activation, lambda g: [gate(g)]

    def enter(self, units: Weights, x: Neurons, shares: Signal) -> Signal:
        return self._active(x)(self._transpose(units, x)(shares))

    def added(self, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
        sides = [self._active(left), self._active(right)]
        return Neurons(left.value + right.value), lambda g: [side(g) for side in sides]

    def _transpose(self, layer: Weights, x: Neurons) -> Down:
        return self.engine.transpose(layer.positive, x)

    def _active(self, x: Neurons) -> Down:
        """Only the positive part of a value can win."""
        return self.engine.gate((x.value > 0).to(x.value), at=x)


class UnnormalisedAverages(UnnormalisedExcitation):
    """As above, and average pools lose their Z, too: p_x = x / n . p_y, where Z = 1 / y would give x / (n y) . p_y.

    The paper removes Z from Eq. 2, which is about weights, and does not say whether pools lose theirs. In the authors'
    program average pools have a normalisation of their own.
    """

    def averaged(self, y: Neurons, down: Down) -> Down:
        winning = self.engine.gate(y.value.clamp(min=0))
        return lambda g: down(winning(g))

"""The gradient, deconvolution and guided backpropagation as rule sets."""

from torch import Tensor, ones_like

from grounding.attention.engine.dense import Descend, Function, vector_jacobian
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from grounding.attention.weights import Diagonal, Weights


class Gradient(RuleSet):
    """The gradient of the unit's score (Simonyan et al. 2014): g_x = W^T (g_a . f'(W x + b))."""

    differentiable = True

    def source(self, value: Tensor) -> Neurons:
        return Neurons(value, rectified=False)

    def target(self, x: Neurons) -> Neurons:
        # the gradient is needed where the value is 0, too
        return Neurons(x.value, rectified=False)

    def weighted(self, layer: Weights, x: Neurons) -> tuple[Neurons, Descend]:
        transpose = self.engine.transpose(layer, x)
        return Neurons(layer.value(x.value), rectified=False), lambda g: [transpose(g)]

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        activation = Neurons(value, rectified=rectifies)
        gate = self.engine.gate(vector_jacobian(function, x.value, ones_like(value)), at=activation)
        return activation, lambda g: [gate(g)]

    def affine(self, x: Neurons, scale: Tensor | None, shift: Tensor | None) -> tuple[Neurons, Descend]:
        return self.weighted(Diagonal(1 if scale is None else scale, shift), x)

    def pointwise(self, x: Neurons, value: Neurons) -> tuple[Neurons, Descend]:
        # the signal goes through the operations that compute the value
        return value, lambda g: [None, g]

    def scaled(self, x: Neurons, factor: Tensor, function: Function) -> tuple[Neurons, Descend]:
        def down(g: Tensor) -> list[Tensor]:
            words = len(g) // len(x.value)
            return [vector_jacobian(function, x.value.repeat_interleave(words, 0), g)]

        return Neurons(x.value * factor, rectified=x.rectified), self.engine.plain(down)

    def shifted(self, x: Neurons, number: Tensor) -> tuple[Neurons, Descend]:
        return Neurons(x.value + number, rectified=False), lambda g: [g]

    def joint_product(self, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
        return self.product(left, right)

    def product(self, x: Neurons, gate: Neurons) -> tuple[Neurons, Descend]:
        gates = [self.engine.gate(other.value) for other in (gate, x)]
        return Neurons(x.value * gate.value, rectified=False), lambda g: [by(g) for by in gates]


class Deconvolution(Gradient):
    """Deconvolution (Zeiler and Fergus 2014): the gradient, except that a ReLU passes max(g, 0) everywhere."""

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        if not rectifies:
            return super().activated(x, value, function, rectifies)
        return Neurons(value, rectified=False), lambda g: [self.engine.each(_positive, g)]


class GuidedBackprop(Gradient):
    """Guided backpropagation (Springenberg et al. 2015), the paper's "Deconv": a ReLU passes max(g, 0) where a > 0."""

    def activated(self, x: Neurons, value: Tensor, function: Function, rectifies: bool) -> tuple[Neurons, Descend]:
        if not rectifies:
            return super().activated(x, value, function, rectifies)
        activation = Neurons(value)
        gate = self.engine.gate((x.value > 0).to(value), at=activation)
        return activation, lambda g: [self.engine.each(_positive, gate(g))]


def _positive(g: Tensor) -> Tensor:
    return g.clamp(min=0)

"""The gradient, deconvolution and guided backpropagation as rule sets."""

from torch import Tensor, ones_like

from grounding.attention.engine.dense import Descend, Function, vector_jacobian
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from grounding.attention.weights import Weights


class Gradient(RuleSet):
    """The gradient of the unit's score (Simonyan et al. 2014): g_x = W^T (g_a . f'(W x + b))."""

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

    def scaled(self, x: Neurons, factor: Tensor, function: Function) -> tuple[Neurons, Descend]:
        def down(g: Tensor) -> list[Tensor]:
            words = len(g) // len(x.value)
            return [vector_jacobian(function, x.value.repeat_interleave(words, 0), g)]

        return Neurons(x.value * factor, rectified=x.rectified), self.engine.plain(down)

    def shifted(self, x: Neurons, number: float) -> tuple[Neurons, Descend]:
        return Neurons(x.value + number, rectified=False), lambda g: [g]

    def product(self, x: Neurons, gate: Neurons) -> tuple[Neurons, Descend]:
        def down(g: Tensor) -> list[Tensor]:
            return [_times(g, gate.value, x.value), _times(g, x.value, gate.value)]

        return Neurons(x.value * gate.value, rectified=False), self.engine.plain(down)


def _times(g: Tensor, other: Tensor, own: Tensor) -> Tensor:
    """g times the other factor, summed over the positions that were broadcast."""
    product: Tensor = (g.unflatten(0, (len(own), -1)) * other.unsqueeze(1)).flatten(0, 1)
    return product if own.shape[2:] == product.shape[2:] else product.sum((2, 3), keepdim=True)


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

"""The dense engine: every operation of a top-down pass in plain PyTorch.

A signal is a tensor ``(N * W, *shape)``: the W words of an image are side by side. A method such as ``gate`` is called
in the forward pass and returns a function. The rules compose such functions, and every top-down pass calls them with
the signal that arrives at the layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from grounding.attention.neurons import Neurons
from grounding.attention.weights import Weights

# a signal in the form of its engine; for the dense engine, a tensor
Signal = Any
Down = Callable[[Signal], Signal]
# from the signal to a layer's outputs to one signal per input of the layer; None where an input gets nothing
Descend = Callable[[Signal], Sequence[Signal | None]]
Function = Callable[[Tensor], Tensor]


class DenseEngine:
    """Signals as dense tensors; works for any number of images, on any device."""

    def visited(self, layer: Neurons) -> tuple[int, int]:
        """How many neurons of a layer a signal visits, and how many there are; (0, 0) if it always visits all of them.

        Args:
            layer: a layer above the targets.
        """
        return 0, 0

    def signal(self, g: Tensor, run: Any = None) -> Signal:
        """A dense tensor ``(N * W, *shape)`` in the form of this engine.

        Args:
            g: the tensor.
            run: the pass that it belongs to (see ``runs.py``); this engine needs none.
        """
        return g

    def dense(self, g: Signal) -> Tensor:
        """A signal as a tensor ``(N * W, *shape)``."""
        tensor: Tensor = g
        return tensor

    def gate(self, numerator: Tensor, denominator: Tensor | None = None, at: Neurons | None = None) -> Down:
        """Multiplication by a factor: ``g * numerator / denominator``, 0 where the denominator is 0.

        Args:
            numerator: ``(N, *shape)``.
            denominator: of the same shape; 1 by default.
            at: a layer's neurons; the factor is 0 for all but its winners. None if that is not known.
        """
        factor = numerator if denominator is None else ratio(numerator, denominator)
        return lambda g: scale(g, factor)

    def transpose(self, weights: Weights, inputs: Neurons) -> Down:
        """Multiplication by the transpose of a layer's weights: W^T g."""
        shape = inputs.value.shape[1:]  # not the values, which may be freed
        return lambda g: weights.down(g, shape)

    def max_pool(self, inputs: Neurons, pooled: Neurons, where: Tensor, geometry: Sequence[Any]) -> Down:
        """Each window's signal goes to the input that won it in the forward pass; where windows overlap, signals add.

        Args:
            inputs: the neurons of the pool's input.
            pooled: the neurons of its output.
            where: ``(N, C, h, w)`` int32, for each output the position of its winner.
            geometry: kernel size, stride, padding, dilation, ceil mode.
        """
        sizes, shape = [[n, n] if isinstance(n, int) else list(n) for n in geometry[:4]], inputs.value.shape[1:]

        def down(g: Tensor) -> Tensor:
            blank = g.new_empty(1).expand(len(g), *shape)
            repeated = where.long().repeat_interleave(len(g) // len(where), 0)
            below: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(g, blank, *sizes, geometry[4], repeated)
            return below

        return down

    def linear(self, function: Function, inputs: Neurons, outputs: Neurons, windows: Any = None) -> Down:
        """The transpose of an average, a sum or a reshaping, as autograd computes it.

        Args:
            function: linear, with weights >= 0, for any number of images.
            inputs: the neurons of its input.
            outputs: the neurons of its output.
            windows: (size, stride), each (vertical, horizontal), of an average without padding; otherwise None.
        """
        shape, like = inputs.value.shape[1:], inputs.value.new_empty(0)
        return lambda g: vector_jacobian(function, like.new_zeros(len(g), *shape), g)

    def split(self, whole: Neurons, parts: Sequence[Neurons]) -> Descend:
        """The transpose of a concatenation of channels: each part gets its channels back."""
        channels = [part.value.shape[1] for part in parts]
        return lambda g: list(g.split(channels, 1))

    def plain(self, function: Callable[[Tensor], Sequence[Tensor | None]]) -> Descend:
        """A function on dense tensors, for an operation that no other method of the engine covers.

        Args:
            function: ``(N * W, *outputs)`` to one tensor ``(N * W, *inputs)`` per input, or None.
        """
        return function

    def each(self, function: Function, g: Signal) -> Signal:
        """Applies an element-wise function with f(0) = 0 to a signal."""
        return function(g)

    def add(self, a: Signal, b: Signal) -> Signal:
        """The sum of two signals to one layer."""
        return a + b

    def select(self, neurons: Neurons) -> Down:
        """Drops the signal to neurons that cannot win. The dense engine keeps everything."""
        return lambda g: g

    def compress(self, neurons: Neurons) -> Down:
        """Like :meth:`select`; the sparse engine also changes to its own form. The dense engine keeps everything."""
        return lambda g: g

    def integrate(self, x: Tensor, g: Signal) -> Tensor:
        """The mass p = x . g, summed over channels (Sec. 3.2): ``(N, W, h, w)``."""
        return torch.einsum("nchw,nvchw->nvhw", x, self.dense(g).unflatten(0, (len(x), -1)))

    def largest(self, g: Signal) -> Tensor:
        """The largest magnitude of each word's signal: ``(N * W,)``."""
        return self.dense(g).flatten(1).abs().amax(1)

    def divide(self, g: Signal, by: Tensor) -> Signal:
        """Each word's signal divided by one number per word, ``(N * W,)``."""
        return g / by.view(-1, *[1] * (g.ndim - 1))


def scale(g: Tensor, factor: Tensor) -> Tensor:
    """``g (N * W, *shape)`` times ``factor (N, *shape)``."""
    scaled: Tensor = (g.unflatten(0, (len(factor), -1)) * factor.unsqueeze(1)).flatten(0, 1)
    return scaled


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 where the denominator is 0 (the paper's Z = 0)."""
    return torch.where(denominator == 0, 0, numerator / denominator)


def vector_jacobian(function: Function, x: Tensor, g: Tensor) -> Tensor:
    """g times the derivative of a function at x, as autograd computes it."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # a copy, because the function may work in place
        (gradient,) = derivatives(function(x.clone()), [x], g)
        assert gradient is not None
        return gradient


def derivatives(y: Tensor, inputs: Sequence[Tensor], g: Tensor) -> tuple[Tensor | None, ...]:
    """g times the derivative of y by each input; None for an input on which y does not depend.

    It is the derivative of the sum of y * g. ``torch.autograd.grad(y, inputs, g)`` is the same, but imports SymPy to
    compare the shapes of y and g, which takes a third of a second of a new process.

    Args:
        y: computed from the inputs with gradients enabled.
        inputs: tensors that require gradients.
        g: of the shape of y.

    Raises:
        RuntimeError: g has another shape than y, or y has no derivative.
    """
    if y.shape != g.shape:  # the product would be a broadcast
        raise RuntimeError(f"a signal of {tuple(g.shape)} for a result of {tuple(y.shape)}")
    return torch.autograd.grad((y * g).sum(), inputs, allow_unused=True)

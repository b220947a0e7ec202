"""What each layer does to the mass that comes down to it (Excitation Backprop, Zhang et al. 2016, Eq. 2).

For an activation neuron a = relu(W x + b) let z = W+ x, with the positive weights and without the bias. Its winning
probability p_a is handed to its inputs as

    p_x = x . W+^T (p_a / z)                 (0 where z = 0)

We carry g = p / x down instead of p. A neuron then does two things to g: at its ReLU the **gate** r = a / z multiplies
it, at its linear layer W+^T does:

    g_x = W+^T (g_a . r)

Both depend on the image only, not on the word, so one pass takes all words at once, and g is multiplied by x once, at
the target. Going up, every value therefore travels as a :class:`Stream`: the true activation, and the excitation z of
the neuron that is still open (its ReLU not met yet). Sums, averages, concatenations and maxima act on both alike, which
makes a residual sum followed by its ReLU one neuron.

A rule is a function ``(operation, *arguments, **keywords) -> (Stream, descend)``: the operation is the module, or the
function itself; the arguments are those of the call, with streams in the place of tensors; ``descend(g)`` gives one g
per input stream. To teach the walk a new layer, decorate such a function with :func:`rule`.

The gradients used below (``conv2d_input``, the backward of a maximum) are only the transposes of linear maps.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from grounding.googlenet import ResponseNorm

Descend = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Stream:
    """A value on its way up: ``value`` (N, C, h, w) as the network computes it; ``excitation``, the z of the neuron
    that it is part of, or None where the last neuron is closed and ``value`` >= 0 is an activation."""

    value: Tensor
    excitation: Tensor | None = None

    @property
    def z(self) -> Tensor:
        """What competes: the open neuron's excitation, or the activation itself."""
        return self.value if self.excitation is None else self.excitation

    @property
    def activation(self) -> Tensor:
        """What the next layer sees of it: only the positive part can win (A1 of the paper)."""
        return self.value if self.excitation is None else self.value.clamp(min=0)


Rule = Callable[..., tuple[Stream, Descend]]
RULES: dict[object, Rule] = {}


def rule(*kinds: object) -> Callable[[Rule], Rule]:
    """Registers a rule for module classes, functions, or the names of tensor methods."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 where the denominator is 0 (the paper's Z = 0)."""
    return torch.where(denominator == 0, 0, numerator / denominator)


def per_image(g: Tensor, factor: Tensor) -> Tensor:
    """g (N * W, ...), words fastest, times a factor (N, ...) that is the same for all words of an image."""
    return (g.unflatten(0, (len(factor), -1)) * factor.unsqueeze(1)).flatten(0, 1)


def close(stream: Stream) -> Tensor | None:
    """The gate r = a / z of a neuron that ends here, None where none is open."""
    return None if stream.excitation is None else ratio(stream.activation, stream.excitation)


def through(gate: Tensor | None, g: Tensor) -> Tensor:
    """g past a gate."""
    return g if gate is None else per_image(g, gate)


@rule(nn.ReLU, F.relu, torch.relu, "relu", "relu_")
def relu(_: object, stream: Stream, **__: object) -> tuple[Stream, Descend]:
    """The end of a neuron: g times r. A second ReLU changes nothing."""
    gate = close(stream)
    return Stream(stream.activation), lambda g: [through(gate, g)]


@rule(nn.Conv2d)
def conv2d(module: nn.Conv2d, stream: Stream) -> tuple[Stream, Descend]:
    """z = W+ x, without the bias; zero padding is ordinary padding."""
    geometry = (module.stride, module.padding, module.dilation, module.groups)
    positive = module.weight.clamp(min=0)
    x, gate = stream.activation, close(stream)
    value = F.conv2d(stream.value, module.weight, module.bias, *geometry)
    excitation = F.conv2d(x, positive, None, *geometry)

    def descend(g: Tensor) -> list[Tensor]:
        return [through(gate, conv2d_input((len(g), *x.shape[1:]), positive, g, *geometry))]

    return Stream(value, excitation), descend


@rule(nn.Linear)
def linear(module: nn.Linear, stream: Stream) -> tuple[Stream, Descend]:
    """z = W+ x, as for a convolution."""
    positive, gate = module.weight.clamp(min=0), close(stream)
    value = F.linear(stream.value, module.weight, module.bias)
    return Stream(value, F.linear(stream.activation, positive)), lambda g: [through(gate, g @ positive)]


@rule(nn.BatchNorm2d)
def batch_norm(module: nn.BatchNorm2d, stream: Stream) -> tuple[Stream, Descend]:
    """A batch norm that no convolution could take up: one input a neuron, its weight the scale."""
    scale = (module.weight / (module.running_var + module.eps).sqrt())[:, None, None]
    value = stream.value * scale + (module.bias - module.running_mean * scale[:, 0, 0])[:, None, None]
    gate, positive = close(stream), scale.clamp(min=0)
    return Stream(value, stream.activation * positive), lambda g: [through(gate, g * positive)]


@rule(nn.MaxPool2d)
def max_pool(module: nn.MaxPool2d, stream: Stream) -> tuple[Stream, Descend]:
    """The mass goes to the winner of the forward pass; where windows overlap it adds."""
    geometry = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    value, winners = F.max_pool2d(stream.value, *geometry, return_indices=True)
    open_ = stream.excitation is not None
    excitation = stream.excitation.flatten(2).gather(2, winners.flatten(2)).view_as(value) if open_ else None
    inputs = stream.value
    sizes = [[n, n] if isinstance(n, int) else list(n) for n in geometry[:4]]

    def descend(g: Tensor) -> list[Tensor]:
        words = len(g) // len(inputs)
        x, where = (t.repeat_interleave(words, 0) for t in (inputs, winners))
        return [torch.ops.aten.max_pool2d_with_indices_backward(g, x, *sizes, module.ceil_mode, where)]

    return Stream(value, excitation), descend


@rule(nn.LocalResponseNorm)
def local_response_norm(module: nn.LocalResponseNorm, stream: Stream) -> tuple[Stream, Descend]:
    """An element-wise scaling: p passes unchanged, so g is multiplied by the factor itself."""
    x = stream.value
    squares = F.pad(x.square(), (0, 0, 0, 0, module.size // 2, (module.size - 1) // 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(module.size))
    return scaled(stream, (module.k + module.alpha / module.size * total) ** -module.beta)


@rule(ResponseNorm)
def response_norm(module: ResponseNorm, stream: Stream) -> tuple[Stream, Descend]:
    """The same, as our GoogLeNet computes it."""
    return scaled(stream, module.factor(stream.value))


def scaled(stream: Stream, factor: Tensor) -> tuple[Stream, Descend]:
    """A stream times a factor > 0 that is held fixed."""
    excitation = None if stream.excitation is None else stream.excitation * factor
    return Stream(stream.value * factor, excitation), lambda g: [per_image(g, factor)]


@rule(nn.Dropout, nn.Identity, F.dropout)
def identity(_: object, stream: Stream, *__: object, **___: object) -> tuple[Stream, Descend]:
    """Nothing happens outside of training."""
    return stream, lambda g: [g]


AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, torch.flatten, torch.mean, F.avg_pool2d)


@rule(*AVERAGES, F.adaptive_avg_pool2d, "flatten", "mean")
def average(function: Callable[..., Tensor], stream: Stream, *rest: object, **keywords: object):
    """Averages and reshapings are linear with weights >= 0 and no bias: their transpose, as autograd gives it."""
    excitation = None if stream.excitation is None else function(stream.excitation, *rest, **keywords)
    x = stream.value

    def descend(g: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            zeros = x.new_zeros(len(g), *x.shape[1:]).requires_grad_()
            return list(torch.autograd.grad(function(zeros, *rest, **keywords), zeros, g))

    return Stream(function(x, *rest, **keywords), excitation), descend


@rule(torch.cat)
def concatenate(_: object, streams: Sequence[Stream], dim: int = 0) -> tuple[Stream, Descend]:
    """Each part takes its own share back."""
    if dim not in (1, -3):
        raise NotImplementedError("only a concatenation of channels has a rule")
    parts = [s.value.shape[1] for s in streams]
    open_ = any(s.excitation is not None for s in streams)
    value = torch.cat([s.value for s in streams], 1)
    excitation = torch.cat([s.z for s in streams], 1) if open_ else None
    return Stream(value, excitation), lambda g: g.split(parts, 1)


@rule(torch.add, operator.add, operator.iadd, "add", "add_")
def add(_: object, left: Stream, right: Stream) -> tuple[Stream, Descend]:
    """One neuron with the inputs of both: z = z_left + z_right, closed by the ReLU that follows."""
    open_ = left.excitation is not None or right.excitation is not None
    return Stream(left.value + right.value, left.z + right.z if open_ else None), lambda g: [g, g]

"""How each kind of layer is walked, upwards once an image and downwards once for all its words.

Going up, a value travels as a :class:`Stream`. Going down, a signal g (``grounding.attention.signals``) travels against
it. What the two do at a weighted layer and at a nonlinearity is the business of a method's table
(``grounding.attention.rules``); what follows from the layer alone (which weights, which winner of a maximum, which part
of a concatenation) stands here.

A rule is a function ``(table, operation, *arguments, **keywords) -> (Stream, descend)``: the operation is the module,
or the function itself; the arguments are those of the call, with streams in the place of tensors; ``descend(g)`` gives
one g an input stream (None where nothing goes). To teach the walk a new layer, decorate such a function with
:func:`rule`:

    @rule(MyScaling)
    def my_scaling(table, module, stream):
        return table.scaled(stream, module.factor.expand_as(stream.value), module)

    rule(nn.Mish)(nonlinearity)          # an element-wise function needs no more

``descend`` gets a dense g (N * W, channels, h, w), unless it is marked with :func:`on_rows`, which says that it takes
signals of either form.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torchvision.ops import StochasticDepth

from grounding.attention import kernels
from grounding.attention.signals import (
    AnySignal,
    Parts,
    Routes,
    Signal,
    Winners,
    by_position,
    dense,
    grouped,
    transpose,
)
from grounding.tagger.googlenet import ResponseNorm
from proposals.errors import InputError

Descend = Callable[[AnySignal], Sequence[AnySignal | None]]


@dataclass(frozen=True)
class Stream:
    """A value on its way up.

    Attributes:
        value: (N, C, h, w) or (N, C), as the network computes it.
        excitation: the z of the neuron that it is part of, where that is still open (its ReLU not met yet) or the value
            signed; None where ``value`` >= 0 is an activation, and always outside of Excitation Backprop.
        rectified: whether a signal to a neuron with ``value`` <= 0 is void, so that only winners need it.
    """

    value: Tensor
    excitation: Tensor | None = None
    rectified: bool = True

    @property
    def z(self) -> Tensor:
        """What competes: the open neuron's excitation, or the activation itself."""
        return self.value if self.excitation is None else self.excitation

    @cached_property
    def activation(self) -> Tensor:
        """What the next layer sees of it: only the positive part can win (A1 of the paper)."""
        return self.value if self.excitation is None else self.value.clamp(min=0)

    @cached_property
    def winners(self) -> Winners | None:
        """The neurons that a signal can matter to, where rows pay: one image, on the CPU."""
        value = self.value
        if not self.rectified or len(value) > 1 or value.ndim not in (2, 4) or value.device.type != "cpu":
            return None
        return Winners(value) if value.dtype in (torch.float32, torch.float64) else None

    @property
    def settled(self) -> Winners | None:
        """The winners of a closed neuron. An open one excites whatever the sign of its value: rows would miss some."""
        return self.winners if self.excitation is None else None

    def like(self, function: Callable[[Tensor], Tensor]) -> "Stream":
        """The stream after a function that is linear without a bias, its weights >= 0."""
        excitation = None if self.excitation is None else function(self.excitation)
        return Stream(function(self.value), excitation, self.rectified)


Rule = Callable[..., tuple[Stream, Descend]]
RULES: dict[object, Rule] = {}


def rule(*kinds: object) -> Callable[[Rule], Rule]:
    """Registers a rule for module classes, functions, or the names of tensor methods."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def on_rows(descend: Descend) -> Descend:
    """Marks a ``descend`` that takes signals as rows too."""
    descend.on_rows = True
    return descend


class Weights:
    """A layer that is linear but for its bias: a convolution, a linear layer or a lone batch norm.

    ``sign`` chooses among W (0), W+ = max(W, 0) (1) and W- = max(-W, 0) (-1).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight, bias
        self._parts: dict[int, Tensor] = {0: weight}

    def part(self, sign: int) -> Tensor:
        """W, W+ or W-; made once."""
        if sign not in self._parts:
            self._parts[sign] = (self.weight * sign).clamp(min=0)
        return self._parts[sign]

    def value(self, x: Tensor) -> Tensor:
        """W x + b."""
        return self.up(x, 0, self.bias)

    def up(self, x: Tensor, sign: int, bias: Tensor | None = None) -> Tensor:
        """The part of W that ``sign`` says, times x."""
        raise NotImplementedError

    def down(self, g: AnySignal, inputs: Stream, sign: int) -> AnySignal:
        """Its transpose times g, at the input's winners where there are such."""
        raise NotImplementedError


class Convolution(Weights):
    """A convolution with zero padding, which is ordinary padding here."""

    def __init__(self, module: nn.Conv2d):
        super().__init__(module.weight.contiguous(memory_format=torch.channels_last), module.bias)
        if module.padding_mode != "zeros":
            raise InputError(f"a convolution pads with {module.padding_mode!r}: only zeros have a rule")
        # as PyTorch itself resolves "same" and "valid": (left, right, top, bottom)
        reach = module._reversed_padding_repeated_twice
        self.padding = (reach[2], reach[0]) if isinstance(module.padding, str) else module.padding
        if reach[0] != reach[1] or reach[2] != reach[3]:
            raise InputError("a convolution pads one side more than the other: only even padding has a rule")
        self.stride, self.dilation, self.groups = module.stride, module.dilation, module.groups

    def up(self, x: Tensor, sign: int, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.part(sign), bias, self.stride, self.padding, self.dilation, self.groups)

    def down(self, g: AnySignal, inputs: Stream, sign: int) -> AnySignal:
        if isinstance(g, Signal) and inputs.winners is not None and self.groups == 1:
            return transpose(g, self.part(sign), (self.stride, self.padding, self.dilation), inputs.winners)
        g = dense(g)
        shape = (len(g), *inputs.value.shape[1:])
        return conv2d_input(shape, self.part(sign), g, self.stride, self.padding, self.dilation, self.groups)


class Linear(Weights):
    """A linear layer on (N, C)."""

    def up(self, x: Tensor, sign: int, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, self.part(sign), bias)

    def down(self, g: AnySignal, inputs: Stream, sign: int) -> AnySignal:
        if isinstance(g, Signal) and inputs.winners is not None:
            return transpose(g, self.part(sign)[:, :, None, None], ((1, 1), (0, 0), (1, 1)), inputs.winners)
        return dense(g) @ self.part(sign)


class Diagonal(Weights):
    """A batch norm that no convolution could take up: one input a neuron, its weight the scale."""

    def up(self, x: Tensor, sign: int, bias: Tensor | None = None) -> Tensor:
        scaled = x * self.part(sign)[:, None, None]
        return scaled if bias is None else scaled + bias[:, None, None]

    def down(self, g: AnySignal, inputs: Stream, sign: int) -> AnySignal:
        return dense(g) * self.part(sign)[:, None, None]


def weights(module: nn.Module) -> Weights:
    """The weights of a module, made once and kept on it (the walk has a private copy of the model)."""
    if "grounding_weights" not in module.__dict__:
        if isinstance(module, nn.Conv2d):
            made = Convolution(module)
        elif isinstance(module, nn.Linear):
            made = Linear(module.weight, module.bias)
        else:
            scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
            made = Diagonal(scale, (0 if module.bias is None else module.bias) - module.running_mean * scale)
        module.__dict__["grounding_weights"] = made
    return module.__dict__["grounding_weights"]


@rule(nn.Conv2d, nn.Linear, nn.BatchNorm2d)
def weighted(table, module: nn.Module, stream: Stream) -> tuple[Stream, Descend]:
    """A sum of weighted inputs."""
    return table.weighted(weights(module), stream)


RECTIFIERS = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_")
SQUASHERS = (nn.Sigmoid, nn.Hardsigmoid, torch.sigmoid, F.hardsigmoid, "sigmoid")
SIGNED = (nn.SiLU, nn.Hardswish, nn.GELU, nn.ELU, nn.Tanh, nn.LeakyReLU, F.silu, F.hardswish, F.gelu, F.elu, torch.tanh)


@rule(*RECTIFIERS)
def rectifier(table, function: Callable, stream: Stream, *_: object, **__: object) -> tuple[Stream, Descend]:
    """A ReLU: 0 below 0. Whether it works in place is of no account here: the walk never does."""
    if table.closed(stream) and not isinstance(function, nn.ReLU6) and function is not F.relu6:
        return stream, on_rows(lambda g: [g])
    function = _out_of_place(function)
    return table.activated(stream, function(stream.value), function, rectifies=True)


@rule(*SQUASHERS, *SIGNED)
def nonlinearity(table, function: Callable, stream: Stream, *rest: object, **more: object) -> tuple[Stream, Descend]:
    """Any other function of each element by itself."""
    more.pop("inplace", None)
    whole = functools.partial(_out_of_place(function), **more)
    return table.activated(stream, whole(stream.value, *rest), lambda x: whole(x, *rest), rectifies=False)


def _out_of_place(function: Callable) -> Callable:
    """The function, never in place: its argument may still be read."""
    if isinstance(function, nn.Module) and getattr(function, "inplace", False):
        function.inplace = False
    return function


@rule(nn.MaxPool2d)
def max_pool(table, module: nn.MaxPool2d, stream: Stream) -> tuple[Stream, Descend]:
    """Everything goes to the winner of the forward pass; where windows overlap it adds."""
    geometry = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    value, where = F.max_pool2d(stream.value, *geometry, return_indices=True)
    won = lambda z: z.flatten(2).gather(2, where.flatten(2)).view_as(where)  # noqa: E731
    pooled = Stream(value, None if stream.excitation is None else won(stream.excitation), stream.rectified)
    inputs, winners = stream.settled, pooled.settled
    if winners is not None:
        targets = np.empty(len(winners), np.int32)
        kernels.find_targets(*winners.layout[1:3], by_position(where).numpy(), inputs.row, targets)
        routes = Routes.to(inputs, targets)
    sizes = [[n, n] if isinstance(n, int) else list(n) for n in geometry[:4]]
    shape = stream.value.shape[1:]

    def descend(g: AnySignal) -> list[AnySignal]:
        if isinstance(g, Signal) and winners is not None:
            return [routes(g.on(winners))]
        g = dense(g)
        repeated = where.repeat_interleave(len(g) // len(where), 0)
        blank = g.new_empty(1).expand(len(g), *shape)
        return [torch.ops.aten.max_pool2d_with_indices_backward(g, blank, *sizes, module.ceil_mode, repeated)]

    return pooled, on_rows(descend)


@rule(F.max_pool2d)
def max_pool_function(table, _: Callable, stream: Stream, *sizes: object, **more: object) -> tuple[Stream, Descend]:
    """The same, called as a function."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    return max_pool(table, nn.MaxPool2d(**dict(zip(names, sizes, strict=False)), **more), stream)


@rule(nn.LocalResponseNorm)
def local_response_norm(table, module: nn.LocalResponseNorm, stream: Stream) -> tuple[Stream, Descend]:
    """An element-wise scaling: p passes unchanged, so g is multiplied by the factor itself."""
    x = stream.value
    squares = F.pad(x.square(), (0, 0, 0, 0, module.size // 2, (module.size - 1) // 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(module.size))
    return table.scaled(stream, (module.k + module.alpha / module.size * total) ** -module.beta, module)


@rule(ResponseNorm)
def response_norm(table, module: ResponseNorm, stream: Stream) -> tuple[Stream, Descend]:
    """The same, as our GoogLeNet computes it."""
    return table.scaled(stream, module.factor(stream.value), module)


@rule(torch.mul, operator.mul, operator.imul, "mul", "mul_")
def multiply(table, _: Callable, left: Stream | float, right: Stream | float) -> tuple[Stream, Descend]:
    """A product, as of squeeze and excitation: the larger side carries the signal, the smaller is a factor held fixed.

    A gate computed from the features is part of the image's side, like a response norm.
    """
    if not (isinstance(left, Stream) and isinstance(right, Stream)):
        stream, number = (left, right) if isinstance(left, Stream) else (right, left)
        scaled, descend = table.scaled(stream, torch.full_like(stream.value, number), lambda x: x * number)
        return scaled, descend
    return table.product(left, right)


@rule(nn.Dropout, nn.Dropout2d, nn.Identity, StochasticDepth, F.dropout, "contiguous")
def identity(table, _: object, stream: Stream, *__: object, **___: object) -> tuple[Stream, Descend]:
    """Nothing happens outside of training."""
    return stream, on_rows(lambda g: [g])


AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, torch.mean, F.avg_pool2d, F.adaptive_avg_pool2d, "mean")
SUMS = (torch.sum, "sum")
SHAPES = (nn.Flatten, torch.flatten, torch.transpose, torch.permute, torch.reshape)
SHAPE_METHODS = ("flatten", "view", "reshape", "transpose", "permute", "unsqueeze", "squeeze")


@rule(*AVERAGES, *SUMS, *SHAPES, *SHAPE_METHODS)
def average(table, function: Callable, stream: Stream, *rest: object, **keywords: object) -> tuple[Stream, Descend]:
    """Averages, sums and reshapings are linear with weights >= 0 and no bias: their transpose, as autograd gives it."""
    call = lambda x: function(x, *rest, **keywords)  # noqa: E731
    shape, total = stream.value.shape[1:], stream.like(call)
    windows = _windows(function, stream.value, total.value)
    routes = None
    if windows and stream.settled is not None and total.settled is not None:
        routes = Routes.out_of_windows(stream.winners, total.winners, *windows)

    def descend(g: AnySignal) -> list[AnySignal]:
        if isinstance(g, Signal) and routes:
            return [routes(g.on(total.winners))]
        g = dense(g)
        return [vector_jacobian(_per_sample(call, len(stream.value)), g.new_zeros(len(g), *shape), g)]

    return total, on_rows(descend)


def _windows(function: Callable, x: Tensor, y: Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Size and stride of an average's windows, where they are plain: within the image, all of one size."""
    if x.ndim != 4 or y.shape[1:2] != x.shape[1:2]:
        return None
    if isinstance(function, nn.AvgPool2d):
        pair = lambda n: (n, n) if isinstance(n, int) else tuple(n)  # noqa: E731
        plain = pair(function.padding) == (0, 0) and not function.ceil_mode and function.divisor_override is None
        return (pair(function.kernel_size), pair(function.stride)) if plain else None
    averages = function in (torch.mean, F.adaptive_avg_pool2d, "mean") or isinstance(function, nn.AdaptiveAvgPool2d)
    return (tuple(x.shape[2:]), (1, 1)) if averages and y[0, 0].numel() == 1 else None


def _per_sample(call: Callable[[Tensor], Tensor], images: int) -> Callable[[Tensor], Tensor]:
    """The function on any number of words: what was traced may name the batch size (``x.view(1, 2, 58, 28, 28)``)."""
    return lambda x: torch.cat([call(part) for part in x.split(images)])


def vector_jacobian(function: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
    """g times the derivative of a function at x, as autograd gives it."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # a copy, for a function that works in place
        return torch.autograd.grad(function(x.clone()), x, g)[0]


@rule(torch.cat)
def concatenate(table, _: object, streams: Sequence[Stream], dim: int = 0) -> tuple[Stream, Descend]:
    """Each part takes its own share back."""
    if dim not in (1, -3):
        raise NotImplementedError("only a concatenation of channels has a rule")
    parts = [s.value.shape[1] for s in streams]
    open_ = any(s.excitation is not None for s in streams)
    value = torch.cat([s.value for s in streams], 1)
    excitation = torch.cat([s.z for s in streams], 1) if open_ else None
    whole = Stream(value, excitation, all(s.rectified for s in streams))
    routes = _routes_to_parts(whole, streams)

    def descend(g: AnySignal) -> list[AnySignal]:
        if isinstance(g, Signal) and routes:
            return [route(g.on(whole.winners)) for route in routes]
        return dense(g).split(parts, 1)

    return whole, on_rows(descend)


def _routes_to_parts(whole: Stream, parts: Sequence[Stream]) -> list[Routes]:
    """How the rows of a concatenation go to its parts: none where it has no rows."""
    if whole.settled is None:
        return []
    part_of = np.repeat(np.arange(len(parts), dtype=np.int32), [part.value.shape[1] for part in parts])
    ends, rows = grouped(part_of[whole.winners.layout[2]], len(parts))
    alone = [np.arange(len(part.winners) + 1, dtype=np.int32) for part in parts]
    return [Routes(alone[i], rows[ends[i] : ends[i + 1]], part.winners) for i, part in enumerate(parts)]


@rule(torch.chunk, "chunk")
def chunk(table, _: object, stream: Stream, chunks: int, dim: int = 0) -> tuple[tuple[Stream, ...], Descend]:
    """The channels in equal parts: what comes down to the parts, side by side."""
    if dim not in (1, -3):
        raise NotImplementedError("only channels are cut in a way that has a rule")
    values = stream.value.chunk(chunks, 1)
    zs = [None] * len(values) if stream.excitation is None else stream.excitation.chunk(chunks, 1)
    streams = tuple(Stream(v, z, stream.rectified) for v, z in zip(values, zs, strict=True))

    def descend(parts: Parts) -> list[Tensor]:
        known = {i: dense(g) for i, g in parts.signals.items()}
        like = next(iter(known.values()))
        blank = [like.new_zeros(len(like), *v.shape[1:]) for v in values]
        return [torch.cat([known.get(i, blank[i]) for i in range(len(values))], 1)]

    return streams, on_rows(descend)


@rule(torch.add, operator.add, operator.iadd, "add", "add_")
def add(table, _: object, left: Stream | float, right: Stream | float, **more: object) -> tuple[Stream, Descend]:
    """A residual sum: each side takes what comes down. A number is a bias."""
    if more:
        raise InputError(f"a sum with {', '.join(more)} has no rule")
    if isinstance(left, Stream) and isinstance(right, Stream):
        return table.added(left, right)
    stream, number = (left, right) if isinstance(left, Stream) else (right, left)
    return table.shifted(stream, number)

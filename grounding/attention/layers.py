"""One function for each kind of layer: it computes the layer's neurons, and says how a signal goes back to the inputs.

What depends on the method (a weighted layer, a nonlinearity, a scaling, a sum) is in the method's rule set
(``rules.py``). What depends on the layer alone (which weights, which input won a maximum, which part of a
concatenation) is here.

A layer's function has the signature ``(rules, operation, *arguments, **keywords) -> (Neurons, descend)``. The operation
is the module, or the function itself. The arguments are those of the call, with :class:`Neurons` in place of tensors.
``descend`` takes the signal to the layer's outputs and returns one signal per input, or None for an input that gets
nothing. To add a layer, decorate such a function with :func:`rule`:

    @rule(MyScaling)
    def my_scaling(rules, module, x):
        return rules.scaled(x, module.factor.expand_as(x.value), module)

    rule(nn.Mish)(nonlinearity)          # an element-wise function needs nothing else

A ``descend`` is composed of the functions that the rule set returns and of those that ``rules.engine`` returns.
``rules.engine.plain(function)`` makes one of a function on plain tensors ``(N * W, *shape)``.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from grounding.attention.engine.dense import Descend
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from grounding.attention.weights import Pair, weights_of
from proposals.errors import InputError

Rule = Callable[..., tuple[Any, Descend]]
RULES: dict[object, Rule] = {}


def rule(*kinds: object) -> Callable[[Rule], Rule]:
    """Registers a function for kinds of layers.

    Args:
        kinds: module classes, functions, or names of tensor methods.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def unchanged(g: Any) -> list[Any]:
    """The ``descend`` of a layer that changes nothing."""
    return [g]


@rule(nn.Conv2d, nn.Linear, nn.BatchNorm2d)
def weighted(rules: RuleSet, module: nn.Module, x: Neurons) -> tuple[Neurons, Descend]:
    """A sum of weighted inputs."""
    return rules.weighted(weights_of(module), x)


RECTIFIERS = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_")
SQUASHERS = (nn.Sigmoid, nn.Hardsigmoid, torch.sigmoid, F.hardsigmoid, "sigmoid")
SIGNED = (nn.SiLU, nn.Hardswish, nn.GELU, nn.ELU, nn.Tanh, nn.LeakyReLU, F.silu, F.hardswish, F.gelu, F.elu, torch.tanh)


@rule(*RECTIFIERS)
def rectifier(rules: RuleSet, function: Any, x: Neurons, *_: object, **__: object) -> tuple[Neurons, Descend]:
    """A ReLU: 0 below 0. It is never computed in place, because its argument may be needed later."""
    if rules.closed(x) and not isinstance(function, nn.ReLU6) and function is not F.relu6:
        return x, unchanged
    function = _out_of_place(function)
    return rules.activated(x, function(x.value), function, rectifies=True)


@rule(*SQUASHERS, *SIGNED)
def nonlinearity(rules: RuleSet, function: Any, x: Neurons, *rest: Any, **more: Any) -> tuple[Neurons, Descend]:
    """Any other element-wise function."""
    more.pop("inplace", None)
    whole = functools.partial(_out_of_place(function), **more)
    return rules.activated(x, whole(x.value, *rest), lambda v: whole(v, *rest), rectifies=False)


def _out_of_place(function: Any) -> Any:
    """The function, changed so that it does not overwrite its argument."""
    if getattr(function, "inplace", False):
        function.inplace = False
    return function


@rule(nn.MaxPool2d)
def max_pool(rules: RuleSet, module: nn.MaxPool2d, x: Neurons) -> tuple[Neurons, Descend]:
    """The maximum of each window gets the whole signal of the window."""
    geometry = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    value, where = F.max_pool2d(x.value, *geometry, return_indices=True)
    excitation = None if x.excitation is None else _at(x.excitation, where)
    pooled = Neurons(value, excitation, x.rectified)
    down = rules.engine.max_pool(x, pooled, where, geometry)
    return pooled, lambda g: [down(g)]


def _at(z: Tensor, where: Tensor) -> Tensor:
    """The values of z at the positions of the maxima."""
    return z.flatten(2).gather(2, where.flatten(2)).view_as(where)


@rule(F.max_pool2d)
def max_pool_function(rules: RuleSet, _: Any, x: Neurons, *sizes: Any, **more: Any) -> tuple[Neurons, Descend]:
    """Max pooling that is called as a function."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    return max_pool(rules, nn.MaxPool2d(**dict(zip(names, sizes, strict=False)), **more), x)


@rule(nn.LocalResponseNorm)
def local_response_norm(rules: RuleSet, module: nn.LocalResponseNorm, x: Neurons) -> tuple[Neurons, Descend]:
    """A scaling of each element; the factor counts as a constant."""
    squares = F.pad(x.value.square(), (0, 0, 0, 0, module.size // 2, (module.size - 1) // 2))
    total = sum(squares[:, i : i + x.value.shape[1]] for i in range(module.size))
    return rules.scaled(x, (module.k + module.alpha / module.size * total) ** -module.beta, module)


@rule(torch.mul, operator.mul, operator.imul, "mul", "mul_")
def multiply(rules: RuleSet, _: Any, left: Neurons | float, right: Neurons | float) -> tuple[Neurons, Descend]:
    """A product, as in squeeze and excitation.

    For all methods but the gradients, the larger value gets the signal and the smaller one counts as a constant. So no
    signal goes into the branch that computes a gate from the features.
    """
    if isinstance(left, Neurons) and isinstance(right, Neurons):
        return rules.product(left, right)
    x, number = (left, right) if isinstance(left, Neurons) else (right, left)
    assert isinstance(x, Neurons)
    assert not isinstance(number, Neurons)
    return rules.scaled(x, torch.full_like(x.value, number), lambda v: v * number)


@rule(nn.Dropout, nn.Dropout2d, nn.Identity, StochasticDepth, F.dropout, "contiguous")
def identity(rules: RuleSet, _: object, x: Neurons, *__: object, **___: object) -> tuple[Neurons, Descend]:
    """Layers that do nothing outside of training."""
    return x, unchanged


AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, torch.mean, F.avg_pool2d, F.adaptive_avg_pool2d, "mean")
SUMS = (torch.sum, "sum")
SHAPES = (nn.Flatten, torch.flatten, torch.transpose, torch.permute, torch.reshape)
SHAPE_METHODS = ("flatten", "view", "reshape", "transpose", "permute", "unsqueeze", "squeeze")


@rule(*AVERAGES, *SUMS, *SHAPES, *SHAPE_METHODS)
def average(rules: RuleSet, function: Any, x: Neurons, *rest: Any, **keywords: Any) -> tuple[Neurons, Descend]:
    """Averages, sums and reshapings: linear, without a bias, with weights >= 0."""

    def call(value: Tensor) -> Tensor:
        result: Tensor = function(value, *rest, **keywords)
        return result

    total = x.apply(call)
    down = rules.engine.linear(call, x, total, _windows(function, x.value, total.value))
    return total, lambda g: [down(g)]


def _windows(function: Any, x: Tensor, y: Tensor) -> tuple[Pair, Pair] | None:
    """Size and stride of an average's windows, if all of them lie within the image and have the same size."""
    if x.ndim != 4 or y.shape[1:2] != x.shape[1:2]:
        return None
    if isinstance(function, nn.AvgPool2d):
        plain = _pair(function.padding) == (0, 0) and not function.ceil_mode and function.divisor_override is None
        return (_pair(function.kernel_size), _pair(function.stride)) if plain else None
    averages = function in (torch.mean, F.adaptive_avg_pool2d, "mean") or isinstance(function, nn.AdaptiveAvgPool2d)
    return ((x.shape[2], x.shape[3]), (1, 1)) if averages and y[0, 0].numel() == 1 else None


def _pair(n: Any) -> Pair:
    return (n, n) if isinstance(n, int) else (n[0], n[1])


@rule(torch.cat)
def concatenate(rules: RuleSet, _: object, parts: Sequence[Neurons], dim: int = 0) -> tuple[Neurons, Descend]:
    """A concatenation of channels: each part gets its own share back."""
    if dim not in (1, -3):
        raise NotImplementedError("only a concatenation of channels has a rule")
    value = torch.cat([part.value for part in parts], 1)
    pre = any(part.excitation is not None for part in parts)
    excitation = torch.cat([part.z for part in parts], 1) if pre else None
    whole = Neurons(value, excitation, all(part.rectified for part in parts))
    return whole, rules.engine.split(whole, parts)


@rule(torch.chunk, "chunk")
def chunk(rules: RuleSet, _: object, x: Neurons, chunks: int, dim: int = 0) -> tuple[tuple[Neurons, ...], Descend]:
    """The channels in equal parts. ``descend`` takes a dictionary from the number of a part to its signal."""
    if dim not in (1, -3):
        raise NotImplementedError("only a division of the channels has a rule")
    values = x.value.chunk(chunks, 1)
    zs = [None] * len(values) if x.excitation is None else x.excitation.chunk(chunks, 1)
    parts = tuple(Neurons(v, z, x.rectified) for v, z in zip(values, zs, strict=True))
    join = rules.engine.join([v.shape[1:] for v in values])
    return parts, lambda signals: [join(signals)]


@rule(torch.add, operator.add, operator.iadd, "add", "add_")
def add(rules: RuleSet, _: Any, left: Neurons | float, right: Neurons | float, **more: Any) -> tuple[Neurons, Descend]:
    """A residual sum, in which each side gets the signal; or a sum with a number, which is a bias."""
    if more:
        raise InputError(f"a sum with {', '.join(more)} has no rule")
    if isinstance(left, Neurons) and isinstance(right, Neurons):
        return rules.added(left, right)
    x, number = (left, right) if isinstance(left, Neurons) else (right, left)
    assert isinstance(x, Neurons)
    assert not isinstance(number, Neurons)
    return rules.shifted(x, number)

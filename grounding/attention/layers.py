"""One function for each kind of operation: it computes the neurons, and says how a signal goes back to the inputs.

What depends on the method (a weighted layer, a nonlinearity, a scaling, a sum) is in the method's rule set
(``rules.py``). What depends on the operation alone (which weights, which input won a maximum, which part of a
concatenation) is here.

A rule has the signature ``(rules, operation, *arguments, **keywords) -> (Neurons, descend)``. The operation is an ATen
overload such as ``torch.ops.aten.relu.default``, a function of ``operations.py``, or a module. The arguments are those
of the call, with :class:`Neurons` in place of tensors that depend on the images. ``descend`` takes the signal to the
outputs and returns one signal per :class:`Neurons` among the arguments, or None for an input that gets nothing.

A network is captured as ATen operations, so a layer that is composed of operations with rules needs no rule of its own.
To treat a module of your own as a whole, or to add an operation, decorate a function with :func:`rule`:

    @rule(MyScaling)
    def my_scaling(rules, module, x):
        return rules.scaled(x, module.factor.expand_as(x.value), module)

    rule(torch.ops.aten.erf)(nonlinearity)          # an element-wise function needs nothing else

A ``descend`` is composed of the functions that the rule set returns and of those that ``rules.engine`` returns.
``rules.engine.plain(function)`` makes one of a function on plain tensors ``(N * W, *shape)``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grounding.attention.capture import operations
from grounding.attention.engine.dense import Descend, derivatives, vector_jacobian
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from grounding.attention.weights import Pair, weights_of
from proposals.errors import InputError

aten = torch.ops.aten
Rule = Callable[..., tuple[Neurons, Descend]]
RULES: dict[object, Rule] = {}

# operations for which there cannot be a rule, and the reason
REFUSED: dict[object, str] = {
    aten.layer_norm: "it subtracts the mean over channels, so an output depends on its inputs' differences",
    aten.group_norm: "it subtracts means of the image, so an output depends on its inputs' differences",
    aten.instance_norm: "it subtracts means of the image, so an output depends on its inputs' differences",
    aten._softmax: "each output depends on the differences between all inputs",
    aten.bmm: "it multiplies activations with one another",
    aten.mm: "it multiplies activations with one another",
    aten._scaled_dot_product_flash_attention_for_cpu: "it multiplies activations with one another",
    aten.scaled_dot_product_attention: "it multiplies activations with one another",
    aten._native_multi_head_attention: "it multiplies activations with one another",
    aten.convolution: "its weights depend on the image",
    aten.upsample_bicubic2d: "its weights are partly negative; use mode='bilinear'",
}


def rule(*kinds: object) -> Callable[[Rule], Rule]:
    """Registers a function for kinds of operations.

    Args:
        kinds: module classes, or ATen operations such as ``torch.ops.aten.erf`` or those of ``torch.library``.

    Raises:
        InputError: something else, such as a function of ``torch.nn.functional``, which is composed of ATen operations.
    """
    keys = [key_of(kind) for kind in kinds]

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(keys, function))
        return function

    return register


def key_of(kind: object) -> object:
    """The key of an operation in ``RULES``: all overloads of an ATen operation have one rule."""
    if isinstance(kind, torch._ops.OpOverload):
        return kind.overloadpacket
    ours = getattr(kind, "__module__", None) == operations.__name__
    if (
        isinstance(kind, torch._ops.OpOverloadPacket)
        or ours
        or (isinstance(kind, type) and issubclass(kind, nn.Module))
    ):
        return kind
    raise InputError(f"a rule is registered for a module class or an ATen operation, not for {kind!r}: networks are "
                     "captured as ATen operations, for example torch.ops.aten.relu for F.relu")  # fmt: skip


def unchanged(g: Any) -> list[Any]:
    """The ``descend`` of an operation that changes nothing."""
    return [g]


@rule(aten.convolution, aten.linear)
def weighted(rules: RuleSet, operation: Any, x: Neurons, *rest: Any) -> tuple[Neurons, Descend]:
    """A sum of weighted inputs."""
    return rules.weighted(weights_of(operation, *rest), x)


@rule(operations.affine)
def affine(rules: RuleSet, _: Any, x: Neurons, scale: Any, shift: Any) -> tuple[Neurons, Descend]:
    """A scale and a shift of each channel or element, both constant: a batch norm that could not be folded, a bias."""
    return rules.affine(x, *(_as_constant(c, x.value) for c in (scale, shift)))


def _as_constant(value: Any, like: Tensor) -> Tensor | None:
    """A number as a tensor of the precision of another one."""
    if value is None or isinstance(value, Tensor):
        return None if value is None else value.to(like)
    return torch.tensor(value, dtype=like.dtype, device=like.device)


@rule(operations.signed_affine)
def signed_affine(
    rules: RuleSet, _: Any, x: Neurons, negated: Neurons | None, scale: Any, shift: Any
) -> tuple[Neurons, Descend]:
    """A scale that is partly negative, over a weighted sum: where it is, the inputs that lower the sum can win."""
    constant = _as_constant(scale, x.value)
    assert constant is not None
    return rules.signed_affine(x, negated, constant, _as_constant(shift, x.value))


@rule(aten.relu, aten.hardtanh)
def rectifier(rules: RuleSet, function: Any, x: Neurons, *limits: Any) -> tuple[Neurons, Descend]:
    """A ReLU: 0 below 0."""
    if limits and limits[0] != 0:
        return nonlinearity(rules, function, x, *limits)
    if rules.closed(x) and not limits:
        return x, unchanged
    return rules.activated(x, function(x.value, *limits), lambda v: function(v, *limits), rectifies=True)


NONLINEARITIES = (aten.sigmoid, aten.hardsigmoid, aten.silu, aten.hardswish, aten.gelu, aten.elu, aten.tanh,
                  aten.leaky_relu, aten.mish, aten.softplus, aten.celu, aten.log_sigmoid, aten.clamp,
                  aten.clamp_min, aten.clamp_max, aten.threshold, aten.pow, aten.square, aten.sqrt, aten.rsqrt,
                  aten.reciprocal, aten.exp, aten.abs, aten.log, aten.log1p, aten.expm1, aten.erf, aten.atan, aten.sin,
                  aten.cos, aten.hardshrink, aten.softshrink, aten._prelu_kernel, aten.prelu)  # fmt: skip


@rule(*NONLINEARITIES)
def nonlinearity(rules: RuleSet, function: Any, x: Neurons, *rest: Any, **more: Any) -> tuple[Neurons, Descend]:
    """Any other element-wise function."""
    whole = functools.partial(function, **more)
    return rules.activated(x, whole(x.value, *rest), lambda v: whole(v, *rest), rectifies=False)


@rule(aten.max_pool2d)
def max_pool(
    rules: RuleSet,
    _: Any,
    x: Neurons,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil: bool = False,
) -> tuple[Neurons, Descend]:
    """The maximum of each window gets the whole signal of the window."""
    geometry = (_pair(size), _pair(stride or size), _pair(padding), _pair(dilation), ceil)
    value, where = F.max_pool2d(x.value, *geometry, return_indices=True)
    excitation = None if x.excitation is None else _at(x.excitation, where)
    pooled = Neurons(value, excitation, x.rectified)
    down = rules.engine.max_pool(x, pooled, where.int(), geometry)  # a plane has fewer than 2^31 positions
    return pooled, lambda g: [down(g)]


def _at(z: Tensor, where: Tensor) -> Tensor:
    """The values of z at the positions of the maxima."""
    return z.flatten(2).gather(2, where.flatten(2)).view_as(where)


@rule(operations.maximum)
def maximum(rules: RuleSet, _: Any, x: Neurons, dims: Sequence[int], keepdim: bool) -> tuple[Neurons, Descend]:
    """The maximum over dimensions: the winner gets the whole signal; of equal values, the first one."""
    kept = [d for d in range(x.value.ndim) if d not in dims]
    where = x.value.permute(*kept, *dims).flatten(len(kept)).argmax(-1, keepdim=True)

    def pick(value: Tensor) -> Tensor:
        flat = value.permute(*kept, *dims).flatten(len(kept))
        picked = flat.gather(-1, where.repeat_interleave(len(value) // len(where), 0))[..., 0]
        for d in sorted(dims) if keepdim else ():
            picked = picked.unsqueeze(d)
        return picked

    pooled = x.apply(pick)
    down = rules.engine.linear(pick, x, pooled)
    return pooled, lambda g: [down(g)]


@rule(operations.pointwise)
def pointwise(rules: RuleSet, _: Any, x: Neurons, value: Neurons) -> tuple[Neurons, Descend]:
    """A nonlinearity that is composed of several operations."""
    return rules.pointwise(x, value)


@rule(operations.adaptive_maximum)
def adaptive_maximum(rules: RuleSet, _: Any, x: Neurons, size: Sequence[int]) -> tuple[Neurons, Descend]:
    """The maximum of each window gets the whole signal of the window; the windows may differ in size."""
    where = F.adaptive_max_pool2d(x.value, list(size), return_indices=True)[1]

    def pick(value: Tensor) -> Tensor:
        return _at(value, where.repeat_interleave(len(value) // len(where), 0))

    pooled = x.apply(pick)
    down = rules.engine.linear(pick, x, pooled)
    return pooled, lambda g: [down(g)]


@rule(operations.product)
def gated(rules: RuleSet, _: Any, x: Neurons, gate: Neurons) -> tuple[Neurons, Descend]:
    """A value times its gate, as in squeeze and excitation.

    For all methods but the gradients, the gate counts as a constant, and no signal goes into the branch that computes
    it.
    """
    return rules.product(x, gate)


@rule(operations.joint_product)
def joint_product(rules: RuleSet, _: Any, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
    """A product of two values of which neither is the other's gate: each gets half of the mass."""
    return rules.joint_product(left, right)


@rule(operations.choose)
def choose(rules: RuleSet, _: Any, mask: Tensor, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
    """One of two values for each element: the chosen one gets the signal."""
    pre = left.excitation is not None or right.excitation is not None
    excitation = torch.where(mask, left.z, right.z) if pre else None
    chosen = Neurons(torch.where(mask, left.value, right.value), excitation, left.rectified and right.rectified)
    gates = [rules.engine.gate(m.to(chosen.value)) for m in (mask, ~mask)]
    return chosen, lambda g: [gate(g) for gate in gates]


ROUTES = (aten.avg_pool2d, aten.avg_pool1d, aten.avg_pool3d, aten._adaptive_avg_pool2d, aten.adaptive_avg_pool1d,
          aten._adaptive_avg_pool3d, aten.mean, aten.sum, operations.reshape, operations.chain, operations.expand_like,
          aten.permute, aten.slice, aten.select, aten.expand, aten.repeat, aten.flip, aten.roll, aten.index_select,
          aten.index, aten._unsafe_index, aten.gather,
          aten.reflection_pad1d, aten.reflection_pad2d, aten.replication_pad1d,
          aten.replication_pad2d, aten.upsample_nearest2d, aten._upsample_nearest_exact2d, aten.upsample_bilinear2d,
          aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.im2col, aten.col2im, aten.cumsum,
          aten.unfold, aten.rot90, aten._to_copy, aten.upsample_nearest1d, aten.upsample_linear1d)  # fmt: skip
AVERAGES = (aten.avg_pool2d, aten._adaptive_avg_pool2d, aten.mean)
MEANS = (*AVERAGES, aten.avg_pool1d, aten.avg_pool3d, aten.adaptive_avg_pool1d, aten._adaptive_avg_pool3d)
SUMS = (aten.sum,)
SHAPES = (operations.reshape, operations.chain, operations.expand_like, aten.permute, aten.expand, aten._to_copy)


@rule(*ROUTES)
def route(rules: RuleSet, function: Any, x: Neurons, *rest: Any, **keywords: Any) -> tuple[Neurons, Descend]:
    """Averages, sums, reshapings, slices and other linear operations without a bias, with weights >= 0."""
    others = [None] * sum(isinstance(r, Neurons) for r in rest)
    rest = tuple(r.value if isinstance(r, Neurons) else r for r in rest)
    total = x.apply(lambda value: function(value, *rest, **keywords))
    images = len(x.value)

    def call(value: Tensor) -> Tensor:
        words = len(value) // images
        given = [r.repeat_interleave(words, 0) if _by_image(r, images) else r for r in rest]
        result: Tensor = function(value, *given, **keywords)
        return result

    down = rules.engine.linear(call, x, total, _windows(function, rest, x.value, total.value))
    down = rules.averaged(total, down) if key_of(function) in MEANS else down
    return total, lambda g: [down(g), *others]


def _by_image(value: object, images: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == images


def _windows(function: Any, rest: Sequence[Any], x: Tensor, y: Tensor) -> tuple[Pair, Pair] | None:
    """Size and stride of an average's windows, if all of them lie within the image and have the same size."""
    kind = key_of(function)
    if x.ndim != 4 or y.shape[1:2] != x.shape[1:2]:
        return None
    if kind is aten.avg_pool2d:
        size, stride, padding, ceil, _, divisor = [*rest, *AVERAGE_DEFAULTS[len(rest) :]]
        plain = not any(padding) and not ceil and divisor is None
        return (_pair(size), _pair(stride or size)) if plain else None
    whole = kind in (aten._adaptive_avg_pool2d, aten.mean) and y[0, 0].numel() == 1
    return ((x.shape[2], x.shape[3]), (1, 1)) if whole else None


AVERAGE_DEFAULTS: tuple[Any, ...] = (None, (), (0, 0), False, True, None)


def _pair(n: Any) -> Pair:
    return (n, n) if isinstance(n, int) else (n[0], n[-1])


@rule(aten.constant_pad_nd)
def pad(rules: RuleSet, function: Any, x: Neurons, sizes: Sequence[int], value: float = 0) -> tuple[Neurons, Descend]:
    """A border of one number. The border is an input of the next layer, but leads to no other neuron."""

    def padded(part: Tensor, border: float = 0) -> Tensor:
        result: Tensor = function(part, sizes, border)
        return result

    excitation = padded(x.z, max(value, 0)) if x.excitation is not None or value < 0 else None
    total = Neurons(padded(x.value, value), excitation, x.rectified)
    down = rules.engine.linear(padded, x, total)
    return total, lambda g: [down(g)]


@rule(aten.cat)
def concatenate(rules: RuleSet, _: object, parts: Sequence[Neurons], dim: int = 0) -> tuple[Neurons, Descend]:
    """A concatenation: each part gets its own share back."""
    value = torch.cat([part.value for part in parts], dim)
    pre = any(part.excitation is not None for part in parts)
    excitation = torch.cat([part.z for part in parts], dim) if pre else None
    whole = Neurons(value, excitation, all(part.rectified for part in parts))
    if dim == 1:
        return whole, rules.engine.split(whole, parts)
    sizes = [part.value.shape[dim] for part in parts]
    return whole, rules.engine.plain(lambda g: list(g.split(sizes, dim)))


@rule(aten.slice_scatter, aten.select_scatter)
def scatter(rules: RuleSet, function: Any, x: Neurons, part: Neurons, *place: Any) -> tuple[Neurons, Descend]:
    """A value, a part of which was replaced by another value."""
    pre = x.excitation is not None or part.excitation is not None
    excitation = function(x.z, part.z, *place) if pre else None
    whole = Neurons(function(x.value, part.value, *place), excitation, x.rectified and part.rectified)

    def descend(g: Tensor) -> list[Tensor]:
        blank = g.new_zeros(len(g), *part.value.shape[1:])
        inside = vector_jacobian(lambda p: function(torch.zeros_like(g), p, *place), blank, g)
        return [function(g, blank, *place), inside]

    return whole, rules.engine.plain(descend)


@rule(aten.add)
def add(rules: RuleSet, _: Any, left: Neurons, right: Neurons) -> tuple[Neurons, Descend]:
    """A residual sum, in which each side gets the signal."""
    return rules.added(left, right)


def differentiated(rules: RuleSet, function: Any, *arguments: Any, **keywords: Any) -> tuple[Neurons, Descend]:
    """Any operation of one result, for methods that are derivatives: the vector-Jacobian product, by autograd."""
    inputs = [a for a in arguments if isinstance(a, Neurons)]
    images = len(inputs[0].value)

    def call(*values: Tensor) -> Tensor:
        given = iter(values)
        result: Tensor = function(*(next(given) if isinstance(a, Neurons) else a for a in arguments), **keywords)
        return result

    def down(g: Tensor) -> Sequence[Tensor | None]:
        values = [x.value.repeat_interleave(len(g) // images, 0).requires_grad_() for x in inputs]
        try:
            with torch.enable_grad():
                return derivatives(call(*values), values, g)
        except RuntimeError as error:
            raise InputError(f"{function} has no derivative: {str(error).splitlines()[0]}") from error

    return rules.source(call(*(x.value for x in inputs))), rules.engine.plain(down)


def reason(kind: object) -> str:
    """Why no signal can pass an operation.

    Args:
        kind: its key.
    """
    name = getattr(kind, "__name__", str(kind)).strip("_")
    return f"{name} has no rule" + (f": {REFUSED[kind]}" if kind in REFUSED else "")

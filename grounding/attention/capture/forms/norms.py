"""The normal forms of norms. In evaluation mode, a batch norm is a scale and a shift."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grounding.attention.capture.forms.registry import form, shape_of
from grounding.attention.capture.forms.sums import scale_and_shift
from grounding.attention.capture.graph import GraphBuilder, Node, regular
from proposals.errors import InputError

aten = torch.ops.aten


BATCH_NORMS = (
    aten.native_batch_norm,
    aten._native_batch_norm_legit_no_training,
    aten._native_batch_norm_legit,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten._batch_norm_with_update,
    aten._batch_norm_no_update,
)


@form(*BATCH_NORMS)
def batch_norm(
    builder: GraphBuilder, result: Any, x: Node, weight: Any, bias: Any, *rest: Any, operation: Any, **more: Any
) -> list[Node]:
    """A batch norm in evaluation mode, as a scale and a shift of each channel."""
    names: Sequence[str] = ("weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    if "no_training" in str(operation) or "no_update" in str(operation):
        names = [*names[:4], *names[5:]]
    given = {**dict(zip(names, (weight, bias, *rest), strict=False)), **more}
    mean, var = given.get("running_mean"), given.get("running_var")
    if not regular(x):
        return [_instance_norm(builder, x, given)]
    if given.get("training") or not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        raise InputError(f"{builder.place}a batch norm without running statistics computes the mean of the batch: "
                         "use track_running_stats=True and evaluation mode")  # fmt: skip
    scale = (var + given["eps"]).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *[1] * (len(shape_of(x)) - 2))
    return [scale_and_shift(builder, x, scale.view(shape), shift.view(shape))]


def _instance_norm(builder: GraphBuilder, x: Node, given: dict[str, Any]) -> Node:
    """An instance norm, which PyTorch computes as a batch norm of one image with N times C channels."""
    source, steps = x.args[:2]
    assert isinstance(source, Node)
    if len(steps) > 1 or shape_of(x)[0] != 1 or len(shape_of(source)) < 3:  # type: ignore[arg-type]
        raise InputError(f"{builder.place}a batch norm of values whose first dimension does not count the images has "
                         "no rule: keep the batch in front")  # fmt: skip
    channels = shape_of(source)[1]
    names = ("weight", "bias", "running_mean", "running_var")
    parts = [value[:channels] if isinstance(value, Tensor) else value for value in map(given.get, names)]
    if not given.get("training"):
        (whole,) = batch_norm(
            builder, None, source, *parts, operation=aten.native_batch_norm.default, training=False, eps=given["eps"]
        )
        return builder.reshape(whole, shape_of(x))
    more = (bool(given.get("training")), 0.0, given["eps"], False)
    whole = builder.call(aten.instance_norm.default, source, *parts, *more, shape=shape_of(source))
    return builder.reshape(whole, shape_of(x))


@form(aten.native_layer_norm)
def layer_norm(
    builder: GraphBuilder,
    result: Any,
    x: Node,
    sizes: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    operation: Any = None,
) -> list[Node]:
    """A layer norm."""
    return [builder.call(aten.layer_norm.default, x, sizes, weight, bias, eps, shape=shape_of(x))]


@form(aten.native_group_norm)
def group_norm(
    builder: GraphBuilder, result: Any, x: Node, weight: Any, bias: Any, *sizes: Any, operation: Any = None
) -> list[Node]:
    """A group norm."""
    return [builder.call(aten.group_norm.default, x, sizes[3], weight, bias, sizes[4], shape=shape_of(x))]

"""A traced copy of a model: evaluation mode, batch norms folded, nothing in place."""

import copy
import threading

import torch
import torch.fx
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from grounding.attention.layers import RULES
from proposals.errors import InputError

Node = torch.fx.Node

# torch.fx patches module calls of the whole process while it traces
_TRACING = threading.Lock()

# layers for which there cannot be a rule, and the reason
REFUSED: dict[type[nn.Module], str] = {
    nn.LayerNorm: "a layer norm subtracts the mean over channels, so an output depends on its inputs' differences",
    nn.GroupNorm: "a group norm subtracts means of the image, so an output depends on its inputs' differences",
    nn.InstanceNorm2d: "an instance norm subtracts means of the image, so an output depends on its inputs' differences",
    nn.MultiheadAttention: "attention multiplies activations with one another",
}


def refusal(kind: object) -> str:
    """Why no signal can pass an operation.

    Args:
        kind: a module's class, a function, or a method's name.
    """
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    for refused, reason in REFUSED.items():
        if isinstance(kind, type) and issubclass(kind, refused):
            return f"{name} has no rule: {reason}"
    return f"{name} has no rule"


class _Tracer(torch.fx.Tracer):
    """A tracer for which every layer with a rule, and every layer in ``REFUSED``, is one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = type(m) in RULES or isinstance(m, (nn.Linear, *REFUSED))
        return whole or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> torch.fx.GraphModule:
    """A private copy in evaluation mode, traced; each batch norm is folded into the convolution before it.

    Args:
        model: the model, which is not modified.

    Raises:
        InputError: torch.fx cannot trace it.
    """
    with _TRACING:
        model = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        try:
            _split_norms(model)
            traced = torch.fx.GraphModule(model, _Tracer().trace(model))
        except (torch.fx.proxy.TraceError, TypeError) as error:
            raise InputError(f"torch.fx cannot trace this model: {error}") from error
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and type(_module(traced, node)) is nn.BatchNorm2d:
            _fold(traced, node)
    for node in traced.graph.nodes:
        if _in_place(traced, node):
            _redirect(traced, node)
    return traced


def _split_norms(model: nn.Module) -> None:
    """Replaces a module that is both a batch norm and an activation, as in timm, by two modules."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d) and hasattr(norm, "act"):
                plain = nn.BatchNorm2d(norm.num_features, norm.eps)
                plain.load_state_dict(norm.state_dict())
                plain.to(norm.weight).eval().requires_grad_(False)
                activation = norm.act
                assert isinstance(activation, nn.Module)
                setattr(parent, name, nn.Sequential(plain, activation))


def _module(traced: torch.fx.GraphModule, node: Node) -> nn.Module:
    return traced.get_submodule(str(node.target))


def _in_place(traced: torch.fx.GraphModule, node: Node) -> bool:
    """Whether a node changes its argument."""
    if node.op == "call_module":
        return getattr(_module(traced, node), "inplace", False) is True
    name = str(node.target)
    named = node.op == "call_method" and name.endswith("_") and not name.endswith("__")
    return named or node.kwargs.get("inplace") is True


def _redirect(traced: torch.fx.GraphModule, node: Node) -> None:
    """Makes every node that reads the argument of an in-place operation after it read the result instead."""
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    argument = node.args[0]
    assert isinstance(argument, Node)
    for reader in list(argument.users):
        if order[reader] > order[node]:
            reader.replace_input_with(argument, node)


def _fold(traced: torch.fx.GraphModule, norm: Node) -> None:
    """Folds a batch norm into the convolution before it, as a new module, because the convolution may be shared."""
    before = norm.args[0]
    assert isinstance(before, Node)
    if before.op != "call_module" or len(before.users) > 1:
        return
    convolution, batch_norm = _module(traced, before), _module(traced, norm)
    if type(convolution) is not nn.Conv2d:
        return
    assert isinstance(batch_norm, nn.BatchNorm2d)
    folded = f"{before.name}_folded"
    traced.add_submodule(folded, fuse_conv_bn_eval(convolution, batch_norm))
    before.target = folded
    before.meta["nn_module_stack"] = {**before.meta["nn_module_stack"], **norm.meta["nn_module_stack"]}
    norm.replace_all_uses_with(before)
    traced.graph.erase_node(norm)


def check_weights(module: nn.Module) -> None:
    """Checks that top-down passes can use the weights of a network.

    Raises:
        InputError: float16 weights, or weights that are NaN or infinite.
    """
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float16:
            raise InputError(f"{name} is float16, in which signals overflow; use float32, or bfloat16 on a GPU")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"the weights {name} are not finite")

"""A private copy of a model, in evaluation mode. The model itself is never modified.

``copy.deepcopy`` is not enough: it fails for weights that a hook computes (weight norm, spectral norm, pruning) and for
features that a model keeps on itself, because these tensors are results of autograd. Here tensors are copied by value
and everything else by ``copy.deepcopy``, attribute by attribute; an attribute that cannot be copied is shared.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from proposals.errors import InputError


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without gradients. Wrappers around the model or around parts of it are removed.

    Args:
        model: the model. ``nn.DataParallel``, ``DistributedDataParallel`` and the results of ``torch.compile`` are
            opened.

    Raises:
        InputError: a scripted model, whose layers cannot be seen, a quantised layer, or something that is not a module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a network must be an nn.Module, not {type(model).__name__}")
    model = opened(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a scripted or traced model hides its layers: give the nn.Module that it was made from")
    for path, module in model.named_modules():
        if ".quantized" in type(module).__module__:
            raise InputError(f"{path or type(module).__name__} is a quantised layer, through which no signal can pass: "
                             "give the model before its quantisation")  # fmt: skip
    with torch.inference_mode(False), torch.no_grad():
        copied = _copy(model)
        copied.eval()
    return copied


def opened(model: nn.Module) -> nn.Module:
    """The module inside of a wrapper; the module itself if it is no wrapper."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _copy(model: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    modules = {id(module): module for module in model.modules()}
    for module in modules.values():
        scripted = isinstance(module, torch.jit.ScriptModule)
        memo[id(module)] = module if scripted else object.__new__(type(module))
    for module in modules.values():
        memo[id(module)] = memo[id(opened(module))]
    for module in modules.values():
        for tensor in _tensors(module.__dict__):
            memo.setdefault(id(tensor), _copy_tensor(tensor))
    for module in modules.values():
        if opened(module) is module and not isinstance(module, torch.jit.ScriptModule):
            attributes = {name: _copy_value(value, memo) for name, value in module.__dict__.items()}
            memo[id(module)].__dict__.update(attributes, _compiled_call_impl=None)
    copied: nn.Module = memo[id(model)]
    return copied


def _tensors(value: object, depth: int = 3) -> Iterator[Tensor]:
    """The tensors in a value, and in the containers in it."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item, depth - 1)


def _copy_tensor(tensor: Tensor) -> Tensor:
    if nn.parameter.is_lazy(tensor):
        lazy: Tensor = copy.deepcopy(tensor)
        return lazy
    copied = tensor.detach().clone(memory_format=torch.contiguous_format) if tensor.layout is torch.strided else tensor
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def _copy_value(value: object, memo: dict[int, Any]) -> object:
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # any type may refuse, with any error: a lock, a file, a process group, a generator
        return value


def check_weights(module: nn.Module) -> None:
    """Checks that top-down passes can use the weights of a network.

    Raises:
        InputError: float16 weights, weights that are NaN or infinite, or no weights.
    """
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        if tensor.dtype == torch.float16:
            raise InputError(f"{name} is float16, in which signals overflow; use float32, or bfloat16 on a GPU")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"the weights {name} are not finite")

"""Captures a network: runs a private copy of the model once, and returns the graph of what it did.

The graph fits any number of images. It fits images of any size, too, unless the model's code reads the size of a tensor
or an argument of an operation depends on it (``Captured.sized``).
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from grounding.attention.capture.graph import BATCH, GraphBuilder, Node
from grounding.attention.capture.operations import refused
from grounding.attention.capture.recording import Recorder
from proposals.errors import InputError

TORCH = str(Path(torch.__file__).parent) + os.sep
# the getters of properties are attributes only of the class
_SHAPE, _BYTES = (vars(torch._C.TensorBase)[name].__get__ for name in ("shape", "nbytes"))
SIZES = {torch.Tensor.size, torch.Tensor.__len__, torch.Tensor.numel, torch.Tensor.nelement, torch.Tensor.stride,
         torch.numel, _SHAPE, _BYTES}  # fmt: skip
ESCAPES = {torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.data_ptr,
           torch.Tensor.__dlpack__}  # fmt: skip


@dataclass
class Captured:
    """What a model did with images of one size.

    Attributes:
        graph: its operations, from the placeholder ``image`` to the outputs.
        attributes: the constants and modules of the graph, by name.
        names: the node of each module's output, by the module's path.
        kinds: the class of each module, by its path.
        outputs: the nodes of the tensors that the model returned, and their values for the first image.
        sized: whether it fits images of this size only.
        size: ``(C, h, w)`` of the image.
    """

    graph: torch.fx.Graph
    attributes: dict[str, Any]
    names: dict[str, Node]
    kinds: dict[str, type[nn.Module]]
    outputs: list[tuple[Node, Tensor]]
    sized: bool
    size: torch.Size


def capture(model: nn.Module, image: Tensor, leaves: Callable[[nn.Module], bool]) -> Captured:
    """Runs a model and records what it does.

    Args:
        model: a private copy (see ``copying.py``).
        image: ``(1, C, h, w)``. It is given twice, so that the dimension that counts images is known.
        leaves: whether a module is a leaf: it has a rule of its own, so it becomes one node and is not looked into.

    Raises:
        InputError: the model raises an error for this image, or does something that a graph cannot express.
    """
    builder = GraphBuilder()
    recorder = Recorder(builder)
    images = image.detach().contiguous().repeat(BATCH, *[1] * (image.ndim - 1))
    recorder.begin(images)
    names: dict[str, Node] = {}
    with _plainly(image), _watched(model, recorder, names, leaves), _Escapes(recorder), recorder:
        result = _run(model, images, builder)
    nodes = [
        (recorder.node(tensor), tensor[:1].clone())
        for tensor in tree_leaves(_fields(result))
        if isinstance(tensor, Tensor) and tensor.ndim
    ]
    outputs = [(node, tensor) for node, tensor in nodes if node is not None]
    for node, _ in outputs:
        if node.target is refused:
            raise InputError(str(node.args[1]))
    recorder.end()
    kinds = {path: type(module) for path, module in model.named_modules()}
    return Captured(builder.graph, builder.attributes, names, kinds, outputs, builder.sized, image.shape[1:])


def _run(model: nn.Module, images: Tensor, builder: GraphBuilder) -> object:
    try:
        return model(images)
    except InputError:
        raise
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise InputError(f"the model raises {type(error).__name__} for an image of {tuple(images.shape[1:])} in "
                         f"{builder.module or 'its forward'}: {message}") from error  # fmt: skip


def _fields(result: object) -> object:
    """The values of a dataclass, such as the outputs of some libraries; anything else unchanged."""
    plain = isinstance(result, Tensor | dict | list | tuple) or not hasattr(result, "__dict__")
    return result if plain else vars(result)


@contextmanager
def _plainly(image: Tensor) -> Iterator[None]:
    """No gradients, no inference mode (whose tensors have no views), and no autocast."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        yield


@contextmanager
def _watched(
    model: nn.Module, recorder: Recorder, names: dict[str, Node], leaves: Callable[[nn.Module], bool]
) -> Iterator[None]:
    """While it is active, each module notes when it begins and what it returns."""
    with ExitStack() as stack:
        for path, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            begins, ends = _hooks(path, recorder, names)
            stack.callback(module.register_forward_pre_hook(begins, prepend=True).remove)
            stack.callback(module.register_forward_hook(ends).remove)
            if leaves(module):
                stack.callback(_put_back, module, module.__dict__.get("forward"))
                module.forward = _leaf(path, module, recorder)
        yield


def _put_back(module: nn.Module, forward: Any) -> None:
    """Gives a module its own ``forward`` again, or that of its class."""
    module.__dict__.pop("forward")
    if forward is not None:
        module.forward = forward


def _hooks(path: str, recorder: Recorder, names: dict[str, Node]) -> tuple[Callable[..., None], Callable[..., None]]:
    outer: list[str] = []

    def begins(*_: object) -> None:
        if not recorder.here:
            return
        outer.append(recorder.builder.module)
        recorder.builder.module = path

    def ends(module: nn.Module, inputs: object, output: object) -> None:
        if not recorder.here:
            return
        nodes = [recorder.node(value) for value in tree_leaves(output)]
        found = next((node for node in nodes if node is not None), None)
        if found is not None:
            names[path] = found
        recorder.builder.module = outer.pop()

    return begins, ends


def _leaf(path: str, module: nn.Module, recorder: Recorder) -> Callable[[Tensor], Tensor]:
    forward: Callable[[Tensor], Tensor] = module.forward

    def run(x: Tensor) -> Tensor:
        if not recorder.here:
            return forward(x)
        node = recorder.node(x)
        recorder.suspended = True
        try:
            result = forward(x)
        finally:
            recorder.suspended = False
        if node is not None:
            recorder.add(result, recorder.builder.leaf(module, path, node, result.shape))
        return result

    return run


class _Escapes(TorchFunctionMode):
    """Notes when the model's code reads the size of a tensor, and refuses when it reads its values."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SIZES and not _caller().startswith(TORCH):
            self._recorder.builder.sized |= self._recorder.depends(args[0])
        if func in ESCAPES and args and not self._recorder.suspended and self._recorder.node(args[0]) is not None:
            raise InputError(f"{self._recorder.builder.place}the model's Python code reads values that depend on the "
                             "image, so it may do something else for another image")  # fmt: skip
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.__getitem__ and result.shape == args[0].shape and _bounded(args[1]):
            # PyTorch records no slice of a whole dimension; of a larger image, the same slice may be a part
            self._recorder.builder.sized |= self._recorder.node(args[0]) is not None
        return result


def _caller() -> str:
    """The file of the code that called a function of a tensor."""
    frame = sys._getframe(2)
    # PyTorch's len() calls itself to be noticed
    while frame.f_back and frame.f_code.co_name in ("handle_torch_function", "__len__"):
        frame = frame.f_back
    return frame.f_code.co_filename


def _bounded(index: object) -> bool:
    """Whether an index has a slice with an end."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, slice) and part.stop is not None for part in parts)

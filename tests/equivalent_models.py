"""One network with other forwards and other wrappers around it: see ``equivalents``."""

import collections
import copy
import dataclasses
import functools
import math
import types
import warnings
from collections.abc import Callable

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

MODELS: dict[str, Callable[[nn.Module], nn.Module]] = {}
TARGETS = {"traced_by_fx": "stem.1"}  # torch.fx opens a Sequential


class Outer(nn.Module):
    """A model around a network.

    Args:
        net: the network.
        function: the forward, as a function of this module and its arguments.
    """

    def __init__(self, net: nn.Module, function: Callable):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x, *more, **named):
        return self.function(self, x, *more, **named)


def forward(function: Callable) -> Callable:
    """Registers a forward of a model around a network by its name."""
    assert function.__name__ not in MODELS
    MODELS[function.__name__] = functools.partial(Outer, function=function)
    return function


def model(function: Callable[[nn.Module], nn.Module]) -> Callable:
    """Registers what makes another model of a network, by its name."""
    assert function.__name__ not in MODELS
    MODELS[function.__name__] = function
    return function


# arguments


@forward
def optional_scale(outer, x, scale=None):
    if scale is not None:
        x = x * scale
    return outer.net(x)


@forward
def labels_and_a_loss(outer, x, labels=None):
    logits = outer.net(x)
    if labels is not None:
        return F.cross_entropy(logits, labels), logits
    return logits


@forward
def optional_mask(outer, x, mask=None, return_features: bool = False):
    features = outer.net.stem(x)
    features = features if mask is None else features * mask
    logits = outer.net.head(outer.net.block(features))
    return (logits, features) if return_features else logits


@forward
def any_arguments(outer, *inputs, **named):
    return outer.net(*inputs, **named)


@forward
def a_list_is_made(outer, x):
    features = [x] if isinstance(x, Tensor) else x
    return outer.net(torch.cat(features, 1))


# outputs


@dataclasses.dataclass
class Output:
    features: Tensor
    logits: Tensor


Named = collections.namedtuple("Named", "features logits")


def both(outer, x):
    features = outer.net.stem(x)
    return features, outer.net.head(outer.net.block(features))


@forward
def the_head_is_second(outer, x):
    return both(outer, x)


@forward
def the_other_head_is_first(outer, x):
    logits = outer.net(x)
    return logits[:, :3].softmax(1), logits


@forward
def two_outputs_of_one_shape(outer, x):
    logits = outer.net(x)
    return logits.flip(1), logits


@forward
def a_list(outer, x):
    return list(both(outer, x))


@forward
def a_dictionary(outer, x):
    return dict(zip(("features", "logits"), both(outer, x), strict=True))


@forward
def a_nested_dictionary(outer, x):
    features, logits = both(outer, x)
    return {"aux": [features, None], "out": {"logits": logits}}


@forward
def a_dataclass(outer, x):
    return Output(*both(outer, x))


@forward
def a_named_tuple(outer, x):
    return Named(*both(outer, x))


@forward
def an_own_object(outer, x):
    return types.SimpleNamespace(logits=both(outer, x)[1])


# state and context


@forward
def a_feature_is_kept(outer, x):
    outer.kept = outer.net.stem(x)
    return outer.net.head(outer.net.block(outer.kept))


@model
def a_feature_was_kept(net):
    outer = MODELS["a_feature_is_kept"](net)
    outer(torch.rand(1, 3, 32, 32, dtype=torch.float64))
    assert not outer.kept.is_leaf  # which deepcopy refuses
    return outer


@forward
def features_are_listed(outer, x):
    outer.__dict__.setdefault("features", []).append(outer.net.stem(x))
    return outer.net(x)


@forward
def the_context_is_asked_for(outer, x):
    assert x.device.type == "cpu" and x.is_floating_point() and not x.is_cuda and x.dtype is torch.float64
    if outer.training or torch.jit.is_scripting() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        x = x * 2
    return outer.net(x)


@forward
def sizes_are_computed(outer, x):
    height, width = x.shape[-2:]
    assert math.ceil(height / 2) * int(width) == torch.tensor(x.shape[2:]).prod().item() // 2
    return outer.net(F.pad(x, (0, max(0, 32 - width), 0, max(0, 32 - height))))


@forward
def an_error_is_caught(outer, x):
    try:
        x = x + outer.missing
    except AttributeError:
        x = x + 0
    return outer.net(x)


@forward
def no_grad_inside(outer, x):
    with torch.no_grad():
        return outer.net(x)


@forward
def enable_grad_inside(outer, x):
    with torch.enable_grad():
        return outer.net(x.detach().requires_grad_()).detach()


@forward
def autocast_is_off_inside(outer, x):
    with torch.autocast("cpu", enabled=False):
        return outer.net(x.double())


def decorated(decorator):
    def build(net):
        class Decorated(Outer):
            forward = decorator(Outer.forward)

        return Decorated(net, lambda outer, x: outer.net(x))

    return build


MODELS |= {
    "no_grad_decorates": decorated(torch.no_grad()),
    "inference_mode_decorates": decorated(torch.inference_mode()),
    "autocast_decorates": decorated(torch.autocast("cpu", dtype=torch.bfloat16)),
}

# other models of the same network


@model
def data_parallel(net):
    return nn.DataParallel(net)


@model
def data_parallel_trunk(net):
    net.block = nn.DataParallel(net.block)
    return net


@model
def compiled(net):
    return torch.compile(net, backend="eager")


@model
def compiled_in_place(net):
    net.compile(backend="eager")
    return net


@model
def compiled_block(net):
    net.block = torch.compile(net.block, backend="eager")
    return net


@model
def compiled_and_parallel(net):
    return nn.DataParallel(torch.compile(net, backend="eager"))


@model
def traced_by_fx(net):
    return torch.fx.symbolic_trace(net)


@model
def method_on_the_model(net):
    def forward(self, x):
        return self.head(self.block(self.stem(x)))

    net.forward = types.MethodType(forward, net)
    return net


@model
def method_on_a_layer(net):
    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)

    net.block.forward = types.MethodType(forward, net.block)
    return net


@model
def method_on_a_leaf(net):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=1)

    net.block.conv.forward = types.MethodType(forward, net.block.conv)
    return net


@model
def partial_on_a_layer(net):
    net.block.forward = functools.partial(type(net.block).forward, net.block)
    return net


@model
def closure_on_a_layer(net):
    block = net.block
    block.forward = lambda x: F.relu(block.norm(block.conv(x)) + x)
    return net


@model
def in_training(net):
    return net.train()


@model
def frozen(net):
    return net.requires_grad_(False)


@model
def channels_last(net):
    return net.to(memory_format=torch.channels_last)


@model
def made_in_inference_mode(net):
    with torch.inference_mode():
        made = copy.deepcopy(net)
        for module in made.modules():
            module._parameters = {
                name: parameter if parameter is None else nn.Parameter(parameter.clone(), requires_grad=False)
                for name, parameter in module._parameters.items()
            }
            module._buffers = {name: buffer.clone() for name, buffer in module._buffers.items()}
    return made


@model
def shared_weights(net):
    outer = Outer(net, lambda outer, x: outer.net(x))
    outer.again = net  # a second name of the same module
    return outer


@model
def weights_as_tensors(net):
    """Parameters that are plain tensors, as functions of others are."""
    for layer in (net.block.conv, net.stem[0]):
        weight = layer.weight
        del layer.weight
        layer.weight = weight.detach().clone()
    return net


@model
def result_of_the_weights(net):
    """A weight that is the result of an operation, which deepcopy refuses."""
    conv = net.block.conv
    conv.original = conv.weight
    del conv.weight
    conv.weight = conv.original * 1.0
    return net


@model
def a_scripted_function(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but models have such functions
        function = torch.jit.script(rectified)
    net.block.function = lambda block, x: function(block.norm(block.conv(x)) + x)
    return net


def rectified(x: Tensor) -> Tensor:
    return x.clamp(min=0.0)

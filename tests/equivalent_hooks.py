"""Pairs with hooks, other forwards of their layers and other ways to call them: see ``equivalents``."""

import functools
import types
from collections.abc import Callable

import torch
import torch.nn.functional as F
from equivalents import Block, conv_of, forms, pair
from torch import Tensor, nn


def halved(_, __, output):
    return output * 0.5


def hooked(register: Callable[[Block], object]) -> Block:
    block = Block(lambda net, x: F.relu(net.conv(x) + x))
    register(block)
    return block


def scaled(factor: float) -> Block:
    block = Block(lambda net, x: F.relu(net.scaled(x) + x))
    block.scaled = conv_of(factor * block.conv.weight, factor * block.conv.bias, padding=1)
    return block


@pair
def hook_on_a_layer():
    return hooked(lambda block: block.conv.register_forward_hook(halved)), scaled(0.5)


@pair
def hook_with_keywords():
    def hook(_, __, ___, output):
        return output * 0.5

    return hooked(lambda block: block.conv.register_forward_hook(hook, with_kwargs=True, always_call=True)), scaled(0.5)


@pair
def two_hooks_on_a_layer():
    def register(block):
        block.conv.register_forward_hook(halved)
        block.conv.register_forward_hook(lambda _, inputs, output: output + 0 * inputs[0].sum((1, 2, 3), keepdim=True))
        block.conv.register_forward_hook(lambda *_: None)

    return hooked(register), scaled(0.5)


@pair
def hook_before_a_layer():
    written = hooked(lambda block: block.conv.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(3),)))
    return written, Block(lambda net, x: F.relu(net.conv(x.flip(3)) + x))


@pair
def hook_before_a_layer_in_place():
    def hook(_, inputs):
        inputs[0].mul_(0.5)

    written = Block(lambda net, x: F.relu(net.point(net.conv(x).relu())))
    written.point.register_forward_pre_hook(hook)
    return written, Block(lambda net, x: F.relu(net.point(net.conv(x).relu() * 0.5)))


@pair
def hook_on_a_block():
    written = hooked(lambda block: block.register_forward_hook(lambda _, inputs, output: output.clamp(max=1)))
    return written, Block(lambda net, x: F.hardtanh(net.conv(x) + x, 0, 1))


@pair
def hook_replaces_a_layer():
    written = hooked(
        lambda block: block.conv.register_forward_hook(lambda module, inputs, _: block_of(module)(inputs[0]))
    )
    return written, scaled(1.0)


def block_of(module: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    return lambda x: F.conv2d(x, module.weight, module.bias, padding=1)


@pair
def another_forward_of_a_leaf():
    written = hooked(lambda block: setattr(block.conv, "forward", types.MethodType(half_of_a_convolution, block.conv)))
    return written, scaled(0.5)


def half_of_a_convolution(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return nn.Conv2d.forward(conv, x) / 2


@pair
def hook_on_an_activation():
    written = Block(lambda net, x: net.relu(net.conv(x)))
    written.relu.register_forward_hook(lambda _, __, output: output + 1)
    return written, Block(lambda net, x: net.relu(net.conv(x)) + 1)


@pair
def hook_before_a_norm():
    written = Block(lambda net, x: F.relu(net.norm(net.conv(x))))
    written.norm.register_forward_pre_hook(lambda _, inputs: inputs[0] * 0.5)
    plain = Block(lambda net, x: F.relu(net.norm(net.layer(x))))
    plain.layer = conv_of(plain.conv.weight * 0.5, plain.conv.bias * 0.5, padding=1)
    return written, plain


@pair
def hook_is_the_activation():
    written = Block(lambda net, x: net.linear(x.mean((2, 3))))
    written.linear.register_forward_hook(lambda _, __, output: output.relu())
    return written, Block(lambda net, x: net.linear(x.mean((2, 3))).relu())


forms(
    lambda net, x: F.relu(net.conv(x)),
    no_grad_in_a_block=lambda net, x: torch.no_grad()(lambda: F.relu(net.conv(x)))(),
    function_of_modules=lambda net, x: functools.reduce(lambda y, layer: layer(y), [net.conv, net.relu], x),
    unused_branch=lambda net, x: (F.relu(net.conv(x)), net.wide(x).softmax(1), net.linear(x.mean((2, 3))))[0],
    functional_call=lambda net, x: F.relu(
        torch.func.functional_call(net.conv, dict(net.conv.named_parameters()), (x,))
    ),
    vmap=lambda net, x: F.relu(torch.vmap(lambda image: net.conv(image[None])[0])(x)),
)

"""Pairs that differ in how they cut, join, move and resize activations: see ``equivalents``."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from equivalents import Block, conv_of, forms, linear_of, pair
from torch import nn

CONV = "conv"


def gap(x):
    return x.mean((2, 3))


# parts of the channels


def halves(first, second):
    """The 16 channels of one convolution as those of two."""

    def plain(net, x):
        return net.first(x).relu() + net.second(x).sigmoid()

    block = Block(plain)
    block.first = conv_of(block.wide.weight[first], block.wide.bias[first], padding=1)
    block.second = conv_of(block.wide.weight[second], block.wide.bias[second], padding=1)
    return block


def joined(first, second):
    return first.relu() + second.sigmoid()


forms(
    halves(slice(0, 8), slice(8, 16)),
    chunk_by_keyword=lambda net, x: joined(*net.wide(x).chunk(2, dim=1)),
    chunk_by_two_keywords=lambda net, x: joined(*torch.chunk(net.wide(x), chunks=2, dim=1)),
    chunk_by_negative_axis=lambda net, x: joined(*net.wide(x).chunk(2, -3)),
    split_by_size=lambda net, x: joined(*torch.split(net.wide(x), 8, dim=1)),
    split_by_sizes=lambda net, x: joined(*net.wide(x).split([8, 8], 1)),
    tensor_split=lambda net, x: joined(*torch.tensor_split(net.wide(x), 2, dim=1)),
    unbind=lambda net, x: joined(*net.wide(x).view(len(x), 2, 8, 16, 16).unbind(1)),
    iteration=lambda net, x: joined(*net.wide(x).unflatten(1, (2, 8)).transpose(0, 1)),
    narrow=lambda net, x: joined(net.wide(x).narrow(1, 0, 8), torch.narrow(net.wide(x), 1, 8, 8)),
    slices=lambda net, x: joined(net.wide(x)[:, :8], net.wide(x)[:, 8:]),
    slices_by_dots=lambda net, x: joined(net.wide(x)[..., :8, :, :], net.wide(x)[..., -8:, :, :]),
    index_select=lambda net, x: joined(
        net.wide(x).index_select(1, torch.arange(8)), torch.index_select(net.wide(x), 1, torch.arange(8, 16))
    ),
    index_by_a_list=lambda net, x: joined(net.wide(x)[:, list(range(8))], net.wide(x)[:, list(range(8, 16))]),
    index_by_a_mask=lambda net, x: joined(net.wide(x)[:, torch.arange(16) < 8], net.wide(x)[:, torch.arange(16) >= 8]),
    gather=lambda net, x: joined(
        net.wide(x)[:, :8], net.wide(x).gather(1, torch.arange(8, 16).view(1, 8, 1, 1).expand(len(x), 8, 16, 16))
    ),
)
forms(
    halves(slice(0, 16, 2), slice(1, 16, 2)),
    slices_with_a_step=lambda net, x: joined(net.wide(x)[:, ::2], net.wide(x)[:, 1::2]),
    select=lambda net, x: joined(*(net.wide(x).view(len(x), 8, 2, 16, 16).select(2, part) for part in (0, 1))),
)
forms(
    lambda net, x: F.glu(net.wide(x), 1).relu(),
    gate_of_halves=lambda net, x: (net.wide(x)[:, :8] * net.wide(x)[:, 8:].sigmoid()).relu(),
)


@pair
def the_first_channels_are_dropped():
    block = Block(lambda net, x: F.relu(net.short(x)))
    block.short = conv_of(block.conv.weight[2:], block.conv.bias[2:], padding=1)
    return Block(lambda net, x: F.relu(net.conv(x)[:, 2:])), block


# joined channels

forms(
    lambda net, x: torch.cat([net.conv(x).relu(), x], 1),
    cat_by_axis=lambda net, x: torch.cat([net.conv(x).relu(), x], axis=1),
    cat_by_keywords=lambda net, x: torch.cat(tensors=(net.conv(x).relu(), x), dim=-3),
    concat=lambda net, x: torch.concat([net.conv(x).relu(), x], 1),
    concatenate=lambda net, x: torch.concatenate([net.conv(x).relu(), x], 1),
    hstack=lambda net, x: torch.hstack([net.conv(x).relu(), x]),
    stack_and_flatten=lambda net, x: torch.stack([net.conv(x).relu(), x], 1).flatten(1, 2),
    cat_of_padded=lambda net, x: F.pad(net.conv(x).relu(), (0, 0, 0, 0, 0, 8)) + F.pad(x, (0, 0, 0, 0, 8, 0)),
)
forms(
    lambda net, x: (net.conv(x) + x).relu(),
    sum_of_a_stack=lambda net, x: torch.stack([net.conv(x), x]).sum(0).relu(),
    sum_of_a_list=lambda net, x: sum([net.conv(x), x]).relu(),
    mean_of_a_stack=lambda net, x: (2 * torch.stack([net.conv(x), x], 1).mean(1)).relu(),
    sum_of_a_view=lambda net, x: torch.cat([net.conv(x), x], 1).view(len(x), 2, 8, 16, 16).sum(1).relu(),
)


@pair
def skip_with_padded_channels():
    """The shortcut of a CIFAR ResNet: every second position, and channels of zeros."""
    layer = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    eye = torch.zeros(16, 8, 1, 1)
    eye[4:12, :, 0, 0] = torch.eye(8)
    written = Block(lambda net, x: (net.layer(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))).relu(), layer=layer)
    plain = Block(lambda net, x: (net.layer(x) + net.skip(x)).relu(), layer=layer, skip=conv_of(eye, stride=2))
    return written, plain


# moved channels and positions


@pair
def rolled_channels():
    block = Block(lambda net, x: F.relu(net.rolled(x)))
    block.rolled = conv_of(block.conv.weight.roll(3, 0), block.conv.bias.roll(3, 0), padding=1)
    return Block(lambda net, x: F.relu(torch.roll(net.conv(x), 3, 1))), block


@pair
def flipped_positions():
    block = Block(lambda net, x: F.relu(net.flipped(x)))
    block.flipped = conv_of(block.conv.weight.flip(3), block.conv.bias, padding=1)
    return Block(lambda net, x: F.relu(net.conv(x.flip(3)).flip(-1))), block


@pair
def rotated_positions():
    block = Block(lambda net, x: F.relu(net.turned(x)))
    block.turned = conv_of(block.conv.weight.rot90(-1, (2, 3)), block.conv.bias, padding=1)
    return Block(lambda net, x: F.relu(torch.rot90(net.conv(torch.rot90(x, 1, (2, 3))), -1, (2, 3)))), block


@pair
def permuted_channels():
    block = Block(lambda net, x: F.relu(net.permuted(x)))
    block.permuted = conv_of(block.conv.weight[block.order], block.conv.bias[block.order], padding=1)
    return Block(lambda net, x: F.relu(net.conv(x)[:, net.order])), block


@pair
def shuffled_channels():
    block = Block(lambda net, x: F.relu(net.shuffled(x)))
    order = torch.arange(8).view(2, 4).t().flatten()
    block.shuffled = conv_of(block.conv.weight[order], block.conv.bias[order], padding=1)
    return Block(lambda net, x: F.relu(F.channel_shuffle(net.conv(x), 2))), block


@pair
def positions_to_channels():
    point = nn.Conv2d(32, 8, 1)
    written = Block(lambda net, x: F.relu(net.point32(F.pixel_unshuffle(x, 2))), point32=point)
    return written, Block(
        lambda net, x: F.relu(net.whole(x)), whole=conv_of(point.weight.view(8, 8, 2, 2), point.bias, stride=2)
    )


# pads


def padded_kernel(net):
    kernel = torch.zeros(8, 8, 3, 3)
    kernel[:, :, :2, :2] = net.conv.weight[:, :, :2, :2].detach()
    return kernel


def one_sided() -> Block:
    block = Block(lambda net, x: F.relu(net.padded(x)))
    block.padded = conv_of(padded_kernel(block), block.conv.bias, padding=1)
    return block


def cut(net):
    return net.conv.weight[:, :, :2, :2]


forms(
    one_sided(),
    asymmetric_pad=lambda net, x: F.relu(F.conv2d(F.pad(x, (1, 0, 1, 0)), cut(net), net.conv.bias)),
    asymmetric_pad_by_module=lambda net, x: F.relu(F.conv2d(nn.ZeroPad2d((1, 0, 1, 0))(x), cut(net), net.conv.bias)),
    asymmetric_pad_by_the_shape=lambda net, x: F.relu(
        F.conv2d(F.pad(x, [max(math.ceil(x.shape[-1] / 1) + 1 - x.shape[-1], 0), 0] * 2), cut(net), net.conv.bias)
    ),
)
forms(
    lambda net, x: F.relu(net.conv(x)),
    zero_pad=lambda net, x: F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1)), net.conv.weight, net.conv.bias)),
    too_much_padding_is_cut=lambda net, x: F.relu(
        F.conv2d(x, net.conv.weight, net.conv.bias, padding=2)[:, :, 1:-1, 1:-1]
    ),
    negative_pad=lambda net, x: F.relu(F.pad(F.conv2d(x, net.conv.weight, net.conv.bias, padding=2), [-1] * 4)),
    zeros_are_joined=lambda net, x: F.relu(
        F.conv2d(
            torch.cat([x.new_zeros(len(x), 8, 1, 16), x, torch.zeros(len(x), 8, 1, 16).to(x)], 2),
            net.conv.weight,
            net.conv.bias,
            padding=(0, 1),
        )
    ),
)


def mode(name: str):
    def build():
        written = Block(
            lambda net, x: F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode=name), net.conv.weight, net.conv.bias))
        )
        plain = Block(lambda net, x: F.relu(net.layer(x)))
        plain.layer = conv_of(plain.conv.weight, plain.conv.bias, padding=1, padding_mode=name)
        return written, plain

    build.__name__ = f"{name}_pad"
    return pair(build)


for _name in ("reflect", "replicate", "circular"):
    mode(_name)

# sizes


def matrix(size: int, **options) -> torch.Tensor:
    """The weights (outputs, inputs) of a resampling of 16 values."""
    return F.interpolate(torch.eye(16, dtype=torch.float64).view(1, 16, 1, 16), size=(1, size), **options)[0, :, 0].t()


def resampled(size: int, **options):
    """Two linear layers, one along each axis."""
    weights = matrix(size, **options)
    return Block(
        lambda net, x: net.conv(net.rows(net.columns(x).transpose(2, 3)).transpose(2, 3)).relu(),
        columns=linear_of(weights),
        rows=linear_of(weights),
    )


forms(
    resampled(32, mode="nearest"),
    nearest_by_factor=lambda net, x: net.conv(F.interpolate(x, scale_factor=2)).relu(),
    nearest_by_size=lambda net, x: net.conv(F.interpolate(x, size=(32, 32), mode="nearest")).relu(),
    nearest_by_module=lambda net, x: net.conv(nn.Upsample(scale_factor=2)(x)).relu(),
    nearest_by_repetition=lambda net, x: net.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3)).relu(),
    nearest_by_expansion=lambda net, x: net.conv(
        x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(len(x), 8, 32, 32)
    ).relu(),
    nearest_by_transposed_convolution=lambda net, x: net.conv(
        F.conv_transpose2d(x, torch.ones(8, 1, 2, 2).to(x), stride=2, groups=8)
    ).relu(),
)
forms(
    resampled(32, mode="bilinear", align_corners=False),
    bilinear_by_factor=lambda net, x: net.conv(
        F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    ).relu(),
    bilinear_by_module=lambda net, x: net.conv(nn.Upsample(scale_factor=2, mode="bilinear")(x)).relu(),
)
forms(
    resampled(9, mode="bilinear", align_corners=True),
    bilinear_with_corners=lambda net, x: net.conv(F.interpolate(x, size=9, mode="bilinear", align_corners=True)).relu(),
)
forms(
    resampled(7, mode="area"),
    adaptive_average=lambda net, x: net.conv(F.adaptive_avg_pool2d(x, 7)).relu(),
    area=lambda net, x: net.conv(F.interpolate(x, size=7, mode="area")).relu(),
)


# broadcasting


def gated(net, x):
    gate = net.point(F.adaptive_avg_pool2d(x, 1)).sigmoid()
    return x * gate


forms(
    gated,
    gate_expanded=lambda net, x: x * net.point(F.adaptive_avg_pool2d(x, 1)).sigmoid().expand_as(x),
    gate_first=lambda net, x: net.point(x.mean((2, 3), keepdim=True)).sigmoid() * x,
    gate_viewed=lambda net, x: torch.mul(
        x, F.conv1d(gap(x)[..., None], net.point.weight[..., 0], net.point.bias).sigmoid().view(len(x), -1, 1, 1)
    ),
    gate_in_place=lambda net, x: x.clone().mul_(net.point(F.adaptive_avg_pool2d(x, 1)).sigmoid()),
    gate_by_einsum=lambda net, x: torch.einsum(
        "nchw,nc->nchw", x, net.point(F.adaptive_avg_pool2d(x, 1)).sigmoid().flatten(1)
    ),
    gate_repeated=lambda net, x: x * net.point(F.adaptive_avg_pool2d(x, 1)).sigmoid().repeat(1, 1, 16, 16),
    gate_divides=lambda net, x: x / (1 + torch.exp(-net.point(F.adaptive_avg_pool2d(x, 1)))),
)
forms(
    lambda net, x: (net.conv(x).relu() + F.interpolate(x.mean((2, 3), keepdim=True), size=(16, 16))).relu(),
    context_is_broadcast=lambda net, x: (net.conv(x).relu() + x.mean((2, 3), keepdim=True)).relu(),
    context_is_expanded=lambda net, x: (net.conv(x).relu() + gap(x)[:, :, None, None].expand_as(x)).relu(),
)

# control flow on shapes


def by_shape(net, x):
    if x.shape[2] > 7:
        x = net.conv(x)
    for _ in range(x.size(1) // 8):
        x = F.relu(x)
    assert int(x.shape[3]) == 16
    return x if x.ndim == 4 and x.numel() else x[None]


def by_pieces(net, x):
    pieces = []
    for piece in net.conv(x).relu().split(2, 1):
        pieces.append(piece if not pieces else piece + pieces[-1])
    return torch.cat(pieces, 1)


@dataclasses.dataclass
class Holder:
    value: torch.Tensor
    name: str = ""


forms(
    lambda net, x: F.relu(net.conv(x)),
    control_flow_on_shapes=by_shape,
    values_in_a_dataclass=lambda net, x: Holder(net.conv(x), CONV).value.relu(),
    values_in_a_dictionary=lambda net, x: {CONV: net.conv(x)}.pop(CONV).relu(),
    layers_by_name=lambda net, x: F.relu(getattr(net, CONV)(x)),
)


@pair
def each_piece_reads_the_one_before():
    def plain(net, x):
        a, b, c, d = torch.chunk(net.conv(x).relu(), 4, 1)
        return torch.cat([a, b + a, c + (b + a), d + (c + (b + a))], 1)

    return Block(by_pieces), Block(plain)

"""Pairs that differ in how an activation is written, or in what is computed in place: see ``equivalents``."""

import torch
import torch.nn.functional as F
from equivalents import Block, conv_of, forms, pair
from torch import nn


def of(layer):
    """A module between two convolutions; its convolution is also the skip of a sum."""
    return Block(lambda net, x: net.layer(net.conv(x)), layer=layer)


class Swish(torch.autograd.Function):
    """As in the memory-efficient EfficientNets."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return g * (gate * (1 + x * (1 - gate)))


class Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


forms(
    of(nn.ReLU()),
    relu_by_clamp=lambda net, x: net.conv(x).clamp(min=0),
    relu_by_clamp_min=lambda net, x: torch.clamp_min(net.conv(x), 0.0),
    relu_by_maximum=lambda net, x: torch.maximum(net.conv(x), torch.zeros_like(net.conv(x))),
    relu_by_max=lambda net, x: torch.max(net.conv(x), torch.zeros(1).to(x)),
    relu_by_mask=lambda net, x: (y := net.conv(x)) * (y > 0),
    relu_by_float_mask=lambda net, x: (y := net.conv(x)) * (y > 0).to(y.dtype),
    relu_by_where=lambda net, x: torch.where((y := net.conv(x)) > 0, y, torch.zeros_like(y)),
    relu_by_where_and_a_number=lambda net, x: torch.where((y := net.conv(x)) > 0, y, 0.0),
    relu_by_masked_fill=lambda net, x: (y := net.conv(x)).masked_fill(y < 0, 0),
    relu_by_threshold=lambda net, x: F.threshold(net.conv(x), 0, 0),
    relu_in_place=lambda net, x: F.relu_(net.conv(x)),
    relu_in_place_by_keyword=lambda net, x: F.relu(net.conv(x), inplace=True),
    relu_by_leaky_relu=lambda net, x: F.leaky_relu(net.conv(x), 0.0),
    relu_by_hardtanh=lambda net, x: F.hardtanh(net.conv(x), 0.0, 1e9),
    relu_by_an_own_function=lambda net, x: Rectifier.apply(net.conv(x)),
    relu_twice=lambda net, x: F.relu(F.relu(net.conv(x))),
)
forms(
    of(nn.ReLU6()),
    relu6_by_function=lambda net, x: F.relu6(net.conv(x)),
    relu6_by_clamp=lambda net, x: net.conv(x).clamp(0, 6),
    relu6_by_torch_clip=lambda net, x: torch.clip(net.conv(x), 0, 6),
    relu6_by_hardtanh=lambda net, x: F.hardtanh(net.conv(x), 0, 6),
    relu6_by_minimum=lambda net, x: torch.minimum(F.relu(net.conv(x)), torch.full_like(x, 6)),
    relu6_in_place=lambda net, x: net.conv(x).clamp_(0, 6),
)
forms(
    of(nn.SiLU()),
    silu_by_function=lambda net, x: F.silu(net.conv(x)),
    silu_by_hand=lambda net, x: (y := net.conv(x)) * torch.sigmoid(y),
    silu_by_method=lambda net, x: (y := net.conv(x)).sigmoid() * y,
    silu_in_place=lambda net, x: (y := net.conv(x)).mul_(y.sigmoid()),
    silu_by_an_own_function=lambda net, x: Swish.apply(net.conv(x)),
    silu_by_division=lambda net, x: (y := net.conv(x)) / (1 + torch.exp(-y)),
)
forms(
    of(nn.Hardswish()),
    hardswish_by_function=lambda net, x: F.hardswish(net.conv(x)),
    hardswish_by_relu6=lambda net, x: (y := net.conv(x)) * F.relu6(y + 3) / 6,
    hardswish_by_relu6_first=lambda net, x: (y := net.conv(x)) * (F.relu6(y + 3.0) / 6.0),
    hardswish_by_relu6_in_place=lambda net, x: (y := net.conv(x)) * F.relu6(y + 3, inplace=True).mul_(1 / 6),
    hardswish_by_hardsigmoid=lambda net, x: (y := net.conv(x)) * F.hardsigmoid(y),
    hardswish_by_clamp=lambda net, x: (y := net.conv(x)).mul(y.add(3).clamp(0, 6).div(6)),
)
forms(of(nn.Hardsigmoid()), hardsigmoid_by_relu6=lambda net, x: F.relu6(net.conv(x) + 3) / 6)
forms(
    of(nn.LeakyReLU(0.1)),
    leaky_relu_by_function=lambda net, x: F.leaky_relu(net.conv(x), 0.1),
    leaky_relu_in_place=lambda net, x: F.leaky_relu_(net.conv(x), negative_slope=0.1),
    leaky_relu_by_maximum=lambda net, x: torch.maximum((y := net.conv(x)), 0.1 * y),
    leaky_relu_by_where=lambda net, x: torch.where((y := net.conv(x)) > 0, y, y * 0.1),
)
forms(
    of(nn.GELU()),
    gelu_by_function=lambda net, x: F.gelu(net.conv(x)),
    gelu_by_erf=lambda net, x: (y := net.conv(x)) * 0.5 * (1 + torch.erf(y / 2**0.5)),
)
forms(of(nn.Mish()), mish_by_function=lambda net, x: F.mish(net.conv(x)),
      mish_by_hand=lambda net, x: (y := net.conv(x)) * torch.tanh(F.softplus(y)))  # fmt: skip
FUNCTIONS = {
    "elu": (nn.ELU(2.0), lambda x: F.elu(x, 2.0)),
    "celu": (nn.CELU(0.7), lambda x: F.celu(x, 0.7)),
    "selu": (nn.SELU(), torch.selu),
    "softplus": (nn.Softplus(), F.softplus),
    "tanh": (nn.Tanh(), torch.tanh),
    "sigmoid": (nn.Sigmoid(), torch.sigmoid),
    "softsign": (nn.Softsign(), F.softsign),
    "hardtanh": (nn.Hardtanh(), F.hardtanh),
    "tanhshrink": (nn.Tanhshrink(), F.tanhshrink),
    "gelu_by_tanh": (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "threshold": (nn.Threshold(0.2, 0.1), lambda x: F.threshold(x, 0.2, 0.1)),
    "rrelu": (nn.RReLU(), F.rrelu),
}


def as_a_function(name):
    layer, function = FUNCTIONS[name]
    forms(of(layer), **{f"{name}_by_function": lambda net, x: function(net.conv(x))})


for _name in FUNCTIONS:
    as_a_function(_name)


@pair
def prelu_by_function():
    layer = nn.PReLU(8, 0.3)
    return Block(lambda net, x: F.prelu(net.conv(x), net.layer.weight), layer=layer), of(layer)


# norms of the response


def divided(net, x):
    y = F.relu(net.conv(x))
    squares = F.avg_pool3d(F.pad(y.square()[:, None], (0, 0, 0, 0, 2, 2)), (5, 1, 1), stride=1)[:, 0]
    return y / (2 + 0.5 * squares) ** 0.75


forms(
    Block(lambda net, x: net.layer(F.relu(net.conv(x))), layer=nn.LocalResponseNorm(5, 0.5, 0.75, 2.0)),
    response_norm_by_function=lambda net, x: F.local_response_norm(F.relu(net.conv(x)), 5, 0.5, 0.75, 2.0),
    response_norm_by_hand=divided,
)
forms(
    lambda net, x: F.normalize(F.relu(net.linear(x.mean((2, 3)))), dim=1),
    unit_length_by_hand=lambda net, x: (y := F.relu(net.linear(x.mean((2, 3))))) / y.norm(dim=1, keepdim=True),
)

# layers that do nothing

forms(
    lambda net, x: F.relu(net.conv(x)),
    clone=lambda net, x: F.relu(net.conv(x).clone()),
    detach=lambda net, x: F.relu(net.conv(x).detach()),
    double=lambda net, x: F.relu(net.conv(x).double()),
    to_the_same_type=lambda net, x: F.relu(net.conv(x).to(x.dtype).to(x.device).type_as(x)),
    contiguous=lambda net, x: F.relu(net.conv(x).contiguous().contiguous(memory_format=torch.channels_last)),
    dropout_by_function=lambda net, x: F.relu(F.dropout(net.conv(x), 0.5, net.training)),
    dropout_by_modules=lambda net, x: F.relu(nn.AlphaDropout().eval()(nn.Dropout3d().eval()(net.conv(x)))),
    drop_path_by_hand=lambda net, x: F.relu(net.conv(x) if not net.training else net.conv(x) * torch.rand(1)),
    noise_in_training=lambda net, x: F.relu(net.conv(x) + (torch.randn_like(x) if net.training else 0)),
    times_one=lambda net, x: F.relu(net.conv(x) * 1),
    plus_zero=lambda net, x: F.relu(0 + net.conv(x)),
    positive=lambda net, x: F.relu(+net.conv(x)),
    alias=lambda net, x: F.relu(torch.ops.aten.alias(net.conv(x)).view_as(x)),
    reshaped_and_back=lambda net, x: F.relu(net.conv(x).flatten(2).unflatten(2, (16, 16)).view(-1, 8, 16, 16)),
    transposed_and_back=lambda net, x: F.relu(net.conv(x).mT.transpose(-1, 2).movedim(1, -1).moveaxis(3, 1)),
    swapped_and_back=lambda net, x: F.relu(torch.swapaxes(net.conv(x).swapaxes(0, 1), 0, 1)),
    squeezed_and_back=lambda net, x: F.relu(net.conv(x)[:, None].unsqueeze(-1).squeeze(-1).squeeze(1)),
    as_strided=lambda net, x: F.relu((y := net.conv(x).contiguous()).as_strided(y.size(), y.stride())),
    checkpointed=lambda net, x: torch.utils.checkpoint.checkpoint(
        lambda y: F.relu(net.conv(y)), x, use_reentrant=False
    ),
)

# other precisions inside, by which the values are rounded


def to_single(net, x):
    return F.relu(net.conv(x)).float().double()


def through_single_layers(net, x):
    return F.relu(F.conv2d(x.float(), net.conv.weight.float(), net.conv.bias.float(), padding=1)).to(x.dtype)


forms(lambda net, x: F.relu(net.conv(x)), single_rounded=to_single, single_precision_inside=through_single_layers)

# in place, through other names of the same memory


def flattened(net, x):
    x = net.conv(x).contiguous()
    F.relu(x.flatten(1), inplace=True)
    return x


def sliced(net, x):
    x = net.conv(x)
    x[:, :] = F.relu(x)
    return x


def halves_in_place(net, x):
    x = net.conv(x)
    first, second = x.chunk(2, 1)
    first.relu_()
    second.relu_()
    return x


def one_half_after_the_other(net, x):
    x = net.conv(x)
    x[:, :4].relu_()
    x[:, 4:] = x[:, 4:].clamp(min=0)
    return x


def filled(net, x):
    x = net.conv(x)
    x[x < 0] = 0
    return x


def masked(net, x):
    x = net.conv(x)
    return x.masked_fill_(x < 0, 0)


def copied(net, x):
    y = torch.zeros_like(x)
    y.copy_(net.conv(x))
    return y.view_as(x).relu_()


def by_data(net, x):
    x = net.conv(x)
    x.data.clamp_(min=0)
    return x


def transposed(net, x):
    x = net.conv(x)
    x.transpose(2, 3).relu_()
    return x


def written_image_by_image(net, x):
    y = torch.zeros_like(x)
    for channel in range(8):
        y[:, channel] = net.conv(x)[:, channel]
    return F.relu(y)


forms(
    lambda net, x: F.relu(net.conv(x)),
    in_place_through_flatten=flattened,
    slice_assignment=sliced,
    in_place_through_chunks=halves_in_place,
    in_place_through_slices=one_half_after_the_other,
    assignment_by_a_mask=filled,
    masked_fill_in_place=masked,
    copy_in_place=copied,
    in_place_through_data=by_data,
    in_place_through_transpose=transposed,
    assignment_of_channels=written_image_by_image,
)


def half(net, x):
    first, second = net.conv(x).chunk(2, 1)
    return torch.cat([F.relu(first), second], 1)


def half_in_place(net, x):
    x = net.conv(x)
    x.narrow(1, 0, 4).relu_()
    return x


def half_assigned(net, x):
    x = net.conv(x)
    x[:, 0:4] = x[:, 0:4].relu()
    return x


def half_copied(net, x):
    x = net.conv(x)
    return torch.slice_scatter(x, x[:, :4].relu(), 1, 0, 4)


forms(
    half,
    half_in_place=half_in_place,
    half_assigned=half_assigned,
    half_scattered=half_copied,
)


def incremented(net, x):
    a = net.conv(x)
    b = a
    b += 1
    return F.relu(a)


def incremented_view(net, x):
    a = net.conv(x)
    a.view(-1).add_(1)
    return F.relu(a)


forms(lambda net, x: F.relu(net.conv(x) + 1), sum_in_place=incremented, sum_in_place_through_a_view=incremented_view)


def skip_in_place(net, x):
    y = net.conv(x)
    y += x
    return F.relu_(y)


def skip_into_the_input(net, x):
    x = x.clone()
    x += net.conv(x)
    return x.relu_()


forms(
    lambda net, x: F.relu(net.conv(x) + x),
    skip_in_place=skip_in_place,
    skip_into_the_input=skip_into_the_input,
    skip_by_add=lambda net, x: net.conv(x).add_(x).relu_(),
)


def rectified_skip(net, x):
    identity = y = net.conv(x)
    y = F.relu_(y)
    return F.relu(net.point(y) + identity)


forms(lambda net, x: F.relu(net.point(y := F.relu(net.conv(x))) + y), skip_is_rectified_in_place=rectified_skip)


def channels_set_to_zero(net, x):
    x = F.relu(net.conv(x))
    x[:, 0:2] = 0
    return x


@pair
def channels_are_zeroed():
    block = Block(lambda net, x: F.relu(net.zeroed(x)))
    keep = (torch.arange(8) > 1).float()
    block.zeroed = conv_of(keep[:, None, None, None] * block.conv.weight, keep * block.conv.bias, padding=1)
    return Block(channels_set_to_zero), block


def twice(net, x):
    x = net.relu_(net.conv(x))
    return net.relu_(net.point(x) + x)


@pair
def one_relu_module_in_place_for_all():
    written = Block(twice)
    written.relu_ = nn.ReLU(inplace=True)
    return written, Block(lambda net, x: F.relu(net.point(y := F.relu(net.conv(x))) + y))

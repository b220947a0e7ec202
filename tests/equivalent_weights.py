"""Pairs that differ in how their weights, norms and constants are written: see ``equivalents``."""

import copy
import warnings

import torch
import torch.nn.functional as F
from equivalents import Block, batch_norm, conv_of, forms, linear_of, pair
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torchvision.ops import FrozenBatchNorm2d


def column(x):
    return x[:, None, None]


# norms


def plain_norm() -> Block:
    return Block(lambda net, x: F.relu(net.norm(net.conv(x))))


def frozen() -> FrozenBatchNorm2d:
    layer = FrozenBatchNorm2d(8).double()
    layer.load_state_dict(batch_norm().state_dict())
    return layer


@pair
def frozen_batch_norm():
    return Block(lambda net, x: F.relu(net.frozen(net.conv(x))), frozen=frozen()), plain_norm()


@pair
def frozen_batch_norm_by_itself():
    return Block(lambda net, x: F.relu(net.frozen(x)), frozen=frozen()), Block(lambda net, x: F.relu(net.norm(x)))


@pair
def frozen_batch_norm_before_a_skip():
    plain = Block(lambda net, x: F.relu(net.norm(net.conv(x)) + x))
    return Block(lambda net, x: F.relu(net.frozen(net.conv(x)) + x), frozen=frozen()), plain


@pair
def affine_by_hand():
    norm = batch_norm()
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    constants = {"factor": scale, "shift": (norm.bias - scale * norm.running_mean).detach()}
    return Block(lambda net, x: F.relu(net.conv(x) * column(net.factor) + column(net.shift)), **constants), plain_norm()


def normalised(net, x):
    norm = net.norm
    y = (net.conv(x) - column(norm.running_mean)) / torch.sqrt(column(norm.running_var) + norm.eps)
    return F.relu(y * column(norm.weight) + column(norm.bias))


def normed(net, x):
    norm = net.norm
    y = F.batch_norm(net.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, norm.eps)
    return F.relu(y)


forms(plain_norm(), norm_by_hand=normalised, norm_by_function=normed)


@pair
def sync_batch_norm():
    return nn.SyncBatchNorm.convert_sync_batchnorm(plain_norm()), plain_norm()


@pair
def instance_norm_with_running_statistics():
    layer = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    layer.load_state_dict(batch_norm().state_dict())
    return Block(lambda net, x: F.relu(net.instance(net.conv(x))), instance=layer), plain_norm()


@pair
def batch_norm_in_the_head():
    norm = batch_norm(nn.BatchNorm1d)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    written = Block(lambda net, x: F.relu(net.norm1(net.linear(x.mean((2, 3))))), norm1=norm)
    folded = linear_of(
        scale[:, None] * written.linear.weight, norm.bias + scale * (written.linear.bias - norm.running_mean)
    )
    return written, Block(lambda net, x: F.relu(net.folded(x.mean((2, 3)))), folded=folded)


# biases and scales


def biased(buffer: bool = False, sign: int = 1) -> Block:
    block = Block(lambda net, x: F.relu(net.biased(x)))
    block.biased = conv_of(block.bare.weight, sign * (block.constant if buffer else block.bias), padding=1)
    return block


def added_in_place(net, x):
    y = net.bare(x)
    y += net.bias.view(1, -1, 1, 1)
    return F.relu(y)


forms(
    biased(),
    own_bias_parameter=lambda net, x: F.relu(net.bare(x) + column(net.bias)),
    own_bias_first=lambda net, x: F.relu(column(net.bias) + net.bare(x)),
    own_bias_by_function=lambda net, x: F.relu(torch.add(net.bare(x), column(net.bias))),
    own_bias_expanded=lambda net, x: F.relu(net.bare(x) + column(net.bias).expand(8, 16, 16)),
    own_bias_in_place=added_in_place,
)
forms(biased(buffer=True), own_bias_buffer=lambda net, x: F.relu(net.bare(x) + column(net.constant)))
forms(
    biased(buffer=True, sign=-1),
    a_constant_is_subtracted=lambda net, x: F.relu(net.bare(x) - column(net.constant)),
    a_constant_is_subtracted_by_function=lambda net, x: F.relu(torch.sub(net.bare(x), column(net.constant))),
)


def scaled(factor) -> Block:
    """The convolution with scaled weights and a scaled bias."""
    block = Block(lambda net, x: F.relu(net.scaled(x) + x))
    factor = factor(block) if callable(factor) else torch.full((8,), factor, dtype=torch.float64)
    block.scaled = conv_of(factor[:, None, None, None] * block.conv.weight, factor * block.conv.bias, padding=1)
    return block


forms(
    scaled(0.5),
    division_by_a_number=lambda net, x: F.relu(net.conv(x) / 2 + x),
    division_by_function=lambda net, x: F.relu(torch.div(net.conv(x), 2) + x),
    division_in_place=lambda net, x: F.relu(net.conv(x).div_(2) + x),
    multiplication_by_a_number=lambda net, x: F.relu(0.5 * net.conv(x) + x),
    sum_with_a_factor=lambda net, x: F.relu(torch.add(x, net.conv(x), alpha=0.5)),
    linear_interpolation=lambda net, x: F.relu(2 * torch.lerp(x * 0.5, net.conv(x) * 0.5, 0.5) + x * 0.5),
)
forms(
    scaled(-1.0),
    negation=lambda net, x: F.relu(-net.conv(x) + x),
    difference=lambda net, x: F.relu(x - net.conv(x)),
    difference_by_function=lambda net, x: F.relu(torch.sub(x, net.conv(x))),
    negative_number=lambda net, x: F.relu(net.conv(x) * -1.0 + x),
)
forms(
    scaled(lambda net: net.scale),
    own_scale_parameter=lambda net, x: F.relu(net.conv(x) * column(net.scale) + x),
    own_scale_in_place=lambda net, x: F.relu(net.conv(x).mul_(column(net.scale)).add_(x)),
)
forms(
    scaled(lambda net: 1 / net.scale.detach()),
    division_by_an_own_parameter=lambda net, x: F.relu(net.conv(x) / column(net.scale) + x),
)

# functions of the weights


def with_weights(change) -> Block:
    block = Block(lambda net, x: F.relu(net.changed(x)))
    block.changed = conv_of(change(block.conv.weight, block), block.conv.bias, padding=1)
    return block


def standardised(weight, _):
    mean, spread = weight.mean((1, 2, 3), keepdim=True), weight.std((1, 2, 3), keepdim=True)
    return (weight - mean) / (spread + 1e-5)


def masked(weight, net):
    return weight * (net.constant > 0)[:, None, None, None]


forms(
    with_weights(standardised),
    weights_are_standardised=lambda net, x: F.relu(
        F.conv2d(x, standardised(net.conv.weight, net), net.conv.bias, padding=1)
    ),
)
forms(
    with_weights(masked),
    weights_are_masked=lambda net, x: F.relu(F.conv2d(x, masked(net.conv.weight, net), net.conv.bias, padding=1)),
)


def reparametrised(change) -> tuple[Block, Block]:
    """The first convolution in another parametrisation, and a plain one of the weights that it has then."""
    written = Block(lambda net, x: F.relu(net.conv(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old forms are deprecated, but models have them
        change(written.conv)
    written.double().eval()(torch.zeros(1, 8, 4, 4, dtype=torch.float64))
    plain = conv_of(written.conv.weight, written.conv.bias, padding=1)
    return written, Block(lambda net, x: F.relu(net.plain(x)), plain=plain)


@pair
def weight_norm():
    return reparametrised(parametrizations.weight_norm)


@pair
def old_weight_norm():
    return reparametrised(nn.utils.weight_norm)


@pair
def spectral_norm():
    return reparametrised(parametrizations.spectral_norm)


@pair
def old_spectral_norm():
    return reparametrised(nn.utils.spectral_norm)


@pair
def pruned():
    return reparametrised(lambda conv: prune.random_unstructured(conv, "weight", amount=0.4))


class Symmetric(nn.Module):
    def forward(self, weight):
        return (weight + weight.transpose(0, 1)) / 2


@pair
def own_parametrisation():
    return reparametrised(lambda conv: parametrize.register_parametrization(conv, "weight", Symmetric()))


# convolutions of other kinds


def relu_of(layer) -> Block:
    return Block(lambda net, x: F.relu(net.layer(x)), layer=layer)


@pair
def grouped_convolution():
    grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
    full = torch.zeros(8, 8, 3, 3)
    for group in range(4):
        part = slice(2 * group, 2 * group + 2)
        full[part, part] = grouped.weight[part]
    return relu_of(grouped), relu_of(conv_of(full.detach(), grouped.bias, padding=1))


@pair
def dilated_convolution():
    dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
    full = torch.zeros(8, 8, 5, 5)
    full[:, :, ::2, ::2] = dilated.weight.detach()
    return relu_of(dilated), relu_of(conv_of(full, dilated.bias, padding=2))


@pair
def transposed_convolution():
    transposed = nn.ConvTranspose2d(8, 6, 3, padding=1)
    return relu_of(transposed), relu_of(
        conv_of(transposed.weight.flip(2, 3).transpose(0, 1), transposed.bias, padding=1)
    )


@pair
def transposed_convolution_with_a_stride():
    transposed = nn.ConvTranspose2d(8, 2, 2, stride=2)
    point = conv_of(transposed.weight.permute(1, 2, 3, 0).reshape(8, 8, 1, 1), transposed.bias.repeat_interleave(4))
    return relu_of(transposed), Block(lambda net, x: F.relu(F.pixel_shuffle(net.layer(x), 2)), layer=point)


@pair
def convolution_of_one_dimension():
    line = nn.Conv1d(8, 8, 1)
    written = Block(lambda net, x: F.relu(net.line(x.flatten(2))).view(len(x), 8, 16, 16), line=line)
    return written, relu_of(conv_of(line.weight[..., None], line.bias))


@pair
def convolution_of_three_dimensions():
    deep = nn.Conv3d(8, 8, (1, 3, 3), padding=(0, 1, 1))
    written = Block(lambda net, x: F.relu(net.deep(x.unsqueeze(2))).squeeze(2), deep=deep)
    return written, relu_of(conv_of(deep.weight[:, :, 0], deep.bias, padding=1))


@pair
def convolution_of_unfolded_windows():
    def written(net, x):
        windows = F.unfold(x, 3, padding=1).transpose(1, 2)
        y = windows @ net.conv.weight.flatten(1).t() + net.conv.bias
        return F.relu(y.transpose(1, 2).reshape(len(x), 8, 16, 16))

    return Block(written), Block(lambda net, x: F.relu(net.conv(x)))


@pair
def blur_pool():
    line = torch.tensor([1.0, 2, 1]) / 4
    kernel = (line[:, None] * line).expand(8, 1, 3, 3).clone()
    written = Block(
        lambda net, x: F.relu(net.conv(F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), net.kernel, stride=2, groups=8))),
        kernel=kernel,
    )
    layer = conv_of(kernel, stride=2, padding=1, groups=8, padding_mode="reflect")
    return written, Block(lambda net, x: F.relu(net.conv(net.layer(x))), layer=layer)


@pair
def same_padding_by_name():
    layer = nn.Conv2d(8, 8, 3, padding="same")
    return relu_of(layer), relu_of(conv_of(layer.weight, layer.bias, padding=1))


def linear_of_channels(net, x):
    return F.relu(net.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def einsum_of_channels(net, x):
    return F.relu(torch.einsum("nchw,kc->nkhw", x, net.linear.weight) + column(net.linear.bias))


def pointwise() -> Block:
    block = Block(lambda net, x: F.relu(net.layer(x)))
    block.layer = conv_of(block.linear.weight[:, :, None, None], block.linear.bias)
    return block


forms(
    pointwise(),
    linear_layer_of_channels=linear_of_channels,
    einsum_of_channels=einsum_of_channels,
    matmul_of_channels=lambda net, x: F.relu(
        torch.matmul(net.linear.weight, x.flatten(2)).view(x.shape) + column(net.linear.bias)
    ),
    tensordot_of_channels=lambda net, x: F.relu(
        torch.tensordot(x, net.linear.weight, dims=([1], [1])).permute(0, 3, 1, 2) + column(net.linear.bias)
    ),
)

# a head


def gap(x):
    return x.mean((2, 3))


forms(
    lambda net, x: F.relu(net.linear(gap(x))),
    head_by_function=lambda net, x: F.relu(F.linear(gap(x), net.linear.weight, net.linear.bias)),
    head_by_product=lambda net, x: F.relu(gap(x) @ net.linear.weight.T + net.linear.bias),
    head_by_addmm=lambda net, x: F.relu(torch.addmm(net.linear.bias, gap(x), net.linear.weight.t())),
    head_by_einsum=lambda net, x: F.relu(torch.einsum("nc,kc->nk", gap(x), net.linear.weight) + net.linear.bias),
    head_by_products_and_a_sum=lambda net, x: F.relu((gap(x)[:, None] * net.linear.weight).sum(-1) + net.linear.bias),
    head_by_a_batch_of_products=lambda net, x: F.relu(
        torch.bmm(gap(x)[:, None], net.linear.weight.t().expand(len(x), 8, 8))[:, 0] + net.linear.bias
    ),
    head_of_a_convolution=lambda net, x: F.relu(
        F.conv2d(gap(x)[..., None, None], net.linear.weight[..., None, None], net.linear.bias)
    ).flatten(1),
)


@pair
def one_layer_for_two_inputs():
    twin = copy.deepcopy(Block(F.relu).conv)
    written = Block(lambda net, x: torch.cat([F.relu(net.conv(x)), F.relu(net.conv(x.flip(3)))], 1))
    return written, Block(lambda net, x: torch.cat([F.relu(net.conv(x)), F.relu(net.twin(x.flip(3)))], 1), twin=twin)

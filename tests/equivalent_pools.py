"""Pairs that differ in how averages and maxima are written: see ``equivalents``."""

import torch
import torch.nn.functional as F
from equivalents import Block, forms, pair
from torch import nn


def gap(x):
    return x.mean((2, 3))


# averages, and what makes a vector of them

forms(
    lambda net, x: torch.flatten(F.adaptive_avg_pool2d(net.conv(x).relu(), 1), 1),
    mean_of_two_axes=lambda net, x: net.conv(x).relu().mean((2, 3)),
    mean_of_negative_axes=lambda net, x: net.conv(x).relu().mean(dim=[-1, -2]),
    mean_axis_by_axis=lambda net, x: net.conv(x).relu().mean(3).mean(2),
    mean_kept_and_cut=lambda net, x: net.conv(x).relu().mean((2, 3), keepdim=True)[:, :, 0, 0],
    mean_kept_and_cut_by_dots=lambda net, x: net.conv(x).relu().mean((2, 3), keepdim=True)[..., 0, 0],
    mean_squeezed=lambda net, x: net.conv(x).relu().mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
    mean_squeezed_by_function=lambda net, x: torch.squeeze(
        torch.squeeze(F.adaptive_avg_pool2d(net.conv(x).relu(), 1), 3), 2
    ),
    mean_squeezed_at_once=lambda net, x: F.adaptive_avg_pool2d(net.conv(x).relu(), 1).squeeze((2, 3)),
    mean_of_flattened=lambda net, x: net.conv(x).relu().flatten(2).mean(-1),
    mean_of_a_view=lambda net, x: net.conv(x).relu().view(x.size(0), x.size(1), -1).mean(2),
    mean_in_one_window=lambda net, x: F.avg_pool2d(net.conv(x).relu(), x.size()[2:]).flatten(1),
    mean_in_a_window_of_the_shape=lambda net, x: F.avg_pool2d(net.conv(x).relu(), x.shape[-1]).reshape(len(x), -1),
    sum_over_the_number=lambda net, x: net.conv(x).relu().sum((2, 3)) / (x.shape[2] * x.shape[3]),
    sum_axis_by_axis=lambda net, x: net.conv(x).relu().sum(-1).sum(-1) / float(x[0, 0].numel()),
    mean_by_einsum=lambda net, x: torch.einsum("nchw->nc", net.conv(x).relu()) / (x.size(2) * x.size(3)),
    mean_reshaped_by_length=lambda net, x: F.adaptive_avg_pool2d(net.conv(x).relu(), (1, 1)).reshape(len(x), -1),
    mean_viewed_by_channels=lambda net, x: F.adaptive_avg_pool2d(net.conv(x).relu(), 1).view(-1, x.shape[1]),
)


@pair
def mean_squeezed_of_one_image():
    def written(net, x):
        y = F.adaptive_avg_pool2d(net.conv(x).relu(), 1).squeeze()
        return y if y.dim() == 2 else y[None]

    return Block(written), Block(lambda net, x: gap(net.conv(x).relu()))


# maxima

forms(
    lambda net, x: F.max_pool2d(net.conv(x).relu(), 16).flatten(1),
    maximum_of_two_axes=lambda net, x: net.conv(x).relu().amax((2, 3)),
    maximum_axis_by_axis=lambda net, x: net.conv(x).relu().max(3)[0].max(dim=2).values,
    maximum_of_flattened=lambda net, x: net.conv(x).relu().flatten(2).max(2).values,
    maximum_adaptive=lambda net, x: F.adaptive_max_pool2d(net.conv(x).relu(), 1).flatten(1),
    maximum_by_module=lambda net, x: nn.AdaptiveMaxPool2d(1)(net.conv(x).relu())[:, :, 0, 0],
    maximum_of_the_size=lambda net, x: F.max_pool2d(net.conv(x).relu(), kernel_size=x.size()[2:]).squeeze(3).squeeze(2),
)
forms(
    lambda net, x: torch.maximum(net.conv(x).relu(), net.bare(x).relu()),
    maximum_of_two=lambda net, x: torch.max(net.conv(x).relu(), net.bare(x).relu()),
    maximum_of_a_stack=lambda net, x: torch.stack([net.conv(x).relu(), net.bare(x).relu()]).amax(0),
    maximum_of_a_stack_by_max=lambda net, x: torch.stack([net.conv(x).relu(), net.bare(x).relu()], 2).max(2)[0],
    maximum_by_choice=lambda net, x: torch.where(
        net.conv(x).relu() > net.bare(x).relu(), net.conv(x).relu(), net.bare(x).relu()
    ),
)
forms(
    lambda net, x: F.max_pool2d(net.conv(x).relu(), 2),
    maximum_of_windows=lambda net, x: net.conv(x).relu().view(len(x), 8, 8, 2, 8, 2).amax((3, 5)),
    maximum_of_slices=lambda net, x: (
        torch.maximum(net.conv(x).relu()[:, :, ::2], net.conv(x).relu()[:, :, 1::2]).unflatten(3, (8, 2)).amax(-1)
    ),
    maximum_with_indices=lambda net, x: F.max_pool2d(net.conv(x).relu(), 2, return_indices=True)[0],
    maximum_of_one_dimension=lambda net, x: (
        F.max_pool1d(
            F.max_pool1d(net.conv(x).relu().flatten(1, 2), 2).view(len(x), 8, 16, 8).transpose(2, 3).flatten(1, 2), 2
        )
        .view(len(x), 8, 8, 8)
        .transpose(2, 3)
    ),
)


@pair
def generalised_mean_of_power_one():
    def written(net, x):
        return F.avg_pool2d(net.conv(x).relu().clamp(min=1e-12).pow(net.p), x.shape[2:]).pow(1.0 / net.p).flatten(1)

    return Block(written, p=nn.Parameter(torch.ones(1))), Block(lambda net, x: gap(net.conv(x).relu()))


def generalised(net, x):
    return net.conv(x).relu().clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1 / 3)


forms(
    generalised,
    generalised_mean_in_a_window=lambda net, x: F.avg_pool2d(
        net.conv(x).relu().clamp(min=1e-6) ** 3.0, (x.size(-2), x.size(-1))
    ).pow(1 / 3)[:, :, 0, 0],
)


@pair
def generalised_mean_with_an_own_power():
    def written(net, x):
        return (net.conv(x).relu().clamp(min=1e-6) ** net.p).mean((-2, -1)) ** (1.0 / net.p)

    return Block(written, p=nn.Parameter(torch.full((1,), 3.0))), Block(generalised)

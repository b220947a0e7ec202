"""Networks with parts that are rarely written, each in several sizes on one TopDown."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grounding import TopDown
from proposals.errors import InputError


class Between(nn.Module):
    """A convolution (the target "conv"), what a test names, and a classifier."""

    def __init__(self, between, channels: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.mix, self.single = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8), nn.Conv1d(1, 1, 3, padding=1)
        self.between, self.classifier = between, nn.Linear(channels, 4)
        self.double().eval()

    def forward(self, x):
        return self.classifier(self.between(self, self.conv(x).relu()).flatten(2).mean(2))


def pyramid(net, x: Tensor) -> Tensor:
    return torch.cat([F.adaptive_max_pool2d(x, size).flatten(1)[:, :, None] for size in (1, 2)], 1)


def channel_attention(net, x: Tensor) -> Tensor:
    gate = net.single(x.mean((2, 3))[:, None])[:, 0].sigmoid()
    return x * gate[:, :, None, None]


def selected(net, x: Tensor) -> Tensor:
    branches = torch.stack([x, F.avg_pool2d(x, 3, 1, 1)], 1)
    return (branches * branches.mean((2, 3, 4)).softmax(1)[:, :, None, None, None]).sum(1)


def coordinates(net, x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    y = torch.linspace(-1, 1, h, dtype=x.dtype)[:, None].expand(n, 1, h, w)
    return torch.cat([x[:, 1:], y], 1)


PARTS = {
    "pyramid": (pyramid, 40),
    "channel_attention": (channel_attention, 8),
    "selected": (selected, 8),
    "coordinates": (coordinates, 8),
    "channels_last": (lambda net, x: net.mix(x.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2), 8),
    "every_image": (lambda net, x: x[torch.arange(len(x))], 8),
    "reflected": (lambda net, x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 2), 8),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("engine", ["dense", "sparse"])
def test_an_odd_network_keeps_the_balance_in_every_size(name, engine):
    net = Between(*PARTS[name])
    topdown = TopDown(net, "conv", engine=engine)
    for size in ((8, 8), (12, 9), (8, 8), (10, 10)):
        images = torch.rand(2, 3, *size, dtype=torch.float64)
        scene = topdown.look(images)
        torch.testing.assert_close(scene.logits, net(images), rtol=0, atol=1e-12)
        kept = scene.kept([0, 3])
        total = kept.share + sum(kept.lost.values())
        torch.testing.assert_close(total, torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=1e-5)
        torch.testing.assert_close(scene.attend([0, 3], "mwp").sum((2, 3)), kept.share, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda net, x: x.flip(0), "flip picks or mixes images of a batch"),
        (lambda net, x: x[[1, 0]], "indexing picks or mixes images of a batch"),
        (lambda net, x: x.topk(8, 1)[0], "topk has no rule"),
        (lambda net, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), "the second result of max_pool2d"),
        (lambda net, x: x.transpose_(2, 3), "transpose changes a shape in place"),
    ],
    ids=["flip", "index", "topk", "unpool", "transpose_"],
)
def test_what_cannot_be_done_is_one_line(between, message):
    with pytest.raises(InputError, match=message):
        TopDown(Between(between), "conv").look(torch.rand(1, 3, 8, 8, dtype=torch.float64))


def pickled(topdown: TopDown) -> TopDown:
    return pickle.loads(pickle.dumps(topdown))  # noqa: S301, our own bytes


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_has_the_same_maps(copied):
    net, image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).double(), torch.rand(1, 3, 6, 6)
    topdown, image = TopDown(net, "1", "2"), image.double()
    expected = topdown.look(image).attend([0])
    assert torch.equal(copied(topdown).look(image).attend([0]), expected)

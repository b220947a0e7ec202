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


class Counting(nn.Module):
    """A network with a buffer that counts its passes; a test names what it does with the count."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.classifier, self.use = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), use
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.classifier(self.use(self, self.conv(x).relu()).mean((2, 3)))


@pytest.mark.parametrize("side", [8, 240])
@pytest.mark.parametrize("power", [lambda calls: calls, lambda calls: calls % 2], ids=["count", "in turns"])
def test_a_model_that_counts_its_passes_is_refused_at_every_look(side, power):
    topdown = TopDown(Counting(lambda net, x: x * power(net.calls)), "conv")
    for _ in range(3):
        with pytest.raises(InputError, match="does something else in its second forward pass"):
            topdown.look(torch.rand(1, 3, side, side))


def in_two_parts(net, x: Tensor) -> Tensor:
    return torch.cat([x[:, :, :100], x[:, :, 100:]], 2)


def without_its_border(net, x: Tensor) -> Tensor:
    return x[:, :, :230] if len(x[0, 0]) > 230 else x[:, :, 1:]


def refusing_parts(net, x: Tensor) -> Tensor:
    return F.max_pool2d(x, 224)


def hiding_what_it_reads(net, x: Tensor) -> Tensor:
    """PyTorch's own code reads the size, which no capture notices."""
    return x[:, :, 1:] if nn.init._calculate_fan_in_and_fan_out(x)[0] < 4 * 230 * 230 else x[:, :, :230]


@pytest.mark.parametrize("use", [in_two_parts, without_its_border, refusing_parts, hiding_what_it_reads])
def test_a_large_image_whose_part_is_captured_in_another_way(use):
    torch.manual_seed(0)
    topdown = TopDown(Counting(use), "conv")
    for size in ((240, 260), (250, 250), (226, 232)):
        image = torch.rand(1, 3, *size)
        network = topdown.networks(image)
        assert network.size == (3, *size) or not network.sized
        torch.testing.assert_close(topdown.look(image).logits, topdown.networks.model(image))


def test_a_size_is_compared_with_the_first_one_even_if_the_part_was_equal():
    topdown = TopDown(Between(lambda net, x: hiding_what_it_reads(net, x[:, :4]), 4), "conv")
    for size in ((226, 226), (250, 250)):
        image = torch.rand(1, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(topdown.look(image).logits, topdown.networks.model(image))


def doubled_afterwards(net, x: Tensor) -> Tensor:
    scale = torch.ones(4, 1, 1)
    scaled = x * scale
    scale *= 2
    return scaled + x * scale


@pytest.mark.parametrize("use", [lambda net, x: x, doubled_afterwards], ids=["count", "own_constant"])
def test_constants_may_change_where_the_output_does_not_depend_on_it(use):
    net = Counting(use)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(TopDown(net, "conv").look(images).logits, net(images))


def test_a_sum_has_the_type_that_it_asks_for():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Summed(), nn.Linear(4, 2)).double()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    scene = TopDown(net, "1", "3").look(image)
    torch.testing.assert_close(scene.logits, net(image), rtol=1e-12, atol=1e-12)


class Summed(nn.Module):
    def forward(self, x):
        return x.float().sum((2, 3), dtype=torch.float64)


def test_a_part_is_not_taken_for_the_whole_of_a_small_image():
    """Of images with one row, the first row is everything; of others, it is not."""
    net = Between(lambda net, x: x[:, :, :1])
    topdown = TopDown(net, "conv")
    for size in ((1, 8), (1, 9), (5, 8)):
        images = torch.rand(1, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(topdown.look(images).logits, net(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "rows",
    [lambda x: len(x[0, 0]), lambda x: torch.numel(x[0, 0, :, 0]), lambda x: x[0].shape[1]],
    ids=["len", "numel", "shape"],
)
def test_a_read_size_is_noticed_however_it_is_read(rows):
    """The first two sizes are computed alike, so that only the reading shows that the third may differ."""
    net = Between(lambda net, x: x[:, :, :8] if rows(x) > 8 else x[:, :, 1:])
    topdown = TopDown(net, "conv")
    for height in (12, 13, 8):
        image = torch.rand(1, 3, height, 12, dtype=torch.float64)
        torch.testing.assert_close(topdown.look(image).logits, net(image), rtol=0, atol=1e-12)

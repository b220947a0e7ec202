"""Top-down passes through small networks with one unusual connection each."""

import pytest
import torch
import torch.nn.functional as F
from passes import assert_same
from torch import Tensor, nn

from grounding import TopDown
from proposals.errors import InputError

UNNORMALISED = ("c-mwp-postnorm", "c-mwp-nonorm", "c-mwp-nonorm-pools")


class Small(nn.Module):
    """A ReLU'd convolution (the target "stem"), what a test names, and a classifier."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.a, self.b, self.c = (nn.Conv2d(4, n, 3, padding=1) for n in (4, 2, 2))
        self.average, self.in_place = nn.AvgPool2d(2), nn.ReLU(inplace=True)
        self.between, self.classifier = between, nn.Conv2d(4, 3, 1)
        self.double().eval()

    def forward(self, x):
        return self.classifier(self.between(self, self.stem(x)))


def small(between, method: str = "mwp", target: str = "stem") -> tuple[Tensor, Tensor]:
    """The maps of the first tag, by the sparse and by the dense engine."""
    net, image = Small(between), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    sparse, dense = (TopDown(net, target, engine=engine).look(image, method) for engine in ("sparse", "dense"))
    return sparse.attend([0], method)[0], dense.attend([0], method)[0]


def in_place_and_again(net, x):
    z = net.a(x)
    active = net.in_place(z)
    return torch.relu(z + net.a(active))


def late_item(net, x):
    parts = x.chunk(2, 1)
    first = torch.relu(parts[0] * 1.0)
    return torch.cat([first, torch.relu(net.b(x)) + parts[1]], 1)


def shuffled(net, x):
    first, second = net.a(x).chunk(2, 1)
    return torch.relu(x + torch.cat([second, first], 1))


@pytest.mark.parametrize(
    "between",
    [
        lambda net, x: torch.relu(net.average(net.a(x))),
        lambda net, x: torch.relu(x + torch.cat([net.b(x), net.c(x)], 1)),
        shuffled,
    ],
    ids=["average", "concatenation_in_a_sum", "chunks_in_a_sum"],
)
def test_a_neuron_may_be_averaged_or_concatenated_before_its_relu(between):
    assert_same(*small(between))


def test_no_mass_passes_an_activation_times_a_negative_factor():
    for maps in small(lambda net, x: torch.relu(1 - x)):
        assert not maps.any()


@pytest.mark.parametrize("method", UNNORMALISED)
def test_only_the_positive_part_of_a_signed_target_can_win(method):
    assert_same(*small(lambda net, x: torch.relu(net.a(x)), method, "image"))


@pytest.mark.parametrize("method", ["c-mwp-nonorm", "c-mwp-nonorm-pools"])
def test_without_norm_average_pools_keep_or_lose_theirs(method):
    """Table 2, "w/o norm", by probabilities: p_x = x . W+^T p_a, and at the pool p_b = b / (4 y) p_y or b / 4 p_y."""
    net = Small(lambda net, x: net.average(torch.relu(net.a(x))))
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    x = net.stem(image).detach()
    b = torch.relu(net.a(x)).detach()
    y = net.average(b)
    shares = net.classifier(y)[:, :1].detach().flatten(1).softmax(1).view(1, 1, 4, 4)
    p_y = y * net.classifier.weight[:1].detach().view(1, 4, 1, 1).abs() * shares
    p_y = torch.where(net.classifier.weight[0].view(1, 4, 1, 1) > 0, p_y, -p_y).detach()  # of the unit minus its dual
    above = p_y if method == "c-mwp-nonorm-pools" else torch.where(y > 0, p_y / y, 0)
    p_b = b * F.interpolate(above, scale_factor=2.0) / 4
    p_x = x * F.conv_transpose2d(p_b, net.a.weight.detach().clamp(min=0), padding=1)
    expected = p_x.sum(1).clamp(min=0)
    for engine in ("sparse", "dense"):
        maps = TopDown(net, "stem", engine=engine).look(image, method).attend([0], method)[0]
        assert_same(maps, expected / expected.sum())


def test_the_parts_of_a_chunk_may_be_taken_at_different_times():
    assert_same(*small(late_item, "c-mwp-nonorm"))


@pytest.mark.parametrize(
    "between",
    [
        in_place_and_again,
        lambda net, x: F.elu(net.a(x), alpha=2.0),
        lambda net, x: F.gelu(net.a(x), approximate="tanh"),
    ],
    ids=["in_place_relu_whose_input_is_read_again", "elu_alpha", "gelu_approximate"],
)
def test_logits_are_the_models(between):
    net, image = Small(between), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    scene = TopDown(net, "stem").look(image)
    torch.testing.assert_close(scene.score_maps, net(image).detach(), rtol=1e-9, atol=1e-12)


def test_a_factor_of_a_sum_belongs_to_its_second_side():
    assert_same(*small(lambda net, x: torch.relu(torch.add(x, net.a(x), alpha=2))))


def test_a_number_in_a_sum_is_a_bias():
    assert_same(*small(lambda net, x: torch.relu(net.a(x) + 1.5)))


def test_cam_refuses_a_classifier_over_flattened_positions():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    scene = TopDown(net, "1", "4").look(torch.rand(1, 3, 6, 6))
    with pytest.raises(InputError, match="CAM needs a classifier over averaged features; this one has 18 inputs for 2"):
        scene.attend([0], "cam")

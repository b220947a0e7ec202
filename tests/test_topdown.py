"""The top-down pass against the definition: an absorbing Markov chain, one transition matrix per layer."""

import threading

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grounding import TopDown
from grounding.attention.descent import TopDownPass
from grounding.attention.engine.runs import Run
from grounding.attention.methods import METHODS, contrast
from grounding.tagger.googlenet import ResponseNorm, googlenet
from proposals.errors import InputError

torch.set_default_dtype(torch.float32)


def random_net(seed: int, channels: int = 4, tags: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(3, channels, 3, padding=1))
    net.add_module("relu1", nn.ReLU(inplace=True))
    net.add_module("second", nn.Conv2d(channels, channels, 3, stride=2, padding=1))
    net.add_module("norm", nn.BatchNorm2d(channels))
    net.add_module("relu2", nn.ReLU(inplace=True))
    net.add_module("pool", nn.MaxPool2d(3, 2, ceil_mode=True))
    net.add_module("third", nn.Conv2d(channels, channels, 1))
    net.add_module("relu3", nn.ReLU())
    net.add_module("average", nn.AvgPool2d(2, 1))
    net.add_module("drop", nn.Dropout(0.5))
    net.add_module("classifier", nn.Conv2d(channels, tags, 1))
    net.norm.weight.data.uniform_(-1.5, 1.5)
    net.norm.running_mean.normal_(0, 0.3)
    net.norm.running_var.uniform_(0.5, 2)
    return net.double().eval()


def dense(layer, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix (outputs, inputs) of a layer that is linear without its bias."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
    return (layer(basis) - zero).flatten(1).T


def transitions(matrix: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Eq. 2: P(a_i | a_j) = Z_j a_i w_ij where w_ij >= 0, as (outputs, inputs)."""
    excitation = matrix.clamp(min=0) * activation
    total = excitation.sum(1, keepdim=True)
    return torch.where(total > 0, excitation / total, 0)


def winners(pool: nn.MaxPool2d, activation: torch.Tensor) -> torch.Tensor:
    """A maximum as a transition matrix: each output hands everything to its argmax."""
    output, where = nn.functional.max_pool2d(
        activation, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    channels, plane = activation.shape[1], activation.shape[2] * activation.shape[3]
    offsets = torch.arange(channels).view(1, -1, 1, 1) * plane
    matrix = torch.zeros(output.numel(), activation.numel(), dtype=torch.float64)
    matrix[torch.arange(output.numel()), (where + offsets).flatten()] = 1
    return matrix


@torch.no_grad()
def chain_map(net: nn.Sequential, image: torch.Tensor, tag: int, dual: bool = False) -> torch.Tensor:
    """MWP at relu1 by the fundamental matrix of the absorbing chain over all neurons above it."""
    a1 = net.relu1(net.first(image))
    folded = lambda x: net.norm(net.second(x))  # noqa: E731
    a2 = net.relu2(folded(a1))
    a3 = net.pool(a2)
    a4 = net.relu3(net.third(a3))
    a5 = net.average(a4)
    weight = net.classifier.weight[tag].flatten() * (-1 if dual else 1)
    share = net.classifier(a5)[0, tag].flatten().softmax(0)
    columns = torch.zeros(a5.shape[2] * a5.shape[3], a5.numel(), dtype=torch.float64)
    for position in range(len(share)):
        columns[position].view(a5.shape[1], -1)[:, position] = weight
    layers = [
        transitions(dense(folded, a1.shape[1:]), a1.flatten()),
        winners(net.pool, a2),
        transitions(dense(net.third, a3.shape[1:]), a3.flatten()),
        transitions(dense(net.average, a4.shape[1:]), a4.flatten()),
        transitions(columns, a5.flatten()),
    ]
    # the states: relu1 (absorbing), relu2, pool, relu3, average, the word's positions
    sizes = [layer.shape[1] for layer in layers] + [len(share)]
    starts = np.cumsum([0, *sizes])
    q = torch.zeros(starts[-1], starts[-1], dtype=torch.float64)
    for i, layer in enumerate(layers):
        q[starts[i + 1] : starts[i + 2], starts[i] : starts[i + 1]] = layer
    fundamental = torch.linalg.inv(torch.eye(len(q), dtype=torch.float64) - q)
    visits = share @ fundamental[starts[-2] :]
    return visits[: sizes[0]].view(a1.shape[1:]).sum(0)


def balance(scene) -> torch.Tensor:
    """c-MWP of three tags before it is truncated: (N, 3), its sums."""
    signals, used = torch.eye(3, dtype=torch.float64), torch.arange(3)
    passes = [TopDownPass(forward, Run()) for forward in scene.forward(METHODS["c-mwp"])]
    return torch.cat([contrast(top_down, signals, used)[0] for top_down in passes]).sum((2, 3))


def look(net: nn.Module, image: torch.Tensor, target: str = "relu1", classifier: str | None = None):
    return TopDown(net, target, classifier).look(image)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_mwp_is_the_markov_chains(seed, size):
    net, image = random_net(seed), torch.randn(1, 3, *size, dtype=torch.float64)
    maps = look(net, image).attend([0, 1, 2], "mwp")[0]
    for tag in range(3):
        torch.testing.assert_close(maps[tag], chain_map(net, image, tag), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_contrast_is_the_difference_of_two_chains_truncated_at_the_end(seed):
    net, image = random_net(seed), torch.randn(1, 3, 9, 8, dtype=torch.float64)
    difference = chain_map(net, image, 1) - chain_map(net, image, 1, dual=True)
    maps = look(net, image).attend([1], "c-mwp")[0, 0]
    torch.testing.assert_close(maps, difference.clamp(min=0), rtol=1e-9, atol=1e-13)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(7, 9), st.integers(7, 9))
def test_mass_is_conserved_but_where_no_input_excites_a_winner(seed, height, width):
    """Where some Z is 0 (random nets of four channels have such neurons) the chain loses the same mass."""
    net = random_net(seed)
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    scene = look(net, image)
    maps = scene.attend([0, 1, 2], "mwp")[0]
    units, duals = ([chain_map(net, image, tag, dual).sum() for tag in range(3)] for dual in (False, True))
    assert maps.min() >= 0
    assert max(units + duals) <= 1 + 1e-12
    torch.testing.assert_close(maps.sum((1, 2)), torch.stack(units), rtol=0, atol=1e-12)
    torch.testing.assert_close(balance(scene)[0], torch.stack(units) - torch.stack(duals), rtol=0, atol=1e-12)


def test_c_mwp_sums_to_zero_before_it_is_truncated():
    """In a net whose every neuron has an active excitatory input, unit and dual both have mass 1."""
    torch.manual_seed(0)
    net = random_net(0, channels=12)
    for layer in (net.first, net.second, net.third):
        layer.weight.data.abs_()
        layer.bias.data.fill_(1)
    net.norm.weight.data.abs_()
    net.norm.bias.data.fill_(2)
    scene = look(net, torch.rand(2, 3, 11, 9, dtype=torch.float64))
    mass = scene.attend([0, 1, 2], "mwp").sum((2, 3))
    torch.testing.assert_close(mass, torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(balance(scene), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (scene.attend([0, 1, 2], "c-mwp").sum((2, 3)) > 0).all()


def test_words_and_images_in_a_batch_are_those_one_by_one():
    net, images = random_net(3), torch.randn(3, 3, 10, 12, dtype=torch.float64)
    together = TopDown(net, "relu1", chunk=2).look(images).attend([2, 0, 2, 1], "c-mwp")
    for n in range(3):
        for w, tag in enumerate([2, 0, 2, 1]):
            alone = look(net, images[n : n + 1]).attend([tag], "c-mwp")[0, 0]
            torch.testing.assert_close(together[n, w], alone, rtol=1e-12, atol=1e-16)


def test_a_map_is_linear_in_its_signal():
    net, image = random_net(4), torch.randn(1, 3, 10, 10, dtype=torch.float64)
    scene = look(net, image)
    one_by_one = scene.attend([0, 1, 2], "mwp")[0]
    signal = torch.tensor([[0.2, 0.0, 0.8], [0.5, 0.5, 0.0]], dtype=torch.float64)
    mixed = scene.attend(signal, "mwp")[0]
    torch.testing.assert_close(mixed, torch.einsum("wt,thx->whx", signal, one_by_one), rtol=1e-12, atol=1e-16)


def test_bias_enters_only_through_activations():
    """Scaling a neuron's incoming weights, with its activation held by the next layer, changes nothing."""
    net, image = random_net(5), torch.randn(1, 3, 10, 10, dtype=torch.float64)
    before = look(net, image).attend([0, 1], "mwp")
    net.second.weight.data[1] *= 7
    net.second.bias.data[1] *= 7
    net.norm.running_mean[1] *= 7
    net.norm.running_var[1] = (net.norm.running_var[1] + net.norm.eps) * 49 - net.norm.eps
    torch.testing.assert_close(look(net, image).attend([0, 1], "mwp"), before, rtol=1e-9, atol=1e-14)


def test_negating_a_batch_norm_with_its_convolution_changes_nothing():
    net, image = random_net(6), torch.randn(1, 3, 10, 10, dtype=torch.float64)
    before = look(net, image).attend([0, 1], "c-mwp")
    for tensor in (net.norm.weight, net.norm.running_mean, net.second.weight, net.second.bias):
        tensor.data.neg_()
    torch.testing.assert_close(look(net, image).attend([0, 1], "c-mwp"), before, rtol=1e-9, atol=1e-14)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.classifier = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.classifier(torch.relu(x + self.branch(x)).mean((2, 3)))


def test_a_residual_sum_and_its_relu_are_one_neuron():
    torch.manual_seed(0)
    net, image = Residual().double(), torch.randn(1, 3, 5, 6, dtype=torch.float64)
    maps = TopDown(net, "relu").look(image).attend([0], "mwp")[0, 0]
    with torch.no_grad():
        x = net.stem(image).relu()
        y = (x + net.branch(x)).relu()
        # a skip has weight one: the neuron's incoming weights are I + W, of which each connection counts by itself
        skip = torch.eye(x.numel(), dtype=torch.float64)
        positive = skip + dense(net.branch, x.shape[1:]).clamp(min=0)
        up = positive * x.flatten()
        up = torch.where(up.sum(1, keepdim=True) > 0, up / up.sum(1, keepdim=True), 0)
        top = net.classifier.weight[0].clamp(min=0).repeat_interleave(30) * y.flatten()
        expected = ((top / top.sum()) @ up).view(4, 5, 6).sum(0)
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-14)


def test_response_norm_is_pytorchs():
    x = torch.randn(2, 9, 5, 6, dtype=torch.float64) * 50
    torch.testing.assert_close(ResponseNorm()(x), nn.functional.local_response_norm(x, 5, 1e-4, 0.75))


def test_mass_passes_a_response_norm_unchanged():
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), ResponseNorm(), nn.Conv2d(6, 2, 1)]
    net, image = nn.Sequential(*layers).double(), torch.randn(1, 3, 6, 6, dtype=torch.float64) * 40
    before, after = (TopDown(net, target, "3").look(image).attend([0, 1], "mwp") for target in ("1", "2"))
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-16)


def test_googlenet_conserves_mass_at_any_size():
    torch.manual_seed(0)
    net = nn.Sequential(*googlenet(), nn.Conv2d(1024, 5, 1)).double()
    scene = TopDown(net, "6", "19").look(torch.randn(1, 3, 224, 288, dtype=torch.float64) * 50)
    assert scene.score_maps.shape == (1, 5, 1, 3)
    maps = scene.attend([0, 4], "mwp")
    assert maps.shape == (1, 2, 28, 36)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("images", [1, 3])
def test_cam_takes_the_values_of_a_pass_by_other_rules(images, monkeypatch):
    net, passes = random_net(4), []
    x = torch.randn(images, 3, 16, 24, dtype=torch.float64)
    first = TopDown.forward
    monkeypatch.setattr(TopDown, "forward", lambda *arguments: passes.append(1) or first(*arguments))
    scene = TopDown(net, "relu1", "classifier").look(x, "c-mwp")
    scene.attend([2, 0], "c-mwp")
    maps = scene.attend([2, 0], "cam")
    assert len(passes) == 1
    plain = torch.einsum("tc,nchw->nthw", net.classifier.weight[[2, 0], :, 0, 0], net[:8](x))
    torch.testing.assert_close(maps, plain)
    torch.testing.assert_close(TopDown(net, "relu1", "classifier").look(x, "cam").attend([2, 0], "cam"), plain)
    above = TopDown(net, "average", "classifier").look(x, "mwp")  # CAM's layer is below this target: a pass of its own
    torch.testing.assert_close(above.attend([2, 0], "cam"), plain)
    assert len(passes) == 4


def test_googlenet_is_captured_once_for_all_sizes():
    torch.manual_seed(0)
    topdown = TopDown(nn.Sequential(*googlenet(), nn.Conv2d(1024, 5, 1)), "6", "19")
    for width in (224, 256, 288, 320):
        topdown.look(torch.randn(1, 3, 224, width)).attend([0], "mwp")
    assert topdown.networks.count == 3  # twice for the first size, once to confirm it for the second


def test_a_large_image_and_a_part_of_it_are_captured():
    torch.manual_seed(0)
    topdown = TopDown(nn.Sequential(*googlenet(), nn.Conv2d(1024, 5, 1)), "6", "19")
    for size, count in (((256, 288), 2), ((225, 320), 3), ((320, 225), 3)):  # the second size confirms
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(topdown.look(image).logits, topdown.networks.model(image).mean((2, 3)))
        assert topdown.networks.count == count
    network = topdown.networks(image)
    assert (network.size, network.sized) == ((3, 256, 288), False)


@pytest.mark.parametrize(("name", "target", "head"), [("resnet18", "layer2", "fc"), ("googlenet", "maxpool2", "fc")])
def test_torchvisions_networks_conserve_mass_and_are_not_touched(name, target, head):
    torch.manual_seed(0)
    extra = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    net = getattr(torchvision.models, name)(weights=None, **extra).double().train()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(-1, 1.5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    scene = TopDown(net, target, head).look(images)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    torch.testing.assert_close(scene.logits, net.eval()(images))
    mass = scene.attend([0, 7], "mwp").sum((2, 3))
    torch.testing.assert_close(mass, torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_threads_share_one_topdown():
    topdown, images = TopDown(random_net(0), "relu1"), torch.randn(8, 1, 3, 9, 9, dtype=torch.float64)
    expected = [topdown.look(image).attend([0, 1]) for image in images]
    results: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        results[i] = topdown.look(images[i]).attend([0, 1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[i], expected[i]) for i in range(8))


def test_a_layer_without_a_rule_is_refused_by_name():
    net, image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax2d(), nn.Conv2d(4, 2, 1)), torch.rand(1, 3, 8, 8)
    with pytest.raises(InputError, match=r"^1 \(softmax\): softmax has no rule: each output depends"):
        TopDown(net, "0", "2").look(image)
    TopDown(net, "1", "2").look(image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("relu9", "classifier"), "no layer 'relu9'; similar names: .*relu"),
        (("relu1", "pool"), "neither a linear layer nor a 1x1 convolution"),
        (("classifier", "third"), "is not below the classifier"),
    ],
)
def test_wrong_layers_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        look(random_net(0), torch.rand(1, 3, 9, 9, dtype=torch.float64), *arguments)


def test_wrong_signals_are_refused():
    topdown = TopDown(random_net(0), "relu1")
    with pytest.raises(InputError, match="images must be"):
        topdown.look(torch.zeros(3, 8, 8, dtype=torch.float64))
    with pytest.raises(InputError, match=r"of torch\.float64"):
        topdown.look(torch.zeros(1, 3, 8, 8))
    scene = topdown.look(torch.randn(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(InputError, match="no word to attend to"):
        scene.attend([])
    with pytest.raises(InputError, match="tag 3 does not exist: the classifier has 3"):
        scene.attend([0, 3])
    with pytest.raises(InputError, match="tag -1 does not exist"):
        scene.attend([-1])
    with pytest.raises(InputError, match="no attention method 'x'; choose one of mwp, c-mwp"):
        scene.attend([0], "x")
    with pytest.raises(InputError, match=r"finite \(W, 3\) matrix"):
        scene.attend(torch.full((1, 3), torch.nan))
    for signal in (-torch.eye(3), torch.zeros(1, 3)):
        with pytest.raises(InputError, match="kept needs signals >= 0 with a sum > 0"):
            scene.kept(signal)


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.relu = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.ReLU()
        self.back, self.classifier = nn.Identity(), nn.Linear(5, 2)

    def forward(self, x):
        mixed = self.relu(self.mix(self.conv(x).permute(0, 2, 3, 1)))
        return self.classifier(self.back(mixed.permute(0, 3, 1, 2)).mean((2, 3)))


@pytest.mark.parametrize("target", ["mix", "relu"])
def test_a_target_with_its_channels_last_is_refused(target):
    with pytest.raises(InputError, match=rf"target {target} .* has its channels last: choose a layer after they"):
        TopDown(ChannelsLast(), target).look(torch.rand(1, 3, 8, 8))
    assert TopDown(ChannelsLast(), "back").look(torch.rand(1, 3, 8, 8)).attend([0]).shape == (1, 1, 6, 6)


def test_a_target_without_positions_is_refused():
    with pytest.raises(InputError, match=r"target mean has no rows and columns: choose a layer before it"):
        TopDown(ChannelsLast(), "mean").look(torch.rand(1, 3, 8, 8))

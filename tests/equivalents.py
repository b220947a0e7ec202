"""Pairs of networks that compute the same: one as people write it, and one as plainly as possible.

The parts that differ are blocks. Both blocks of a pair stand between the same stem, which is the target, and the same
classifier. A block is a function of a module with ready layers and of the stem's output, ``(N, 8, 16, 16)``:

    forms(lambda net, x: net.conv(x) * 0.5, division=lambda net, x: net.conv(x) / 2)

Where a form needs other layers, a builder returns the two blocks. It is registered by its name:

    @pair
    def grouped_convolution():
        return Block(...), Block(...)
"""

import copy
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grounding import TopDown
from grounding.attention.topdown import Scene

CHANNELS, TAGS = 8, 5
TARGET, CLASSIFIER = "stem", "classifier"
Function = Callable[["Block", Tensor], Tensor]
PAIRS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {}


class Block(nn.Module):
    """A function with layers that have the same weights in every block.

    Args:
        function: takes the block and its input.
        layers: modules, parameters and tensors (which become buffers) that the function needs as well, by name.
    """

    def __init__(self, function: Function, **layers: nn.Module | Tensor):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.point = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.wide, self.bare = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.linear, self.relu = nn.Linear(8, 8), nn.ReLU()
        for layer in (self.conv, self.point, self.wide, self.bare, self.linear):
            nn.init.kaiming_normal_(layer.weight)
        self.norm = batch_norm()
        self.bias, self.scale = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.register_buffer("constant", torch.randn(8))
        self.register_buffer("order", torch.randperm(8))
        for name, layer in layers.items():
            plain = isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter)
            self.register_buffer(name, layer) if plain else setattr(self, name, layer)
        self.function = function
        self.double()

    def forward(self, x):
        return self.function(self, x)


def batch_norm(kind: type[nn.Module] = nn.BatchNorm2d, channels: int = CHANNELS, seed: int = 3) -> nn.Module:
    """A norm with random statistics, and scales of both signs."""
    norm, random = kind(channels), torch.Generator().manual_seed(seed)
    norm.weight.data.uniform_(-1, 1.5, generator=random)
    norm.bias.data.normal_(0.2, 0.5, generator=random)
    norm.running_mean.normal_(0, 0.5, generator=random)
    norm.running_var.uniform_(0.3, 2, generator=random)
    return norm.double()  # after the draw: each value is a float32, so that no pair differs by rounding


def conv_of(weight: Tensor, bias: Tensor | None = None, kind: type[nn.Module] = nn.Conv2d, **geometry) -> nn.Module:
    """A convolution of these weights, (outputs, inputs, *window)."""
    groups = geometry.get("groups", 1)
    layer = kind(weight.shape[1] * groups, len(weight), weight.shape[2:], bias=bias is not None, **geometry)
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return layer


def linear_of(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer of these weights, (outputs, inputs)."""
    layer = nn.Linear(weight.shape[1], len(weight), bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return layer


def pair(builder: Callable[[], tuple[nn.Module, nn.Module]]) -> Callable[[], tuple[nn.Module, nn.Module]]:
    """Registers a builder of two blocks by its name."""
    assert builder.__name__ not in PAIRS
    PAIRS[builder.__name__] = builder
    return builder


def forms(plain: Function | Block, **written: Function) -> None:
    """Registers several ways to write one plain function or block, by name."""
    for name, function in written.items():
        assert name not in PAIRS
        PAIRS[name] = functools.partial(_blocks, function, plain)


def _blocks(written: Function, plain: Function | Block) -> tuple[nn.Module, nn.Module]:
    return Block(written), copy.deepcopy(plain) if isinstance(plain, Block) else Block(plain)


class Whole(nn.Module):
    """A stem, a block, and a classifier of the block's average and of a layer of neurons above the block."""

    def __init__(self, block: nn.Module, features: int, grid: bool):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), nn.ReLU())
        self.block = block
        average = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        neurons = [nn.Conv2d(features, 6, 3, padding=1), nn.ReLU(), *average]
        self.tail = nn.Sequential(*neurons) if grid else nn.Sequential(nn.Linear(features, 6), nn.ReLU())
        self.average = nn.Sequential(*average) if grid else nn.Identity()
        self.classifier = nn.Linear(6 + features, TAGS)

    def forward(self, x):
        return self.head(self.block(self.stem(x)))

    def head(self, x):
        return self.classifier(torch.cat([self.tail(x), self.average(x)], 1))


@torch.no_grad()
def whole(block: nn.Module) -> nn.Module:
    """The network around a block, in evaluation mode; all of them have the same weights."""
    block.eval().double()
    shape = block(torch.rand(2, CHANNELS, 16, 16, dtype=torch.float64)).shape
    torch.manual_seed(5)
    net = Whole(block, shape[1], len(shape) == 4)
    for layer in (net.stem[0], net.tail[0], net.classifier):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(layer.bias, 0.1, 0.2)
    return net.double().eval()


def networks(name: str) -> tuple[nn.Module, nn.Module]:
    """The two networks of a pair."""
    torch.manual_seed(11)
    written, plain = PAIRS[name]()
    return whole(written), whole(plain)


def simple() -> nn.Module:
    """A plain network, for what concerns a whole network."""
    return whole(Block(lambda net, x: F.relu(net.norm(net.conv(x)) + x)))


def images(count: int = 2, size: int = 32, seed: int = 7) -> Tensor:
    """Random images ``(count, 3, size, size)`` in float64."""
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def maps_of(net: nn.Module | TopDown, batch: Tensor, methods=("mwp", "c-mwp", "grad"), target: str = TARGET) -> dict:
    """The logits, the maps of all tags at the stem by method, and the shares of mass that they keep."""
    topdown = net if isinstance(net, TopDown) else TopDown(net, target=target, classifier=CLASSIFIER)
    scene = topdown.look(batch)
    found = {"logits": scene.logits} | {method: scene.attend(range(TAGS), method) for method in methods}
    found["kept"] = scene.kept(range(TAGS)).share
    assert_mass_is_accounted_for(scene, found["mwp"])
    return found


def assert_mass_is_accounted_for(scene: Scene, maps: Tensor):
    """What arrives is the sum of a map, and together with what is lost at the layers it is all.

    Args:
        scene: a scene.
        maps: its MWP of the first tags, ``(N, W, h, w)``.
    """
    kept, mass = scene.kept(range(maps.shape[1])), maps.sum((2, 3))
    torch.testing.assert_close(kept.share, mass, rtol=1e-8, atol=1e-10)
    assert min([1.0, *(float(lost.min()) for lost in kept.lost.values())]) > -1e-6
    whole = kept.share + sum(kept.lost.values(), torch.zeros_like(mass))
    torch.testing.assert_close(whole, torch.ones_like(mass), rtol=0, atol=1e-5)


def assert_equal_maps(found: dict, expected: dict, tolerance: float = 1e-9):
    """Equal to the tolerance, relative to the greatest value of a map."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        scale = float(values.abs().max())
        assert scale > 0, f"{name}: nothing to compare"
        difference = float((found[name] - values).abs().max()) / scale
        assert difference <= tolerance, f"{name} differs by {difference:.1e} of the maximum"

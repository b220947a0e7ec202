"""Random small networks, each part of which is written in one of several ways that compute the same.

A part is drawn by Hypothesis as a kind, parameters and the number of its way; way 0 is the plain one. Both networks are
built from the same drawing with the same seed, so that they have the same weights.
"""

import torch
import torch.nn.functional as F
from equivalents import batch_norm
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

TAGS, WIDTH = 4, 6


def _column(x: Tensor) -> Tensor:
    return x[:, None, None]


# convolutions: (layer, x) -> y; the layer is 3x3 with a bias, and pads one zero


def _padded(layer, x):
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), layer.weight, layer.bias, layer.stride)


def _bias_apart(layer, x):
    y = F.conv2d(x, layer.weight, None, layer.stride, 1)
    y += _column(layer.bias)
    return y


def _half_by_half(layer, x):
    first, second = layer.weight.chunk(2)
    a, b = layer.bias.chunk(2)
    parts = [F.conv2d(x, w, bias, layer.stride, 1) for w, bias in ((first, a), (second, b))]
    return torch.cat(parts, dim=1)


def _inputs_apart(layer, x):
    k = x.shape[1] // 2
    y = F.conv2d(x[:, :k], layer.weight[:, :k], layer.bias, layer.stride, 1)
    return y.add_(F.conv2d(x[:, k:], layer.weight[:, k:], None, layer.stride, 1))


def _unfolded(layer, x):
    size = [(n - 1) // layer.stride[0] + 1 for n in x.shape[2:]]
    windows = F.unfold(x, 3, padding=1, stride=layer.stride)
    return (layer.weight.flatten(1) @ windows).unflatten(2, size) + _column(layer.bias)


def _doubled(layer, x):
    return F.conv2d(x, layer.weight * 2, layer.bias * 2, layer.stride, 1) / 2


def _flipped(layer, x):
    if layer.stride != (1, 1):
        return layer(x)
    return F.conv2d(x.flip(2), layer.weight.flip(2), layer.bias, 1, 1).flip(2)


def _deep(layer, x):
    weight, stride = layer.weight.unsqueeze(2), (1, *layer.stride)
    return F.conv3d(x[:, :, None], weight, layer.bias, stride, (0, 1, 1))[:, :, 0]


CONVOLUTIONS = [
    lambda layer, x: layer(x), _padded, _bias_apart, _half_by_half, _inputs_apart, _unfolded, _doubled, _flipped, _deep,
]  # fmt: skip

# norms: (layer, x) -> y


def _frozen(layer, x):
    norm = FrozenBatchNorm2d(len(layer.weight)).to(x)
    norm.load_state_dict(layer.state_dict())
    return norm(x)


def _function(layer, x):
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)


def _affine(layer, x):
    scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
    return x * _column(scale) + _column(layer.bias - layer.running_mean * scale)


def _affine_in_place(layer, x):
    x = x - _column(layer.running_mean)
    x /= _column((layer.running_var + layer.eps).sqrt())
    return x.mul_(_column(layer.weight)).add_(_column(layer.bias))


NORMS = [lambda layer, x: layer(x), _frozen, _function, _affine, _affine_in_place]

# activations: x -> y


def _through_a_view(x):
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1).relu_()
    return x


def _through_parts(x):
    x = x.clone()
    for part in x.split(2, dim=1):
        part.clamp_(min=0)
    return x


def _assigned(x):
    x = x.clone()
    x[:, 1:] = x[:, 1:].relu()
    x[:, :1] = F.relu(x[:, :1])
    return x


ACTIVATIONS = {
    "relu": [F.relu, nn.ReLU(), lambda x: x.clamp(min=0), lambda x: x * (x > 0),
             _through_a_view, _through_parts, _assigned,
             lambda x: torch.where(x > 0, x, 0.0), lambda x: F.relu_(x.clone()), lambda x: F.threshold(x, 0, 0)],
    "relu6": [F.relu6, nn.ReLU6(), lambda x: x.clamp(0, 6), lambda x: F.hardtanh(x, 0, 6)],
    "silu": [F.silu, nn.SiLU(), lambda x: x * x.sigmoid(), lambda x: torch.sigmoid(x).mul_(x)],
    "leaky_relu": [lambda x: F.leaky_relu(x, 0.1), nn.LeakyReLU(0.1), lambda x: torch.where(x > 0, x, 0.1 * x)],
}  # fmt: skip

# pools: x -> y, of an even height and width

POOLS = {
    "max": [lambda x: F.max_pool2d(x, 2), nn.MaxPool2d(2), nn.MaxPool2d(2, 2, ceil_mode=True),
            lambda x: x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5)),
            lambda x: torch.maximum(*(torch.maximum(x[:, :, i::2, ::2], x[:, :, i::2, 1::2]) for i in (0, 1)))],
    "average": [lambda x: F.avg_pool2d(x, 2), nn.AvgPool2d(2),
                lambda x: x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)),
                lambda x: (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4],
    "nearest": [lambda x: F.interpolate(x, scale_factor=2), nn.Upsample(scale_factor=2),
                lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, dim=3)],
    "crop": [lambda x: F.pad(x, (-1, -1, 0, 0)), lambda x: x[..., 1:-1], lambda x: x.narrow(3, 1, x.shape[3] - 2)],
    "shuffle": [lambda x: F.channel_shuffle(x, 2), lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
                lambda x: x[:, torch.arange(x.shape[1]).view(2, -1).t().flatten()]],
    "same": [lambda x: x, lambda x: x.clone(), nn.Dropout(), lambda x: x.double(), lambda x: x.mT.mT, lambda x: x + 0],
}  # fmt: skip

# two values to one


def _added_in_place(x, y):
    z = y.clone()
    z += x
    return z


SUMS = [lambda x, y: x + y, torch.add, _added_in_place, lambda x, y: torch.stack([x, y]).sum(0),
        lambda x, y: sum((y, x)),
        lambda x, y: torch.cat([x, y], 1).unflatten(1, (2, -1)).sum(1)]  # fmt: skip
JOINS = [lambda x, y: torch.cat([x, y], 1), lambda x, y: torch.concat((x, y), dim=-3),
         lambda x, y: torch.cat([*x.split(2, 1), y], 1), lambda x, y: torch.hstack([x, y])]  # fmt: skip
GATES = [lambda x, g: x * g, lambda x, g: g.expand_as(x) * x, lambda x, g: x.clone().mul_(g),
         lambda x, g: torch.mul(g, x),
         lambda x, g: torch.einsum("nchw,nc->nchw", x, g[:, :, 0, 0])]  # fmt: skip

# ends: x -> a vector

ENDS = [lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), lambda x: x.mean((2, 3)), lambda x: x.mean(-1).mean(-1),
        lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3]), lambda x: F.avg_pool2d(x, x.shape[2:])[..., 0, 0],
        lambda x: F.avg_pool2d(x, x.size()[2:]).reshape(len(x), -1), lambda x: x.flatten(2).mean(2)]  # fmt: skip


class Neurons(nn.Module):
    """A convolution, perhaps a norm, perhaps an activation, each written in a way."""

    def __init__(self, inputs: int, drawn: dict, way):
        super().__init__()
        self.conv = nn.Conv2d(inputs, WIDTH, 3, drawn["stride"], 1)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm = batch_norm(channels=WIDTH, seed=drawn["seed"]) if drawn["norm"] else None
        self.ways = CONVOLUTIONS[way(drawn, "conv", CONVOLUTIONS)], NORMS[way(drawn, "normed", NORMS)]
        kinds = ACTIVATIONS.get(drawn["activation"], [nn.Identity()])
        self.activation = kinds[way(drawn, "activated", kinds)]

    def forward(self, x):
        x = self.ways[0](self.conv, x)
        return self.activation(x if self.norm is None else self.ways[1](self.norm, x))


class Pooled(nn.Module):
    """A layer without weights."""

    def __init__(self, inputs: int, drawn: dict, way):
        super().__init__()
        kinds = POOLS[drawn["pool"]]
        self.layer = kinds[way(drawn, "pooled", kinds)]

    def forward(self, x):
        return self.layer(x) if min(x.shape[2:]) > 3 and not any(n % 2 for n in x.shape[2:]) else x


class Joined(nn.Module):
    """A sum or a concatenation of two branches, the second of which may be the input."""

    def __init__(self, inputs: int, drawn: dict, way):
        super().__init__()
        self.first = Neurons(inputs, drawn["first"] | {"stride": 1}, way)
        skips = drawn["skips"] and (inputs == WIDTH or not drawn["sum"])
        self.second = nn.Identity() if skips else Neurons(inputs, drawn["second"] | {"stride": 1}, way)
        kinds = SUMS if drawn["sum"] else JOINS
        self.join = kinds[way(drawn, "joined", kinds) % len(kinds)]
        self.last = ACTIVATIONS["relu"][way(drawn, "activated", ACTIVATIONS["relu"])]

    def forward(self, x):
        return self.last(self.join(self.first(x), self.second(x)))


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, inputs: int, drawn: dict, way):
        super().__init__()
        self.point, self.multiply = nn.Conv2d(inputs, inputs, 1), GATES[way(drawn, "gated", GATES)]

    def forward(self, x):
        return self.multiply(x, self.point(x.mean((2, 3), keepdim=True)).sigmoid())


PARTS = {"neurons": Neurons, "pooled": Pooled, "joined": Joined, "gated": Gated}


class Drawing(nn.Module):
    """The network of a drawing.

    Args:
        drawn: what ``drawings`` draws.
        plain: whether every part is written in its plain way.
    """

    def __init__(self, drawn: dict, plain: bool):
        super().__init__()
        torch.manual_seed(drawn["seed"])
        way = (lambda *_: 0) if plain else (lambda part, name, kinds: part["ways"].get(name, 0) % len(kinds))
        self.stages, channels = nn.ModuleList(), 3
        for part in drawn["parts"]:
            self.stages.append(PARTS[part["kind"]](channels, part, way))
            with torch.no_grad():
                channels = self.stages.double().eval()[-1](torch.zeros(1, channels, 8, 8, dtype=torch.float64)).shape[1]
        self.end, self.classifier = ENDS[way(drawn, "end", ENDS)], nn.Linear(channels, TAGS)
        self.double().eval()

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.classifier(self.end(x))


@st.composite
def _neurons(draw) -> dict:
    numbers = draw(st.lists(st.integers(0, 359), min_size=3, max_size=3))
    return {
        "kind": "neurons",
        "stride": draw(st.sampled_from([1, 1, 2])),
        "norm": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
        "activation": draw(st.sampled_from(["relu", "relu", "relu6", "silu", "leaky_relu", "none"])),
        "ways": dict(zip(("conv", "normed", "activated"), numbers, strict=True)),
    }


@st.composite
def _part(draw) -> dict:
    kind = draw(st.sampled_from(["neurons", "neurons", "pooled", "joined", "gated"]))
    if kind == "neurons":
        return draw(_neurons())
    numbers = draw(st.lists(st.integers(0, 359), min_size=2, max_size=2))
    part = {"kind": kind, "ways": dict(zip((kind, "activated"), numbers, strict=True))}
    if kind == "pooled":
        return part | {"pool": draw(st.sampled_from(list(POOLS)))}
    if kind == "joined":
        drawn = {"first": draw(_neurons()), "second": draw(_neurons())}
        return part | drawn | {"sum": draw(st.booleans()), "skips": draw(st.booleans())}
    return part


@st.composite
def drawings(draw) -> dict:
    """A drawing of a network, as a dictionary that Hypothesis can print."""
    first = draw(_neurons()) | {"activation": "relu"}
    parts = draw(st.lists(_part(), min_size=1, max_size=5))
    ways = {"end": draw(st.integers(0, len(ENDS) - 1))}
    return {"seed": draw(st.integers(0, 10**6)), "parts": [first, *parts], "ways": ways}

"""The top-down walk on random networks, against Excitation Backprop as the gradient of a surrogate.

Every part of a random network says twice what it does: ``forward`` is the plain network, which the walk is given;
``excite`` is the surrogate, a pair (v, e) of the network's own values and of what excites them, through which autograd
goes. A neuron's excitation is W+ x; where the neuron ends, it is scaled to the activation relu(W x + b), the scale held
fixed. Then p = e . d signal / d e.
"""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import one_pass
from torch import Tensor, nn

from grounding import TopDown
from grounding.attention.methods import METHODS
from grounding.attention.topdown import ENGINES
from grounding.tagger.googlenet import ResponseNorm
from proposals.errors import InputError

TAGS = 5
UNNORMALISED = ("c-mwp-postnorm", "c-mwp-nonorm")
property_test = partial(settings, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def rows_for_any_number_of_words():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, None, ENGINES["sparse"])
        yield


def share(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, 0, numerator / denominator).detach()


def ended(v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """A neuron that ends here: its activation, and the same as its excitation scaled to that.

    An activation that nothing excites competes in the layer above, but passes nothing on.
    """
    activation = v.clamp(min=0)
    return activation, activation.detach() + share(activation, e) * (e - e.detach())


class Neurons(nn.Module):
    """A convolution, with or without a batch norm and a ReLU."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu):
        super().__init__()
        self.conv, self.norm, self.relu = conv, norm, relu

    def forward(self, x):
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.relu is None else self.relu(x)

    def excite(self, v, e):
        e = ended(v, e)[1]
        weight, bias = self.conv.weight, self.conv.bias
        if self.norm is not None:
            scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
            bias = self.norm.bias - scale * (self.norm.running_mean - (0 if bias is None else bias))
            weight = weight * scale[:, None, None, None]
        geometry = self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups
        v, e = F.conv2d(v, weight, bias, *geometry), F.conv2d(e, weight.clamp(min=0), None, *geometry)
        return (v, e) if self.relu is None else ended(v, e)


class Norm(nn.Module):
    """A batch norm by itself, and a ReLU: as many neurons of one input each."""

    def __init__(self, norm: nn.BatchNorm2d, relu):
        super().__init__()
        self.norm, self.relu = norm, relu

    def forward(self, x):
        return self.relu(self.norm(x))

    def excite(self, v, e):
        e = ended(v, e)[1]
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        return ended(self.norm(v), scale.clamp(min=0)[:, None, None] * e)


class Pool(nn.Module):
    """A maximum, whose winner's excitation is its own, or an average."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x)

    def excite(self, v, e):
        if not isinstance(self.pool, nn.MaxPool2d):
            return self.pool(v), self.pool(e)
        pool = copy.copy(self.pool)
        pool.return_indices = True
        v, where = pool(v)
        return v, e.flatten(2).gather(2, where.flatten(2)).view_as(v)


class Scaling(nn.Module):
    """A response norm or a dropout: each value times a factor that is held fixed."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)

    def excite(self, v, e):
        scaled = self.layer(v)
        return scaled, share(scaled, v) * e


class Chain(nn.Module):
    """Parts one after the other; a part may stand there twice."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def excite(self, v, e):
        for part in self.parts:
            v, e = part.excite(v, e)
        return v, e


class Concatenation(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)

    def excite(self, v, e):
        vs, es = zip(*(branch.excite(v, e) for branch in self.branches), strict=True)
        return torch.cat(vs, 1), torch.cat(es, 1)


def add_in_place(x, y):
    x += y
    return x


class Residual(nn.Module):
    """branch(x) + skip(x), and a ReLU: one neuron with the inputs of both."""

    def __init__(self, branch: nn.Module, skip: nn.Module, relu, add):
        super().__init__()
        self.branch, self.skip, self.relu, self.add = branch, skip, relu, add

    def forward(self, x):
        total = self.add(self.branch(x), self.skip(x))
        return total if self.relu is None else self.relu(total)

    def excite(self, v, e):
        (v1, e1), (v2, e2) = self.branch.excite(v, e), self.skip.excite(v, e)
        return (v1 + v2, e1 + e2) if self.relu is None else ended(v1 + v2, e1 + e2)


class Vector(nn.Module):
    """A linear layer on all values at once, with a ReLU."""

    def __init__(self, linear: nn.Linear, relu):
        super().__init__()
        self.linear, self.relu = linear, relu

    def forward(self, x):
        return self.relu(self.linear(x.flatten(1)))

    def excite(self, v, e):
        v, e = v.flatten(1), ended(v, e)[1].flatten(1)
        return ended(self.linear(v), F.linear(e, self.linear.weight.clamp(min=0)))


class Network(nn.Module):
    """Stages, any of which may be the target, and a classifier of score maps or of a vector."""

    def __init__(self, stages: list[nn.Module], classifier: nn.Module, images: Tensor):
        super().__init__()
        self.images = images
        self.stages, self.classifier = nn.ModuleList(stages), classifier

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.flatten(1) if isinstance(self.classifier, nn.Linear) else x)

    @torch.no_grad()
    def targets(self) -> list[str]:
        """The image and the stages where all neurons end."""
        names = ["image"]
        v, e = self.images, self.images.clamp(min=0)
        for i, stage in enumerate(self.stages):
            v, e = stage.excite(v, e)
            names += [f"stages.{i}"] * (v.ndim == 4 and torch.allclose(v, e, rtol=1e-12, atol=0))
        return names


def word_shares(scores: Tensor) -> Tensor:
    return scores.flatten(2).softmax(2).view_as(scores).detach() if scores.ndim == 4 else torch.ones_like(scores)


def surrogate_maps(net: Network, image: Tensor, target: str, dual: bool = False) -> Tensor:
    """MWP of every tag at the target, (tags, h, w)."""
    v, e = image, image.clamp(min=0).requires_grad_()
    at = e
    for i, stage in enumerate(net.stages):
        v, e = stage.excite(v, e)
        if target == f"stages.{i}":
            e = e if e.requires_grad else e.requires_grad_()
            at = e
    e = ended(v, e)[1]
    if isinstance(net.classifier, nn.Linear):
        v, e = v.flatten(1), e.flatten(1)
    weight = (net.classifier.weight * (-1 if dual else 1)).clamp(min=0)
    winning = (F.linear if e.ndim == 2 else F.conv2d)(e, weight)
    probability = word_shares(net.classifier(v)) * share(torch.ones_like(winning), winning) * winning
    totals = probability.view(TAGS, -1).sum(1)
    slopes = [torch.autograd.grad(total, at, retain_graph=True)[0] for total in totals]
    return torch.stack([(at * slope)[0].sum(0).detach() for slope in slopes])


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (g > 0), g, 0)


def gradient_maps(net: Network, image: Tensor, target: str, relu=torch.relu) -> Tensor:
    """max over channels of |d score / d x| of every tag, by autograd, (tags, h, w)."""
    net = copy.deepcopy(net)
    for part in net.modules():
        if getattr(part, "relu", None) is not None:
            del part.relu
            part.relu = relu
        if isinstance(part, Residual):
            part.add = torch.add
    x = at = image.clone().requires_grad_()
    for i, stage in enumerate(net.stages):
        x = stage(x)
        at = x if target == f"stages.{i}" else at
    scores = net.classifier(x.flatten(1) if isinstance(net.classifier, nn.Linear) else x)
    totals = (word_shares(scores) * scores).view(TAGS, -1).sum(1)
    return torch.stack([torch.autograd.grad(t, at, retain_graph=True)[0][0].abs().amax(0) for t in totals])


class Builder:
    """Draws the parts of a network; the weights come from one seed."""

    def __init__(self, draw):
        self.draw = draw
        torch.manual_seed(draw(st.integers(0, 10**6)))

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def relu(self):
        return self.one_of(nn.ReLU(inplace=True), nn.ReLU(), torch.relu, lambda x: F.relu(x, inplace=True))

    def norm(self, channels: int) -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(channels)
        norm.weight.data.uniform_(-1.5, 1.5)
        norm.bias.data.normal_(0.2, 0.5)
        norm.running_mean.normal_(0, 0.5)
        norm.running_var.uniform_(0.3, 2)
        return norm

    def neurons(self, inputs, outputs=None, relu=True, same=True, stride=1) -> Neurons:
        """``same``: as large as its input; ``relu``: a ReLU, or True for any."""
        outputs = outputs or self.one_of(2, 3, 4, 6)
        kernel = self.one_of((1, 1), (3, 3), (5, 5), (1, 3), (3, 1))
        dilation = self.one_of(1, 1, 2)
        groups = self.one_of(
            *(n for n in (1, 1, inputs) if outputs % n == 0), 2 if inputs % 2 + outputs % 2 == 0 else 1
        )
        reach = tuple(dilation * (k // 2) for k in kernel)
        padding = reach if same else tuple(max(0, n - self.one_of(0, 1)) for n in reach)
        bias = self.one_of(True, False)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
        nn.init.kaiming_normal_(conv.weight)
        norm = self.norm(outputs) if self.one_of(False, False, True) else None
        return Neurons(conv, norm, self.relu() if relu else None)

    def branch(self, inputs, depth: int) -> tuple[nn.Module, int]:
        """One branch of a concatenation, and its channels."""
        kind = self.one_of("neurons", "neurons", "two", "pooled", "average", "skip", "nested" if depth else "neurons")
        if kind == "skip":
            return Chain(), inputs
        if kind == "nested":
            return self.concatenation(inputs, depth - 1)
        last = self.neurons(inputs, relu=kind != "two" or self.one_of(True, False))
        outputs = last.conv.out_channels
        if kind == "two":
            second = self.neurons(outputs)
            return Chain(last, second), second.conv.out_channels
        if kind == "pooled":
            return Chain(Pool(nn.MaxPool2d(3, 1, 1)), last), outputs
        if kind == "average":
            return Chain(Pool(nn.AvgPool2d(3, 1, 1, count_include_pad=self.one_of(True, False))), last), outputs
        return last, outputs

    def concatenation(self, inputs, depth: int = 1) -> tuple[nn.Module, int]:
        branches = [self.branch(inputs, depth) for _ in range(self.one_of(2, 3, 4))]
        return Concatenation(*(b for b, _ in branches)), sum(c for _, c in branches)

    def residual(self, inputs) -> tuple[nn.Module, int]:
        stride, projected = self.one_of((1, False), (1, True), (2, True))
        outputs = self.one_of(2, 4) if projected else inputs
        middle = self.neurons(inputs)
        branch = Chain(middle, self.neurons(middle.conv.out_channels, outputs, relu=False, stride=stride))
        skip = self.neurons(inputs, outputs, relu=False, stride=stride) if projected else Chain()
        add = self.one_of(torch.add, add_in_place, lambda x, y: x + y, lambda x, y: x.add_(y))
        return Residual(branch, skip, self.relu(), add), outputs

    def pool(self, size) -> nn.Module:
        if min(size) < 3:
            return nn.MaxPool2d(2, 2, ceil_mode=True)
        kind, ceil = self.one_of("max", "max", "average"), self.one_of(False, True)
        window, stride, padding = self.one_of(
            (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 2, 0), (3, 3, 0), ((3, 2), (2, 1), 0)
        )
        return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(window, stride, padding, ceil_mode=ceil)

    def stage(self, shape) -> nn.Module:
        channels = shape[1]
        kind = self.one_of(
            "neurons",
            "neurons",
            "wide" if min(shape[2:]) > 6 else "pool",
            "pool",
            "cat",
            "add",
            "twice",
            "norm",
            "lrn",
            "dropout",
        )
        if kind == "wide":
            return self.neurons(channels, same=False, stride=self.one_of(1, 2))
        if kind == "pool":
            return Chain(Pool(self.pool(shape[2:])))
        if kind == "cat":
            return self.concatenation(channels)[0]
        if kind == "add":
            return self.residual(channels)[0]
        if kind == "twice":
            part = self.neurons(channels, channels)
            return Chain(part, part)
        if kind == "norm":
            return Norm(self.norm(channels), self.relu())
        if kind == "lrn":
            return Scaling(self.one_of(ResponseNorm(), nn.LocalResponseNorm(3, 0.5, 0.75, 2.0)))
        if kind == "dropout":
            return Scaling(nn.Dropout(0.5))
        return self.neurons(channels)


@st.composite
def networks(draw) -> Network:
    """A network in evaluation mode and three images for it."""
    builder = Builder(draw)
    height, width = draw(st.integers(7, 13)), draw(st.integers(7, 13))
    images = torch.randn(3, 3, height, width, dtype=torch.float64)
    shape = images.shape
    stages = [builder.neurons(3, 4)]
    for _ in range(draw(st.integers(1, 5))):
        shape = _shape(stages, images)
        stage = builder.stage(shape)
        stages.append(stage if shape[1] < 40 else builder.neurons(shape[1]))
    end = builder.one_of("maps", "average", "global", "vector", "deep")
    shape = _shape(stages, images)
    if end == "average" and min(shape[2:]) > 2:
        stages.append(Pool(nn.AvgPool2d(2, 1)))
    if end == "global":
        stages.append(Pool(nn.AdaptiveAvgPool2d(1)))
    if end in ("vector", "deep"):
        features = shape[1:].numel()
        if end == "deep":
            stages.append(Vector(nn.Linear(features, 6), builder.relu()))
            features = 6
        classifier = nn.Linear(features, TAGS, bias=builder.one_of(True, False))
    else:
        classifier = nn.Conv2d(_shape(stages, images)[1], TAGS, 1)
    return Network(stages, classifier, images).double().eval()


@torch.no_grad()
def _shape(stages, images) -> torch.Size:
    x = images[:1]
    for stage in stages:
        x = stage.double().eval()(x)
    return x.shape


def assert_same(ours: Tensor, expected: Tensor):
    scale = float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12 * scale + 1e-14)


def several(topdown: TopDown, images: Tensor, method: str) -> list[Tensor]:
    """The maps of every tag, of images that go up together and so have no rows: one tensor for each target."""
    signals, used = torch.eye(TAGS, dtype=images.dtype), torch.arange(TAGS)
    return METHODS[method].maps(one_pass(topdown, images, method), signals, used)


def allowed(topdown: TopDown, method: str) -> bool:
    try:
        topdown._plan(METHODS[method])
    except InputError:
        return False
    return True


@property_test(max_examples=40)
@given(networks(), st.data())
def test_mwp_is_the_gradient_of_the_surrogate(net, data):
    images = net.images
    target = data.draw(st.sampled_from(net.targets()))
    scene = TopDown(net, target).look(images[:1])
    torch.testing.assert_close(scene.logits, net(images[:1]).view(1, TAGS, -1).mean(2))
    units, duals = (surrogate_maps(net, images[:1], target, dual) for dual in (False, True))
    maps = scene.attend(range(TAGS), "mwp")[0]
    assert_same(maps, units)
    assert maps.min() >= 0
    assert maps.sum((1, 2)).max() <= 1 + 1e-12
    assert_same(maps.sum((1, 2)), units.sum((1, 2)))
    torch.testing.assert_close(scene.attend(range(TAGS))[0], (units - duals).clamp(min=0), rtol=1e-9, atol=1e-12)


@property_test(max_examples=15)
@given(networks(), st.data())
def test_a_map_is_linear_in_its_signal_and_words_and_images_do_not_matter_to_one_another(net, data):
    images = net.images
    target = data.draw(st.sampled_from(net.targets()))
    method = data.draw(st.sampled_from(["mwp", "lrp", "c-mwp"]))
    topdown = TopDown(net, target, chunk=data.draw(st.sampled_from([1, 4, 7, 40])))
    words = data.draw(st.lists(st.integers(0, TAGS - 1), min_size=1, max_size=36))
    together = topdown.look(images, method).attend(words, method)
    for n in range(len(images)):
        scene = topdown.look(images[n : n + 1], method)
        each = torch.cat([scene.attend([word], method) for word in range(TAGS)], 1)[0]
        assert_same(together[n], each[words])
        if method != "c-mwp":
            signals = torch.randn(6, TAGS, dtype=torch.float64)
            assert_same(scene.attend(signals, method)[0], torch.einsum("wt,thx->whx", signals, each))


@pytest.mark.parametrize("method", METHODS)
@property_test(max_examples=15)
@given(networks(), st.data())
def test_rows_say_what_dense_signals_say(method, net, data):
    images = net.images
    targets = data.draw(st.lists(st.sampled_from(net.targets()), min_size=1, max_size=3, unique=True))
    if method in UNNORMALISED:
        targets = [name for name in targets if name != "image"] or ["stages.0"]
    topdown = TopDown(net, targets)
    if not allowed(topdown, method):
        return
    maps = topdown.look(images[:1], method).attend(range(TAGS), method)
    twice = several(topdown, images[:1].repeat(2, 1, 1, 1), method)
    for i, (ours, dense) in enumerate(zip(maps if isinstance(maps, list) else [maps], twice, strict=True)):
        # a contrast of one position is rounding, which these two methods normalise
        if method in UNNORMALISED and ours[0, 0].numel() == 1:
            continue
        assert_same(ours[0], dense[0])
        assert_same(ours[0], dense[1])
        if isinstance(maps, list):
            assert_same(ours, TopDown(net, targets[i]).look(images[:1], method).attend(range(TAGS), method))


@property_test(max_examples=15)
@given(networks(), st.data())
def test_gradients_are_autograds(net, data):
    images = net.images
    target = data.draw(st.sampled_from(net.targets()))
    scene = TopDown(net, target).look(images[:1], "grad")
    assert_same(scene.attend(range(TAGS), "grad")[0], gradient_maps(net, images[:1], target))
    assert_same(scene.attend(range(TAGS), "deconv")[0], gradient_maps(net, images[:1], target, GuidedReLU.apply))


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


def test_a_negative_factor_is_refused():
    with pytest.raises(InputError, match="a scaling by a factor below 0 has no rule"):
        small(lambda net, x: x * -0.5)


@pytest.mark.parametrize("method", UNNORMALISED)
def test_only_the_positive_part_of_a_signed_target_can_win(method):
    assert_same(*small(lambda net, x: torch.relu(net.a(x)), method, "image"))


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


def test_a_sum_with_a_factor_is_refused():
    with pytest.raises(InputError, match="a sum with alpha has no rule"):
        small(lambda net, x: torch.relu(torch.add(x, net.a(x), alpha=2)))


def test_a_number_in_a_sum_is_a_bias():
    assert_same(*small(lambda net, x: torch.relu(net.a(x) + 1.5)))

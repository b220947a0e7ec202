"""Whatever has no map is refused in one line that names the layer, and leaves the model as it was."""

import re
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from equivalent_models import Outer
from equivalents import CLASSIFIER, TARGET, Block, assert_equal_maps, images, maps_of, simple, whole
from torch import nn
from untouched import assert_untouched, snapshot

from grounding import TopDown
from proposals.errors import InputError


def refusal(net, batch=None, units=(0, 1), target=TARGET, classifier=CLASSIFIER, method="c-mwp") -> str:
    """The message of the error that ends a look; the model is as before."""
    before = snapshot(net) if isinstance(net, nn.Module) else None
    with pytest.raises(InputError) as raised:
        scene = TopDown(net, target=target, classifier=classifier).look(images() if batch is None else batch)
        scene.attend(units, method)
    message = str(raised.value)
    assert message
    assert "\n" not in message
    assert len(message) < 400
    if before:
        assert_untouched(net, before)
    return message


# layers without a rule


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


class ByHand(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2)
        weights = (tokens.transpose(1, 2) @ tokens / 8**0.5).softmax(-1)
        return (tokens @ weights).view(x.shape)


class ChannelNorm(nn.Module):
    """A layer norm of the channels, as ConvNeXt has it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def quantised(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch has marked it as deprecated
        net = net.float()
        net.tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.ReLU())
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


LAYERS = {
    "layer_norm": (nn.LayerNorm([8, 16, 16]), "mean|norm"),
    "layer_norm_of_channels": (ChannelNorm(), "mean|norm"),
    "group_norm": (nn.GroupNorm(2, 8), "mean|norm"),
    "instance_norm": (nn.InstanceNorm2d(8), "mean|norm"),
    "attention": (Attention(), "attention"),
    "attention_by_hand": (ByHand(), ""),
    "batch_statistics": (nn.BatchNorm2d(8, track_running_stats=False), "batch|track_running_stats"),
}


def into_a_tensor(net, x):
    y = torch.empty_like(x)
    torch.clamp(net.conv(x), min=0, out=y)
    return y


# functions that have a plain form, but are rare
FUNCTIONS = {
    "clamp": into_a_tensor,
    "index_copy": lambda net, x: x.index_copy(1, torch.arange(4), net.conv(x)[:, :4]),
    "topk": lambda net, x: net.conv(x).flatten(2).topk(3, 2).values.mean(2),
    "heaviside": lambda net, x: net.conv(x) * torch.heaviside(net.conv(x), x.new_zeros(())),
    "fmax": lambda net, x: torch.fmax(net.conv(x), x),
    "sign": lambda net, x: net.conv(x).sign(),
    "sort": lambda net, x: net.conv(x).sort(1).values,
    "fft": lambda net, x: torch.fft.rfft2(net.conv(x)).abs()[..., :8],
    "softmax": lambda net, x: net.conv(x).softmax(1),
    "std": lambda net, x: net.conv(x).std((2, 3)),
    "cdist": lambda net, x: torch.cdist(x.flatten(2), net.conv(x).flatten(2)).mean(2),
    "prod": lambda net, x: net.conv(x).flatten(2).prod(2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_without_a_rule_is_named(name):
    message = refusal(whole(Block(FUNCTIONS[name])), method="mwp")
    assert re.search("^block.*rule" if name != "fft" else "not below the classifier", message)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_without_a_rule_is_named(name):
    layer, reason = LAYERS[name]
    message = refusal(whole(Block(lambda net, x: F.relu(net.odd(net.conv(x))), odd=layer)))
    assert "block.odd" in message
    assert re.search(reason, message, re.IGNORECASE)


# batch statistics depend on the other images; PyTorch's attention puts the images second
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("batch_statistics", "attention")])
def test_a_layer_without_a_rule_may_be_below_the_target(name):
    net = whole(Block(lambda net, x: F.relu(net.conv(net.odd(x))), odd=LAYERS[name][0]))
    scene = TopDown(net, target="block.conv", classifier=CLASSIFIER).look(images())
    torch.testing.assert_close(scene.logits, net(images()).detach(), rtol=1e-9, atol=1e-12)
    assert scene.attend([0], "mwp").sum() > 0


# models that cannot be captured


class Counting(Outer):
    """Changes its own state from call to call, and its logits with it."""

    def __init__(self, net):
        super().__init__(net, None)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.net(x * self.calls)


class CountingInABuffer(Outer):
    def __init__(self, net):
        super().__init__(net, None)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.net(x * self.calls)


def by_value(outer, x):
    return outer.net(x) if x.mean() > 0 else outer.net(-x)


def by_item(outer, x):
    return outer.net(x * (1 if x[0, 0, 0, 0].item() > 0 else 2))


def by_each_image(outer, x):
    return outer.net(torch.stack([image if image.sum() > 0 else -image for image in x]))


def a_number_is_noted(outer, x):
    outer.mean = float(x.mean())
    return outer.net(x)


def as_an_array(outer, x):
    return outer.net(torch.from_numpy(x.detach().numpy() * 2))


def random(outer, x):
    return outer.net(x + torch.rand_like(x))


def dropout(outer, x):
    return outer.net(F.dropout(x, 0.5, training=True))


def one_image(outer, x):
    return outer.net(x[:1]).expand(len(x), -1)


def across_images(outer, x):
    return outer.net(x - x.mean(0, keepdim=True))


def raises(outer, x):
    raise ValueError("the model's own\nmessage")


def wrong_shape(outer, x):
    return outer.net.classifier(x)


def no_tensor(outer, x):
    outer.net(x)
    return "nothing"


def without_the_classifier(outer, x):
    return outer.net.tail(outer.net.block(outer.net.stem(x)))


FORWARDS = {
    by_value: r"value|picks or mixes images",
    by_item: r"value|picks or mixes images",
    by_each_image: r"value|picks or mixes images",
    a_number_is_noted: r"reads values|picks or mixes images",
    as_an_array: r"reads values",
    random: r"random",
    dropout: r"random.*training=False",
    one_image: r"picks or mixes images",
    across_images: r"picks or mixes images",
    raises: r"the model raises ValueError .*: the model's own",
    wrong_shape: r"RuntimeError .*in net\.classifier: ",
    without_the_classifier: r"no layer 'classifier'",
}


@pytest.mark.parametrize("function", FORWARDS, ids=lambda function: function.__name__)
def test_a_forward_without_a_map_is_refused(function):
    message = refusal(Outer(simple(), function))
    assert re.search(FORWARDS[function], message, re.IGNORECASE)


@pytest.mark.parametrize("kind", [Counting, CountingInABuffer])
def test_a_model_that_changes_from_call_to_call_is_refused(kind):
    net = kind(simple())
    assert re.search("differ|state", refusal(net))
    assert net.calls == 0


def test_a_forward_that_is_bound_to_another_model_is_refused():
    net = simple()
    inner = net.forward
    net.forward = lambda x: inner(x)  # of a copy, too, it is that of the original
    assert "does not call 'classifier' as a module" in refusal(net)


def test_a_scripted_model_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)))
        traced = torch.jit.trace(simple(), images())
    for net in (scripted, traced):
        with pytest.raises(InputError, match="script") as raised:
            TopDown(net, target="0", classifier="2").look(images())
        assert "\n" not in str(raised.value)


def test_a_quantised_model_is_refused():
    net = quantised(simple())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert re.search(r"is a quantised layer", refusal(net, images().float()))


@pytest.mark.parametrize("net", [lambda x: x, "resnet18", None, nn.Conv2d], ids=["function", "name", "none", "class"])
def test_what_is_no_model_is_refused(net):
    with pytest.raises(InputError, match=r"must be an nn\.Module, not"):
        TopDown(net, target=TARGET, classifier=CLASSIFIER).look(images())


def test_a_model_that_raises_keeps_its_own_error_as_the_cause():
    with pytest.raises(InputError) as raised:
        TopDown(Outer(simple(), raises), target=TARGET, classifier=CLASSIFIER).look(images())
    assert isinstance(raised.value.__cause__, ValueError)


# images and words

IMAGES = {
    "nan": (images().fill_(torch.nan), "finite|NaN"),
    "one_nan": (images().index_fill_(0, torch.tensor([1]), torch.nan), "finite|NaN"),
    "infinite": (images().clone().index_fill_(3, torch.tensor([4]), torch.inf), "finite|inf"),
    "one_channel": (images()[:, :1], "3 channels, but got 1 channels"),
    "four_channels": (torch.rand(1, 4, 32, 32, dtype=torch.float64), "3 channels, but got 4 channels"),
    "channel_last": (images().permute(0, 2, 3, 1), "3 channels, but got 32 channels"),
    "one_image": (images()[0], r"\(N, C, h, w\)"),
    "no_image": (images()[:0], r"\(N, C, h, w\)"),
    "no_pixels": (images()[..., :0], r"image of \(3, 32, 0\)"),
    "float32": (images().float(), "float64"),
    "uint8": (images().to(torch.uint8), "float64"),
    "complex": (images().to(torch.complex128), "float64"),
    "array": (images().numpy(), "tensor .*not ndarray"),
    "list": ([images()[0]], "tensor .*not list"),
    "none": (None, "tensor .*not NoneType"),
    "sparse": (images().to_sparse(), "sparse|dense|layout|images"),
    "meta": (images().to("meta"), "device|meta"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_wrong_images_are_refused(name):
    wrong, reason = IMAGES[name]
    topdown = TopDown(simple(), target=TARGET, classifier=CLASSIFIER)
    for _ in range(2):
        with pytest.raises(InputError, match=reason) as raised:
            topdown.look(wrong)
        assert "\n" not in str(raised.value)
    assert torch.isfinite(topdown.look(images()).attend([0])).all()


INTEGERS = r"tags must be given as integers, for example attend\(\[3, 17\]\)"
UNITS = {
    "word": (["cat"], INTEGERS),
    "a_word_alone": ("cat", INTEGERS),
    "none": (None, INTEGERS),
    "none_in_a_list": ([None], INTEGERS),
    "fraction": ([1.5], INTEGERS),
    "whole_as_a_float": (torch.tensor([1.0]), INTEGERS),
    "mask": (torch.tensor([True, False]), INTEGERS),
    "truths": ([True, False], INTEGERS),
    "nan": ([float("nan")], INTEGERS),
    "a_number": (3, INTEGERS),
    "nothing": ([], "no word"),
    "too_large": ([5], "tag 5 does not exist"),
    "negative": ([-1], "tag -1 does not exist"),
    "huge": ([2**70], INTEGERS),
    "nested": ([[0], [1]], INTEGERS),
    "another_number_of_tags": (torch.ones(1, 4, dtype=torch.float64), r"\(W, 5\)"),
    "signals_of_nan": (torch.full((1, 5), torch.nan), r"finite \(W, 5\)"),
    "four_axes": (torch.ones(1, 1, 1, 5), INTEGERS),
    "no_signals": (torch.ones(0, 5), r"\(W, 5\)"),
    "signals_of_truths": (torch.ones(1, 5, dtype=torch.bool), "signals"),
    "complex_signals": (torch.ones(1, 5, dtype=torch.complex64), "signals"),
    "a_dictionary": ({0: 1.0}, INTEGERS),
    "an_object": ([object()], INTEGERS),
}


@pytest.fixture(scope="module")
def scene():
    return TopDown(simple(), target=TARGET, classifier=CLASSIFIER).look(images())


@pytest.mark.parametrize("name", UNITS)
def test_wrong_words_are_refused(scene, name):
    wrong, reason = UNITS[name]
    with pytest.raises(InputError, match=reason) as raised:
        scene.attend(wrong)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "units",
    [(0, 2), range(0, 3, 2), np.array([0, 2]), [np.int64(0), np.int64(2)], torch.tensor([0, 2])],
    ids=["tuple", "range", "array", "numpy_integers", "tensor"],
)
def test_any_whole_numbers_are_words(scene, units):
    assert torch.equal(scene.attend(units), scene.attend([0, 2]))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"target": "nowhere"}, "no layer 'nowhere'"),
        ({"classifier": "nowhere"}, "no layer 'nowhere'"),
        ({"target": CLASSIFIER}, "below the classifier"),
        ({"classifier": "stem.1"}, "neither a linear layer nor a 1x1 convolution"),
        ({"classifier": "block.conv"}, "neither a linear layer nor a 1x1 convolution"),
        ({"target": ""}, "layer"),
        ({"target": 3}, "layer|name"),
        ({"target": []}, "target"),
        ({"target": [TARGET, "nowhere"]}, "no layer 'nowhere'"),
        ({"method": "no"}, "no attention method 'no'"),
    ],
    ids=str,
)
def test_wrong_names_are_refused(names, reason):
    assert re.search(reason, refusal(simple(), **names))


def test_a_layer_that_did_not_run_is_refused_as_such():
    assert "does not call 'block.wide'" in refusal(simple(), target="block.wide")


def test_weights_that_are_not_finite_are_named():
    net = simple()
    net.block.conv.weight.data[0, 0, 0, 0] = torch.nan
    assert "block.conv.weight" in refusal(net)
    assert "float16" in refusal(simple().half(), images().half())


def test_the_refusal_of_one_shape_does_not_concern_another():
    def only_small(outer, x):
        if x.shape[2] > 40:
            raise types.new_class("Own", (Exception,))("too large")
        return outer.net(x)

    topdown = TopDown(Outer(simple(), only_small), target=TARGET, classifier=CLASSIFIER)
    with pytest.raises(InputError, match="too large"):
        topdown.look(images(size=64))
    assert_equal_maps(maps_of(topdown, images()), maps_of(simple(), images()))

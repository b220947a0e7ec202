"""The defaults on the networks of torchvision and timm, what they leave untouched, and what they refuse."""

import copy
from functools import cache, partial

import pytest
import torch
import torchvision
from passes import one_pass
from sweeps import sweep
from torch import Tensor, nn

from grounding import TopDown
from grounding.attention.engine.dense import DenseEngine
from grounding.attention.methods import METHODS
from grounding.attention.topdown import ENGINES
from grounding.tagger.cnns import CNNS
from proposals.errors import InputError

SIZES = {
    "inception_v3": 107,
    "cnns": 224,
    "densenet121": 64,
    "resnet50": 64,
    "vgg11": 64,
    "vgg16_bn": 64,
    "alexnet": 72,
}
NAMES = ["mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"]
SLOW = ["alexnet", "cnns", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mobilenet_v2",
        "regnet_x_400mf", "resnet50", "vgg11", "vgg16_bn"]  # fmt: skip
UNTRAINED = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


@pytest.fixture(scope="module", autouse=True)
def sparse_for_any_number_of_words():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, None, ENGINES["sparse"])
        yield


def randomise(net: nn.Module) -> nn.Module:
    """Weights under which no activation fades, and batch norms of both signs."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(-0.6, 1.2)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return net


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network of eight tags in evaluation mode, and an image for it."""
    torch.manual_seed(0)
    if name == "cnns":
        net = CNNS(8)
        net.fc6, net.fc7, net.fc8 = nn.Linear(512 * 6 * 6, 32), nn.Linear(32, 32), nn.Linear(32, 8)
    else:
        net = getattr(torchvision.models, name)(weights=None, num_classes=8, **UNTRAINED.get(name, {}))
    if name in ("alexnet", "vgg11", "vgg16_bn"):
        linear = [i for i, layer in enumerate(net.classifier) if isinstance(layer, nn.Linear)]
        sizes = [net.classifier[linear[0]].in_features, 32, 32, 8]
        for i, inputs, outputs in zip(linear, sizes[:-1], sizes[1:], strict=True):
            net.classifier[i] = nn.Linear(inputs, outputs)
    size = SIZES.get(name, 96)
    return randomise(net).double().eval(), torch.randn(1, 3, size, size, dtype=torch.float64)


@cache
def built(name: str) -> tuple[TopDown, Tensor]:
    """A network that several tests share, and an image for it."""
    net, image = build(name)
    return TopDown(net), image


def state(net: nn.Module) -> tuple:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return (
        {key: value.clone() for key, value in net.state_dict().items()},
        [(name, type(m), m.training, set(m.__dict__), getattr(m, "inplace", None)) for name, m in net.named_modules()],
        [(name, p.requires_grad, p.grad, p.stride()) for name, p in net.named_parameters()],
        [len(getattr(m, hook)) for m in net.modules() for hook in hooks],
    )


def assert_untouched(net: nn.Module, before: tuple):
    after = state(net)
    assert after[1:] == before[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(value, after[0][key]) for key, value in before[0].items())


def assert_same(ours: Tensor, expected: Tensor):
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))


def gradient(net: nn.Module, image: Tensor, tags: list[int]) -> Tensor:
    """max over channels of |d logit / d image|, (tags, h, w)."""
    image = image.clone().requires_grad_()
    logits = net(image)
    return (
        torch.stack([torch.autograd.grad(logits[0, tag], image, retain_graph=True)[0][0] for tag in tags]).abs().amax(1)
    )


def dense(topdown: TopDown, image: Tensor, tags: list[int], method: str) -> Tensor:
    """The maps by the dense engine."""
    top_down = one_pass(topdown, image, method, DenseEngine)
    return METHODS[method].maps(top_down, torch.eye(8, dtype=image.dtype)[tags], torch.arange(8))[0]


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_known_architecture_needs_no_names(name):
    net, image = build(name)
    before, tags = state(net), [0, 5]
    topdown = TopDown(net)
    scene = topdown.look(image)
    maps = scene.attend(tags, "mwp")
    assert maps.min() >= 0
    mass = maps.sum((2, 3))
    assert mass.max() <= 1 + 1e-9
    assert mass.min() > 0
    assert_same(maps, dense(topdown, image, tags, "mwp"))
    grad = scene.attend(tags, "grad")
    with torch.no_grad():
        assert_same(scene.logits, net(image))
    if name != "squeezenet1_1":
        assert_same(grad[0], gradient(net, image, tags))
    assert_untouched(net, before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sweep(["shufflenet_v2_x0_5", "resnet18", "mobilenet_v3_small", "regnet_y_400mf"], 4))
def test_sparse_maps_equal_dense_maps(name, method):
    if name == "mobilenet_v3_small" and method in ("cam", "c-cam"):
        pytest.skip("its classifier reads a hidden layer: no class activation map")
    topdown, image = built(name)
    assert_same(topdown.look(image, method).attend([0, 5], method), dense(topdown, image, [0, 5], method))


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_a_model_in_training_is_left_as_it_is_also_where_we_refuse(name):
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None, num_classes=8, **UNTRAINED.get(name, {})).train()
    next(net.parameters()).requires_grad_(False)
    before = state(net)
    for arguments in ({"target": "nowhere"}, {"classifier": "maxpool"}, {"target": "fc"}):
        with pytest.raises(InputError):
            TopDown(net, **arguments).look(torch.rand(1, 3, 64, 64))
        assert_untouched(net, before)
    topdown = TopDown(net)
    with pytest.raises(InputError):
        topdown.look(torch.zeros(1, 3, 64, 64)).attend([8])
    assert_untouched(net, before)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("convnext_tiny", "subtracts the mean"), ("swin_t", None), ("vit", None)],
)
def test_what_mass_cannot_pass_is_refused_in_one_line(name, reason):
    # the smallest that is a vision transformer, because vit_b_16 has 86 million weights
    vit = partial(torchvision.models.VisionTransformer, 224, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
    net = vit() if name == "vit" else getattr(torchvision.models, name)(weights=None)
    arguments = {"convnext_tiny": {}, "swin_t": {"target": "features.3", "classifier": "head"}}
    with pytest.raises(InputError, match=reason) as raised:
        arguments.setdefault(name, {"target": "conv_proj", "classifier": "heads.head"})
        TopDown(net, **arguments[name]).look(torch.rand(1, 3, 224, 224))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "target", "classifier"),
    [
        ("resnet18", "layer2", "fc"),
        ("efficientnet_b0", "blocks.2", "classifier"),
        ("mobilenetv3_small_100", "blocks.2", "classifier"),
        pytest.param("densenet121", "features.denseblock2", "classifier", marks=pytest.mark.slow),
    ],
)
def test_timms_networks_go_by_explicit_names(name, target, classifier):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = randomise(timm.create_model(name, num_classes=8)).double().eval()
    image, before = torch.randn(1, 3, 64, 64, dtype=torch.float64), state(net)
    topdown = TopDown(net, target, classifier)
    scene = topdown.look(image)
    maps = scene.attend([0, 5], "mwp")
    assert maps.min() >= 0
    assert maps.sum((2, 3)).max() <= 1 + 1e-9
    assert_same(maps, dense(topdown, image, [0, 5], "mwp"))
    assert_same(scene.logits, net(image).detach())
    assert_same(
        TopDown(net, "image", classifier).look(image, "grad").attend([0, 5], "grad")[0], gradient(net, image, [0, 5])
    )
    assert_untouched(net, before)


def test_bad_weights_are_refused_by_name():
    net, _ = build("resnet18")
    broken = copy.deepcopy(net)
    broken.layer3[0].conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"the weights layer3\.0\.conv1\w*\.weight are not finite"):
        TopDown(broken)
    with pytest.raises(InputError, match=r"float16, in which signals overflow; use float32"):
        TopDown(net.half())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "layer22"}, r"no layer 'layer22'; similar names: .*layer2"),
        ({"target": "fc"}, r"target fc \(linear\) is not below the classifier"),
        ({"target": "layer4", "classifier": "layer3.0.downsample.0"}, r"neither a linear layer nor a 1x1 convolution"),
        ({"classifier": "layer4"}, r"neither a linear layer nor a 1x1 convolution"),
        ({"classifier": "fd"}, r"no layer 'fd'; similar names"),
    ],
)
def test_wrong_names_are_refused(arguments, message):
    net, image = build("resnet18")
    with pytest.raises(InputError, match=message):
        TopDown(net, **arguments).look(image)


def test_wrong_images_and_words_are_refused():
    net, image = build("resnet18")
    topdown = TopDown(net)
    for wrong in (image.float(), image.half(), image.to(torch.uint8), image.to(torch.int64), image[0], image[:0]):
        with pytest.raises(InputError, match="images must be"):
            topdown.look(wrong)
    scene = topdown.look(image)
    with pytest.raises(InputError, match="no word to attend to"):
        scene.attend([])
    with pytest.raises(InputError, match="tag 8 does not exist: the classifier has 8"):
        scene.attend([0, 8])
    twice = scene.attend([3, 1, 3])
    assert torch.equal(twice[:, 0], twice[:, 2])


@pytest.mark.parametrize("name", ["alexnet", "densenet121"])
def test_an_image_too_small_for_the_network_is_refused(name):
    net, _ = build(name)
    with pytest.raises(InputError, match="small"):
        TopDown(net).look(torch.randn(1, 3, 20, 20, dtype=torch.float64))


@pytest.mark.parametrize("target", ["layer2.0.conv1", "layer2.0.bn2", "layer2.1.bn2"])
def test_a_target_within_a_block_does_not_depend_on_the_targets_below(target):
    net, image = build("resnet18")
    alone = TopDown(net, target).look(image).attend([0, 5], "mwp")
    together = TopDown(net, [target, "layer1"]).look(image).attend([0, 5], "mwp")
    assert_same(alone, together[0])

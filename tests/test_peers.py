"""Our maps against those of the published peers, in float64; results/peers.md has the figures and the differences.

Every network has random He-initialised weights and random biases, but for the embedded tagger.
"""

import copy
import warnings

import numpy as np
import pytest
import torch
import torchvision
from passes import one_pass
from PIL import Image
from sweeps import sweep
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from grounding import TagClassifier, TopDown
from grounding.attention.engine.dense import DenseEngine

pytestmark = pytest.mark.slow  # the quick tests compare with the definition and with autograd
UNITS = [3, 17]
# in place of the peers' stabilisers, where our sums have none: too small to show, and no division by zero
NOTHING = 1e-30


def peer(name: str):
    """A module of a peer; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def quietly(function, *arguments, **keywords):
    """A call of a peer that warns, as Captum does before it sets hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **keywords)


def assert_agree(ours: Tensor, theirs: Tensor) -> None:
    """The largest difference is at most 1e-9 of the peer's largest value; ``pytest -rP`` shows the figure."""
    assert ours.shape == theirs.shape
    largest = theirs.abs().max()
    assert largest > 0
    difference = float((ours - theirs).abs().max() / largest)
    print(f"largest difference over the largest value: {difference:.1e}")
    assert difference <= 1e-9


def randomise(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval().requires_grad_(False)


def vgg(name: str) -> nn.Module:
    """torchvision's VGG with narrower fully connected layers; its ReLUs not in place, as Captum's hooks need them."""
    torch.manual_seed(0)
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(weights=None, init_weights=False)
        for layer, inputs, outputs in ((0, 512 * 7 * 7, 128), (3, 128, 64), (6, 64, 20)):
            net.classifier[layer] = nn.Linear(inputs, outputs)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return randomise(net.double().to_empty(device="cpu"))


def googlenet() -> nn.Module:
    """torchvision's GoogLeNet; about half of its batch norms' scales are negative."""
    torch.manual_seed(0)
    net = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False, num_classes=20)
    return randomise(net.double())


def without_norms(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    for module in net.modules():
        if hasattr(module, "bn"):
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
    return net


@pytest.fixture(scope="module")
def vgg11() -> nn.Module:
    return vgg("vgg11")


@pytest.fixture
def image() -> Tensor:
    """Zero-mean noise: a signed image."""
    return torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def our_maps(net: nn.Module, image: Tensor, units: list[int], method: str, target: str | None = None) -> Tensor:
    return TopDown(net, target).look(image, method).attend(units, method)[0]


def torchray_maps(net: nn.Module, image: Tensor, units: list, target: str, contrast: str | None) -> Tensor:
    """TorchRay's MWP, or c-MWP with the dual's signal subtracted at the layer ``contrast``; of units or of signals."""
    torchray = peer("torchray.attribution.excitation_backprop")
    if contrast is None:
        maps = [torchray.excitation_backprop(net, image, unit, target) for unit in units]
    else:
        maps = [torchray.contrastive_excitation_backprop(net, image, unit, target, contrast) for unit in units]
    return torch.cat(maps)[:, 0].detach()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "contrast"), [("mwp", None), ("c-mwp", "classifier.4")])
def test_vgg16_is_torchrays(image, method, contrast):
    """TorchRay subtracts the dual's p at the output of the contrast layer and truncates at the end only, as we do."""
    net = vgg("vgg16")
    theirs = torchray_maps(net, image, UNITS, "features.23", contrast)
    assert_agree(our_maps(net, image, UNITS, method, "pool4"), theirs)


@pytest.mark.parametrize(
    ("method", "contrast"), [pytest.param("mwp", None, marks=pytest.mark.slow), ("c-mwp", "avgpool")]
)
def test_googlenet_is_torchrays_once_its_norms_are_folded(method, contrast):
    """TorchRay passes p through a batch norm as it is, which is another map where a scale is negative."""
    net = googlenet()
    folded = without_norms(net)
    image = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    theirs = torchray_maps(folded, image, UNITS, "maxpool2", contrast)
    assert_agree(our_maps(folded, image, UNITS, method, "maxpool2"), theirs)
    assert_agree(our_maps(net, image, UNITS, method, "maxpool2"), theirs)


@pytest.mark.parametrize(
    ("method", "contrast"), [pytest.param("mwp", None, marks=pytest.mark.slow), ("c-mwp", "trunk.pool5")]
)
@pytest.mark.parametrize("width", sweep([224, 288]))
def test_the_embedded_tagger_is_torchrays(astronaut, width, method, contrast):
    """At pool2, above the response norms: TorchRay differentiates those, we let p pass. Where a photo has more than one
    position (288 pixels have three), TorchRay gets the weights of the positions for the tag."""
    tagger = TagClassifier.load("googlenet").double()
    pixels = np.array(Image.open(astronaut).convert("RGB").resize((width, 224)))
    image = tagger.preprocessing(torch.from_numpy(pixels).permute(2, 0, 1)[None]).double()
    with torch.no_grad():
        scores = tagger(image)
    best = scores.mean((0, 2, 3)).topk(2).indices.tolist()
    asked = [torch.zeros_like(scores) for _ in best]
    for signal, tag in zip(asked, best, strict=True):
        signal[0, tag] = scores[0, tag].flatten().softmax(0).view_as(signal[0, tag])
    theirs = torchray_maps(tagger, image, asked, "trunk.pool2", contrast)
    assert_agree(our_maps(tagger, image, best, method, "pool2"), theirs)


@pytest.mark.parametrize(
    ("method", "name"),
    [("grad", "gradient"), ("deconv", "guided_backprop"), ("deconv-plain", "deconvnet")],
)
def test_gradients_are_torchrays(vgg11, image, method, name):
    attribute = getattr(peer(f"torchray.attribution.{name}"), name)
    theirs = [quietly(attribute, vgg11, image.clone().requires_grad_(), u)[:, 0].detach() for u in UNITS]
    assert_agree(our_maps(vgg11, image, UNITS, method), torch.cat(theirs))


# our name for a layer of VGG11, and the index of its last module
LAYERS = [("image", -1), *(pytest.param(*layer, marks=pytest.mark.slow) for layer in (("pool2", 5), ("conv4", 9)))]


def cut(net: nn.Module, image: Tensor, layer: int) -> tuple[nn.Module, Tensor]:
    """What lies above a layer of a VGG, as a network of its own, and the layer's values."""
    above = copy.deepcopy(net)
    above.features = above.features[layer + 1 :]
    return above, net.features[: layer + 1](image).clone()


def zennit_maps(net: nn.Module, values: Tensor, layer_map: list, of_score: bool) -> Tensor:
    """zennit's relevance of the values, which starts as the unit's own score or as 1."""
    composites, attribution = peer("zennit.composites"), peer("zennit.attribution")
    maps = []
    with attribution.Gradient(net, composites.LayerMapComposite(layer_map)) as attributor:
        for unit in UNITS:
            chosen = nn.functional.one_hot(torch.tensor([unit]), 20).double()
            start = net(values).detach() * chosen if of_score else chosen
            maps.append(attributor(values.clone(), start)[1].sum(1))
    return torch.cat(maps).detach()


@pytest.mark.parametrize(("target", "layer"), LAYERS)
def test_mwp_is_zennits(vgg11, target, layer):
    """By default, zennit's composite counts a bias > 0 among the excitatory inputs. It also lets a pixel < 0 win by a
    weight < 0, so the image is not negative here."""
    excitation = peer("zennit.composites").ExcitationBackprop(stabilizer=NOTHING, zero_params=["bias"])
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theirs = zennit_maps(*cut(vgg11, image, layer), excitation.layer_map, of_score=False)
    assert_agree(our_maps(vgg11, image, UNITS, "mwp", target), theirs)


def captum_maps(name: str, net: nn.Module, values: Tensor, *arguments) -> Tensor:
    """What a class of Captum attributes to the values: (W, C, h, w)."""
    attribution = getattr(peer("captum.attr"), name)(net, *arguments)
    return torch.cat([quietly(attribution.attribute, values.clone().requires_grad_(), u) for u in UNITS]).detach()


def test_gradient_is_captums(vgg11, image):
    assert_agree(our_maps(vgg11, image, UNITS, "grad"), captum_maps("Saliency", vgg11, image).amax(1))


@pytest.mark.parametrize(("target", "layer"), LAYERS)
def test_gradient_at_a_layer_is_autograds(vgg11, image, target, layer):
    above, values = cut(vgg11, image, layer)
    scores = above(values.requires_grad_())
    theirs = [torch.autograd.grad(scores[0, unit], values, retain_graph=True)[0].abs().amax(1) for unit in UNITS]
    assert_agree(our_maps(vgg11, image, UNITS, "grad", target), torch.cat(theirs))


def signals_at_the_image(net: nn.Module, image: Tensor, method: str) -> Tensor:
    """The signed signals (W, 3, h, w) of which a method's map is the magnitude."""
    with torch.no_grad():
        top_down = one_pass(TopDown(net, "image"), image, method, DenseEngine)
        units = top_down.enter(torch.eye(len(UNITS), dtype=torch.float64), torch.tensor(UNITS))
        ((_, arrived),) = top_down._descend(units)
    return arrived


@pytest.mark.parametrize(("method", "name"), [("deconv", "GuidedBackprop"), ("deconv-plain", "Deconvolution")])
def test_deconvolutions_are_captums(vgg11, image, method, name):
    theirs = captum_maps(name, vgg11, image)
    assert_agree(signals_at_the_image(vgg11, image, method), theirs)
    assert_agree(our_maps(vgg11, image, UNITS, method), theirs.abs().amax(1))


def test_contrastive_deconvolution_is_made_of_captums(vgg11, image):
    dual = copy.deepcopy(vgg11)
    dual.classifier[-1].weight.neg_()
    maps = [captum_maps("GuidedBackprop", net, image).abs().amax(1) for net in (vgg11, dual)]
    of_unit, of_dual = (m / m.sum((1, 2), keepdim=True) for m in maps)
    assert_agree(our_maps(vgg11, image, UNITS, "c-deconv"), (of_unit - of_dual).clamp(min=0))


@pytest.mark.parametrize(("target", "layer"), LAYERS)
def test_epsilon_relevance_is_captums(vgg11, image, target, layer):
    """Captum's pools divide by their stabilised output, too; ours only pass relevance on."""
    lrp, rules = peer("captum.attr").LRP, peer("captum.attr._utils.lrp_rules")
    above, values = cut(vgg11, image, layer)
    maps = []
    for unit in UNITS:
        for module in above.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.rule = rules.EpsilonRule(1e-6)
            elif isinstance(module, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
                module.rule = rules.EpsilonRule(NOTHING)
        # Captum takes its rules off again
        maps.append(quietly(lrp(above).attribute, values.clone().requires_grad_(), unit).sum(1))
    assert_agree(our_maps(vgg11, image, UNITS, "lrp", target), torch.cat(maps).detach())


@pytest.mark.parametrize(("target", "layer"), LAYERS)
@pytest.mark.parametrize("method", ["lrp", "lrp-alpha-beta"])
def test_relevance_is_zennits(vgg11, image, method, target, layer):
    """zennit stabilises what we do not: averages, and both sums of the alpha-beta rule."""
    rules, types = peer("zennit.rules"), peer("zennit.types")
    weighted = rules.Epsilon(1e-6) if method == "lrp" else rules.AlphaBeta(2.0, 1.0, stabilizer=NOTHING)
    layer_map = [(types.Activation, rules.Pass()), (types.AvgPool, rules.Norm(NOTHING)), (types.Linear, weighted)]
    theirs = zennit_maps(*cut(vgg11, image, layer), layer_map, of_score=True)
    assert_agree(our_maps(vgg11, image, UNITS, method, target), theirs)


def test_class_activation_is_captums_grad_cam():
    """Above a global average the two differ by the number of positions, and by Grad-CAM's truncation, left out here."""
    net, image = googlenet(), torch.randn(1, 3, 96, 96, dtype=torch.float64)
    theirs = captum_maps("LayerGradCam", net, image, net.inception5b)[:, 0]
    assert_agree(our_maps(net, image, UNITS, "cam"), theirs[0].numel() * theirs)

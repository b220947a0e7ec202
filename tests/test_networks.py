"""The CNNs of torchvision and timm by family, with random weights: logits, mass, and the benchmark of them."""

import warnings

import pytest
import torch
from equivalents import assert_mass_is_accounted_for
from untouched import assert_untouched, snapshot

from eval import benchmark_networks
from eval.network_list import LISTED, TIMM, TORCHVISION, ListedNetwork, initialise, listed_network, photos
from grounding import TopDown
from proposals.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*of the mass arrives")
TAGS = range(3)
# relatives of other networks of the list, or large; benchmark=networks has all, test_architectures.py AlexNet and VGG
LEFT_OUT = [
    "torchvision/alexnet",
    "torchvision/resnet50",
    "timm/cspresnet50",
    "timm/darknetaa53",
    "timm/densenetblur121d",
    "timm/dla34",
    "torchvision/efficientnet_v2_s",
    "torchvision/resnext50_32x4d",
    "torchvision/vgg11",
    "torchvision/vgg16_bn",
    "torchvision/wide_resnet50_2",
    "timm/cspdarknet53",
    "timm/cspresnext50",
    "timm/darknet53",
    "timm/densenet121",
    "timm/ecaresnet26t",
    "timm/efficientnet_b0",
    "timm/efficientnet_lite0",
    "timm/gc_efficientnetv2_rw_t",
    "timm/hgnet_tiny",
    "timm/inception_resnet_v2",
    "timm/inception_v3",
    "timm/inception_v4",
    "timm/mobilenetv2_050",
    "timm/mobilenetv3_small_100",
    "timm/nf_resnet50",
    "timm/resnet18",
    "timm/resnetaa50",
    "timm/resnet26d",
    "timm/seresnext26t_32x4d",
    "timm/selecsls42b",
    "timm/spnasnet_100",
    "timm/vgg11_bn",
    "timm/tresnet_m",
    "timm/hardcorenas_a",
    "timm/tf_mobilenetv3_small_minimal_100",
    "timm/semnasnet_050",
    "timm/res2net50_14w_8s",
]
NAMES = [name for name in LISTED if name not in LEFT_OUT]
SIZES = {"torchvision/inception_v3": 96, "torchvision/alexnet": 96}


def built(name: str) -> tuple[ListedNetwork, torch.Tensor]:
    """A network of eight tags in float64, and a photo for it."""
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed: .venv/bin/pip install -e '.[bench]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that build the networks
        found, images = listed_network(name, 8), photos(SIZES.get(name, 64)).double()
    initialise(found.model.double(), images)
    return found, images[:1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_the_family_works(name):
    found, image = built(name)
    before = snapshot(found.model)
    scene = TopDown(found.model, found.target, found.classifier).look(image)
    with torch.no_grad():
        logits = found.model(image)
    torch.testing.assert_close(scene.logits, logits, rtol=0, atol=1e-8 * float(logits.abs().max()))
    maps = scene.attend(TAGS, "mwp")
    mass = maps.sum((2, 3))
    assert maps.min() >= 0
    assert mass.max() <= 1 + 1e-9
    assert mass.min() > 0.2
    assert scene.attend(TAGS, "c-mwp").isfinite().all()
    assert_mass_is_accounted_for(scene, maps)
    assert_untouched(found.model, before)


def test_the_lists_have_the_families():
    assert len(TIMM) == len(set(TIMM)) >= 60
    assert len(TORCHVISION) >= 17
    assert set(LEFT_OUT) < set(LISTED)


@pytest.mark.slow
def test_the_benchmark_measures_or_says_why_not(monkeypatch):
    class Here:
        """Replaces a process by this one."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        imap = staticmethod(map)

    def odd(name, tags=1000):
        found = listed_network(name, tags)
        return found if name == "torchvision/mnasnet0_5" else ListedNetwork(found.model, "nowhere", found.classifier)

    monkeypatch.setattr(
        benchmark_networks, "get_context", lambda _: type("Context", (), {"Pool": lambda *_, **__: Here()})
    )
    monkeypatch.setattr(benchmark_networks, "listed_network", odd)
    names = ["torchvision/mnasnet0_5", "torchvision/squeezenet1_1"]
    (works, refused), common = benchmark_networks.measure(names, size=64, words=2, rounds=1)
    assert common == {"size": 64, "words": 2}
    assert 0.2 < works["kept"] <= 1 + 1e-5
    assert works["logits' error"] < 1e-3
    assert min(works[name] for name in ("forward", "look + attend")) > 0
    assert "no layer 'nowhere'" in refused["refused"]
    assert "kept" not in refused
    with pytest.raises(InputError, match="unknown network 'resnet18': choose one of torchvision/"):
        benchmark_networks.measure(["resnet18"])

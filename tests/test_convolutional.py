"""Linear layers as convolutions, compared with the original network slid over the positions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_architectures import build
from torch import Tensor, nn
from voc_folder import OBJECT, XML

from eval.pointing import point
from eval.voc import Voc
from grounding import Grounder, TopDown
from grounding.settings import Settings
from grounding.tagger import cnns
from grounding.tagger.architectures import ARCHITECTURES
from grounding.tagger.convolutional import as_convolution, fully_convolutional
from grounding.tagger.tagger import TagClassifier
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError


def assert_equal(found: Tensor, expected: Tensor):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def images(height: int, width: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 3, height, width, dtype=torch.float64)


def small(rows: int, columns: int, out: tuple[int, int] | None) -> nn.Sequential:
    """A network of stride 2 without padding, whose linear layers read rows x columns features, or their averages."""
    inputs = 4 * rows * columns if out is None else 4 * out[0] * out[1]
    pool = [] if out is None else [nn.AdaptiveAvgPool2d(out), nn.Dropout()]
    head = [nn.Flatten(), nn.Dropout(), nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, 5, bias=False)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), *pool, *head).double().eval()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans(), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_network_without_padding_equals_the_original_on_each_crop(rows, columns, step, further, pooled, seed):
    torch.manual_seed(seed)
    h, w = (rows * step, columns * step) if pooled else (rows, columns)
    net, size = small(h, w, (rows, columns) if pooled else None), (2 * h + 1, 2 * w + 1)
    batch = images(size[0] + 2 * further, size[1] + 2, seed)
    found = fully_convolutional(net, size)(batch)
    assert found.shape == (2, 5, 1 + further, 2)
    for y in range(1 + further):
        for x in range(2):
            crop = batch[:, :, 2 * y : 2 * y + size[0], 2 * x : 2 * x + size[1]]
            assert_equal(found[:, :, y, x], net(crop))


@pytest.mark.parametrize(
    ("name", "grid", "stride"),
    [
        ("alexnet", 6, 32),
        ("cnns", 6, 36),
        *(pytest.param(name, 7, 32, marks=pytest.mark.slow) for name in ("vgg11", "vgg16_bn")),
    ],
)
def test_known_network_equals_its_head_slid_over_the_features(name, grid, stride):
    net, _ = build(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    batch = images(224, 300)[:1]
    found = fully_convolutional(net)(batch)
    features = net.features(batch)
    assert found.shape == (1, 8, features.shape[2] - grid + 1, features.shape[3] - grid + 1)
    assert found.shape[3] == 1 + (300 - 224 + stride // 2) // stride
    for x in range(found.shape[3]):
        window = features[:, :, :grid, x : x + grid].flatten(1)
        head = nn.Sequential(net.fc6, net.relu6, net.fc7, net.relu7, net.fc8) if name == "cnns" else net.classifier
        assert_equal(found[:, :, 0, x], head(window))
    assert_equal(fully_convolutional(net)(batch[..., :224])[..., 0, 0], net(batch[..., :224]))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_global_average_becomes_a_moving_one():
    net, _ = build("resnet18")
    batch = images(96, 160)[:1]
    found = fully_convolutional(net, (96, 96))(batch)
    features = nn.Sequential(*list(net.children())[:-2])(batch)
    assert found.shape[2:] == (1, 3)
    for x in range(3):
        assert_equal(found[..., 0, x], net.fc(features[..., x : x + 3].mean((2, 3))))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), [("vgg11", "pool4"), ("cnns", "conv5")])
def test_topdown_takes_a_converted_network_of_any_size(name, target):
    net, _ = build(name)
    converted = fully_convolutional(net)
    batch = images(224, 300)[:1]
    scene = TopDown(converted).look(batch)  # classifier and target are those of the architecture
    assert_equal(scene.score_maps, converted(batch).detach())
    assert scene.score_maps.shape[2:] == (1, 3)
    maps = scene.attend([0, 5], "mwp")
    assert maps.min() >= 0 and maps.sum((2, 3)).min() > 0 and maps.sum((2, 3)).max() <= 1 + 1e-9
    torch.testing.assert_close(maps, TopDown(converted, target).look(batch).attend([0, 5], "mwp"))
    if name == "cnns":
        with pytest.raises(RuntimeError):
            net(batch)


def test_trunk_of_cnn_s_is_its_converted_form():
    net, _ = build("cnns")
    net.fc6, net.fc7, net.fc8 = nn.Linear(512 * 36, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 8)
    net, batch = net.double(), images(224, 260)[:1]
    expected = fully_convolutional(net)(batch)
    assert_equal(as_convolution(net.fc8, 4096, (1, 1))(cnns.trunk_of(net)(batch)), expected)


def test_cnn_s_has_no_weights_to_download():
    with pytest.raises(InputError, match="torchvision has no weights of cnn_s: give a tagger with them as init=FILE"):
        ARCHITECTURES["cnn_s"].trunk(pretrained=True)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).view(x.size(0), -1)
        return self.fc(self.fc(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("net", "size", "message"),
    [
        (Twice(), (3, 3), "calls fc more than once"),
        (Branching(), (9, 9), "torch.fx cannot trace Branching"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (2, 2), "the model has no nn.Conv2d"),
        (nn.Sequential(nn.Conv2d(3, 2, 1)), (9, 9), "Sequential has no linear layer behind a flatten"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(8, 2)), (3, 3), "does not take images of 3 x 3"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Softmax(1), nn.Linear(8, 2)), (2, 2), "nor a pointwise"),
        (
            nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)),
            (3, 3),
            r"averages 3 x 3 features to 2 x 2, in unequal windows",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(net, size, message):
    with pytest.raises(InputError, match=message) as raised:
        fully_convolutional(net, size)
    assert "\n" not in str(raised.value)


def write_photo(folder: Path, photo: Path) -> Path:
    """A VOC folder of one photo of 224 x 300 pixels."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    Image.open(photo).convert("RGB").resize((300, 224)).save(folder / "JPEGImages/one.jpg")
    objects = OBJECT.format("cup", 0, 60, 30, 230, 190) + OBJECT.format("spoon", 0, 231, 1, 300, 60)
    (folder / "Annotations/one.xml").write_text(XML.format(w=300, h=224, objects=objects))
    (folder / "ImageSets/Main/toy.txt").write_text("one")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), [("cnn_s", "conv5"), ("vgg16", "pool4")])
def test_whole_pointing_game_at_224_x_300(name, target, tmp_path, coffee):
    torch.manual_seed(0)
    tagger = TagClassifier(name, Vocabulary(("cup", "spoon"))).eval()
    assert tagger(torch.zeros(1, 3, 224, 300)).shape == (1, 2, 1, 3)
    photos = Voc(write_photo(tmp_path / "voc", coffee), "toy")
    for method in ("mwp", "c-mwp", "grad", "deconv", "lrp"):
        grounder = Grounder(tagger, settings=Settings(method, side=224))
        metrics = point(grounder, photos, {}, str(tmp_path / method), resamples=5)
        assert (metrics["photos"], metrics["all"]["method"]["cues"]) == (1, 2)
        assert metrics["target"] == (target if method.endswith("mwp") else metrics["target"])
        assert np.isfinite(metrics["all"]["method"]["mean"])


@pytest.mark.slow
def test_real_photos_of_voc_with_a_random_vgg16(data, tmp_path):
    torch.manual_seed(0)
    tags = ("person", "car", "bottle", "chair", "dog")
    grounder = Grounder(TagClassifier("vgg16", Vocabulary(tags)).eval(), settings=Settings("c-mwp", side=224))
    metrics = point(grounder, Voc(data / "voc2012", "val"), {}, str(tmp_path), resamples=5, limit=2)
    assert metrics["photos"] == 2 and metrics["target"] == "pool4" and metrics["side"] == 224
    assert metrics["all"]["unknown_missed"]["cues"] >= metrics["all"]["method"]["cues"] > 0
    assert np.isfinite(metrics["all"]["method"]["mean"])


def test_torchvisions_alexnet_with_its_own_size():
    net = torchvision.models.alexnet(weights=None, num_classes=3).eval()
    with torch.no_grad():
        assert fully_convolutional(net)(torch.zeros(1, 3, 320, 224)).shape == (1, 3, 4, 1)

"""Receptive fields against their definition, the main line against all paths, the step ``layers`` as users meet it."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from passes import captured
from PIL import Image
from torch import nn

from grounding import TopDown
from grounding.attention.geometry import Cell, cells
from grounding.attention.network import Network
from grounding.attention.targets import find_targets, main_line
from grounding.steps.layers import draw, layers, parse, phrase_maps
from grounding.tagger.googlenet import googlenet
from grounding.tagger.tagger import TagClassifier
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError


@pytest.fixture(scope="module")
def tagger() -> TagClassifier:
    return TagClassifier.load("googlenet")


def headed(*modules: nn.Module, channels: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(*modules)
    net.add_module("classifier", nn.Conv2d(channels, 2, 1))
    return net.double().eval()


@torch.no_grad()
def seen(net: nn.Sequential, size: tuple[int, int], axis: int) -> torch.Tensor:
    """Which lines of pixels each line of cells depends on, as (cells, pixels): not a number in, not a number out."""
    poisoned = torch.rand(size[axis], 1, *size, dtype=torch.float64)
    for line in range(size[axis]):
        poisoned[line].select(axis + 1, line).fill_(torch.nan)
    return net[:-1](poisoned).isnan().any(1).any(2 - axis).T


def assert_geometry(net: nn.Sequential, size: tuple[int, int]) -> int:
    """Compares every cell that the edges do not cut off with the definition; returns how many."""
    network, compared = captured(net, torch.rand(1, 1, *size, dtype=torch.float64)), 0
    for axis in (0, 1):
        cell = cells(network, axis)[network.features]
        for number, pixels in enumerate(seen(net, size, axis)):
            first = cell.offset + number * cell.stride - (cell.field - 1) / 2
            last = first + cell.field - 1
            if first > 0 and last < size[axis] - 1:
                touched = pixels.nonzero()[:, 0]
                assert (touched.min(), touched.max()) == (first, last)
                compared += 1
    return compared


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
few = st.tuples(st.integers(1, 2), st.integers(1, 2))


@st.composite
def windows(draw_from) -> nn.Module:
    size, stride, dilation = draw_from(pairs), draw_from(few), draw_from(few)
    padding = tuple(draw_from(st.integers(0, k // 2)) for k in size)
    kind = draw_from(st.sampled_from(["convolution", "maximum", "average"]))
    if kind == "convolution":
        return nn.Conv2d(1, 1, size, stride, padding, dilation)
    if kind == "maximum":
        return nn.MaxPool2d(size, stride, padding, dilation, ceil_mode=draw_from(st.booleans()))
    return nn.AvgPool2d(size, stride, padding, ceil_mode=draw_from(st.booleans()))


@settings(deadline=None, max_examples=25)
@given(st.lists(windows(), min_size=1, max_size=4))
def test_a_cell_sees_the_pixels_that_it_depends_on(modules):
    assert_geometry(headed(*modules), (57, 64))


class Branches(nn.Module):
    """Pools that are functions, a sum, a concatenation of branches that are not concentric, a gate."""

    def __init__(self):
        super().__init__()
        self.even = nn.Conv2d(1, 1, 4, padding="same")
        self.gate = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        x = torch.relu(self.even(x)) + x
        x = self.gated(x)
        left = F.max_pool2d(x, 2, stride=2, padding=1)
        right = F.avg_pool2d(x, 2, ceil_mode=True)
        return torch.cat([left, right], 1)

    def gated(self, x):
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Ungated(Branches):
    def gated(self, x):
        return x


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_functions_sums_and_branches():
    assert assert_geometry(headed(Ungated(), channels=2), (57, 63)) > 40
    # 4 of the convolution, 2 more by the pools; a gate is a factor, whatever it saw
    for module in (Branches(), Ungated()):
        network = captured(headed(module, channels=2), torch.rand(1, 1, 57, 63, dtype=torch.float64))
        assert cells(network, 0)[network.features] == Cell(2, 6, 0.5)


def test_the_fields_of_googlenet():
    network = captured(nn.Sequential(*googlenet(), nn.Conv2d(1024, 2, 1)), torch.rand(1, 3, 224, 224), "19")
    names = {"0": (2, 7), "1": (4, 11), "4": (4, 19), "6": (8, 27), "7": (8, 59), "9": (16, 107), "18": (32, 907)}
    for axis in (0, 1):
        found = cells(network, axis)
        assert {n: (found[network.find(n)].stride, found[network.find(n)].field) for n in names} == names
        assert found[network.find("6")].offset == 6


def test_the_gradient_of_googlenets_pool2_reaches_its_field():
    """With averages in the place of the maxima, which send a gradient to one pixel only."""
    trunk = googlenet()[:7].double()
    for number in (1, 6):
        trunk[number] = nn.AvgPool2d(3, 2, ceil_mode=True)
    image = torch.rand(1, 3, 96, 120, dtype=torch.float64, requires_grad=True)
    trunk(image)[0, :, 5, 7].sum().backward()
    touched = image.grad[0].abs().sum(0).nonzero()
    # centres at 6 + 8 i, 13 pixels to each side
    assert touched.min(0).values.tolist() == [6 + 8 * 5 - 13, 6 + 8 * 7 - 13]
    assert touched.max(0).values.tolist() == [6 + 8 * 5 + 13, 6 + 8 * 7 + 13]


@pytest.mark.parametrize("flat", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)])
def test_a_global_pool_sees_the_whole_image(flat):
    network = captured(headed(nn.Conv2d(1, 1, 3), flat, nn.ReLU()), torch.rand(1, 1, 9, 9, dtype=torch.float64))
    assert cells(network, 1)[network.features].whole


def test_the_span_of_cells():
    assert Cell().span(5) == (0, 5)
    # conv of stride 2 without padding: cells at pixels 1, 3, 5
    assert Cell(2, 3, 1.0).span(3) == (0.5, 6.5)


def paths_avoid(network: Network, node) -> bool:
    """Whether some path leads from the image to the classifier's input without a node."""
    reached = [n for n in network.nodes if n.op == "placeholder"]
    for other in network.nodes:
        if other is not node and set(network.sources(other)) & set(reached):
            reached.append(other)
    return network.features in reached


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("block", [Branches, nn.Identity])
def test_the_main_line_is_what_no_path_avoids(block):
    channels = 2 if block is Branches else 1
    net = headed(nn.Conv2d(1, 1, 3), nn.ReLU(), block(), channels=channels)
    network = captured(net, torch.rand(1, 1, 57, 63, dtype=torch.float64))
    computed = [n for n in network.nodes if n.op != "placeholder" and n is not network.head]
    assert main_line(network) == [n for n in computed if not paths_avoid(network, n)]


def test_a_layer_without_a_rule_ends_the_candidates():
    net = headed(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Softmax2d(), nn.Conv2d(1, 1, 3), nn.ReLU())
    images = torch.rand(1, 1, 12, 14, dtype=torch.float64)
    found = find_targets(captured(net, images), images)
    assert [(layer.name, layer.kind, layer.height, layer.width) for layer in found] == [
        ("2", "Softmax2d", 10, 12),
        ("4", "Conv2d, ReLU", 8, 10),
    ]


def test_the_layers_of_the_embedded_tagger(tagger):
    images = torch.rand(1, 3, 224, 256)
    network = captured(tagger, images)
    found = find_targets(network, images)
    names = [layer.name for layer in found]
    assert names[:6] == ["conv1", "pool1", "conv2_reduce", "conv2", "pool2", "inception_3a"]
    assert [layer.name for layer in found if layer.default] == ["pool2"]
    assert names[-2:] == ["inception_5b", "pool5"]
    assert len({network.find(name) for name in names}) == len(names)
    pool2 = found[4]
    assert (pool2.kind, pool2.channels, pool2.height, pool2.width) == ("MaxPool2d", 192, 28, 32)
    assert pool2.rows == pool2.columns == Cell(8, 27, 6.0)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("resnet50", ["trunk.relu", "maxpool", "layer1.0", "layer2", "layer3.4", "avgpool"]),
        ("googlenet", ["conv1", "maxpool2", "inception3a", "avgpool"]),
    ],
)
def test_layers_have_short_names_that_users_may_say(architecture, names):
    images = torch.rand(1, 3, 224, 256)
    network = captured(TagClassifier(architecture, Vocabulary(["dog"])), images)
    found = find_targets(network, images)
    assert set(names) <= {layer.name for layer in found}
    assert [network.find(layer.name) for layer in found if layer.default] == [network.find(network.default_target)]


def test_many_layers_in_one_pass_have_the_maps_of_each_alone(tagger):
    pixels = tagger.preprocessing(torch.randint(0, 255, (1, 3, 224, 224), generator=torch.manual_seed(0)))
    phrase = parse(["a smiling woman"], tagger.vocabulary)[0]
    assert phrase.tags == ("smiling", "woman")
    together = phrase_maps(tagger, pixels, [phrase], ["pool2", "pool3", "inception_4c"], "mwp")[0]
    ids = [tagger.vocabulary.index(tag) for tag in phrase.tags]
    alone = TopDown(tagger, "pool3").look(pixels).attend(ids, "mwp")[0].mean(0)
    np.testing.assert_allclose(together[1], alone, rtol=1e-4, atol=1e-8)
    assert [m.shape for m in together] == [(28, 28), (14, 14), (14, 14)]
    np.testing.assert_allclose([m.sum() for m in together], 1, atol=1e-3)


def test_a_table_and_a_picture(tagger, astronaut, tmp_path, capsys):
    found = layers(tagger, str(astronaut), ["a woman", "an orange zorgophone for $5 and $6"], tmp_path, 224)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["layer", "kind", "channels", "h", "x", "w", "stride", "field"]
    assert printed[5].split() == ["pool2", "MaxPool2d", "192", "28", "x", "28", "8", "27", "default"]
    record = json.loads((tmp_path / "layers.json").read_text("utf-8"))
    assert record["pixels"] == [224, 224]
    assert record["phrases"][1]["skipped"][0] == "zorgophone"
    assert [layer["name"] for layer in record["layers"]] == [layer.name for layer in found]
    assert record["layers"][4]["field"] == [27, 27]
    assert not found[-1].drawable
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.width > 1000
        assert np.asarray(picture.convert("RGB")).std() > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.json", "layers.png"]


def test_the_heat_stands_where_the_cells_look(tagger):
    """A map of one hot cell over a black photo: the brightest pixel is that cell's centre."""
    images = torch.rand(1, 3, 288, 288)
    found = find_targets(captured(tagger, images), images)
    layer = next(layer for layer in found if layer.name == "pool4")
    values = np.zeros((layer.height, layer.width))
    values[2, 5] = 1
    phrase = parse(["a dog"], tagger.vocabulary)
    figure = draw(np.zeros((288, 288, 3), np.uint8), phrase, [layer], [[values]])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[1]
    picture = np.asarray(canvas.buffer_rgba())[..., :3].sum(2, dtype=float)
    left, bottom, right, top = axes.get_window_extent().extents.round().astype(int)
    panel = picture[len(picture) - top : len(picture) - bottom, left:right][3:-3, 3:-3]
    y, x = np.argwhere(panel > panel.max() - 3).mean(0) + 3.5
    scale = 288 / (right - left)
    assert (y * scale, x * scale) == pytest.approx((30 + 32 * 2 + 0.5, 30 + 32 * 5 + 0.5), abs=3)


REFUSALS = {
    "no image": ({"image": None}, "no image: set image=PHOTO"),
    "missing image": ({"image": "nowhere.jpg"}, "no such image file"),
    "no phrase": ({"phrases": []}, "no phrase to map"),
    "one text": ({"phrases": "a dog"}, "no phrase to map"),
    "empty phrase": ({"phrases": ["a dog", " "]}, "a phrase is empty"),
    "too many": ({"phrases": ["a dog"] * 9}, "9 phrases are too many for one picture: give 8 at most"),
    "unknown word": ({"phrases": ["a womann"]}, "knows no word of 'a womann'; similar tags: woman"),
    "nothing near": ({"phrases": ["qqqq"]}, "knows no word of 'qqqq'; use other words"),
    "unknown method": ({"method": "magic"}, "no attention method 'magic'"),
    "one layer only": ({"method": "cam"}, "method=cam reads one layer only"),
    "too small": ({"side": 100}, "side=100"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_input_is_refused(tagger, astronaut, tmp_path, name):
    changed, message = REFUSALS[name]
    arguments = {"image": str(astronaut), "phrases": ["a dog"], "output": str(tmp_path)} | changed
    with pytest.raises(InputError, match=message):
        layers(tagger, **arguments)
    assert not list(tmp_path.iterdir())

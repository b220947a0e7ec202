"""Random small networks, written in ways that are drawn at random, have the maps of the plainly written ones."""

import pytest
import torch
from equivalents import assert_equal_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrites import TAGS, Drawing, drawings

from grounding import TopDown

pytestmark = pytest.mark.filterwarnings("ignore:.*of the mass arrives")
SIZES = [(16, 16), (16, 24), (12, 20)]


def maps(topdown: TopDown, images: torch.Tensor, methods) -> dict:
    scene = topdown.look(images)
    return {"logits": scene.logits} | {method: scene.attend(range(TAGS), method) for method in methods}


def compare(found: dict, expected: dict):
    """Only maps that are not empty: a random network may let nothing through."""
    filled = {name for name, value in expected.items() if value.abs().max() > 1e-6}
    for name in expected.keys() - filled:
        assert found[name].abs().max() <= 1e-6
    assert_equal_maps({name: found[name] for name in filled}, {name: expected[name] for name in filled})


@settings(max_examples=60)
@given(drawings(), st.data())
def test_the_way_of_writing_does_not_change_a_map(drawn, data):
    plain, written = Drawing(drawn, plain=True), Drawing(drawn, plain=False)
    images = torch.randn(2, 3, *data.draw(st.sampled_from(SIZES)), dtype=torch.float64)
    with torch.no_grad():  # in which parts of a split may be changed in place
        torch.testing.assert_close(written(images), plain(images), rtol=1e-9, atol=1e-12)
    target = data.draw(st.sampled_from(["image", *(f"stages.{i}" for i in range(len(plain.stages) - 1))]))
    engine = data.draw(st.sampled_from([None, "dense", "sparse"]))
    topdowns = [TopDown(net, target, "classifier", engine=engine) for net in (written, plain)]
    compare(*(maps(topdown, images, ["mwp", "c-mwp", "grad"]) for topdown in topdowns))


@settings(max_examples=20)
@given(drawings(), st.permutations(SIZES))
def test_a_topdown_that_has_seen_other_sizes_gives_the_same_maps(drawn, sizes):
    net = Drawing(drawn, plain=False)
    topdown = TopDown(net, "stages.0", "classifier")
    for size in sizes:
        images = torch.randn(1, 3, *size, dtype=torch.float64)
        compare(maps(topdown, images, ["mwp"]), maps(TopDown(net, "stages.0", "classifier"), images, ["mwp"]))

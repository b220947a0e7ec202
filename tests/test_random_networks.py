"""Top-down passes through random networks, against autograd through a surrogate."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import assert_same, one_pass
from random_networks import networks
from surrogate import TAGS, GuidedReLU, gradient_maps, surrogate_maps
from torch import Tensor

from grounding import TopDown
from grounding.attention.methods import METHODS
from grounding.attention.topdown import ENGINES
from proposals.errors import InputError

SLOW = [name for name in METHODS if name != "c-mwp"]

UNNORMALISED = ("c-mwp-postnorm", "c-mwp-nonorm", "c-mwp-nonorm-pools")
property_test = partial(settings, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def sparse_for_any_number_of_words():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, None, ENGINES["sparse"])
        yield


def several(topdown: TopDown, images: Tensor, method: str) -> list[Tensor]:
    """The maps of every tag, of several images in one pass, which is dense: one tensor for each target."""
    signals, used = torch.eye(TAGS, dtype=images.dtype), torch.arange(TAGS)
    return METHODS[method].maps(one_pass(topdown, images, method), signals, used)


def allowed(topdown: TopDown, images: Tensor, method: str) -> bool:
    try:
        topdown.targets(topdown.networks(images), METHODS[method])
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


@pytest.mark.parametrize("method", ["c-mwp", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
@property_test(max_examples=15)
@given(networks(), st.data())
def test_sparse_maps_equal_dense_maps(method, net, data):
    images = net.images
    targets = data.draw(st.lists(st.sampled_from(net.targets()), min_size=1, max_size=3, unique=True))
    if method in UNNORMALISED:
        targets = [name for name in targets if name != "image"] or ["stages.0"]
    topdown = TopDown(net, targets)
    if not allowed(topdown, net.images, method):
        return
    try:
        maps = topdown.look(images[:1], method).attend(range(TAGS), method)
    except InputError as error:
        assert "CAM needs a classifier over averaged features" in str(error)
        return
    twice = several(topdown, images[:1].repeat(2, 1, 1, 1), method)
    for i, (ours, dense) in enumerate(zip(maps if isinstance(maps, list) else [maps], twice, strict=True)):
        # a contrast of one position is rounding, which these methods normalise
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

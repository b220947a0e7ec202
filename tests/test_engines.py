"""The sparse engine gives the maps of the dense engine, which is plain PyTorch."""

import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from sweeps import sweep
from torch import Tensor, nn

from grounding import TagClassifier, TopDown
from grounding.attention.engine.dense import derivatives
from grounding.attention.engine.runs import Arena
from grounding.attention.engine.winners import Winners
from grounding.attention.forward import ForwardPass
from grounding.attention.layers import RULES, rule
from grounding.attention.methods import METHODS
from grounding.attention.neurons import Neurons
from proposals.errors import InputError


def assert_same(ours: Tensor, expected: Tensor, tolerance: float):
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.fixture(scope="module")
def tagger() -> TagClassifier:
    return TagClassifier.load("googlenet").double()


@pytest.fixture(scope="module")
def photo(tagger, astronaut) -> Tensor:
    pixels = np.asarray(Image.open(astronaut).convert("RGB"))
    return tagger.prepare(pixels, [224]).double()


@pytest.fixture(scope="module")
def both(tagger) -> list[TopDown]:
    """A top-down pass by each of the two engines; a pass records the network once."""
    return [TopDown(tagger, engine=engine) for engine in ("sparse", "dense")]


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.target is None])
@pytest.mark.parametrize("words", sweep([1, 5]))
def test_both_engines_give_the_same_maps_of_a_photo(tagger, both, photo, method, words):
    tags = [tagger.vocabulary.index(tag) for tag in ("woman", "orange", "suit", "flag", "hair")[:words]]
    sparse, dense = (topdown.look(photo, method).attend(tags, method) for topdown in both)
    assert_same(sparse, dense, 1e-9)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.target is not None])
def test_both_engines_give_the_same_maps_of_the_other_methods(tagger, both, photo, method):
    tag = tagger.vocabulary.index("woman")
    sparse, dense = (topdown.look(photo[..., :224, :224], method).attend([tag], method) for topdown in both)
    assert_same(sparse, dense, 1e-9)


def test_the_default_is_one_of_the_two(tagger, both, photo):
    tag = tagger.vocabulary.index("woman")
    maps = [topdown.look(photo).attend([tag] * 3) for topdown in (TopDown(tagger), *both)]
    assert torch.equal(maps[0], maps[1]) or torch.equal(maps[0], maps[2])


def test_what_a_pass_works_in_is_freed_at_its_end(monkeypatch):
    blocks, grow = [], Arena._grow

    def noting(arena, small, size):
        block = grow(arena, small, size)
        blocks.append(weakref.ref(block))
        return block

    monkeypatch.setattr(Arena, "_grow", noting)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    scene = TopDown(net, "1", "4", engine="sparse").look(torch.rand(1, 3, 8, 8))
    scene.attend([0, 1])
    assert blocks
    assert not [block for block in blocks if block() is not None]


def test_a_look_keeps_the_values_of_its_ends_only(monkeypatch):
    made, note = {}, ForwardPass._note

    def noting(forward, node, value):
        noted = note(forward, node, value)
        made.update({node.name: weakref.ref(noted)} if isinstance(noted, Neurons) else {})
        return noted

    monkeypatch.setattr(ForwardPass, "_note", noting)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 1)]
    scene = TopDown(nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(4, 2, 1)), "1", "7").look(torch.rand(1, 3, 8, 8))
    alive = [name for name, neurons in made.items() if neurons() is not None]
    assert len(made) == 6 and len(alive) == 2  # the target, and the classifier's input
    assert scene.attend([0, 1]).shape == (1, 2, 8, 8)


def test_the_values_of_winners_give_the_layer_again():
    torch.manual_seed(0)
    for layer in (torch.randn(1, 5, 3, 4).relu(), torch.randn(1, 7).relu()):
        winners = Winners(layer)
        assert torch.equal(winners.spread(winners.pick(layer)), layer)


def test_derivatives_are_those_of_autograd():
    x = torch.rand(2, 3, 4, requires_grad=True)
    g = torch.randn(2, 3, 4)
    assert torch.equal(derivatives(x.sin(), [x], g)[0], torch.autograd.grad(x.sin(), x, g)[0])
    assert derivatives(x.sin(), [torch.rand(2, requires_grad=True)], g) == (None,)
    with pytest.raises(RuntimeError, match="a signal of"):
        derivatives(x.sin(), [x], g[:1])  # would be broadcast


def test_an_unknown_engine_is_refused():
    with pytest.raises(InputError, match="there is no engine 'fast'; use 'dense', 'sparse'"):
        TopDown(nn.Sequential(nn.Conv2d(3, 2, 1)), "image", "0", engine="fast")


class Doubling(nn.Module):
    """A layer without a rule."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize("engine", ["sparse", "dense"])
def test_a_rule_on_plain_tensors_works_in_both_engines(engine):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), Doubling(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    image = torch.rand(1, 3, 4, 4)
    try:

        @rule(Doubling)
        def doubling(rules, module, x):
            return x.apply(module), rules.engine.plain(lambda g: [2 * g])

        mass = TopDown(net, "1", "5", engine=engine).look(image).attend([0], "mwp")
        assert float(mass.sum()) == pytest.approx(1)

        @rule(Doubling)
        def careless(rules, module, x):
            return x.apply(module), lambda g: [2 * g]

        scene = TopDown(net, "1", "5", engine=engine).look(image)
        if engine == "dense":
            torch.testing.assert_close(scene.attend([0], "mwp"), mass)
        else:
            with pytest.raises((InputError, TypeError)):
                scene.attend([0], "mwp")
    finally:
        del RULES[Doubling]


@pytest.mark.parametrize("words", [1, 70])
@pytest.mark.parametrize("engine", [None, "sparse", "dense"])
@pytest.mark.parametrize("method", METHODS)
def test_a_layer_without_winners_loses_all_mass(method, engine, words):
    torch.manual_seed(0)
    silent = nn.Conv2d(4, 4, 1)
    nn.init.constant_(silent.bias, -100)
    layers = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2), silent, nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1))
    scene = TopDown(net, "1", "8", engine=engine).look(torch.rand(1, 3, 8, 8), method)
    maps = scene.attend([0, 1, 2] * (words // 3) + [0], method)
    assert maps.isfinite().all()
    if METHODS[method].target is None:
        assert not maps.any()


@pytest.mark.parametrize("engine", [None, "sparse", "dense"])
@pytest.mark.parametrize("words", [1, 3, 40])
def test_one_pass_of_unit_and_dual_gives_the_maps_of_both_contrasts(engine, words):
    """The slow form beside it: ``Method.maps`` takes a pass for each contrast."""
    torch.manual_seed(words)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)]
    topdown = TopDown(nn.Sequential(*layers).double(), "1", "5", engine=engine)
    topdown.warned = True  # a pass to check the mass would be counted, too
    scene = topdown.look(torch.rand(2, 3, 16, 20, dtype=torch.float64))
    signals = torch.rand(words, 5, dtype=torch.float64)
    methods = [METHODS[name] for name in ("c-mwp-partial", "c-mwp")]
    slow = [topdown.maps(scene.forward(method), signals, method)[0] for method in methods]
    run, passes = topdown.passes, []

    def counted(work, jobs, lanes=1):
        passes.extend(jobs)
        return run(work, jobs, lanes)

    topdown.passes = counted
    fast = [scene.attend(signals, name) for name in ("c-mwp-partial", "c-mwp")]
    assert len(passes) == 2 * -(-words // 8)  # two images, 8 words with their duals in a pass
    for ours, expected in zip(fast, slow, strict=True):
        assert_same(ours, expected, 1e-9)
    assert not torch.equal(*fast)
    # other words are not answered from what is kept
    other = signals.flip(1)
    assert_same(scene.attend(other, "c-mwp"), topdown.maps(scene.forward(methods[1]), other, methods[1])[0], 1e-9)

"""Sparse signals have the numbers of dense ones, and the kernels are compared with their definitions."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grounding import TopDown
from grounding.attention.engine.kernels import LANES
from grounding.attention.engine.runs import Run
from grounding.attention.engine.sparse import Gate, SparseEngine, SparseSignal
from grounding.attention.engine.winners import Winners
from grounding.attention.layers import RULES, nonlinearity, rule
from grounding.attention.topdown import ENGINES
from proposals.errors import InputError

ENGINE = SparseEngine()


@pytest.fixture(scope="module", autouse=True)
def sparse_for_any_number_of_words():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, None, ENGINES["sparse"])
        yield


def activation(seed: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, height, width, dtype=torch.float64, generator=generator).clamp(min=0)


def signal(x: torch.Tensor, words: int, seed: int = 1) -> tuple[torch.Tensor, SparseSignal]:
    """A signal that is 0 outside of the winners of x, dense and sparse."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(words, *x.shape[1:], dtype=torch.float64, generator=generator) * (x > 0)
    return g, SparseSignal.of(g, Winners(x), Run())


@pytest.mark.parametrize("words", [1, 4, 5, 16, 17, 33, 64])
def test_sparse_and_back(words):
    x = activation(0, 5, 4, 3)
    g, sparse = signal(x, words)
    assert sparse.values.shape == (int((x > 0).sum()), min(n for n in LANES if n >= words))
    assert torch.equal(ENGINE.dense(sparse), g)


def test_winners_are_in_the_order_of_position_and_channel():
    x = activation(3, 4, 3, 2)
    _, positions, channels, _, _ = Winners(x).layout
    expected = [(y * 2 + z, c) for y in range(3) for z in range(2) for c in range(4) if x[0, c, y, z] > 0]
    assert list(zip(positions.tolist(), channels.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 3, 5]), st.integers(1, 3),
    st.integers(0, 2), st.integers(1, 2), st.integers(7, 12), st.integers(7, 12), st.sampled_from([1, 3, 16, 20, 40]),
)  # fmt: skip
def test_the_transpose_of_a_convolution_is_pytorchs(
    seed, inputs, outputs, kernel, stride, padding, dilation, height, width, words
):
    x = activation(seed, inputs, height, width)
    weight = torch.randn(outputs, inputs, kernel, kernel, dtype=torch.float64)
    weight = weight.contiguous(memory_format=torch.channels_last)
    if min(height, width) + 2 * padding < dilation * (kernel - 1) + 1:
        return
    above = F.conv2d(x, weight, None, stride, padding, dilation).clamp(min=0)
    g, sparse = signal(above, words)
    geometry = ((stride, stride), (padding, padding), (dilation, dilation))
    expected = torch.nn.grad.conv2d_input((words, *x.shape[1:]), weight, g, stride, padding, dilation) * (x > 0)
    torch.testing.assert_close(
        ENGINE.dense(ENGINE.convolve(sparse, weight, geometry, Winners(x))), expected, rtol=1e-12, atol=1e-12
    )


def test_sums_factors_and_mass_are_those_of_dense_signals():
    x, other = activation(1, 6, 4, 5), activation(2, 6, 4, 5)
    g, sparse = signal(x, 3)
    h, sparse_of_other = signal(other, 3, seed=2)
    torch.testing.assert_close(ENGINE.dense(ENGINE.add(sparse, sparse)), 2 * g)
    torch.testing.assert_close(ENGINE.dense(ENGINE.add(sparse, sparse_of_other)), g + h)
    torch.testing.assert_close(ENGINE.dense(sparse.on(Winners(other))), g * (other > 0))
    torch.testing.assert_close(ENGINE.dense(Gate(other, None, None)(sparse)), g * other)
    torch.testing.assert_close(ENGINE.dense(Gate(other, x, None)(sparse)), torch.where(x > 0, g * other / x, 0))
    torch.testing.assert_close(ENGINE.integrate(x, sparse)[0], (g * x).sum(1))


def test_no_neuron_wins_in_a_black_layer():
    x = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    sparse = SparseSignal.of(torch.ones(2, 3, 4, 4, dtype=torch.float64), Winners(x), Run())
    assert len(sparse.values) == 0
    assert torch.equal(ENGINE.dense(sparse), torch.zeros(2, 3, 4, 4, dtype=torch.float64))
    assert torch.equal(ENGINE.integrate(x, sparse)[0], torch.zeros(2, 4, 4, dtype=torch.float64))


def small(last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), last or nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 3, 1))


def test_one_thread_and_many_give_the_same_bits():
    image = torch.randn(2, 3, 40, 40)
    threads = torch.get_num_threads()
    try:
        maps = []
        for number in (1, 4):
            torch.set_num_threads(number)
            maps.append(TopDown(small(), "1", "4").look(image).attend([0, 1, 2] * 25, "c-mwp"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*maps)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.i1(x)


@pytest.mark.parametrize("kind", [Bessel, torch.ops.aten.special_i1])
def test_a_rule_of_ones_own_teaches_the_walk_a_layer(kind):
    net, image = small(Bessel()).double(), torch.randn(1, 3, 9, 9, dtype=torch.float64)
    with pytest.raises(InputError, match=r"^3 \(special_i1\): special_i1 has no rule; .* add a rule with"):
        TopDown(net, "1", "4").look(image)
    try:
        rule(kind)(nonlinearity)
        scene = TopDown(net, "1", "4").look(image)
        torch.testing.assert_close(scene.logits, net(image).mean((2, 3)))
        mass = scene.attend([0, 1], "mwp").sum((2, 3))
        # a corner of the image may have no active input that excites
        assert ((mass > 0.9) & (mass < 1 + 1e-9)).all()
    finally:
        del RULES[kind]


def test_a_rule_for_a_function_of_python_is_refused():
    with pytest.raises(InputError, match="for a module class or an ATen operation, not for <function silu"):
        rule(nn.functional.silu)


def test_bfloat16_is_float32_within_its_eight_bits():
    net, image = small(), torch.randn(1, 3, 24, 24)
    exact = TopDown(net, "1", "4").look(image).attend([0, 1], "mwp")
    rough = TopDown(net.to(torch.bfloat16), "1", "4").look(image.to(torch.bfloat16)).attend([0, 1], "mwp")
    assert rough.dtype == torch.bfloat16
    assert ((rough.float() - exact).abs().sum((2, 3)) < 0.05 * exact.sum((2, 3))).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_maps_of_the_cpu():
    net, image = small(), torch.randn(2, 3, 24, 24)
    cpu = TopDown(net, "1", "4").look(image).attend([0, 1], "c-mwp")
    gpu = TopDown(net.cuda(), "1", "4").look(image.cuda()).attend([0, 1], "c-mwp")
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-3, atol=1e-6)


def test_a_compiled_model_is_taken_as_the_model_that_it_wraps():
    net, image = small(), torch.randn(1, 3, 12, 12)
    assert torch.equal(
        TopDown(torch.compile(net), "1", "4").look(image).attend([0]), TopDown(net, "1", "4").look(image).attend([0])
    )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++")
@pytest.mark.filterwarnings("ignore")
def test_the_part_below_the_target_may_be_compiled():
    net, image = small(), torch.randn(1, 3, 12, 12)
    plain = TopDown(net, "1", "4").look(image).attend([0, 1])
    torch.testing.assert_close(TopDown(net, "1", "4", compiled=True).look(image).attend([0, 1]), plain)


def test_images_on_another_device_or_of_another_dtype_are_refused():
    topdown = TopDown(small(), "1", "4")
    with pytest.raises(InputError, match=r"of torch\.float32 on cpu, not torch\.uint8"):
        topdown.look(torch.zeros(1, 3, 9, 9, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"on cpu, not torch.float32 \(1, 3, 9, 9\) on meta"):
        topdown.look(torch.zeros(1, 3, 9, 9, device="meta"))
    with pytest.raises(InputError, match="images must be"):
        topdown.look(torch.zeros(0, 3, 9, 9))


def test_a_map_of_many_words_is_that_of_each():
    """75 words: a pass of 32, another, and one of 11, whatever threads they run in."""
    scene = TopDown(small().double(), "1", "4").look(torch.randn(1, 3, 12, 12, dtype=torch.float64))
    many = scene.attend([0, 1, 2] * 25, "c-mwp")[0]
    assert torch.equal(many[3:6], many[:3])
    torch.testing.assert_close(many[:3], scene.attend([0, 1, 2], "c-mwp")[0], rtol=1e-12, atol=1e-16)
    assert np.isfinite(many.numpy()).all()

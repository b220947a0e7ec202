"""The losses, compared with their definitions in plain loops."""

import math

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from training import loss
from training.loss import distillation_loss, tag_loss


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6))
def test_the_sparse_loss_equals_the_dense_loss(batch, tags, chunk, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, tags, generator=rng) * 8
    logits.requires_grad_()
    dense = (torch.rand(batch, tags, generator=rng) < 0.3).float()
    rows, columns = dense.nonzero().T
    whole, loss.CHUNK = loss.CHUNK, chunk
    try:
        sparse = tag_loss(logits, rows, columns)
    finally:
        loss.CHUNK = whole
    plain = F.binary_cross_entropy_with_logits(logits, dense, reduction="sum") / batch
    torch.testing.assert_close(sparse, plain)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (sparse, plain))
    torch.testing.assert_close(ours, theirs)


def test_gradients_of_18_thousand_tags_equal_those_of_dense_targets():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 18157, generator=rng).mul(4).requires_grad_()
    dense = (torch.rand(8, 18157, generator=rng) < 0.001).float()
    ours = torch.autograd.grad(tag_loss(logits, *dense.nonzero().T), logits)[0]
    plain = F.binary_cross_entropy_with_logits(logits, dense, reduction="sum") / 8
    theirs = torch.autograd.grad(plain, logits)[0]
    assert (ours - theirs).abs().max() < 1e-6


def test_the_loss_of_bfloat16_logits_is_computed_in_float32():
    logits = torch.tensor([[-20.0, 30.0]], dtype=torch.bfloat16, requires_grad=True)
    value = tag_loss(logits, torch.tensor([0]), torch.tensor([0]))
    assert value.dtype == torch.float32
    assert math.isclose(value.item(), 50, rel_tol=1e-6)
    value.backward()
    assert logits.grad.tolist() == [[-1, 1]]


def test_the_losses_of_parts_add_up():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    dense = logits > 0.5
    whole = tag_loss(logits, *dense.nonzero().T)
    parts = sum(tag_loss(logits[i : i + 2], *dense[i : i + 2].nonzero().T, 6) for i in (0, 2, 4))
    torch.testing.assert_close(parts, whole)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6))
def test_distillation_is_the_kl_divergence_of_two_softmaxes(batch, classes, seed):
    rng = torch.Generator().manual_seed(seed)
    ours, theirs = (torch.randn(batch, classes, generator=rng).double() * 3 for _ in range(2))
    total = 0.0
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):
        p, q = ([math.exp(v) / sum(map(math.exp, row)) for v in row] for row in (b, a))
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert math.isclose(distillation_loss(ours, theirs).item(), total / batch, rel_tol=1e-3, abs_tol=1e-5)
    assert abs(distillation_loss(ours, ours + 7).item()) < 1e-5

"""The order of the photos, the share of each rank, and dropout."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import order
from training.dropout import KeyedDropout
from training.order import epoch_order, training_positions, validation_positions
from training.shards import Shard

counts = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def made(photos: list[int]) -> list[Shard]:
    return [Shard(f"train-{i:06d}.tar", n, 0) for i, n in enumerate(photos)]


@pytest.fixture(scope="module", params=[1, 10, 1 << 16], autouse=True)
def window(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "WINDOW", request.param)
        yield


@settings(deadline=None, max_examples=40)
@given(counts, st.integers(0, 3), st.integers(0, 3), st.integers(0, 80))
def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch(window, photos, seed, epoch, skip):
    shards = made(photos)
    drawn = list(epoch_order(shards, seed, epoch))
    assert sorted(drawn) == [(shard.name, row) for shard in shards for row in range(shard.photos)]
    assert drawn == list(epoch_order(shards, seed, epoch))
    assert drawn[skip:] == list(epoch_order(shards, seed, epoch, skip))


def test_seeds_and_epochs_have_different_orders():
    shards = made([5] * 6)
    drawn = {tuple(epoch_order(shards, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(drawn) == 9


@settings(deadline=None, max_examples=40)
@given(counts, st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]), st.integers(1, 6), st.integers(0, 3))
def test_the_ranks_divide_the_steps_of_one_process(window, photos, cut, most, start):
    batch, ranks = cut
    shards = made(photos)
    steps = sum(photos) // batch
    [alone] = [list(training_positions(shards, 0, 1, batch, 0, 0, 1, batch))]
    assert len(alone) == steps
    parts = [list(training_positions(shards, 0, 1, batch, start, rank, ranks, most)) for rank in range(ranks)]
    assert all(len(part) <= most for rank in parts for part in rank)
    each = len(parts[0]) // max(steps - start, 1)
    for step in range(start, steps):
        mine = [rank[(step - start) * each : (step - start + 1) * each] for rank in parts]
        assert [place for rank in mine for part in rank for place in part] == alone[step]


@settings(deadline=None)
@given(counts, st.integers(1, 3), st.integers(1, 5))
def test_a_validation_reads_each_photo_once(window, photos, ranks, most):
    shards = made(photos)
    seen = [
        place for rank in range(ranks) for part in validation_positions(shards, rank, ranks, most) for place in part
    ]
    assert sorted(place[:2] for place in seen) == [(shard.name, i) for shard in shards for i in range(shard.photos)]
    assert all(place.crop_seed is None for place in seen)


def test_dropout_depends_on_the_step_and_the_place():
    dropout, features = KeyedDropout(0.4, seed=3), torch.ones(6, 50, 1, 1)
    dropout.at(step=7, batch=6, first=0)
    whole = dropout(features)
    assert whole.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert 0.5 < (whole > 0).float().mean() < 0.7
    parts = []
    for first in (0, 2, 4):
        dropout.at(7, 6, first)
        parts.append(dropout(features[:2]))
    assert torch.equal(torch.cat(parts), whole)
    dropout.at(8, 6, 0)
    assert not torch.equal(dropout(features), whole)
    compiled = torch.compile(dropout, backend="eager")
    assert torch.equal(compiled(features), dropout(features))
    assert torch.equal(dropout.eval()(features), features)

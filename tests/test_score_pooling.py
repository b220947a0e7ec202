"""Pooling the scores of several positions, compared with its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shards import make_shards
from safetensors.torch import load_file
from training_runs import RECIPE, equal, tiny_trainings

from proposals.errors import InputError
from training.pooling import pool_scores
from training.train import train

CROPS = {"crop": 448, "crop_scale": (0.5, 1), "pooling": 2}  # four positions


@pytest.fixture(scope="module", autouse=True)
def _tiny(tmp_path_factory):
    with tiny_trainings(tmp_path_factory.mktemp("init")):
        yield


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(0.01, 50), st.integers(0, 10**6))
def test_the_pooled_score_equals_its_definition(tags, side, sharpness, seed):
    scores = torch.randn(2, tags, side, side, generator=torch.Generator().manual_seed(seed)) * 3
    pooled = pool_scores(scores, sharpness)
    for photo in range(2):
        for tag in range(tags):
            values = scores[photo, tag].flatten().tolist()
            top = max(values)
            mean = math.fsum(math.exp(sharpness * (v - top)) for v in values) / len(values)
            assert math.isclose(pooled[photo, tag], top + math.log(mean) / sharpness, rel_tol=1e-4, abs_tol=1e-3)


@settings(deadline=None)
@given(st.integers(2, 5), st.floats(0.1, 20), st.integers(0, 10**6))
def test_the_pooled_score_is_between_the_mean_and_the_largest(side, sharpness, seed):
    scores = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    mean, pooled, sharper = (pool_scores(scores, r) for r in (0, sharpness, 2 * sharpness))
    torch.testing.assert_close(mean, scores.mean((2, 3)))
    assert (mean <= pooled + 1e-5).all() and (pooled <= sharper + 1e-5).all()
    assert (sharper <= scores.amax((2, 3)) + 1e-5).all()


@pytest.mark.parametrize("sharpness", [0, 2])
def test_one_position_keeps_its_score(sharpness):
    scores = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pool_scores(scores, sharpness), scores[..., 0, 0])


def test_a_sharp_pooling_of_large_scores_is_finite():
    scores = torch.full((1, 1, 2, 2), 80.0, dtype=torch.bfloat16)
    assert pool_scores(scores, 20).tolist() == [[80.0]]


@pytest.mark.parametrize("weight", [0, 1])
def test_a_training_with_large_crops_learns_and_depends_on_the_pooling(tmp_path, weight):
    root = make_shards(tmp_path / "shards", train=3)
    runs = {}
    for name, changed in {"one": {}, "again": {}, "mean": {"pooling": 0}, "small": {"crop": 224}}.items():
        settings = RECIPE | CROPS | {"distillation_weight": weight} | changed
        runs[name] = load_file(train(str(root), str(tmp_path / name), epochs=2, **settings))
    assert equal(runs["one"], runs["again"])
    assert not any(equal(runs["one"], runs[name]) for name in ("mean", "small"))


@pytest.mark.parametrize("last", ["conv", None])
def test_frozen_layers_keep_their_weights(tmp_path, last):
    root = make_shards(tmp_path / "shards", train=3)
    after = load_file(train(str(root), str(tmp_path / "out"), epochs=1, frozen=last, **RECIPE))
    before, after = (
        {name: tensor for name, tensor in tensors.items() if name.startswith("trunk")}
        for tensors in (load_file(RECIPE["init"]), after)
    )
    assert equal(before, after) == (last == "conv")


def test_an_unknown_layer_is_refused_with_the_names_of_all(tmp_path):
    root = make_shards(tmp_path / "shards", train=3)
    with pytest.raises(InputError, match=r"step\.frozen=conv9 is no layer of the trunk: use one of .*, or null"):
        train(str(root), str(tmp_path / "out"), frozen="conv9", **RECIPE)

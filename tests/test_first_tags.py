"""Which tags of a photo a training uses: the first N, counted with or without those outside the vocabulary."""

import json

import numpy as np
import pytest
import torch
from made_crawl import photo
from made_shards import TAGS, make_shards, tiny_tagger

from proposals.errors import InputError
from training.dataset import ShardDataset
from training.distributed import RankGroup
from training.order import PhotoPosition
from training.recipe import Recipe
from training.sharding import shard
from training.shards import Shards
from training.state import initial_state


def test_shards_know_where_each_tag_was_written(tmp_path):
    rows = [{"path": f"{i}.jpg", "tags": [f"Rare {i}", "cat", f"x{i}", "cat", "dog"]} for i in range(3)]
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(photo(i))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shard(str(tmp_path), str(tmp_path / "out"), str(tmp_path / "t.jsonl"), held_out=0, min_images=2, workers=0)
    shards = Shards(tmp_path / "out")
    index = shards.index("train-000000.tar")
    assert [shards.vocabulary[tag] for tag in index.tags] == ["cat", "dog"] * 3
    assert index.places.tolist() == [1, 3] * 3  # of the distinct tags
    assert shards.used_counts(2).tolist() == [3, 3] and shards.used_counts(2, count_unknown=True).tolist() == [3, 0]


def test_the_first_tags_as_written_are_cut_before_unknown_ones_are_dropped(tmp_path):
    """As written, each photo has an unknown tag after its first one, so of the first two only the first is known."""
    root = make_shards(tmp_path / "shards", places=[0, 2, 3, 4])
    dataset = ShardDataset(Shards(root), 2, count_unknown=True)
    batch = dataset[[PhotoPosition("train-000000.tar", row, None) for row in range(4)]]
    assert batch.rows.tolist() == [0, 1, 2, 3]
    first = [Shards(root).vocabulary.index(tags[0]) for tags in TAGS.values()]
    assert batch.columns.tolist() == first


@pytest.mark.parametrize("count_unknown", [False, True])
def test_biases_are_the_log_odds_of_the_tags_that_are_used(tmp_path, count_unknown):
    shards = Shards(make_shards(tmp_path, places=[0, 2, 3, 4]))
    init = tiny_tagger(tmp_path / "tiny.safetensors", ("zebra",))  # a tag that it knows would keep its bias
    recipe = Recipe.of(tags_per_image=2, count_unknown_tags=count_unknown, batch=4)
    state = initial_state(recipe, shards, RankGroup(0, 1, torch.device("cpu")), init, "googlenet", None)
    bias = state.model.tagger.classifier.bias
    used = torch.zeros(len(shards.vocabulary))
    for tags in TAGS.values():
        for tag in tags[: 1 if count_unknown else 2]:
            used[shards.vocabulary.index(tag)] += 2  # there are two shards with one photo of each kind
    torch.testing.assert_close(bias[: len(used)].sigmoid(), (used / 8).clamp(1e-6, 1 - 1e-6))


def test_shards_without_places_are_refused_if_unknown_tags_count(tmp_path):
    shards = Shards(make_shards(tmp_path))
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as file:
            arrays = {name: array for name, array in file.items() if name != "places"}
        np.savez(path, **arrays)
    assert shards.used_counts(2).sum() == 16
    with pytest.raises(InputError, match=r"do not say where a tag was written: make them again in another folder"):
        shards.used_counts(2, count_unknown=True)

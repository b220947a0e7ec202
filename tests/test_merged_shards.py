"""Several folders of shards as one."""

import numpy as np
import pytest
from made_shards import ALL, make_shards

from proposals.errors import InputError
from training.dataset import ShardDataset
from training.merged_shards import MergedShards, open_shards
from training.order import PhotoPosition, count_photos, epoch_order
from training.shards import Shards


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return [make_shards(folder / "a", train=2), make_shards(folder / "b", train=1, tags=["zebra", *reversed(ALL)])]


def tags_of(shards, name: str) -> list[list[str]]:
    index = shards.index(name)
    return [
        [shards.vocabulary[tag] for tag in index.tags[index.starts[row] : index.starts[row + 1]]]
        for row in range(len(index))
    ]


def test_photos_keep_their_bytes_and_tags(roots):
    merged, (a, b) = MergedShards(roots), map(Shards, roots)
    assert [shard.name for shard in merged.train] == ["0/train-000000.tar", "0/train-000001.tar", "1/train-000000.tar"]
    for own, name, number in ((a, "train-000001.tar", 0), (b, "train-000000.tar", 1), (b, "val-000000.tar", 1)):
        assert tags_of(merged, f"{number}/{name}") == tags_of(own, name)
        assert merged.read(f"{number}/{name}", 2) == own.read(name, 2)


def test_the_vocabulary_is_the_union_with_the_counts_added(roots):
    merged, folders = MergedShards(roots, [1, 3]), list(map(Shards, roots))
    assert set(merged.vocabulary) == {"zebra", *ALL}
    for tag, count in zip(merged.vocabulary, merged.used_counts(), strict=True):
        own = [dict(zip(f.vocabulary, f.counts, strict=True)).get(tag, 0) for f in folders]
        assert count == own[0] + 3 * own[1]
    assert (np.diff(merged.used_counts()) <= 0).all()


def test_a_repeated_folder_is_seen_more_often_in_an_epoch(roots):
    merged = MergedShards(roots, [1, 3])
    order = list(epoch_order(merged.train, seed=0, epoch=0))
    assert len(order) == count_photos(merged.train) == 8 + 3 * 4
    assert all(order.count(at) == (3 if at[0].startswith("1/") else 1) for at in order)


def test_a_training_reads_merged_shards(roots):
    shards = open_shards(roots)
    batch = ShardDataset(shards)[[PhotoPosition("1/train-000000.tar", row, "seed") for row in range(4)]]
    assert batch.images.shape == (4, 3, 224, 224) and not batch.skipped
    found = {(int(row), shards.vocabulary[int(column)]) for row, column in zip(batch.rows, batch.columns, strict=True)}
    assert found == {(row, tag) for row, tags in enumerate(tags_of(shards, "1/train-000000.tar")) for tag in tags}


@pytest.mark.parametrize("repeat", [[1], [1, 0], [1, 1.5], [True, 1], [1, 1, 1]])
def test_repeat_needs_a_number_for_each_folder(roots, repeat):
    with pytest.raises(InputError, match="must have a whole number >= 1 for each of the 2 folders"):
        MergedShards(roots, repeat)


def test_a_folder_is_not_given_twice(roots):
    with pytest.raises(InputError, match=r"given twice: give it once, and set step\.repeat="):
        open_shards([roots[0], str(roots[0])])

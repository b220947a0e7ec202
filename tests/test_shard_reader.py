"""Reading shards: damaged and hostile folders are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_crawl import SETTINGS, photo, write_crawl

from proposals.errors import InputError
from training.shard_writer import member_key, write_index, write_shard
from training.sharding import shard
from training.shards import Shard, ShardIndex, Shards, index_path, read_index, read_photo_bytes
from training.thumbnails import make_thumbnail


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    return write_crawl(tmp_path_factory.mktemp("crawl"))


@pytest.fixture(scope="module")
def made(crawl, tmp_path_factory) -> Path:
    """The shards of the crawl."""
    output = tmp_path_factory.mktemp("once")
    shard(str(crawl), str(output), **SETTINGS)
    return output


def spoil(made: Path, folder: Path, name: str, change) -> Path:
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    data = change((folder / name).read_bytes())
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    return folder


def of_shards(**changes):
    return lambda data: json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "shards.json",
            lambda data: None,
            "has no complete shards, because shards.json is missing: run grounding step=shards",
        ),
        ("shards.json", lambda data: b"{", "shards.json cannot be read .*: remove it and run grounding step=shards"),
        ("shards.json", lambda data: b"[" * 100_000, "shards.json cannot be read"),
        ("shards.json", lambda data: b"[]", "does not have the format grounding-shards-1: make the shards again"),
        ("shards.json", of_shards(format="x"), "does not have the format grounding-shards-1"),
        ("shards.json", of_shards(train=None), "has no list of train shards"),
        ("shards.json", of_shards(val=[{"name": "../x.tar", "photos": 1, "bytes": 1}]), "has no list of val shards"),
        (
            "shards.json",
            of_shards(val=[{"name": "val-000000.tar", "photos": -1, "bytes": 1}]),
            "has no list of val shards",
        ),
        (
            "shards.json",
            of_shards(vocabulary="0"),
            "vocabulary.txt is not the vocabulary that the shards were made with",
        ),
        ("vocabulary.txt", lambda data: data + b"x\t1\n", "vocabulary.txt is not the vocabulary"),
        ("vocabulary.txt", lambda data: None, "vocabulary.txt cannot be read .*makes only what is missing"),
        ("train-000001.tar", lambda data: None, "train-000001.tar is missing: run grounding step=shards again"),
        ("train-000001.tar", lambda data: data[:-512], "train-000001.tar is truncated, .*makes only what is missing"),
    ],
)
def test_an_incomplete_folder_is_refused(made, tmp_path, name, change, message):
    with pytest.raises(InputError, match=message):
        Shards(spoil(made, tmp_path, name, change))


@pytest.mark.parametrize("change", [lambda data: None, lambda data: data[:300], lambda data: b"no index"])
def test_a_damaged_index_is_refused(made, tmp_path, change):
    shards = Shards(spoil(made, tmp_path, "train-000001.npz", change))
    assert len(shards.index("train-000000.tar"))
    with pytest.raises(InputError, match=r"is not an index of train-000001.tar .*: remove it and run"):
        shards.index("train-000001.tar")
    with pytest.raises(InputError, match=r"has no shard train-000009.tar"):
        shards.index("train-000009.tar")


def test_the_indices_used_last_are_kept_in_memory(made):
    names = [f"train-{i:06d}.tar" for i in range(3)]
    photos = {shard.name: shard.photos for shard in Shards(made).train}
    shards = Shards(made, keep=photos[names[1]] + photos[names[2]])
    first, second, third = map(shards.index, names)
    assert shards.index(names[1]) is second and shards.index(names[2]) is third
    assert shards.index(names[0]) is not first


def test_a_photo_of_a_truncated_or_missing_tar_is_refused(made, tmp_path):
    shards = Shards(spoil(made, tmp_path, "shards.json", lambda data: data))
    name, index = "train-000000.tar", shards.index("train-000000.tar")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: int(index.offsets[1]) + 5])
    with pytest.raises(InputError, match=r"train-000000.tar is truncated: run grounding step=shards again"):
        read_photo_bytes(tmp_path, name, index, 1)
    assert read_photo_bytes(tmp_path, name, index, 0)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_photo_bytes(tmp_path, name, index, 0)


GOOD = {"offsets": [512, 1536], "sizes": [10, 20], "starts": [0, 1, 3], "tags": [0, 1, 2], "agree": [1, 1, 5]}
LARGE = 2**63 - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [512, LARGE]}, "outside"),
        ({"offsets": [-1, 5]}, "outside"),
        ({"sizes": [-1, 5]}, "outside"),
        ({"sizes": [10, 8000]}, "outside"),
        ({"sizes": [10]}, "2 offsets, 1 sizes for 2 photos"),
        ({"starts": [0, 3, 1]}, "divide the tags"),
        ({"starts": [0, 4, 3]}, "divide the tags"),
        ({"starts": [1, 1, 3]}, "divide the tags"),
        ({"starts": [0, 1, -(2**62)]}, "divide the tags"),
        ({"agree": [1]}, "3 tags, 1 counts"),
        ({"tags": [0, 1, 3]}, "not in the vocabulary of 3"),
        ({"tags": [0, -1, 2]}, "not in the vocabulary of 3"),
        ({"tags": np.array([0, 1, 2], np.int64)}, "tags has shape"),
        ({"tags": np.zeros((1, 3), np.int32)}, "tags has shape"),
        ({"tags": np.array([[]], object)}, "an array of|Object arrays|"),
    ],
)
def test_a_hostile_index_is_refused(tmp_path, change, message):
    types = {"offsets": np.int64, "sizes": np.int32, "starts": np.int64, "tags": np.int32, "agree": np.uint8}

    def save(values):
        arrays = {k: v if isinstance(v, np.ndarray) else np.array(v, types[k]) for k, v in values.items()}
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    shard_of_two = Shard("train-000000.tar", 2, 8192)
    assert isinstance(read_index(save(GOOD), shard_of_two, 3), ShardIndex)
    with pytest.raises(InputError, match=message):
        read_index(save(GOOD | change), shard_of_two, 3)
    np.savez_compressed(tmp_path / "x.npz", **{k: np.array(v, types[k]) for k, v in GOOD.items()})
    with pytest.raises(InputError, match="an array is compressed"):
        read_index(tmp_path / "x.npz", shard_of_two, 3)


@pytest.fixture(scope="module")
def index_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    with write_shard(folder / "train-000000.tar") as writer:
        for number in range(3):
            writer.add(f"{number}", make_thumbnail(photo(number)), [number, 3], [1, 2], ["a", "b"])
    write_index(folder / "train-000000.npz", writer, {"x": 1})
    return folder / "train-000000.npz"


@given(st.data())
def test_changed_bytes_give_a_valid_index_or_an_input_error(index_file, draw):
    data = bytearray(index_file.read_bytes())
    for _ in range(draw.draw(st.integers(1, 5))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    spoiled, tar = index_file.with_name("spoiled.npz"), index_file.with_suffix(".tar")
    spoiled.write_bytes(data[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else data)
    listed = Shard(tar.name, 3, tar.stat().st_size)
    try:
        index = read_index(spoiled, listed, 4)
    except InputError:
        return
    assert len(index) == 3 and index.starts[-1] == len(index.tags) <= len(data) and index.tags.max(initial=0) < 4
    assert all(len(read_photo_bytes(tar.parent, tar.name, index, row)) == index.sizes[row] for row in range(3))


@given(st.lists(st.text(), unique=True))
def test_member_keys_are_distinct_and_plain(keys):
    plain = [member_key(key) for key in keys]
    assert len(set(plain)) == len(keys)
    assert all(set(key) <= set("%-_") or key.isascii() for key in plain) and not any(
        set("./ \\") & set(k) for k in plain
    )
    assert max(map(len, plain), default=0) <= 80


def test_member_keys():
    assert member_key("00012_a-B") == "00012_a-B" and member_key("a/b.c") == "a%2Fb%2Ec"
    long = [member_key("x" * 100 + end) for end in "ab"]
    assert long[0] != long[1] and all(len(key) == 80 for key in long)


def test_the_index_has_the_name_of_its_tar():
    assert index_path(Path("a/train-000001.tar")) == Path("a/train-000001.npz")

"""Shards of proposals: reading returns what was written, and other files are refused."""

import io
import json
import tarfile
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_proposals import boxes, segments

from proposals import Boxes, InputError, Proposals, Segments
from proposals.shards import ABOUT, ShardProposals, decode, encode, members, read_about, write_shard

ABOUT_FILE = (ABOUT, json.dumps({"photos": 1}).encode())


def same(one: Proposals, other: Proposals) -> None:
    assert type(one) is type(other) and one.size == other.size and one.shape == other.shape
    for name in ("boxes", "scores", "areas"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for i in range(len(one)):
        np.testing.assert_array_equal(one.mask(i), other.mask(i))


@given(st.one_of(segments(), boxes()))
@settings(deadline=None, max_examples=80)
def test_decode_inverts_encode(found: Proposals):
    data = encode(found)
    same(decode(data), found)
    if len(found) and isinstance(found, Segments):
        assert encode(decode(data)) == data
        maps, once = np.random.default_rng(0).random((2, *found.shape)), decode(data)
        np.testing.assert_allclose(once.integrate(maps), found.integrate(maps))
        # the members of a region are sorted after decoding, so that sums have the same order and are bit-identical
        np.testing.assert_array_equal(decode(encode(once)).integrate(maps), once.integrate(maps))


@given(segments(), st.data())
@settings(deadline=None, max_examples=60)
def test_damaged_bytes_are_refused_or_decode_to_proposals(found: Segments, draw):
    data = bytearray(encode(found))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    try:
        assert isinstance(decode(bytes(data)), Segments)
    except InputError as error:
        assert "\n" not in str(error)
    with pytest.raises(InputError):
        decode(bytes(data[:at]))


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def labelled(cells: tuple[int, int], regions: np.ndarray) -> bytes:
    return npz(grid=np.array([2, 2, 4, 4]), labels=np.zeros(cells, np.int8), regions=regions, scores=np.ones(1))


def bomb() -> bytes:
    """An archive of a few hundred KB that unpacks to 512 MB."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", 8) as archive, archive.open("scores.npy", "w") as file:
        for _ in range(512):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a zip file"),
        (npz(scores=np.ones(1)), "no known class"),
        (npz(grid=np.ones(4), boxes=np.ones((1, 4)), scores=np.ones(1)), "grid is a wrong array"),
        (npz(grid=np.array([1, 1, 0, 1]), boxes=np.ones((1, 4)), scores=np.ones(1)), "a grid of 1 x 1"),
        (npz(grid=np.array([1, 1, 4, 4]), boxes=np.full((1, 4), 9.0), scores=np.ones(1)), "leaves the image"),
        (npz(grid=np.array([1 << 20, 1 << 20, 4, 4]), boxes=np.ones((1, 4)), scores=np.ones(1)), "a grid of 1048576"),
        (npz(grid=np.array([None])), "array of"),
        (labelled((2, 3), regions=np.ones((1, 1), np.uint8)), "labels of \\(2, 3\\) cells for a grid of \\(2, 2\\)"),
        (labelled((2, 2), regions=np.ones((1, 2), np.uint8)), "regions have 2 bytes for 1 superpixels"),
        (labelled((2, 2), regions=np.ones((1 << 23, 1), np.uint8)), "regions have 8388608 bytes"),
        (bomb(), "more than 268435456 bytes"),
        (bytes((1 << 24) + 1), "more than 16777216 bytes"),
    ],
)
def test_other_files_are_refused(data, reason):
    with pytest.raises(InputError, match=reason):
        decode(data)


def test_other_classes_of_proposals_cannot_be_stored():
    class Other(Boxes):
        pass

    with pytest.raises(InputError, match="class Other cannot be stored"):
        encode(Other(np.array([[0, 0, 1, 1]]), np.ones(1), (1, 1), (1, 1)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = Boxes(np.array([[0, 0, 2, 3]]), np.ones(1), (3, 2), (3, 2))
    write_shard(tmp_path / "a.tar", [ABOUT_FILE, ("one.npz", encode(found)), ("skipped.jsonl", b"")])
    write_shard(tmp_path / "b.tar", [ABOUT_FILE, ("two.npz", encode(found)), ("bad.npz", b"nothing")])
    return tmp_path


IMAGE = np.zeros((3, 2, 3), np.uint8)


def test_proposals_are_looked_up_by_name(root):
    stored = ShardProposals(root)
    assert len(stored) == 3
    assert stored(IMAGE, "two").boxes.tolist() == [[0, 0, 2, 3]]
    assert read_about(root / "a.tar") == {"photos": 1}


@pytest.mark.parametrize(
    ("image", "name", "reason"),
    [
        (IMAGE, None, "by the image's name"),
        (IMAGE, "three", "no proposals of three: compute them with grounding step=propose"),
        (IMAGE[:2], "one", "are for 2x3, but the image is 2x2"),
        (IMAGE, "bad", "b.tar: bad.npz contains no proposals"),
        (IMAGE[:, :, 0], "one", "uint8"),
    ],
)
def test_missing_and_unfitting_proposals_are_reported(root, image, name, reason):
    with pytest.raises(InputError, match=reason):
        ShardProposals(root)(image, name)


def test_a_name_in_two_shards_is_reported(root):
    write_shard(root / "c.tar", [ABOUT_FILE, ("one.npz", b"")])
    with pytest.raises(InputError, match=r"a.tar and .*c.tar both contain one"):
        ShardProposals(root)(IMAGE, "one")


def test_a_folder_without_shards_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"no \.tar shards"):
        ShardProposals(tmp_path)


@pytest.mark.parametrize("kind", ["text", "truncated", "compressed", "no about", "about a list"])
def test_other_tars_are_refused(tmp_path, root, kind):
    path, whole = tmp_path / "x.tar", (root / "a.tar").read_bytes()
    if kind == "compressed":
        with tarfile.open(path, "w:gz") as tar:
            tar.add(root / "a.tar")
    elif kind == "no about":
        write_shard(path, [("one.npz", b"")])
    elif kind == "about a list":
        write_shard(path, [(ABOUT, b"[]")])
    else:
        path.write_bytes(b"no tar" * 500 if kind == "text" else whole[:600])
    with pytest.raises(InputError, match=r"x\.tar is"):
        read_about(path)
        list(members(path))

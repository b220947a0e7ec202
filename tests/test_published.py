"""Published proposals: files of MCG and EdgeBoxes are read as their programs write them; bad files are reported."""

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from proposals import EdgeBoxesProposals, InputError, McgProposals, Segments
from proposals.provenance import settings_of

PHOTO = np.zeros((6, 8, 3), np.uint8)


def mat(compress: bool = True, **variables) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compress)
    return buffer.getvalue()


def cells(*regions) -> np.ndarray:
    array = np.empty(len(regions), object)
    array[:] = [np.asarray(region) for region in regions]
    return array


def mcg(seed: int = 0, compress: bool = True, **changes) -> bytes:
    rng = np.random.default_rng(seed)
    superpixels = rng.integers(1, 9, PHOTO.shape[:2]).astype(np.uint16)
    known = np.unique(superpixels)
    regions = [rng.choice(known, rng.integers(1, len(known) + 1), replace=False) for _ in range(7)]
    given = {"superpixels": superpixels, "labels": cells(*regions), "scores": rng.normal(size=(7, 1))}
    return mat(compress, **{**given, "bboxes": np.ones((3, 4))} | changes)


def write(folder: Path, data: bytes, name: str = "photo") -> Path:
    (folder / f"{name}.mat").write_bytes(data)
    return folder


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_regions_of_mcg_are_unions_of_superpixels(tmp_path, seed, compress):
    data = mcg(seed, compress)
    found = McgProposals(write(tmp_path, data))(PHOTO, "photo")
    raw = loadmat(io.BytesIO(data))
    order = np.argsort(-raw["scores"].ravel(), kind="stable")
    assert isinstance(found, Segments) and found.size == found.shape == (6, 8) and len(found) == 7
    assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0
    for i, row in enumerate(order):
        mask = np.isin(raw["superpixels"], raw["labels"].ravel()[row])
        np.testing.assert_array_equal(found.mask(i), mask)
        y, x = np.nonzero(mask)
        assert found.boxes[i].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_the_proposals_with_the_highest_scores_are_kept(tmp_path):
    labels, scores = cells([1, 1], [], [2, 1], [2]), np.array([0.5, 9.0, 0.7, 0.5])
    data = mcg(superpixels=np.repeat([[1.0, 2.0]], 6, 0).repeat(4, 1), labels=labels, scores=scores)
    found = McgProposals(write(tmp_path, data), count=2)(PHOTO, "photo")
    assert found.boxes.tolist() == [[0, 0, 8, 6], [0, 0, 4, 6]] and found.scores.tolist() == [0.7, 0.5]


@pytest.mark.parametrize("name", ["bbs", "boxes"])
def test_rows_of_edge_boxes_are_one_based(tmp_path, name):
    rows = np.array([[1, 1, 8, 6, 0.1], [2, 3, 4, 2, 0.9], [8, 6, 1, 1, 0.5], [3, 3, 0, 2, 0.8]])
    found = EdgeBoxesProposals(write(tmp_path, mat(**{name: rows})))(PHOTO, "photo")
    assert found.boxes.tolist() == [[1, 2, 5, 4], [7, 5, 8, 6], [0, 0, 8, 6]]
    assert found.scores.tolist() == [0.9, 0.5, 0.1] and found.size == (6, 8) and found.shape == (300, 400)
    best = EdgeBoxesProposals(tmp_path, count=1)(PHOTO, "photo")
    assert best.boxes.tolist() == [[1, 2, 5, 4]]


def tar_of(path: Path, *entries: tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in entries:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_tar_file_gives_the_same_proposals_as_a_folder(tmp_path):
    path = tar_of(tmp_path / "mcg.tar", ("deep/other.mat", mcg(1)), ("deep/photo.mat", mcg(2)), ("README", b""))
    one = McgProposals(path)(PHOTO, "photo")
    (tmp_path / "f").mkdir()
    other = McgProposals(write(tmp_path / "f", mcg(2)))(PHOTO, "photo")
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"superpixels": np.ones((5, 8))}, r"superpixels of shape \(5, 8\), the photo has \(6, 8\)"),
        ({"superpixels": np.full((6, 8), 1.5)}, "superpixels has values that are not integers"),
        ({"superpixels": "text"}, "superpixels is not a real matrix"),
        ({"superpixels": np.ones((6, 8)) * 1j}, "superpixels is not a real matrix"),
        ({"labels": np.ones(7)}, "labels is not a cell array"),
        ({"labels": cells([1], [2])}, "2 labels but 7 scores"),
        ({"labels": cells(*[[99]] * 7)}, "contains superpixel 99, which is not in the map"),
        ({"labels": cells(*[[]] * 7)}, "contains no region"),
        ({"labels": cells(*[cells([1])] * 7)}, "is damaged"),
        ({"scores": np.full(7, np.nan)}, "not finite"),
        ({"scores": np.full(7, np.inf)}, "not finite"),
        ({"scores": np.ones((2, 3))}, r"scores of shape \(2, 3\)"),
    ],
)
def test_inconsistent_variables_are_reported(tmp_path, changes, reason):
    with pytest.raises(InputError, match=reason) as caught:
        McgProposals(write(tmp_path, mcg(**changes)))(PHOTO, "photo")
    assert "photo.mat" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones((2, 4)), "but no bbs|has the shape"),
        (np.array([[1, 1, 20, 2, 1.0]]), "row 1, .* leaves the photo 8x6"),
        (np.array([[np.nan, 1, 2, 2, 1.0]]), "leaves the photo"),
        (np.array([[1.7e308, 1, 1.7e308, 2, 1.0]]), "leaves the photo"),
        (np.array([[np.inf, 1, -np.inf, 2, 1.0]]), "leaves the photo"),
        (np.array([[1, 1, 2, 2, np.inf]]), "not finite"),
        (np.array([[1, 1, 0, 2, 1.0]]), "contains no box"),
        (np.zeros((0, 5)), "contains no box"),
    ],
)
def test_bad_boxes_are_reported(tmp_path, rows, reason):
    with pytest.raises(InputError, match=reason):
        EdgeBoxesProposals(write(tmp_path, mat(bbs=rows)))(PHOTO, "photo")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a MAT-file of MATLAB 5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "version 7.3; save it with -v7"),
        (mat(other=np.ones(3)), "contains other, but no superpixels"),
        (mcg()[:-30], "is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, data, reason):
    with pytest.raises(InputError, match=reason):
        McgProposals(write(tmp_path, data))(PHOTO, "photo")


def test_a_file_that_unpacks_to_too_many_bytes_is_refused(tmp_path):
    # 80 MB of zeros in 80 KB
    with pytest.raises(InputError, match="too many for one photo"):
        McgProposals(write(tmp_path, mcg(superpixels=np.zeros((1000, 10000)))))(PHOTO, "photo")


def test_the_name_must_be_given_and_known(tmp_path):
    proposer = McgProposals(write(tmp_path, mcg()))
    with pytest.raises(InputError, match="looked up by the photo's name"):
        proposer(PHOTO)
    with pytest.raises(InputError, match=r"has no other\.mat"):
        proposer(PHOTO, "other")
    with pytest.raises(InputError, match="uint8"):
        proposer(PHOTO[:, :, 0], "photo")
    with pytest.raises(InputError, match="count=0 must be 1 or more"):
        McgProposals(tmp_path, count=0)


def test_settings_contain_the_folder(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name, mcg())
    assert settings_of(McgProposals(tmp_path / "a")) != settings_of(McgProposals(tmp_path / "b"))


def test_bad_folders_and_tar_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist; give a folder"):
        McgProposals(tmp_path / "none")
    with pytest.raises(InputError, match=r"contains no \.mat file"):
        McgProposals(tmp_path)
    with pytest.raises(InputError, match="is compressed; unpack it with gunzip"):
        McgProposals(tar_of(tmp_path / "c.tar.gz", ("a.mat", b""), mode="w:gz"))
    with pytest.raises(InputError, match=r"contains another a\.mat"):
        McgProposals(tar_of(tmp_path / "twice.tar", ("x/a.mat", b""), ("y/a.mat", b"")))
    whole = tar_of(tmp_path / "whole.tar", ("a.mat", mcg())).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(InputError, match=r"damaged|not a tar file"):
        McgProposals(tmp_path / "cut.tar")
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("a.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match=r"link\.tar:a\.mat is not a regular file"):
        McgProposals(tmp_path / "link.tar")


@given(st.booleans(), st.integers(0, 10**6), st.integers(1, 255), st.booleans())
@settings(deadline=None, max_examples=300)
def test_damaged_files_are_refused_or_give_proposals(compress, at, flip, cut):
    whole = mcg(0, compress)
    at %= len(whole)
    data = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    with TemporaryDirectory() as folder:
        proposer = McgProposals(write(Path(folder), data))
        try:
            assert len(proposer(PHOTO, "photo")) > 0
        except InputError as error:
            assert "photo.mat" in str(error) and "\n" not in str(error)

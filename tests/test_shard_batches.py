"""Photos of tar files that go through the network together: the files of one photo at a time."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_tars import photo, samples, write_tar

from grounding import Grounder
from grounding.attention.topdown import TopDown
from grounding.shards.addresses import find_shards
from grounding.shards.parts import ShardPart
from grounding.steps.ground import ground
from grounding.steps.ground_shards import ShardOptions, ground_shards
from proposals.errors import InputError, SkippedError

ASKED = {"phrases": {}, "field": {"field": "caption"}, "tags": {"tags": 3}}


@pytest.fixture
def grounder(tiny_grounder):
    return Grounder(tiny_grounder.tagger, tiny_grounder.proposer, tiny_grounder.settings)


@pytest.fixture
def tar(tmp_path) -> Path:
    """Photos of two sizes, a broken one, and one without phrases."""
    several = samples(7)
    several[2]["jpg"], several[5]["jpg"] = photo(2, (48, 64)), photo(5, (48, 64))
    several[3]["jpg"] = b"broken"
    several[4] = {"__key__": "bare", "jpg": several[4]["jpg"]}
    return write_tar(tmp_path / "a.tar", several)


def run(grounder: Grounder, tar: Path, output: Path, asked: str, batch: int | None, **options) -> Path:
    phrases = ["a cup", "a zorgophone"] if asked == "phrases" else []
    options = ShardOptions(**ASKED[asked], **{"workers": 0, "batch": batch} | options)
    with pytest.raises(SkippedError, match="kept"):
        ground_shards(grounder, find_shards(str(tar)), phrases, output, "jsonl", None, True, options)
    return output


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "groundings-a.jsonl").read_text().splitlines()]


def maps(folder: Path) -> dict[str, np.ndarray]:
    with tarfile.open(folder / "maps-a.tar") as tar:
        files = {name: np.load(BytesIO(tar.extractfile(name).read())) for name in tar.getnames()}
    return {f"{name} {number}": values for name, file in files.items() for number, values in file.items()}


def assert_near(ours, theirs):
    """Equal, numbers up to rounding."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_near(one, other)
    else:
        assert ours == (pytest.approx(theirs, rel=1e-3, abs=1e-6) if isinstance(ours, float) else theirs)


def assert_same_files(ours: Path, theirs: Path):
    assert_near(records(ours), records(theirs))
    for name in ("ledger-a.json", "skipped.jsonl", "groundings.settings.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    found, expected = maps(ours), maps(theirs)
    assert found.keys() == expected.keys() and found
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("asked", ASKED)
def test_the_files_are_those_of_one_photo_at_a_time(grounder, tar, tmp_path, asked, together):
    expected = run(grounder, tar, tmp_path / "one", asked, 1)
    grounder.topdown.together = together
    assert_same_files(run(grounder, tar, tmp_path / "several", asked, 3), expected)
    assert len(records(expected)) == (5 if asked == "field" else 6)


def test_a_run_with_batches_continues_at_the_photo_where_it_was(grounder, tar, tmp_path, monkeypatch):
    expected = run(grounder, tar, tmp_path / "whole", "phrases", 2)
    add = ShardPart.add

    def interrupted(self, result):
        if self.done == 3:
            raise KeyboardInterrupt
        add(self, result)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ShardPart, "add", interrupted)
        run(grounder, tar, tmp_path / "out", "phrases", 2)
    (part,) = [path for path in (tmp_path / "out").iterdir() if path.suffix == ".rows"]
    assert len(part.read_text().splitlines()) == 1 + 3
    assert_same_files(run(grounder, tar, tmp_path / "out", "phrases", 2), expected)


def test_on_a_gpu_batches_are_the_default_and_need_no_workers(grounder, tar, tmp_path, monkeypatch):
    passes, look = [], TopDown.look

    def counted(self, images, method="c-mwp"):
        passes.append(len(images))
        return look(self, images, method)

    monkeypatch.setattr(TopDown, "look", counted)
    grounder.topdown.together = True  # as on a GPU
    run(grounder, tar, tmp_path / "out", "phrases", None, workers=None)
    assert sorted(passes) == [2, 4]


def test_wrong_settings_are_refused_before_a_folder_is_made(grounder, tar, tmp_path):
    with pytest.raises(InputError, match="batch=0 must be a whole number, 1 or more"):
        ShardOptions(batch=0)
    with pytest.raises(InputError, match="batch=4 needs workers=0, not 2"):
        run(grounder, tar, tmp_path / "out", "phrases", 4, workers=2)
    with pytest.raises(InputError, match="batch=-1 must be a whole number, 1 or more"):
        ground(grounder, "photo.jpg", ["a cup"], str(tmp_path / "out"), batch=-1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["workers", "batch"])
def test_a_setting_for_photos_is_refused_for_tars(tiny_grounder, tmp_path, setting):
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"set step\.shards\.batch= or step\.shards\.workers= for them"):
        ground(tiny_grounder, str(tmp_path / "a.tar"), ["a cup"], str(tmp_path / "out"), **{setting: 1})

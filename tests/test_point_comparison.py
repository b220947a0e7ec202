"""The comparison of Pointing Games, class by class."""

import json
from pathlib import Path

import pytest

from eval.compare import compare
from proposals.errors import InputError


def write(folder: Path, hits: dict[str, str]) -> str:
    """A run: for each class one letter a photo, h for a hit, m for a miss, u for a class without a tag."""
    folder.mkdir()
    cues = [
        {"photo": str(i), "name": name, "known": letter != "u", "hit": letter == "h"}
        for name, letters in hits.items()
        for i, letter in enumerate(letters)
    ]
    (folder / "points.jsonl").write_text("".join(json.dumps(cue) + "\n" for cue in cues))
    return str(folder)


def test_classes_in_which_a_run_is_the_best(tmp_path, capsys):
    one = write(tmp_path / "one", {"cat": "hh", "dog": "hm", "cow": "mm", "sky": "u"})
    two = write(tmp_path / "two", {"cat": "hm", "dog": "mh", "cow": "mm", "sky": "u"})
    three = write(tmp_path / "three", {"cat": "mm", "dog": "mm", "cow": "hm", "sky": "u"})
    record = compare(one, [two, three], str(tmp_path))
    assert record["classes"] == {"cat": [100, 50, 0], "cow": [0, 0, 50], "dog": [50, 50, 0]}
    assert (record["best"], record["tied"]) == (1, 1)
    assert record == json.loads((tmp_path / "compare.json").read_text())
    assert f"{one} is the best in 1 of 3 classes and tied in 1" in capsys.readouterr().out
    assert compare(one, three, str(tmp_path))["best"] == 2


def test_runs_that_cannot_be_compared(tmp_path):
    one, other = write(tmp_path / "one", {"cat": "h"}), write(tmp_path / "other", {"cat": "hh"})
    with pytest.raises(InputError, match=r"have different cues \(for example cat in 1\): play on the same photos"):
        compare(one, other, str(tmp_path))
    with pytest.raises(InputError, match=r"is not the folder of a Pointing Game .*run step=point first"):
        compare(one, str(tmp_path), str(tmp_path))
    with pytest.raises(InputError, match="has no cue whose class has a tag"):
        compare(write(tmp_path / "none", {"cat": "u"}), one, str(tmp_path))
    with pytest.raises(InputError, match=r"step.against is a list: only runs of step=point"):
        compare(str(tmp_path), [one], str(tmp_path))

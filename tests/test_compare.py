"""The difference of two evaluations of the same phrases."""

import json

import numpy as np
import pytest

from eval.compare import compare
from proposals.errors import InputError


def write(folder, ranks, pointed, covered=None):
    """Three phrases a photo; the third one is small."""
    folder.mkdir()
    covered = [True] * len(ranks) if covered is None else covered
    lines = [
        {
            "image": str(i // 3), "sentence": 0, "phrase": i % 3, "rank": rank, "pointed": bool(point),
            "area": 0.1 if i % 3 == 2 else 0.5, "covered": cover, "reachable": True,
        }
        for i, (rank, point, cover) in enumerate(zip(ranks, pointed, covered, strict=True))
    ]  # fmt: skip
    (folder / "phrases.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "metrics.json").write_text(json.dumps({"gamma": 0.5, "by_gamma": {}}))
    return str(folder)


def test_difference_has_a_paired_interval(tmp_path, capsys):
    rng = np.random.default_rng(0)
    theirs = rng.integers(1, 12, 90).tolist()
    ours = [max(1, rank - 1) for rank in theirs]  # one rank better for each phrase
    pointed = rng.integers(0, 2, 90)
    one, other = write(tmp_path / "a", ours, pointed), write(tmp_path / "b", theirs, pointed)
    record = compare(one, other, str(tmp_path))
    assert json.loads(json.dumps(record)) == json.loads((tmp_path / "compare.json").read_text())
    figure = record["figures"]["R@5"]
    assert figure["run"] == pytest.approx(100 * np.mean(np.array(ours) <= 5))
    assert figure["difference"] == pytest.approx(100 * np.mean(np.array(theirs) == 6))
    low, high = figure["interval"]
    assert 0 <= low < figure["difference"] < high < 30
    assert record["figures"]["pointing"]["interval"] == (0, 0)  # equal on every photo, therefore in every resample
    small = np.array(theirs[2::3])
    assert record["figures"]["small R@1"]["difference"] == pytest.approx(100 * np.mean(small == 2))
    assert f"{figure['difference']:+5.1f}" in capsys.readouterr().out


def test_reasons_add_up(tmp_path):
    ranks, pointed, covered = [1, 4, None, 40, None, 1], [1, 1, 1, 0, 0, 0], [True] * 4 + [False, True]
    runs = [write(tmp_path / name, ranks, pointed, covered) for name in "ab"]
    reasons = compare(*runs, str(tmp_path))["reasons"]
    assert reasons["right"] == [pytest.approx(100 / 3)] * 2
    assert {r: round(6 * shares[0] / 100) for r, shares in reasons.items() if shares[0]} == {
        "right": 2, "ranked low": 1, "wrong extent": 1, "wrong place": 1, "out of vocabulary": 1
    }  # fmt: skip
    assert sum(shares[1] for shares in reasons.values()) == pytest.approx(100)


def test_no_small_phrase_has_no_metric(tmp_path, capsys):
    runs = [write(tmp_path / name, [1, 2], [1, 1]) for name in "ab"]
    assert "small R@1" not in compare(*runs, str(tmp_path))["figures"]
    assert "\nsmall" not in capsys.readouterr().out


def test_runs_of_other_phrases_are_an_error(tmp_path):
    one, other = write(tmp_path / "a", [1] * 6, [1] * 6), write(tmp_path / "b", [1] * 3, [1] * 3)
    with pytest.raises(InputError, match=r"have different phrases .*: evaluate the same photos"):
        compare(one, other, str(tmp_path))
    with pytest.raises(InputError, match="is not the folder of an evaluation"):
        compare(one, str(tmp_path / "none"), str(tmp_path))


def test_runs_of_other_protocols_are_an_error(tmp_path):
    one, other = (write(tmp_path / name, [1] * 3, [1] * 3) for name in "ab")
    metrics = {"gamma": 0.5, "by_gamma": {}, "protocol": "iccv15"}
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(
        InputError, match=r"a has protocol ours, .*b has iccv15: evaluate both with the same step\.prot"
    ):
        compare(one, other, str(tmp_path))

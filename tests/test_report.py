"""The report and the joined tables: what they say is what the evaluation said."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_flickr30k import root  # noqa: F401, a fixture

from eval.evaluate import evaluate
from eval.examples import examples
from eval.joined import best_gamma, join
from eval.report import REASONS, reason_of, report
from grounding import Grounder
from proposals import BoxProposer
from proposals.errors import InputError

PHRASE = {"rank": None, "covered": True, "pointed": True, "reachable": True}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": 1}, "right"),
        ({"rank": 1, "pointed": False}, "right"),
        ({"covered": False, "reachable": False, "pointed": False}, "out of vocabulary"),
        ({"reachable": False, "pointed": False}, "no proposal"),
        ({"rank": 2, "pointed": False}, "wrong place"),
        ({"rank": 10}, "ranked low"),
        ({"rank": 11}, "wrong extent"),
        ({}, "wrong extent"),
    ],
)
def test_the_first_reason_that_holds(changes, reason):
    assert reason_of(PHRASE | changes) == reason


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(side=224)


@pytest.fixture
def run(root, grounder, tmp_path) -> Path:  # noqa: F811
    sentences = root / "Sentences" / "7.txt"
    sentences.write_text(sentences.read_text().replace("dog", "<b>dog</b>"))
    evaluate(grounder, str(root), "toy", str(tmp_path / "run"))
    return tmp_path / "run"


def test_the_page_stands_alone_and_tells_the_figures(root, run, grounder, tmp_path, capsys):  # noqa: F811
    page = report(grounder, str(root), "toy", str(run), str(tmp_path / "out")).read_text("utf-8")
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page
    metrics = json.loads((run / "metrics.json").read_text())
    phrases = [json.loads(line) for line in (run / "phrases.jsonl").read_text().splitlines()]
    assert f"{metrics['recall']['5']:.1f} <small>" in page and f"{metrics['ap_group']:.1f}" in page
    assert re.findall(r'<figure data-reason="([^"]*)"', page) == sorted(map(reason_of, phrases), key=REASONS.index)
    assert page.count('class="truth"') >= len(phrases) and "<b>dog" not in page


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_a_browser_shows_every_picture(root, run, grounder, tmp_path):  # noqa: F811
    page = report(grounder, str(root), "toy", str(run), str(tmp_path / "out"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"{len((run / 'phrases.jsonl').read_text().splitlines())} shown" in shown


def test_other_settings_are_refused(root, run, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match=r"other settings \(gamma=0.5 there, 0.25 here\)"):
        report(Grounder.load(side=224, gamma=0.25), str(root), "toy", str(run), str(tmp_path / "out"))


def test_other_data_or_proposals_are_refused(root, run, grounder, tmp_path):  # noqa: F811
    (root / "other.txt").write_text("7\n")
    with pytest.raises(InputError, match=r"is of toy and SegmentProposer: give data.split, proposals"):
        report(grounder, str(root), "other", str(run), str(tmp_path / "out"))
    boxes = Grounder.load(side=224, proposer=BoxProposer(count=5))
    with pytest.raises(InputError, match=r"is of toy and SegmentProposer"):
        report(boxes, str(root), "toy", str(run), str(tmp_path / "out"))


def test_a_run_with_two_gammas_is_refused_and_stands_in_a_table(root, run, grounder, tmp_path):  # noqa: F811
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"gamma": None, "chosen": {"gammas": [0.5, 0.25], "tried": [0.25, 0.5], "on": "the other half"}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"has a gamma for each half .* without step\.choose"):
        report(grounder, str(root), "toy", str(run), str(tmp_path / "out"))
    assert "| c-mwp-partial, segments | 0.5 / 0.25, chosen |" in join(run.parent)


def test_what_is_no_evaluation_is_refused(root, run, grounder, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="holds no evaluation"):
        report(grounder, str(root), "toy", str(tmp_path / "none"), str(tmp_path / "out"))
    evaluate(grounder, str(root), "toy", str(tmp_path / "file"), predictions=str(run / "predictions.jsonl"))
    with pytest.raises(InputError, match="is of predictions from a file"):
        report(grounder, str(root), "toy", str(tmp_path / "file"), str(tmp_path / "out"))


def test_a_sweeps_jobs_stand_in_one_table(run, tmp_path, capsys):
    for name in ("0", "2", "10", ".submitit"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        if name != ".submitit":
            shutil.copy(run / "metrics.json", tmp_path / "sweep" / name)
    metrics = json.loads((run / "metrics.json").read_text()) | {"method": "mwp"}
    (tmp_path / "sweep" / "10" / "metrics.json").write_text(json.dumps(metrics))
    assert join(tmp_path / "sweep", since=time.time() + 60) is None  # all of an earlier sweep
    text = join(tmp_path / "sweep")
    assert text in capsys.readouterr().out and (tmp_path / "sweep" / "tables.md").read_text() == text + "\n"
    rows = [line for line in text.splitlines() if line.startswith(("| c-mwp", "| mwp"))]
    # in Table 4 each has a row of its own gamma, 0.5, and one of its best; in Table 5 one
    assert [row[2:5] for row in rows] == ["c-m"] * 4 + ["mwp"] * 2 + ["c-m", "c-m", "mwp"]
    gamma = best_gamma(metrics)
    best = metrics["by_gamma"][gamma]
    assert f"| 0.5 | {metrics['recall']['1']:.1f} (" in rows[0]
    assert f"| {float(gamma):g}, the best | {best['recall']['1']:.1f} (" in rows[1]
    assert f"| {best['ap_group']:.1f} /" in rows[1]
    assert sum(best["recall"].values()) == max(sum(m["recall"].values()) for m in metrics["by_gamma"].values())


def test_pointing_games_stand_in_a_table_of_their_own(tmp_path):
    game = {"method": {"mean": 12.34, "interval": [10.0, 15.0]}}
    metrics = {"method": "c-mwp", "target": "pool2", "all": game, "difficult": game}
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "metrics.json").write_text(json.dumps(metrics))
    assert join(tmp_path).splitlines()[-1] == "| c-mwp | pool2 | 12.3 (10.0-15.0) | 12.3 (10.0-15.0) | 70.6 |"


def test_a_sweep_of_something_else_has_no_table(tmp_path):
    assert join(tmp_path) is None


def test_words_of_a_caption_and_their_maps(root, tmp_path):  # noqa: F811
    grounder = Grounder.load(method="c-mwp", side=224)
    sheet = Image.open(examples(grounder, str(root), "toy", str(tmp_path / "out"), columns=2))
    assert sheet.width == 3 * (220 + 6) + 6
    pixels = np.asarray(sheet.convert("RGB"), float)
    plain, first, second = (pixels[30:150, 6 + i * 226 : 206 + i * 226] for i in range(3))
    assert np.abs(plain - first).max() > 40 and np.abs(first - second).max() > 40
    with pytest.raises(InputError, match="columns=0 must be a whole number, 1 or more"):
        examples(grounder, str(root), "toy", str(tmp_path / "out"), columns=0)


def test_fewer_pictures_than_none_are_refused(root, run, grounder, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="examples=-1 must be a whole number, 0 or more"):
        report(grounder, str(root), "toy", str(run), str(tmp_path / "out"), examples=-1)

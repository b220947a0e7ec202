"""The report and the tables of a sweep show the metrics of the evaluations."""

import csv
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from entities_folder import copy_photo, write_entities
from PIL import Image

from eval.evaluate import evaluate
from eval.examples import examples
from eval.failures import REASONS, reason_of
from eval.gammas import best_gamma
from eval.report import report
from eval.runs import read_run
from eval.sweep_table import write_sweep_table
from grounding import Grounder
from grounding.runtime.sweep_jobs import SweepJob, write_job
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
def test_first_reason_that_applies(changes, reason):
    assert reason_of(PHRASE | changes) == reason


@pytest.fixture
def root(tmp_path) -> Path:
    return write_entities(tmp_path)


@pytest.fixture(scope="module")
def evaluated(grounder, tmp_path_factory) -> Path:
    """A data set, and its evaluation in the folder ``run``."""
    root = write_entities(tmp_path_factory.mktemp("evaluated"))
    sentences = root / "Sentences" / "7.txt"
    sentences.write_text(sentences.read_text().replace("dog", "<b>dog</b>"))
    evaluate(grounder, str(root), "toy", str(root / "run"))
    return root


@pytest.fixture
def run(evaluated, root, tmp_path) -> Path:
    """A copy of the evaluation, which a test may change."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.fixture
def best_elsewhere(run) -> Path:
    """The evaluation, as if another gamma than that of the run were the best."""
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    gammas = metrics["by_gamma"]
    own, other = str(metrics["gamma"]), "0.25"
    if best_gamma({gamma: sum(at["recall"].values()) for gamma, at in gammas.items()}) == own:
        gammas[own], gammas[other] = gammas[other], gammas[own]
        metrics |= {key: value for key, value in gammas[own].items() if key in metrics}
        path.write_text(json.dumps(metrics))
    return run


def test_page_is_self_contained_and_shows_the_metrics(root, run, grounder, tmp_path, capsys):
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
def test_browser_shows_every_picture(root, run, grounder, tmp_path):
    page = report(grounder, str(root), "toy", str(run), str(tmp_path / "out"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"{len((run / 'phrases.jsonl').read_text().splitlines())} shown" in shown


def test_other_settings_are_an_error(root, run, tmp_path):
    with pytest.raises(InputError, match=r"other settings \(gamma=0.55 there, 0.25 here\)"):
        report(Grounder.load("googlenet", side=224, gamma=0.25), str(root), "toy", str(run), str(tmp_path / "out"))


def test_a_run_of_an_earlier_version_is_an_error(root, run, grounder, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    old = shutil.copytree(run, tmp_path / "old")
    (old / "metrics.json").write_text(json.dumps({k: v for k, v in metrics.items() if k != "ranked_by"}))
    with pytest.raises(InputError, match="is of an earlier version, without ranked_by: evaluate it again"):
        report(grounder, str(root), "toy", str(old), str(tmp_path / "out"))


def test_other_data_or_proposals_are_an_error(root, run, grounder, tmp_path):
    (root / "other.txt").write_text("7\n")
    with pytest.raises(InputError, match=r"is of split toy and SegmentProposer: set data.split, proposals"):
        report(grounder, str(root), "other", str(run), str(tmp_path / "out"))
    boxes = Grounder.load("googlenet", side=224, proposer=BoxProposer(count=5))
    with pytest.raises(InputError, match=r"is of split toy and SegmentProposer"):
        report(boxes, str(root), "toy", str(run), str(tmp_path / "out"))


def test_run_with_two_gammas_is_an_error_here_but_not_in_the_sweep_table(root, run, grounder, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"gamma": None, "chosen": {"gammas": [0.5, 0.25], "tried": [0.25, 0.5], "on": "the other half"}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"has two gammas: .* without step\.gamma_candidates"):
        report(grounder, str(root), "toy", str(run), str(tmp_path / "out"))
    assert "| c-mwp-partial, our segments | 0.5 / 0.25, chosen |" in write_sweep_table(run.parent)


def test_folder_without_an_evaluation_is_an_error(root, run, grounder, tmp_path):
    with pytest.raises(InputError, match="is not the folder of an evaluation"):
        report(grounder, str(root), "toy", str(tmp_path / "none"), str(tmp_path / "out"))
    evaluate(grounder, str(root), "toy", str(tmp_path / "file"), predictions=str(run / "predictions.jsonl"))
    with pytest.raises(InputError, match="evaluates predictions from a file"):
        report(grounder, str(root), "toy", str(tmp_path / "file"), str(tmp_path / "out"))


def test_jobs_of_a_sweep_share_a_table(best_elsewhere, tmp_path, capsys):
    run = best_elsewhere
    for name in ("0", "2", "10", ".submitit"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        if name != ".submitit":
            shutil.copy(run / "metrics.json", tmp_path / "sweep" / name)
    metrics = json.loads((run / "metrics.json").read_text()) | {"method": "mwp"}
    (tmp_path / "sweep" / "10" / "metrics.json").write_text(json.dumps(metrics))
    assert write_sweep_table(tmp_path / "sweep", since=time.time() + 60) is None  # all files are of an earlier sweep
    text = write_sweep_table(tmp_path / "sweep")
    assert text in capsys.readouterr().out and (tmp_path / "sweep" / "tables.md").read_text() == text + "\n"
    rows = [re.sub(r"^\| (0|2|10) \|  \|", "|", line) for line in text.splitlines()]
    rows = [line for line in rows if line.startswith(("| c-mwp", "| mwp"))]
    best_rows = [line for line in text.splitlines() if ", best |" in line]
    # one row per job in each table; the best gamma of each method, which no job has, once
    assert [row[2:5] for row in rows] == ["c-m", "c-m", "mwp"] * 2
    assert len(best_rows) == 2
    assert text.count("(the paper:") == 2  # mwp, in Tables 4 and 5
    gamma = best_gamma({g: sum(at["recall"].values()) for g, at in metrics["by_gamma"].items()})
    best = metrics["by_gamma"][gamma]
    assert f"| 0.55 | {metrics['recall']['1']:.1f} (" in rows[0]
    assert f"| {float(gamma):g}, best | {best['recall']['1']:.1f} (" in best_rows[0]
    assert f"| {best['ap_group']:.1f} /" in best_rows[0]
    assert sum(best["recall"].values()) == max(sum(m["recall"].values()) for m in metrics["by_gamma"].values())


def test_the_jobs_of_a_sweep_are_joined_as_json_csv_and_a_plot(run, tmp_path):
    folder = tmp_path / "sweep"
    metrics = json.loads((run / "metrics.json").read_text())
    best = best_gamma({g: sum(at["recall"].values()) for g, at in metrics["by_gamma"].items()})
    gammas = [0.5, float(best)] if best != "0.5" else [0.25, 0.5]
    for number, gamma in enumerate(gammas):
        (folder / str(number)).mkdir(parents=True)
        changed = metrics | {"gamma": gamma} | metrics["by_gamma"][f"{gamma:g}" if gamma % 1 else str(gamma)]
        (folder / str(number) / "metrics.json").write_text(json.dumps(changed))
    table = write_sweep_table(folder)
    assert table.count(", best |") == 1
    joined = json.loads((folder / "joined.json").read_text())
    assert [job["best"] for job in joined["jobs"]] == [gamma == float(best) for gamma in gammas]
    assert joined["jobs"][1]["recall.1"] == metrics["by_gamma"][best]["recall"]["1"]
    assert joined["failed"] == [] and joined["paper"] == []
    with (folder / "joined.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["recall.5"]) for row in rows] == [job["recall.5"] for job in joined["jobs"]]
    assert (folder / "gamma.png").read_bytes().startswith(b"\x89PNG")


def test_pointing_games_have_their_own_table(tmp_path):
    game = {"method": {"mean": 12.34, "interval": [10.0, 15.0]}}
    metrics = {"method": "c-mwp", "target": "pool2", "all": game, "difficult": game}
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "metrics.json").write_text(json.dumps(metrics))
    last = write_sweep_table(tmp_path).splitlines()[-1]
    assert last == "| 0 |  | c-mwp | pool2 | 12.3 (10.0-15.0) | 12.3 (10.0-15.0) | 70.6 |"
    (tmp_path / "0" / "metrics.json").write_text(json.dumps(metrics | {"method": "c-cam"}))
    cam, gradient = write_sweep_table(tmp_path).splitlines()[-2:]
    assert cam.endswith("| 61.9 |") and gradient == "| | | c-grad: the map is zero | | - | - | N.A. |"


def test_a_sweep_names_its_jobs_and_those_that_failed(best_elsewhere, tmp_path, capsys):
    common = "step=evaluate"
    for number, (gamma, error) in enumerate([("0.55", None), ("-1", "gamma=-1 must be | 0"), ("1", None), ("2", None)]):
        place = tmp_path / "sweep" / str(number)
        (place / ".hydra").mkdir(parents=True)
        (place / ".hydra" / "overrides.yaml").write_text(f"- {common}\n- 'gamma={gamma}'\n")
        if number < 2:
            write_job(SweepJob(place, number, (common, f"gamma={gamma}"), error, 2 if error else 0))
    shutil.copy(best_elsewhere / "metrics.json", tmp_path / "sweep" / "0")
    (tmp_path / "sweep" / "2" / "metrics.json").write_text("{")  # as a job that was killed may leave it
    text = write_sweep_table(tmp_path / "sweep")
    assert "| 0 | gamma=0.55 | c-mwp-partial, our segments | 0.55 |" in capsys.readouterr().out
    assert text.splitlines()[-5:] == [
        "| failed job | overrides | reason |",
        "|---|---|---|",
        "| 1 | gamma=-1 | gamma=-1 must be \\| 0 |",
        "| 2 | gamma=1 | it ended without a result |",
        "| 3 | gamma=2 | it ended without a result |",
    ]
    assert (tmp_path / "sweep" / "tables.md").read_text() == text + "\n"


def test_sweep_without_evaluations_has_no_table(tmp_path):
    assert write_sweep_table(tmp_path) is None


def test_examples_show_the_maps_of_a_caption(root, tmp_path):
    grounder = Grounder.load(method="c-mwp", side=224)
    sheet = Image.open(examples(grounder, str(root), "toy", str(tmp_path / "out"), columns=2))
    assert sheet.width == 3 * (220 + 6) + 6
    pixels = np.asarray(sheet.convert("RGB"), float)
    plain, first, second = (pixels[30:150, 6 + i * 226 : 206 + i * 226] for i in range(3))
    assert np.abs(plain - first).max() > 40 and np.abs(first - second).max() > 40
    with pytest.raises(InputError, match="columns=0 must be a whole number, 1 or more"):
        examples(grounder, str(root), "toy", str(tmp_path / "out"), columns=0)


@pytest.mark.slow
def test_photos_that_are_gone_are_left_out_of_pictures(root, run, grounder, tmp_path, caplog):
    copy_photo(root, ["8"])
    (root / "toy.txt").write_text("7\n8\n")
    evaluate(grounder, str(root), "toy", str(tmp_path / "both"))
    (root / "images" / "8.jpg").unlink()
    report(grounder, str(root), "toy", str(tmp_path / "both"), str(tmp_path / "out"))
    examples(grounder, str(root), "toy", str(tmp_path / "sheet"))
    assert "pictures: " in caplog.text and f"unusable; see {tmp_path}/out/skipped.jsonl" in caplog.text
    assert f"2 photos: 1 kept, 1 unusable; see {tmp_path}/sheet/skipped.jsonl" in caplog.text
    (root / "Annotations" / "7.xml").unlink()
    with pytest.raises(InputError, match=r"none of \d+ pictures can be used.*set data\.root to the data of the eval"):
        report(grounder, str(root), "toy", str(tmp_path / "both"), str(tmp_path / "none"))
    with pytest.raises(InputError, match="none of 2 photos can be used"):
        examples(grounder, str(root), "toy", str(tmp_path / "none"))


@pytest.mark.parametrize("text", ["[]", '{"gamma": 1}\n', "7"])
def test_other_json_is_not_an_evaluation(run, text):
    (run / "phrases.jsonl").write_text(text)
    with pytest.raises(InputError, match="is not the folder of an evaluation"):
        read_run(str(run))


def test_negative_number_of_pictures_is_an_error(root, run, grounder, tmp_path):
    with pytest.raises(InputError, match="examples=-1 must be a whole number, 0 or more"):
        report(grounder, str(root), "toy", str(run), str(tmp_path / "out"), examples=-1)

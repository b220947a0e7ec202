"""The step table4: each row at its best gamma, the paper's rows beside, paired differences, and halves."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from entities_folder import add_unreadable_photo, copy_photo, write_entities

from eval import bootstrap
from eval.evaluate import evaluate
from eval.gammas import GAMMAS
from eval.metrics import Metrics
from eval.published import PAPER, paper_row
from eval.systems import JudgedPhrases, PhraseTable, System, SystemResults, map_maximum
from eval.table4 import OWN_ORDER, table4
from eval.table4_rows import forget_scores
from grounding import Grounder
from grounding.attention.gradients import Gradient
from grounding.attention.methods import IMAGE, METHODS, Method, contrast_of_magnitudes
from grounding.settings import Settings
from proposals import BoxProposer, SegmentProposer
from proposals.errors import InputError

PROPOSERS = {"segments": SegmentProposer(count=40), "boxes": BoxProposer(count=40)}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Four readable photos and an unreadable one."""
    root = add_unreadable_photo(write_entities(tmp_path_factory.mktemp("table4")))
    copy_photo(root, ["9", "10", "11"])
    (root / "toy.txt").write_text("7\n8\n9\n10\n11\n")
    return root


@pytest.fixture(scope="module")
def paper(grounder) -> Grounder:
    return Grounder(grounder.tagger, PROPOSERS["segments"], replace(Settings.paper(), side=224))


@pytest.fixture(scope="module")
def run(root, paper, grounder) -> tuple[dict, Path]:
    before, bootstrap.RESAMPLES = bootstrap.RESAMPLES, 20
    place = str(root), "toy", str(root / "out"), str(root / "cache")
    try:
        return table4(paper, grounder, PROPOSERS, ["mwp", "c-mwp"], *place), root / "out"
    finally:
        bootstrap.RESAMPLES = before


def row_of(rows: list, **wanted: str) -> dict:
    (found,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return found


@pytest.mark.slow
def test_the_rows_and_the_files(run, capsys):
    tables, out = run
    for name in ("table4", "table5", "differences", "halves"):
        with (out / f"{name}.csv").open(newline="") as file:
            assert list(csv.DictReader(file)) == tables[name]
        assert f"{name}\n\n| protocol |" in (out / "tables.md").read_text()
    ours = [r for r in tables["table4"] if r["whose"] == "ours" and r["protocol"] == "ours"]
    assert [(r["method"], r["proposals"]) for r in ours] == [
        *((m, "our segments") for m in (OWN_ORDER, "mwp", "c-mwp")),
        *((m, "boxes of our segments") for m in (OWN_ORDER, "mwp", "c-mwp")),
        ("best", "our segments"),
        ("c-grad: the map is zero", "any"),
    ]
    assert {r["protocol"] for r in tables["table4"]} == {"ours", "iccv15"}


@pytest.mark.slow
def test_the_papers_rows_are_beside_ours_and_never_boxes_beside_edge_boxes(run):
    rows = [r for r in run[0]["table4"] if r["protocol"] == "ours"]
    paper = [r for r in rows if r["whose"] == "the paper, test"]
    assert len(paper) == len(PAPER)
    for row in paper[:3]:  # below our segments
        before = rows[rows.index(row) - 1]
        assert before["proposals"] == "our segments" and row["proposals"] == "MCG"
    last = max(rows.index(r) for r in rows if r["whose"] == "ours")
    assert all(rows.index(r) > last for r in paper if r["proposals"] == "EdgeBoxes")
    c_mwp = row_of(rows, method="c-mwp", proposals="MCG")
    assert (c_mwp["gamma"], c_mwp["R@1"], c_mwp["small R@10"]) == ("0.5", "26.2", "51.7")
    assert (c_mwp["mAP (Group) raw"], c_mwp["mAP (Group) unit"]) == ("15.2", "")
    assert row_of(rows, method="CCA")["R@5"] == "" and row_of(rows, method="CCA*")["R@5"] == "50.3"
    assert paper_row("c-mwp", "BoxProposer") is None
    assert paper_row("c-mwp", "McgProposals").proposals == "MCG"
    assert paper_row("c-mwp", "EdgeBoxesProposals").proposals == "EdgeBoxes"


@pytest.mark.parametrize(("protocol", "scale"), [("ours", "raw"), ("iccv15", "unit")])
@pytest.mark.slow
def test_a_row_equals_an_evaluation_with_its_gamma(run, root, paper, tmp_path, protocol, scale):
    row = row_of(run[0]["table4"], method="c-mwp", proposals="our segments", protocol=protocol)
    metrics = evaluate(
        paper, str(root), "toy", str(tmp_path), cache=str(root / "cache"), protocol=protocol, score_scale=scale
    )
    by_gamma = {gamma: sum(at["recall"].values()) for gamma, at in metrics["by_gamma"].items()}
    best = metrics["by_gamma"][max(sorted(by_gamma, key=float), key=by_gamma.get)]
    for key, name in (("recall", ""), ("recall_small", "small ")):
        assert [row[f"{name}R@{k}"] for k in (1, 5, 10)] == [f"{best[key][k]:.1f}" for k in ("1", "5", "10")]
    for key, name in (("group", "Group"), ("phrase", "Phrase")):
        assert row[f"mAP ({name}) {scale}"] == f"{best[f'ap_{key}']:.1f}"
        assert row[f"small mAP ({name}) {scale}"] == f"{best[f'ap_{key}_small']:.1f}"
    assert row["pointing, maximum of the map"] == row["pointing, the answer's point"] == f"{metrics['pointing']:.1f}"


@pytest.mark.slow
def test_differences_are_against_the_strongest_row_of_the_papers_own_method(run):
    tables = run[0]
    rows = [r for r in tables["table4"] if r["protocol"] == "ours" and r["method"] in ("mwp", "c-mwp")]
    rows = [r for r in rows if r["whose"] == "ours"]
    strongest = max(rows, key=lambda r: sum(float(r[f"R@{k}"]) for k in (1, 5, 10)))
    best = row_of(tables["differences"], protocol="ours", method="best")
    assert best["minus"] == f"{strongest['method']}, {strongest['proposals']}, gamma {strongest['gamma']}"
    own = row_of(tables["table4"], protocol="ours", method="best")
    assert float(best["R@5"]) == pytest.approx(float(own["R@5"]) - float(strongest["R@5"]), abs=0.11)
    assert float(best["R@5 low"]) <= float(best["R@5"]) <= float(best["R@5 high"])
    halves = [(r["photos"], r["gammas chosen on"]) for r in tables["halves"] if r["protocol"] == "ours"]
    assert halves == [("even", "even"), ("even", "odd"), ("odd", "odd"), ("odd", "even")]


def test_the_map_of_c_grad_is_zero(grounder, monkeypatch):
    """Table 2 has no figure for it: the dual's gradient is the negated gradient, so the magnitudes are equal."""
    monkeypatch.setitem(METHODS, "c-grad", Method(Gradient, contrast_of_magnitudes, "", "", IMAGE, True))
    pixels = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    scene = grounder.topdown.look(grounder.tagger.prepare(pixels, [224]), "c-grad")
    maps = scene.attend([3, 40], "c-grad")
    assert maps.shape[:2] == (1, 2) and not maps.any()
    assert scene.attend([3, 40], "grad").any()


def test_the_maximum_of_a_map_is_not_the_voted_point(root, grounder):
    answer = grounder.ground(root / "images" / "7.jpg", ["a dog"])[0]
    y, x = np.unravel_index(answer.map.argmax(), answer.map.shape)
    expected = (x + 0.5) * 100 / answer.map.shape[1], (y + 0.5) * 80 / answer.map.shape[0]
    assert answer.voted and map_maximum(answer) == pytest.approx(expected)
    plain = grounder.ground(root / "images" / "7.jpg", ["a dog", "qqq"], vote=0)
    assert map_maximum(plain[0]) == plain[0].point and map_maximum(plain[1]) is None


def test_a_paired_difference():
    one, other = Metrics(["a", "a", "b"]), Metrics(["a", "a", "b"])
    every = np.ones(3, bool)
    one.add_share(("x",), np.array([True, True, True]), every)
    other.add_share(("x",), np.array([True, False, True]), every)
    value, (low, high) = one.difference(other, ("x",))
    # a resample of "b" alone has no difference, of "a" alone 50 points
    assert value == pytest.approx(100 / 3) and (low, high) == (0, 50)
    assert one.difference(one, ("x",)) == (0, (0, 0))


@pytest.mark.slow
def test_gamma_and_protocol_need_no_further_pass(run, root, paper, grounder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("grounding.attention.topdown.TopDown.look", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    place = str(root), "toy", str(tmp_path), str(root / "cache")
    assert table4(paper, grounder, PROPOSERS, ["mwp", "c-mwp"], *place) == run[0]
    assert "could not be read, counted as misses: 8" in capsys.readouterr().out
    assert json.loads((tmp_path / "skipped.jsonl").read_text())["name"] == "8"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": None}, "step=table4 answers the same photos many times: set cache=FOLDER"),
        ({"methods": []}, r"step=table4 needs methods and proposers: set step\.methods=\[mwp,c-mwp\]"),
        ({"methods": ["none"]}, "there is no attention method 'none'"),
        ({"limit": 0}, "limit=0 must be a whole number, 1 or more"),
    ],
)
def test_wrong_settings_are_refused(root, paper, grounder, tmp_path, settings, message):
    given = {"methods": ["mwp"], "cache": str(root / "cache"), "limit": 1} | settings
    with pytest.raises(InputError, match=message):
        table4(paper, grounder, PROPOSERS, root=str(root), split="toy", output=str(tmp_path), **given)


def test_photos_without_a_phrase_are_refused(root, paper, grounder, tmp_path):
    for name in ("images", "Annotations", "Sentences"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "Sentences").unlink()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Sentences" / "7.txt").write_text("A dog .\n")
    (tmp_path / "toy.txt").write_text("7\n")
    with pytest.raises(InputError, match="no phrase to evaluate"):
        table4(paper, grounder, PROPOSERS, ["mwp"], str(tmp_path), "toy", str(tmp_path), str(tmp_path / "cache"))


def test_scores_are_kept_only_for_gammas_that_a_row_can_show(grounder):
    protocol = SimpleNamespace(name="ours")
    phrases = PhraseTable(["1", "1", "2", "2"], [()] * 4, np.zeros(4), {"ours": ["a", "a", "b", None]})
    scores = [np.ones(2)] * 4
    # the best gamma of all phrases and of the odd photos is the first, that of the even photos is the second
    ranks = {gamma: np.array([99.0, 99, 99, 99]) for gamma in GAMMAS}
    ranks[GAMMAS[0]], ranks[GAMMAS[1]] = np.array([5.0, 99, 1, 99]), np.array([1.0, 99, 99, 1])
    judged = {("ours", gamma): JudgedPhrases(ranks[gamma], scores) for gamma in GAMMAS}
    results = SystemResults(System("mwp", grounder), judged)
    forget_scores(results, phrases, [protocol])
    assert [gamma for (_, gamma), kept in judged.items() if kept.scores] == list(GAMMAS[:2])
    assert all(kept.ranks is ranks[gamma] for (_, gamma), kept in judged.items())

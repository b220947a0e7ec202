"""Localization of dominant objects compared with plain loops over its definition, and the step on small folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.coco import CocoImage, CocoObject
from eval.dominant import ALPHAS, alpha_overlaps, boxes_above, localization_error, localize
from eval.dominant_objects import alone, labelled, largest
from eval.voc import Ilsvrc, Voc, VocImage, VocObject
from grounding import Grounder
from grounding.__main__ import main
from proposals.errors import InputError


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(method="mwp")


def test_alpha_goes_from_0_to_10_by_halves():
    assert ALPHAS[:3] == (0, 0.5, 1) and ALPHAS[-1] == 10 and len(ALPHAS) == 21


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_box_is_the_tightest_around_pixels_above_the_threshold(seed, h, w, whole):
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(h, w)) ** 3 if not whole else rng.integers(0, 3, (h, w)).astype(float)
    for alpha, box in zip(ALPHAS, boxes_above(values), strict=True):
        above = [(x, y) for y in range(h) for x in range(w) if values[y, x] > alpha * values.mean()]
        if not above:
            assert box.tolist() == [0, 0, 0, 0]
            continue
        xs, ys = zip(*above, strict=True)
        assert box.tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_pixels_equal_to_the_threshold_are_not_above_it():
    assert boxes_above(np.ones((3, 4)), [0, 0.5, 1]).tolist() == [[0, 0, 4, 3], [0, 0, 4, 3], [0, 0, 0, 0]]
    assert not boxes_above(np.zeros((3, 4))).any()


def image(*objects: tuple, size: tuple[int, int] = (40, 60)) -> VocImage:
    things = [VocObject(name, np.array(box, float), False) for name, *box in objects]
    return VocImage("1", Path("none.jpg"), size, tuple(things))


def test_choice_of_the_dominant_object():
    big, small, other = ("a", 0, 0, 30, 30), ("a", 0, 0, 5, 5), ("b", 9, 9, 20, 20)
    expected = {
        # objects: number of boxes for labelled, alone, largest
        (): (None, None, None),
        (big,): (1, 1, 1),
        (big, small): (2, None, None),
        (big, other): (None, None, 1),
        (big, small, other): (None, None, None),
        (small, other): (None, None, 1),
    }
    for things, counts in expected.items():
        found = [choose(image(*things)) for choose in (labelled, alone, largest)]
        assert tuple(f and len(f.boxes) for f in found) == counts
    assert largest(image(small, other)).name == "b" and labelled(image(big, small)).name == "a"
    thing = CocoObject("c", False, np.array([1.0, 2, 3, 4]), [], (40, 60))
    found = alone(CocoImage("1", Path("none.jpg"), (40, 60), (thing,)))
    assert found.name == "c" and found.boxes.tolist() == [[1, 2, 3, 4]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 6))
@settings(max_examples=40)
def test_alpha_is_selected_on_held_out_photos(seed, photos, every):
    rng = np.random.default_rng(seed)
    overlaps, whole = rng.choice([0.2, 0.5, 0.8], (photos, len(ALPHAS))), rng.random(photos)
    found = localization_error(overlaps, whole, every, resamples=20)
    held, others = range(0, photos, every), [i for i in range(photos) if i % every]
    best = min(range(len(ALPHAS)), key=lambda a: (sum(overlaps[i, a] < 0.5 for i in held), a))
    assert found["alpha"] == ALPHAS[best]
    assert found["error"] == pytest.approx(100 * sum(overlaps[i, best] < 0.5 for i in others) / len(others))
    assert found["error_whole_photo"] == pytest.approx(100 * sum(whole[i] < 0.5 for i in others) / len(others))
    assert (found["photos"], found["photos_held_out"]) == (len(others), len(held))
    for a, alpha in enumerate(ALPHAS):
        expected = 100 * sum(overlaps[i, a] < 0.5 for i in others) / len(others)
        assert found["error_by_alpha"]["others"][str(alpha)] == pytest.approx(expected)
    low, high = found["interval"]
    assert low <= found["error"] + 1e-9 and found["error"] <= high + 1e-9
    assert found == localization_error(overlaps, whole, every, resamples=20)


def test_box_is_in_pixels_of_the_photo(grounder, coffee, monkeypatch):
    seen = np.zeros((28, 28))
    seen[7:14, 14:21] = 1
    monkeypatch.setattr("eval.dominant.class_maps", lambda *_: torch.from_numpy(seen)[None])
    # a quarter down, half to the right, of a photo of 600 x 400
    photo = VocImage("1", coffee, (400, 600), (VocObject("cup", np.array([300.0, 100, 450, 200]), False),))
    overlaps = alpha_overlaps(grounder, photo, alone(photo), ["cup"])
    assert overlaps[ALPHAS.index(8.0)] > 0.9


XML = """<annotation><size><width>{w}</width><height>{h}</height></size>{objects}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


@pytest.fixture
def root(tmp_path, astronaut, coffee) -> Path:
    """An ILSVRC of six photos: a woman twice, a cup twice, one broken, and one whose label has no tag."""
    folders = [tmp_path / name / "CLS-LOC/val" for name in ("Data", "Annotations")]
    woman = (astronaut, 512, 512, [("n1", 71, 1, 341, 512)])
    cup = (coffee, 600, 400, [("n2", 130, 50, 460, 350), ("n2", 1, 1, 9, 9)])
    photos = [woman, cup, woman, cup, (None, 9, 9, [("n2", 1, 1, 9, 9)]), (coffee, 600, 400, [("n3", 1, 1, 9, 9)])]
    for folder in folders:
        folder.mkdir(parents=True)
    for number, (photo, w, h, things) in enumerate(photos):
        if photo:
            Image.open(photo).convert("RGB").save(folders[0] / f"{number}.JPEG", "JPEG")
        text = XML.format(w=w, h=h, objects="".join(OBJECT.format(*thing) for thing in things))
        (folders[1] / f"{number}.xml").write_text(text)
    return tmp_path


CLASSES = {"n1": ["woman"], "n2": ["cup"]}


def test_step_writes_metrics_and_prints_a_table(root, grounder, tmp_path, capsys):
    (root / "Annotations/CLS-LOC/val/._0.xml").write_text("macOS writes such files")
    metrics = localize(grounder, Ilsvrc(root), CLASSES, str(tmp_path / "out"), hold_out_every=3, resamples=20)
    assert json.loads(json.dumps(metrics)) == json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["photos"], metrics["photos_held_out"]) == (2, 2)
    assert metrics["skipped_images"] == ["4"] and metrics["unknown_classes"] == {"n3": 1}
    printed = capsys.readouterr().out
    assert "labels without a tag, left out: n3 (1)" in printed and "could not be used, left out: 4" in printed
    assert "not the paper's protocol" not in printed


def test_too_few_photos_and_invalid_settings_are_errors(root, grounder, tmp_path):
    with pytest.raises(InputError, match=r"only 1 photos .* at least 2"):
        localize(grounder, Ilsvrc(root), CLASSES, str(tmp_path), limit=1)
    with pytest.raises(InputError, match="choose one of labelled, alone, largest"):
        localize(grounder, Ilsvrc(root), CLASSES, str(tmp_path), dominant="smallest")
    with pytest.raises(InputError, match="hold_out_every=1 must be a whole number, 2 or more"):
        localize(grounder, Ilsvrc(root), CLASSES, str(tmp_path), hold_out_every=1)
    for wrong, message in (({"limit": -1}, "limit=-1 must be"), ({"resamples": 0}, "resamples=0 must be")):
        with pytest.raises(InputError, match=message):
            localize(grounder, Ilsvrc(root), CLASSES, str(tmp_path), **wrong)
    with pytest.raises(InputError, match="no annotated objects: set data=voc2012"):
        localize(grounder, None, None, str(tmp_path))


def test_other_ranks_write_no_metrics(root, grounder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert localize(grounder, Ilsvrc(root), CLASSES, str(tmp_path / "out")) == {}
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_real_photos(data, grounder, tmp_path, capsys):
    classes = {"person": ["man"], "sofa": ["couch"], "pottedplant": ["plant"], "motorbike": ["motorcycle"]}
    metrics = localize(grounder, Voc(data / "voc2012", "val"), classes, str(tmp_path), "largest", 2, limit=8)
    assert metrics["photos"] >= 2 and 0 <= metrics["error"] <= 100
    assert "not the paper's protocol" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"step\.dominant=largest"):
        localize(grounder, Voc(data / "voc2012", "val"), classes, str(tmp_path), "alone", limit=8)


def test_the_command_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    # in this process, without log files that would outlive it
    asked = ["step=localize", f"data.root={root}", "+data.classes={n1: [woman], n2: [cup]}", "attention=cam"]
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr("sys.argv", ["grounding", *asked, *quiet])
    main()
    assert ", val (labelled), 1 others held out" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/localize/metrics.json").read_text())["method"] == "cam"

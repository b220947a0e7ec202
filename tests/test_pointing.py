"""The Pointing Game compared with plain loops over its definition, and the step on small folders."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import sweep
from voc_folder import write_voc

from eval import pointing
from eval.bootstrap import class_mean_interval
from eval.class_maps import class_maps, known_tags
from eval.coco import Coco, CocoImage, CocoObject
from eval.pointing import point, table
from eval.pointing_game import CueResult, accuracy, cues, is_hit, maxima, pointing_metrics
from eval.voc import Voc, VocImage, VocObject
from grounding import Grounder
from grounding.__main__ import main
from grounding.attention.methods import METHODS
from grounding.images import read_image
from grounding.maps import blur, resize_mass
from grounding.settings import Settings
from proposals.errors import InputError


def voc_image(*objects: tuple, size: tuple[int, int] = (40, 60), path: Path = Path("none.jpg")) -> VocImage:
    """Objects as (name, x1, y1, x2, y2, difficult), half-open."""
    things = [VocObject(name, np.array(box, float), difficult) for name, *box, difficult in objects]
    return VocImage("1", path, size, tuple(things))


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(0, 59), st.integers(0, 39)), st.integers(0, 4), st.booleans())
@settings(max_examples=60)
def test_hit_is_less_than_15_pixels_from_the_class(seed, place, count, include_margin):
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 60), bool)
    mask[rng.integers(0, 40, count), rng.integers(0, 60, count)] = True
    expected = False
    for y in range(40):
        for x in range(60):
            distance = math.dist((x, y), place)
            if mask[y, x] and (distance < 15 or (include_margin and distance == 15)):
                expected = True
    assert is_hit(mask, place, include_margin) == expected


@pytest.mark.parametrize(("place", "hit"), [((35, 20), False), ((34, 20), True), ((29, 32), False), ((29, 31), True)])
def test_distance_of_15_is_a_miss_unless_the_margin_is_included(place, hit):
    mask = np.zeros((40, 60), bool)
    mask[20, 20] = True  # 15 = |(15, 0)| = |(9, 12)|
    assert is_hit(mask, place) == hit and is_hit(mask, place, include_margin=True)
    assert not is_hit(mask, (36, 20), include_margin=True)


box = st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(1, 60), st.integers(1, 40)).map(
    lambda t: (t[0], t[1], min(t[0] + t[2], 60), min(t[1] + t[3], 40))
)
objects = st.lists(st.tuples(st.sampled_from("abc"), box, st.booleans()).map(lambda t: (t[0], *t[1], t[2])), max_size=6)


@given(objects)
def test_cues_of_boxes_match_their_definition(things):
    found = {cue.name: cue for cue in cues(voc_image(*things))}
    names = {thing[0] for thing in things}
    for name in names:
        own = [thing for thing in things if thing[0] == name]
        if all(thing[5] for thing in own):
            assert name not in found
            continue
        pixels, area = set(), 0
        for _, x1, y1, x2, y2, _ in own:
            pixels |= {(y, x) for y in range(y1, y2) for x in range(x1, x2)}
            area += (x2 - x1) * (y2 - y1)
        assert set(zip(*map(np.ndarray.tolist, np.nonzero(found[name].mask)), strict=True)) == pixels
        assert found[name].difficult == (4 * area < 40 * 60 and len(names) > 1)
    assert list(found) == sorted(found) and set(found) <= names


def test_limits_of_the_difficult_subset():
    def difficult(*things) -> dict[str, bool]:
        return {cue.name: cue.difficult for cue in cues(voc_image(*things))}

    quarter, less, other = ("a", 0, 0, 30, 20, False), ("a", 0, 0, 30, 19, False), ("b", 50, 30, 60, 40, False)
    assert difficult(quarter, other) == {"a": False, "b": True}
    assert difficult(less, other) == {"a": True, "b": True}
    assert difficult(less) == {"a": False}
    assert difficult(less, less, other) == {"a": False, "b": True}  # a pixel of two objects counts twice
    assert difficult(less, (*other[:5], True)) == {"a": True}  # a difficult object is a distractor, too


def test_narrow_box_between_pixels_keeps_one_pixel():
    for start in np.arange(0, 2, 0.125):
        (cue,) = cues(voc_image(("a", start, 3, start + 1, 4, False)))
        assert cue.mask.sum() == 1


def test_cues_of_masks():
    square, runs = [[0, 0, 20, 0, 20, 10, 0, 10]], {"size": [40, 60], "counts": [0, 40, 2360]}
    things = [
        CocoObject("b", False, np.array([0.0, 0, 20, 10]), square, (40, 60)),
        CocoObject("a", True, np.array([0.0, 0, 1, 40]), runs, (40, 60)),
        CocoObject("b", False, np.array([0.0, 0, 20, 10]), square, (40, 60)),
    ]
    a, b = cues(CocoImage("1", Path("none.jpg"), (40, 60), tuple(things)))
    assert (a.name, a.mask.sum(), a.difficult) == ("a", 40, True)
    assert (b.name, b.mask.sum(), b.difficult) == ("b", 200, True)
    with pytest.raises(TypeError):
        cues("a photo")


def cubic(x: float) -> float:
    """The kernel of bicubic interpolation with a = -0.75."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 5))
@settings(max_examples=20)
def test_maximum_matches_bicubic_upsampling(seed, h, w):
    small = np.random.default_rng(seed).normal(size=(h, w))
    height, width = 13, 17
    large = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * h / height - 0.5, (x + 0.5) * w / width - 0.5
            rows, columns = (np.array([cubic(at - k) for k in range(n)]) for at, n in ((v, h), (u, w)))
            large[y, x] = rows / rows.sum() @ small @ columns / columns.sum()  # only cells of the map have weights
    ((x, y),) = maxima(torch.from_numpy(small)[None], (height, width))
    assert large[y, x] == pytest.approx(large.max())


def test_equal_maxima_and_constant_maps():
    maps = torch.zeros(4, 6, 8, dtype=torch.float64)
    maps[0, 2, 5] = maps[0, 2, 3] = maps[0, 4, 0] = 1
    maps[1] = -3
    maps[3, 0, 0] = -1  # the rest is constant and larger
    first, flat, empty, rest = maxima(maps, (6, 8))
    assert first == (3, 2) and flat is None and empty is None and rest == (1, 0)
    assert maxima(maps[:0], (6, 8)) == []


def random_cues(seed: int) -> list[CueResult]:
    """Cues of five classes, of which c has no tag and e is rare."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list("abcde"), rng.integers(5, 120), p=[0.5, 0.2, 0.2, 0.07, 0.03]).tolist()
    return [
        CueResult(
            photo=str(rng.integers(40)), name=name, difficult=bool(rng.random() < 0.5),
            centred=bool(rng.random() < 0.4), known=name != "c", hit=name != "c" and bool(rng.random() < 0.6),
        )
        for name in ["a", *names]
    ]  # fmt: skip


def slow_mean(results: list[CueResult], of) -> float:
    shares = []
    for name in "abcde":
        hits = misses = 0
        for cue in results:
            if cue.name == name:
                hits, misses = hits + of(cue), misses + (not of(cue))
        if hits + misses:
            shares.append(hits / (hits + misses))
    return 100 * sum(shares) / len(shares)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_metrics_match_their_definitions(seed):
    results = random_cues(seed)
    metrics = pointing_metrics(results, resamples=10)
    for name, chosen in (("all", results), ("difficult", [c for c in results if c.difficult])):
        known = [c for c in chosen if c.known]
        for key, among, of in (
            ("method", known, lambda c: c.hit),
            ("unknown_missed", chosen, lambda c: c.hit),
            ("centre", known, lambda c: c.centred),
            ("centre_of_all", chosen, lambda c: c.centred),
        ):
            found = metrics[name][key]
            if not among:
                assert found is None
                continue
            assert found["mean"] == pytest.approx(slow_mean(among, of))
            assert found["pooled"] == pytest.approx(100 * sum(map(of, among)) / len(among))
            assert found["cues"] == len(among) == sum(c["cues"] for c in found["by_class"].values())
    assert sum(metrics["unknown_classes"].values()) == sum(not c.known for c in results)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_interval_agrees_with_another_way_of_drawing_photos(seed):
    results = random_cues(seed)
    found = accuracy(results, lambda cue: cue.hit, 200, 0)
    photos = sorted({cue.photo for cue in results})
    rng, means = np.random.default_rng(1), []
    for _ in range(400):
        drawn = rng.choice(photos, len(photos))
        means.append(slow_mean([cue for number in drawn for cue in results if cue.photo == number], lambda c: c.hit))
    # the two ways draw different resamples, so the bounds agree only approximately
    spread = max(np.std(means), 1)
    np.testing.assert_allclose(found["interval"], np.percentile(means, [2.5, 97.5]), atol=1.2 * spread)


def test_interval_matches_a_loop_and_is_reproducible():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (30, 6)).astype(float)
    counts[0, 0] = 1
    hits = rng.binomial(counts.astype(int), 0.6).astype(float)
    means = []
    for times in np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), 50):
        shares = []
        for column in range(6):
            drawn = sum(times[photo] * counts[photo, column] for photo in range(30))
            if drawn:
                shares.append(sum(times[photo] * hits[photo, column] for photo in range(30)) / drawn)
        means.append(100 * sum(shares) / len(shares))
    found = class_mean_interval(hits, counts, 50, 7)
    np.testing.assert_allclose(found, np.percentile(means, [2.5, 97.5]))
    assert found == class_mean_interval(hits, counts, 50, 7) != class_mean_interval(hits, counts, 50, 8)
    assert class_mean_interval(counts, counts) == (100, 100)


def test_no_cue_is_an_error():
    with pytest.raises(InputError, match="no cue to evaluate"):
        pointing_metrics([CueResult("1", "a", False, True)])


def test_tags_of_classes(grounder):
    vocabulary = grounder.tagger.vocabulary
    classes = {"puppy": ["dog", "zorgophone", "dog", "puppy"], "organ": ["zorgophone"]}
    assert known_tags(classes, ["organ", "cat", "zither", "puppy"], vocabulary) == {
        "cat": ["cat"],
        "puppy": ["dog", "puppy"],
    }
    with pytest.raises(InputError, match=r"class 'cat' must be a list.*write cat: \[kitten\]"):
        known_tags({"cat": "kitten"}, ["cat"], vocabulary)


@pytest.mark.parametrize("method", sweep(METHODS, 4))
def test_map_of_a_class_is_the_average_of_its_tags_maps(grounder, coffee, method, monkeypatch):
    monkeypatch.setattr(grounder, "settings", Settings(method, side=224))
    pixels, index = read_image(coffee), grounder.tagger.vocabulary.index
    both, one = class_maps(grounder, pixels, [["cup", "coffee"], ["coffee"]], [224])
    scene = grounder.topdown.look(grounder.tagger.prepare(pixels, [224]), method)
    maps = [scene.attend([index(tag)], method) for tag in ("cup", "coffee")]
    maps = [(blur(m) if METHODS[method].blurred else m)[0, 0].double() for m in maps]
    for found, expected in ((both, (maps[0] + maps[1]) / 2), (one, maps[1])):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("method", sweep(["lrp", "mwp", "cam", "grad", "lrp-alpha-beta"], 3))
def test_a_map_has_its_maximum_at_one_pixel_in_the_game_and_in_a_grounding(grounder, coffee, method, monkeypatch):
    """Signed maps are blurred and resized with their signs; only then are negative values removed."""
    monkeypatch.setattr(grounder, "settings", Settings(method, side=224, vote=0))
    pixels = read_image(coffee)
    signed = class_maps(grounder, pixels, [["cup"]], [224])
    attention = torch.from_numpy(grounder.look(coffee).attend(["cup"])[0])
    torch.testing.assert_close(attention, resize_mass(signed, attention.shape)[0])
    (expected,) = maxima(signed, tuple(attention.shape))
    y, x = np.unravel_index(int(attention.argmax()), attention.shape)
    assert (int(x), int(y)) == expected


@pytest.fixture
def root(tmp_path, astronaut, coffee) -> Path:
    return write_voc(tmp_path / "voc", astronaut, coffee)


CLASSES = {"person": ["person", "woman"], "diningtable": ["table"], "rocket": ["spacecraft"]}


def test_step_writes_metrics_and_prints_a_table(root, grounder, tmp_path, capsys):
    metrics = point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path / "out"), resamples=50)
    assert json.loads(json.dumps(metrics)) == json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["photos"], metrics["skipped_images"]) == (2, ["sized", "broken"])
    assert metrics["unknown_classes"] == {"rocket": 1}
    assert (metrics["method"], metrics["target"], metrics["side"]) == ("c-mwp-partial", "pool3", 224)
    # the flag is difficult; the rocket has no tag; both halves of the photo hold more than a quarter of it
    assert sorted(metrics["all"]["method"]["by_class"]) == ["cup", "diningtable", "person"]
    assert metrics["all"]["unknown_missed"]["by_class"]["rocket"] == {"accuracy": 0, "cues": 1}
    assert metrics["all"]["centre"]["mean"] == 100
    assert metrics["difficult"]["method"] is None and metrics["difficult"]["centre_of_all"]["cues"] == 1
    printed = capsys.readouterr().out
    assert "could not be used, left out: sized, broken" in printed and "without a tag (cues): rocket (1)" in printed
    assert table(metrics) in printed
    (centre,) = [line for line in printed.splitlines() if line.startswith("image centre  ") and "69.5" in line]
    assert centre.split("  ", 1)[1].split() == ["69.5", "/", "42.6"] * 3 + ["27.7", "/", "19.4"] * 3
    (lrp,) = [line for line in printed.splitlines() if line.startswith("lrp  ")]
    assert " ".join(lrp.split()) == "lrp 68.1 / 41.3 - 72.8 / 50.2 32.5 / 24.0 - 40.2 / 32.7"
    cues = [json.loads(line) for line in (tmp_path / "out/points.jsonl").read_text().splitlines()]
    assert [(c["photo"], c["name"], c["known"], c["point"] is None) for c in cues] == [
        ("woman", "person", True, False),
        ("woman", "rocket", False, True),
        ("coffee", "cup", True, False),
        ("coffee", "diningtable", True, False),
    ]
    again = point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path / "again"), resamples=50)
    assert again == metrics


def test_errors_and_other_ranks(root, grounder, tmp_path, monkeypatch):
    for wrong, message in (
        ({"limit": 0}, "limit=0 must be"),
        ({"limit": -1}, "limit=-1"),
        ({"resamples": 0}, "resamples=0"),
    ):
        with pytest.raises(InputError, match=message):
            point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path / "out"), **wrong)
    with pytest.raises(InputError, match="has no annotated objects: set data=voc2012"):
        point(grounder, None, None, str(tmp_path / "out"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path / "out")) == {}
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_constant_map_is_a_miss_and_is_counted(root, grounder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pointing, "class_maps", lambda _, __, tags, ___: torch.ones(len(tags), 7, 7).double())
    metrics = point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path), limit=2, resamples=10)
    assert metrics["flat_maps"] == 3 and metrics["all"]["method"]["mean"] == 0
    assert "constant maps, counted as misses: 3" in capsys.readouterr().out


def test_target_can_be_another_layer(root, tmp_path):
    grounder = Grounder.load("googlenet", side=224, method="mwp", target="pool1")
    metrics = point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path), limit=1, resamples=10)
    assert metrics["target"] == "pool1"


@pytest.mark.parametrize("reader", ["voc2012", "coco2017"])
def test_five_real_photos(data, grounder, tmp_path, reader):
    photos = Voc(data / reader, "val") if reader == "voc2012" else Coco(data / reader, "val2017")
    metrics = point(grounder, photos, {"pottedplant": ["plant"]}, str(tmp_path), limit=5, resamples=20)
    assert metrics["photos"] == 5 and metrics["all"]["centre_of_all"]["cues"] >= 5
    low, high = metrics["all"]["method"]["interval"]
    assert 0 <= low <= metrics["all"]["method"]["mean"] <= high <= 100


def test_the_command_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    # in this process, without log files that would outlive it
    asked = [
        "step=point",
        f"data.root={root}",
        "data.split=toy",
        "tagger=googlenet",
        "attention=mwp",
        "attention.target=pool1",
    ]
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr("sys.argv", ["grounding", *asked, *quiet])
    main()
    assert capsys.readouterr().out.startswith(f"mwp at pool1, 224 px: 2 photos of {root}, toy; 4 cues")
    metrics = json.loads((tmp_path / "runs/point/metrics.json").read_text())
    # conf/classes/voc.yaml has tags for the table
    assert sorted(metrics["all"]["method"]["by_class"]) == ["cup", "diningtable", "person"]

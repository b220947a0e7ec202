"""The evaluation of categories: hand-made photos with known answers, files of predictions, and messages."""

import json
from pathlib import Path

import numpy as np
import pytest
from everyday import NAMES, KnownGrounder, write_coco
from voc_folder import OBJECT, XML

from eval.categories import CategoryPhotos
from eval.coco import Coco
from eval.compare import compare
from eval.evaluate import evaluate
from eval.halves import HalfOf
from eval.splits import CocoSplits, read_coco
from eval.voc import CLASSES, Ilsvrc, Voc
from proposals.errors import InputError

DOG, TV = [60, 10, 80, 30], [30, 50, 70, 70]
ANSWERS = {
    ("1", "dog"): ([[10, 10, 80, 30], DOG], (70.0, 20.0)),  # the union box first, then the second dog
    ("1", "tv"): ([[10, 10, 80, 30], TV], (80.0, 60.0)),  # the dogs' box; points 11 pixels beside the tv
}
PRESENT = {"cell phone": 0.7, "dog": 0.9, "tv": 0.6}  # a zebra is not groundable


@pytest.fixture
def root(tmp_path) -> Path:
    return write_coco(tmp_path / "coco")


def run(root: Path, grounder, output: Path, **settings) -> dict:
    return evaluate(grounder, str(root), "val", str(output), photos=Coco(root, "val"), **settings)


def test_measures_of_known_answers(root, tmp_path, capsys):
    metrics = run(root, KnownGrounder(ANSWERS), tmp_path / "out")
    third = pytest.approx(100 / 3)
    assert (metrics["images"], metrics["phrases"], metrics["phrases_own_box"]) == (3, 3, 2)
    assert metrics["recall"] == {"1": 0, "5": pytest.approx(200 / 3), "10": pytest.approx(200 / 3)}
    assert metrics["recall_union"] == {"1": third, "5": pytest.approx(200 / 3), "10": pytest.approx(200 / 3)}
    assert metrics["coverage"] == pytest.approx(200 / 3)
    assert metrics["pointing"] == pytest.approx(200 / 3)  # less than 15 pixels from the category
    assert metrics["pointing_on_pixel"] == metrics["pointing_in_box"] == third
    assert metrics["pointing_class_mean"] == pytest.approx((100 + 50) / 2)
    assert (metrics["own_box"], metrics["own_box_photos"]) == (0, 0)  # both begin with the same box
    assert metrics["oracle_recall"] == pytest.approx(200 / 3)  # no proposal is the tv of photo 1
    assert metrics["phrases_difficult"] == 2  # photo 1 shows several classes, each under a quarter
    assert metrics["difficult"]["pointing"] == 100 and metrics["difficult"]["recall_union"]["1"] == 50
    assert metrics["phrases_by_area"] == {"below_0.05": 0, "0.05_to_0.25": 2, "from_0.25": 1}
    assert metrics["by_class"]["tv"]["recall"]["5"] == 50
    assert metrics["baselines"]["whole_image"] == third
    assert metrics["baselines"]["centre_pointing"] == 100  # 14.9 pixels from the second dog
    assert metrics["presence_of_names"] is None
    printed = capsys.readouterr().out
    assert "no presence" in printed and "own box" in printed and "difficult (2)" in printed
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [(line["image"], line["phrase"]) for line in lines] == [("1", "dog"), ("1", "tv"), ("2", "tv")]
    assert lines[0]["boxes"][0] == [10, 10, 79, 29] and lines[0]["point"] == [70, 20]


def test_presence_is_asked_of_every_photo_and_name(root, tmp_path):
    metrics = run(root, KnownGrounder(ANSWERS, PRESENT), tmp_path / "out")["presence_of_names"]
    assert (metrics["pairs"], metrics["shown"], metrics["threshold"]) == (3 * len(NAMES), 4, 0.5)  # a crowd is shown
    shown, other = [0.7, 0.9, 0.6, 0.6], [0.7, 0.9] * 2 + [0.6, 0, 0, 0]
    right = sum((s > o) + (s == o) / 2 for s in shown for o in other)
    assert metrics["auc"] == pytest.approx(right / 32)
    assert metrics["precision"] == pytest.approx(100 * 4 / 9) and metrics["recall"] == 100


@pytest.mark.parametrize("present", [None, PRESENT])
def test_a_file_of_our_own_answers_gives_the_same_metrics(root, tmp_path, present):
    grounder = KnownGrounder(ANSWERS, present)
    (root / "val/2.png").write_text("no photo")
    own = run(root, grounder, tmp_path / "a")
    file = run(root, grounder, tmp_path / "b", predictions=str(tmp_path / "a/predictions.jsonl"))
    assert own["skipped_images"] == ["2"]
    assert own["method"] == "c-mwp-partial" and own["target"] == "pool3"  # not null, the setting
    keys = ["recall", "recall_union", "pointing", "pointing_on_pixel", "own_box", "difficult", "by_area", "by_class"]
    for key in (*keys, "presence_of_names", "baselines"):
        assert file[key] == own[key], key
    assert "coverage" not in file and file["unknown_predictions"] == []


def test_a_file_without_points_has_no_pointing(root, tmp_path, capsys):
    metrics = judge_lines(root, tmp_path, [line("1", "dog", [DOG]), line("1", "tv"), line("2", "tv")])
    assert metrics["recall"]["1"] == pytest.approx(100 / 3) and "pointing" not in metrics
    assert metrics["presence_of_names"] is None and "no points" in capsys.readouterr().out


def line(image: str, phrase: str, boxes=(), **more) -> dict:
    return {"image": image, "phrase": phrase, "boxes": list(boxes), "scores": [1.0] * len(boxes)} | more


def judge_lines(root: Path, folder: Path, lines: list[dict], **settings) -> dict:
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return run(root, KnownGrounder({}), folder / "out", predictions=str(folder / "p.jsonl"), **settings)


ALL = [line("1", "dog"), line("1", "tv"), line("2", "tv")]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            [{"image": "1", "boxes": [], "scores": []}],
            "p.jsonl:1: 'phrase' is missing: a line needs image, phrase",
        ),
        ([line("1", 3)], "p.jsonl:1: image must be a string, phrase must be the name of a category"),
        ([line("1", "tv", presence=1.5)], "presence must be a probability from 0 to 1, or null, but is 1.5"),
        ([line("1", "tv", presence=float("nan"))], "presence must be a probability"),
        ([line("1", "tv", presence=True)], "presence must be a probability"),
        ([line("1", "tv", point=[1])], r"point must be two numbers \[x, y\] in pixels, or null, but is \[1\]"),
        ([line("1", "tv", point=[1, float("inf")])], "point must be finite pixels"),
        ([line("1", "tv"), line("1", "tv")], r"p.jsonl:2: \('1', 'tv'\) is already in line 1: keep one"),
        (ALL[:2], r"no prediction for 1 of 3 phrases, for example \('2', 'tv'\): add them"),
        ([line("1.png", "tv"), *ALL[1:]], "must be a photo id, without folder and suffix: write '1'"),
        ([line("9", "tv")], r"none of its 1 predictions .* the split has \('1', 'dog'\) \(image, phrase\)"),
        (
            [ALL[0] | {"presence": 0.5}, *ALL[1:]],
            r"no presence for 11 of 12 pairs of photo and name, for example \('1', 'cell phone'\): add a line",
        ),
    ],
)
def test_lines_that_cannot_be_judged(root, tmp_path, lines, reason):
    with pytest.raises(InputError, match=reason):
        judge_lines(root, tmp_path, lines)
    assert not (tmp_path / "out").exists()


def test_a_partial_file_counts_what_is_missing_as_misses(root, tmp_path, caplog):
    lines = [line("1", "tv", [TV], presence=0.9), line("1", "unicorn"), line("3", "dog", presence=0.1)]
    metrics = judge_lines(root, tmp_path, lines, partial_predictions=True)
    assert metrics["missing_predictions"] == 2 and metrics["recall"]["1"] == pytest.approx(100 / 3)
    assert metrics["unknown_predictions"] == [["1", "unicorn"]]
    assert metrics["presence_of_names"]["pairs"] == 12
    assert "10 of 12 pairs of photo and name have no presence, and count as 0" in caplog.text


def test_photos_without_masks_are_pointed_at_by_boxes(tmp_path, capsys):
    root = write_coco(tmp_path / "coco", masks=False)
    assert run(root, KnownGrounder(ANSWERS), tmp_path / "out")["pointing"] == pytest.approx(200 / 3)
    assert "photos without masks, whose objects have the pixels of their boxes: 2" in capsys.readouterr().out


def test_a_photo_of_another_size_is_a_miss(root, tmp_path):
    content = json.loads((root / "annotations/instances_val.json").read_text())
    content["images"][0] |= {"width": 110}
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    metrics = run(root, KnownGrounder(ANSWERS, PRESENT), tmp_path / "out")
    assert metrics["skipped_images"] == ["1"] and metrics["phrases"] == 3 and metrics["coverage"] == 0
    assert "is 100x80, but its annotation says 110x80" in (tmp_path / "out/skipped.jsonl").read_text()


def write_voc(root: Path) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    things = [("tvmonitor", 0, 1, 1, 40, 40), ("tvmonitor", 1, 50, 50, 90, 70), ("sofa", 1, 1, 1, 90, 70)]
    text = XML.format(w=100, h=80, objects="".join(OBJECT.format(*thing) for thing in things))
    (root / "Annotations/7.xml").write_text(text)
    (root / "ImageSets/Main/toy.txt").write_text("7\n")
    return root


def test_difficult_objects_are_no_objects_to_find(tmp_path):
    data = CategoryPhotos(Voc(write_voc(tmp_path), "toy"))
    image = data.read("7")
    assert [phrase.text for phrase in image.entities] == ["tvmonitor"]
    assert image.entities[0].boxes.tolist() == [[0, 0, 40, 40]]
    assert (image.shown, image.undecided) == ({"tvmonitor"}, {"sofa"})
    assert data.names([image]) == sorted(CLASSES) and len(CLASSES) == 20
    assert image.cues()["tvmonitor"].mask[60, 60]  # the game's pixels are those of all its objects
    (tmp_path / "Annotations/7.xml").write_text((tmp_path / "Annotations/7.xml").read_text().replace("sofa", "lamp"))
    image = data.read("7")
    assert data.names([image]) == ["lamp", "tvmonitor"]


def test_crowds_are_no_objects_to_find(root):
    image = CategoryPhotos(Coco(root, "val")).read("1")
    assert [phrase.text for phrase in image.entities] == ["dog", "tv"]
    assert image.shown == {"cell phone", "dog", "tv"} and not image.undecided
    assert image.entities[0].union.tolist() == [10, 10, 80, 30]


def test_several_splits_are_one_data_set(root):
    write_coco(root, split="train")
    photos = read_coco(root, "train+val")
    assert isinstance(photos, CocoSplits) and photos.ids == ["4", "1", "2", "3"] and len(photos) == 4
    assert photos.split == "train+val" and photos.names == NAMES and photos.read("1").classes[1] == "dog"
    assert isinstance(read_coco(root, "val"), Coco)
    with pytest.raises(InputError, match=r"photo 1 is in two of the splits val\+val: name each split once"):
        CocoSplits(root, ["val", "val"])
    with pytest.raises(InputError, match=r"splits=val must be a list of names"):
        CocoSplits(root, "val")


def test_halves_follow_the_order_of_the_ids(root, tmp_path):
    photos = Coco(root, "val")
    assert [HalfOf(photos, part).ids for part in ("all", "even", "odd")] == [["1", "2", "3"], ["1", "3"], ["2"]]
    metrics = run(root, KnownGrounder(ANSWERS), tmp_path / "out", part="odd")
    assert (metrics["images"], metrics["phrases"], metrics["data"]["part"]) == (1, 1, "odd")
    with pytest.raises(InputError, match="part=first must be one of all, even, odd"):
        run(root, KnownGrounder(ANSWERS), tmp_path / "out", part="first")


def test_other_data_sets_and_settings_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="gamma is selected on Flickr30k Entities"):
        run(root, KnownGrounder({}), tmp_path / "out", gamma_candidates=[0.1, 0.2])
    for name in ("Data", "Annotations"):
        (tmp_path / name / "CLS-LOC/val").mkdir(parents=True)
    with pytest.raises(InputError, match="the classes of ImageNet are WordNet ids"):
        CategoryPhotos(Ilsvrc(tmp_path, "val"))
    (root / "annotations/instances_val.json").write_text(
        json.dumps(json.loads((root / "annotations/instances_val.json").read_text()) | {"annotations": []})
    )
    with pytest.raises(InputError, match="no phrase to evaluate: no photo shows a category"):
        run(root, KnownGrounder({}), tmp_path / "out")


def test_two_runs_are_compared(root, tmp_path, capsys):
    better = ANSWERS | {("1", "tv"): ([TV], (50.0, 60.0)), ("2", "tv"): ([[0, 0, 100, 80]], (50.0, 40.0))}
    run(root, KnownGrounder(better), tmp_path / "a")
    run(root, KnownGrounder(ANSWERS), tmp_path / "b")
    figures = compare(str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path))["figures"]
    assert figures["R@1"]["difference"] == pytest.approx(200 / 3) and figures["R@1"]["interval"][0] >= 0
    assert figures["union R@1"]["difference"] == pytest.approx(200 / 3)
    assert figures["difficult R@1"]["difference"] == 50
    assert figures["pointing"]["difference"] == pytest.approx(100 / 3)
    assert (figures["own box"]["run"], figures["own box"]["against"]) == (100, 0)
    assert "own box" in capsys.readouterr().out


@pytest.mark.slow
def test_metrics_of_real_photos_match_their_definitions(data, grounder, tmp_path):
    photos = Coco(data / "coco2017", "val2017")
    metrics = evaluate(grounder, "", "", str(tmp_path), limit=4, photos=photos)
    lines = {
        (p["image"], p["phrase"]): p for p in map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    }
    hits, unions = [], []
    for name in photos.ids[:4]:
        photo = photos.read(name)
        for category in sorted({thing.category for thing in photo.objects if not thing.crowd}):
            boxes = [thing.box for thing in photo.objects if thing.category == category and not thing.crowd]
            union = [*np.min(boxes, 0)[:2], *np.max(boxes, 0)[2:]]
            found = lines[name, category]["boxes"]
            hits.append(any(iou(found[0], box) >= 0.5 for box in boxes) if found else False)
            unions.append(iou(found[0], union) >= 0.5 if found else False)
    assert len(hits) == metrics["phrases"] > 5
    assert metrics["recall"]["1"] == pytest.approx(100 * np.mean(hits))
    assert metrics["recall_union"]["1"] == pytest.approx(100 * np.mean(unions))


def iou(inclusive, box) -> float:
    a, b = np.array(inclusive) + np.array([0, 0, 1, 1]), np.array(box)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)

"""The step check says what a data set with annotations holds."""

import json
from pathlib import Path

import numpy as np
import pytest
from entities_folder import add_unreadable_photo, write_entities
from voc_folder import write_voc

from eval.coco import Coco
from eval.flickr30k import Flickr30kEntities
from eval.predictions import Prediction, write_predictions
from eval.surveys import EntitiesSurvey, ObjectsSurvey
from eval.voc import Voc
from grounding.__main__ import main
from grounding.steps.check import check
from proposals.errors import InputError, SkippedError


def lines(printed: str) -> dict[str, str]:
    return {name: value.strip() for name, value in (line.split("  ", 1) for line in printed.splitlines())}


def test_voc_of_which_a_part_was_copied(tmp_path, astronaut, coffee, capsys):
    root = write_voc(tmp_path / "voc", astronaut, coffee)
    (root / "ImageSets/Main/toy.txt").write_text("woman\ncoffee\nsized\nbroken\ngone\n")
    (root / "JPEGImages" / "woman.jpg").unlink()
    with pytest.raises(SkippedError, match=r"^5 photos: 3 kept, 1 missing, 1 with an unusable annotation; see .*skip"):
        check(None, str(tmp_path / "out"), ObjectsSurvey(Voc(root, "toy")))
    printed = lines(capsys.readouterr().out)
    opened = printed.pop("opened")
    assert printed == {
        "in": "5 photos: 3 kept, 1 missing, 1 with an unusable annotation",
        "missing": "woman",
        "with an unusable annotation": "gone",
        "photos": f"in {root}/JPEGImages",
        "objects": "4, 1.3 for each photo; 0 photos have none",
        "classes": "2, by photos: cup (3), diningtable (1)",
        "difficult": "0 objects are marked as difficult",
    }
    assert opened.startswith("3 photos at random: 1 kept, 2 unusable; the first: ")
    assert json.loads((tmp_path / "out" / "check.json").read_text())["skipped"]["missing"] == 1


def test_masks_of_coco_are_counted(tmp_path):
    for name in ("val", "annotations"):
        (tmp_path / name).mkdir()
    (tmp_path / "val" / "1.jpg").write_text("no photo")
    thing = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    known = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 600, "height": 400}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [thing, thing | {"segmentation": [[1, 1, 9, 1, 9, 9]]}],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(known))
    survey = check(None, str(tmp_path / "out"), ObjectsSurvey(Coco(tmp_path, "val")))
    assert survey.facts["masks"] == "1 of 2 objects have one; step=point needs them"
    (tmp_path / "val" / "1.jpg").unlink()
    with pytest.raises(
        InputError, match=r"none of 1 photos can be used \(1 missing\): looked in .* found there: nothing"
    ):
        check(None, str(tmp_path / "out"), ObjectsSurvey(Coco(tmp_path, "val")))


def test_entities_and_predictions(tmp_path, capsys):
    root = add_unreadable_photo(write_entities(tmp_path))
    places = [(i.id, e.sentence, e.phrase) for i in Flickr30kEntities(root, "toy") for e in i.entities]
    half = [Prediction(place, np.array([[0.0, 0, 99, 79]]), np.ones(1)) for place in places[:3]]
    write_predictions(root / "p.jsonl", half)
    check(None, str(tmp_path / "out"), EntitiesSurvey(str(root), "toy", str(root / "p.jsonl")))
    printed = lines(capsys.readouterr().out)
    assert printed.pop("opened").startswith("2 photos at random: 1 kept, 1 unusable; the first: ")
    assert printed == {
        "in": "2 photos: 2 kept",
        "photos": f"in {root}/images",
        "captions": "4, 2.0 for each photo",
        "phrases": "6 of 14 marked phrases have a box",
        "types": "people (2), other (2), animals (2), scene (2)",
        "predictions": "3 predictions: 3 kept; 3 phrases have none",
    }


@pytest.mark.parametrize("name", ["voc2012", "flickr30k_entities"])
def test_the_command_line(tmp_path, astronaut, coffee, monkeypatch, capsys, name):
    root = Path(tmp_path, name)
    root.mkdir()
    if name == "voc2012":
        write_voc(root / "data", astronaut, coffee)
    else:
        (root / "data").mkdir()
        write_entities(root / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    asked = ["step=check", f"data={name}", f"data.root={root}/data", "data.split=toy"]
    monkeypatch.setattr("sys.argv", ["grounding", *asked, *quiet])
    main()
    assert "photos: " in capsys.readouterr().out.splitlines()[0]

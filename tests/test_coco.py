"""The reader of COCO: objects, masks, and errors in annotations."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.coco import Coco
from proposals import InputError

SQUARE = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 2], "iscrowd": 0}
POLYGONS = [[1, 2, 4, 2, 4, 4, 1, 4], [6, 0, 8, 0, 8, 1, 6, 1]]
RUNS = {"size": [5, 8], "counts": [3, 2, 35]}


def write(root: Path, *objects: dict, **changes) -> Path:
    (root / "val").mkdir(exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    Image.new("RGB", (8, 5)).save(root / "val" / "000007.jpg")
    images = [{"id": i, "file_name": f"{i:06d}.jpg", "height": 5, "width": 8} for i in (9, 7)]
    known = {"images": images, "categories": [{"id": 3, "name": "dog"}], "annotations": list(objects)} | changes
    (root / "annotations" / "instances_val.json").write_text(json.dumps(known))
    return root


def test_objects_are_read_as_annotated(tmp_path):
    (image,) = Coco(write(tmp_path, SQUARE | {"segmentation": POLYGONS}), "val")  # photo 9 has no file
    (thing,) = image.objects
    assert image.id == "000007" and image.size == (5, 8) and image.path.is_file()
    assert thing.category == "dog" and not thing.crowd and thing.box.tolist() == [1, 2, 4, 4]
    expected = np.zeros((5, 8), bool)
    expected[2:4, 1:4] = expected[0, 6:8] = True
    np.testing.assert_array_equal(thing.mask(), expected)


def test_run_lengths_go_down_the_columns(tmp_path):
    (image,) = Coco(write(tmp_path, SQUARE | {"segmentation": RUNS, "iscrowd": 1}), "val")
    mask = image.objects[0].mask()
    assert image.objects[0].crowd and sorted(zip(*np.nonzero(mask), strict=True)) == [(3, 0), (4, 0)]


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([], "annotation 1: the list of polygons is empty"),
        ([[1, 2, 3, 4]], "annotation 1: a polygon needs three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon needs three or more points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon needs three or more points"),
        ({"size": [5, 8], "counts": [3, 2, 36]}, "add up to 5 x 8"),
        ({"size": [5, 8], "counts": [41, -1]}, "add up to 5 x 8"),
        ({"size": [8, 5], "counts": [40]}, "add up to 5 x 8"),
        ({"size": [5, 8], "counts": "0000"}, "add up to 5 x 8"),
        ("text", "cannot be read as COCO instances"),
    ],
)
def test_invalid_outlines_are_errors(tmp_path, outline, reason):
    with pytest.raises(InputError, match=reason) as caught:
        Coco(write(tmp_path, SQUARE | {"segmentation": outline}), "val")
    assert caught.value.__cause__ is not caught.value  # the command line follows the chain of causes


@pytest.mark.parametrize("changes", [{"images": []}, {"categories": []}, {"annotations": [1]}, {"images": None}])
def test_invalid_annotations_are_errors(tmp_path, changes):
    root = write(tmp_path, SQUARE | {"segmentation": POLYGONS}, **changes)
    with pytest.raises(InputError, match=r"instances_val\.json cannot be read as COCO instances"):
        Coco(root, "val")


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"set data\.root \(or benchmark\.root\) to the folder of COCO"):
        Coco(tmp_path, "val")


def test_masks_need_pycocotools(tmp_path, monkeypatch):
    (image,) = Coco(write(tmp_path, SQUARE | {"segmentation": POLYGONS}), "val")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"need pycocotools: \.venv/bin/pip install -e '\.\[eval\]'"):
        image.objects[0].mask()


def test_real_annotations(data):
    images = list(Coco(data / "coco2017", "val2017"))
    things = [thing for image in images for thing in image.objects if not thing.crowd]
    assert len(images) == 50 and len(things) > 100
    for thing in things[:50]:
        y, x = np.nonzero(thing.mask())
        # the mask and the annotated box differ by at most two pixels
        assert np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - thing.box).max() <= 2

"""The reader of COCO: objects, masks, and errors in annotations."""

import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools.mask import encode

from eval.coco import Coco, CocoObject
from eval.coco_masks import draw_mask
from grounding.steps.ground import ground
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


def outlined(root: Path, outline: object) -> CocoObject:
    (image,) = Coco(write(root, SQUARE | {"segmentation": outline}), "val")
    return image.objects[0]


@pytest.mark.parametrize("outline", [None, [], {}, "", "text", [[1, 2, 3, 4]], {"size": [5, 8], "counts": "~"}])
def test_classes_and_boxes_need_no_mask(tmp_path, outline):
    (image,) = Coco(write(tmp_path, SQUARE | {"segmentation": outline}), "val")
    assert image.classes == ["dog"] and image.objects[0].box.tolist() == [1, 2, 4, 4]


def test_segmentation_and_iscrowd_may_be_left_out(tmp_path):
    thing = {name: value for name, value in SQUARE.items() if name != "iscrowd"}
    (image,) = Coco(write(tmp_path, thing), "val")
    assert image.classes == ["dog"] and not image.objects[0].crowd
    with pytest.raises(
        InputError, match=r"instances_val\.json, annotation 1 has no mask .*: use annotations with masks"
    ):
        image.objects[0].mask()


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([], "annotation 1 has no mask"),
        (None, "annotation 1 has no mask"),
        ([[1, 2, 3, 4]], "annotation 1: a polygon needs three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon needs three or more points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon needs three or more points"),
        ([[1, 2, 3, 4, 5, 1e308]], "a polygon needs three or more points near the photo"),
        ([[1, 2, 3, 4, 5, "6"]], "a polygon needs three or more points"),
        ([7], "a polygon needs three or more points"),
        ({"size": [5, 8], "counts": [3, 2, 36]}, "add up to 5 x 8"),
        ({"size": [5, 8], "counts": [41, -1]}, "add up to 5 x 8"),
        ({"size": [8, 5], "counts": [40]}, "add up to 5 x 8"),
        ({"size": [5, 8], "counts": [39.5, 0.5]}, "add up to 5 x 8"),
        ({"size": [5, 8], "counts": "0000"}, "add up to 5 x 8"),
        ({"size": [5, 8], "counts": "0" + "o" * 40}, "cannot be part of packed run lengths"),
        ({"size": [5, 8], "counts": "0P"}, "end within a number"),
        ({"size": [5, 8], "counts": "0 "}, "' ' cannot be part of packed run lengths"),
        ("text", "segmentation must be a list of polygons, or run lengths"),
    ],
)
def test_invalid_masks_are_errors(tmp_path, outline, reason):
    thing = outlined(tmp_path, outline)
    for read in (thing.mask, thing.check_mask):
        with pytest.raises(InputError, match=reason):
            read()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_packed_run_lengths_are_those_of_pycocotools(mask):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        packed = encode(np.asfortranarray(mask.astype(np.uint8)))
    outline = packed | {"counts": packed["counts"].decode("ascii")}
    np.testing.assert_array_equal(draw_mask(outline, mask.shape, "1"), mask)


@given(st.text(max_size=30) | st.text([chr(c) for c in range(48, 112)], max_size=30))
def test_any_text_is_run_lengths_or_an_error(text):
    with suppress(InputError):
        assert draw_mask({"size": [5, 8], "counts": text}, (5, 8), "1").shape == (5, 8)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [float("nan"), 2, 3, 2]}, "annotation 1: bbox must be four numbers"),
        ({"bbox": [1e308, 2, 1e308, 2]}, "annotation 1: bbox must be four numbers"),
        ({"bbox": [1, 2, 3]}, "annotation 1: bbox must be four numbers"),
        ({"bbox": ["1", 2, 3, 4]}, "annotation 1: bbox must be four numbers"),
        ({"bbox": None}, "annotation 1: bbox must be four numbers .*, but is None"),
        ({"bbox": [4, 2, -3, 2]}, r"annotation 1: the box \(4, 2, -3, 2\) ends before it begins"),
        ({"bbox": [-5, 2, 3, 2]}, "annotation 1: the box .* lies outside the 8x5 image"),
        ({"bbox": [1, -3, 3, 2]}, "annotation 1: the box .* lies outside the 8x5 image"),
        ({"category_id": 8}, 'category_id 8 is not listed under "categories"'),
        ({"category_id": []}, 'category_id \\[\\] is not listed under "categories"'),
        ({"iscrowd": "no"}, "iscrowd must be 0 or 1, but is 'no'"),
    ],
)
def test_an_invalid_object_is_an_error_of_its_photo(tmp_path, changes, reason):
    coco = Coco(write(tmp_path, SQUARE | changes), "val")
    assert coco.ids == ["000007", "000009"] and not coco.read("000009").objects
    with pytest.raises(InputError, match=reason):
        coco.read("000007")


def test_a_box_is_clipped_to_its_photo(tmp_path):
    (image,) = Coco(write(tmp_path, SQUARE | {"bbox": [-1, 2.5, 10, 3]}), "val")
    assert image.objects[0].box.tolist() == [0, 2.5, 8, 5]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([0.1, 0.2, 0.5, 1.0], "1 boxes are at most 1, like fractions of the photo: write x, y, width, height in pix"),
        ([5, 3, 8, 5], "1 of 1 boxes extend beyond their photos, as x1, y1, x2, y2 would: write x, y, width, height"),
    ],
)
def test_boxes_in_another_format_are_refused(tmp_path, box, reason):
    with pytest.raises(InputError, match=reason):
        Coco(write(tmp_path, SQUARE | {"bbox": box}), "val")


PHOTO = {"id": 7, "height": 5, "width": 8}


@pytest.mark.parametrize(
    "file", ["/etc/a.jpg", "../a.jpg", "a/../../a.jpg", "C:\\a.jpg", "..\\a.jpg", "", None, "a\0.jpg", 7]
)
def test_a_photo_outside_the_folder_is_an_error(tmp_path, file):
    coco = Coco(write(tmp_path, images=[PHOTO | {"file_name": file}]), "val")
    with pytest.raises(InputError, match=r"image 7: the file_name .* must be a path below .*val, without \.\."):
        coco.read(coco.ids[0])


def test_folders_of_photos_are_kept(tmp_path):
    files = {1: "a/1.jpg", 2: "b/1.jpg", 3: "b\\2.jpg", 4: "val/3.jpg", 5: "c.jpg", 6: "c.png", 7: "none.jpg"}
    root = write(tmp_path, images=[PHOTO | {"id": number, "file_name": file} for number, file in files.items()])
    for file in ("a/1.jpg", "b/1.jpg", "b/2.jpg", "3.jpg", "c.jpg", "c.png"):
        (root / "val" / file).parent.mkdir(exist_ok=True)
        (root / "val" / file).touch()
    coco = Coco(root, "val")
    assert coco.ids == ["a/1", "b/1", "b/2", "val/3", "c.jpg", "c.png", "none"] and len(list(coco)) == 6
    assert [image.path.relative_to(root / "val").as_posix() for image in coco][:4] == [
        "a/1.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "3.jpg",
    ]


@pytest.mark.parametrize("size", [{"height": None}, {"width": 0}, {"height": 1e400}, {"width": "8"}])
def test_a_photo_without_a_size_is_an_error(tmp_path, size):
    coco = Coco(write(tmp_path, images=[PHOTO | {"file_name": "7.jpg"} | size]), "val")
    with pytest.raises(InputError, match=r"image 7: the size of the photo is .*: write its width and height in pixels"):
        coco.read("7")


def test_annotations_of_a_photo_that_is_not_listed_are_an_error_of_the_photo(tmp_path):
    coco = Coco(write(tmp_path, SQUARE, images=[]), "val")
    with pytest.raises(InputError, match='image_id 7 has annotations, but is not listed under "images": list it'):
        coco.read(*coco.ids)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": None}, "it has no list of images, but images, categories, annotations"),
        ({"annotations": [1]}, "cannot be read as COCO instances"),
        ({"images": [PHOTO | {"file_name": name} for name in "ab"]}, 'the id 7 is twice under "images"'),
        ({"images": [PHOTO | {"id": i, "file_name": "a.jpg"} for i in (1, 2)]}, "the file_name a.jpg is twice under"),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": 3, "name": "dog"}]}, 'the id 3 is twice under "categories"'),
    ],
)
def test_invalid_annotations_are_errors(tmp_path, changes, reason):
    with pytest.raises(InputError, match=reason) as caught:
        Coco(write(tmp_path, SQUARE, **changes), "val")
    assert "instances_val.json" in str(caught.value)
    assert caught.value.__cause__ is not caught.value  # the command line follows the chain of causes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "is a list, such as COCO's results: give a data set with images, categories, annotations"),
        ('{"version": "5", "shapes": []}', "no list of images and of categories and of annotations, but version, sha"),
        ("[" * 100_000, "cannot be read as COCO instances"),
        ("7", "cannot be read as COCO instances"),
        ("\ufeff{", "cannot be read as COCO instances"),
    ],
)
def test_other_json_is_an_error(tmp_path, text, reason):
    root = write(tmp_path)
    (root / "annotations" / "instances_val.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match=reason):
        Coco(root, "val")


def test_the_folder_of_roboflow_is_read(tmp_path):
    root = write(tmp_path, SQUARE)
    text = (root / "annotations" / "instances_val.json").read_text()
    (root / "val" / "_annotations.coco.json").write_text(text, "utf-8-sig")
    (root / "annotations" / "instances_val.json").unlink()
    assert [image.classes for image in Coco(root, "val")] == [["dog"]]


def test_our_own_coco_file_is_read_back(tmp_path, tiny_grounder):
    for name in ("a", "b"):
        (tmp_path / "shop" / name).mkdir(parents=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "shop" / name / "1.png")
    ground(tiny_grounder, str(tmp_path / "shop"), ["a dog", "a zorgophone", "the sky"], str(tmp_path / "out"), "coco")
    read = list(Coco(tmp_path, "none", tmp_path / "out" / "coco.json", tmp_path / "shop"))
    assert [(image.id, image.classes) for image in read] == [
        ("a/1", ["a dog", "the sky"]),
        ("b/1", ["a dog", "the sky"]),
    ]
    for image in read:
        answers = tiny_grounder.ground(image.path, ["a dog", "the sky"])
        for thing, answer in zip(image.objects, answers, strict=True):
            np.testing.assert_allclose(thing.box, answer.boxes[0], atol=0.011)


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

"""The readers of PASCAL VOC and ILSVRC, on small folders and on malformed and malicious files."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.voc import Ilsvrc, Voc, read_objects
from proposals.errors import InputError

XML = """<annotation><filename>{id}.jpg</filename>
<size><width>{w}</width><height>{h}</height><depth>3</depth></size>{objects}</annotation>"""
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
PART = "<part><name>head</name>" + BOX.format(1, 1, 2, 2) + "</part>"


def thing(name: str, *corners: object, difficult: str | None = "0", more: str = "") -> str:
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{flag}{BOX.format(*corners)}{more}</object>"


def annotation(*things: str, w: object = 50, h: object = 40) -> str:
    return XML.format(id=1, w=w, h=h, objects="".join(things))


def folder(root: Path, **annotations: str) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets/Main/val.txt").write_text("\n".join(annotations) + "\n\n")
    for image, text in annotations.items():
        (root / "Annotations" / f"{image}.xml").write_text(text)
    return root


def test_photos_are_in_the_order_of_the_split(tmp_path):
    two = annotation(thing("dog", 1, 1, 50, 40), thing("cat", 3, 5, 3, 5, difficult="1", more=PART))
    voc = Voc(folder(tmp_path, b=two, a=annotation()), "val")
    first, second = voc
    assert len(voc) == 2 and [image.id for image in voc] == ["b", "a"] and not second.objects
    assert first.path == tmp_path / "JPEGImages" / "b.jpg" and first.size == (40, 50)
    assert [(o.name, o.difficult, o.box.tolist()) for o in first.objects] == [
        ("dog", False, [0, 0, 50, 40]),
        ("cat", True, [2, 4, 3, 5]),  # one pixel; the parts of an object are not objects
    ]


@given(st.tuples(*[st.integers(-5, 60)] * 4), st.booleans())
def test_box_contains_the_first_and_the_last_pixel(tmp_path_factory, corners, flagged):
    x1, y1, x2, y2 = corners
    path = tmp_path_factory.mktemp("voc") / "1.xml"
    path.write_text(annotation(thing("dog", *corners, difficult="1" if flagged else None)))
    inside = {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1) if 1 <= x <= 50 and 1 <= y <= 40}
    if not inside:
        with pytest.raises(InputError, match=r"object 1: the box .* (ends before it begins|lies outside)"):
            read_objects(path)
        return
    (found,) = read_objects(path)[1]
    left, top, right, bottom = map(int, found.box)
    assert {(x + 1, y + 1) for x in range(left, right) for y in range(top, bottom)} == inside
    assert found.difficult == flagged


def test_fractions_of_pixels_are_kept(tmp_path):
    (tmp_path / "1.xml").write_text(annotation(thing("dog", "45.7", 1, "46.2", 5)))
    np.testing.assert_allclose(read_objects(tmp_path / "1.xml")[1][0].box, [44.7, 0, 46.2, 5])


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "{}"><!ENTITY c "{}">]><annotation>&c;</annotation>"""
ANNOTATIONS = {
    "bomb": (BOMB.format("ha" * 50, "&b;" * 50), "declares entities or a DTD"),
    "external": ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>', "declares"),
    "plain DTD": ('<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotation/>', "declares"),
    "long": ("<annotation>" + " " * 1_000_001, "has more than 1000000 bytes"),
    "broken": ("<annotation><size>", "cannot be read"),
    "binary": ("\0\1\2", "cannot be read"),
    "sizeless": ("<annotation/>", "no size/height"),
    "worded size": (annotation(w="wide"), "cannot be read"),
    "endless": (annotation(w="inf"), "size/width is inf"),
    "turned": (annotation(thing("dog", 1, 1, 5, 5), thing("dog", 9, 1, 3, 5)), "object 2: the box .* ends before"),
    "upside down": (annotation(thing("dog", 1, 9, 3, 5)), r"object 1: the box \(1, 9, 3, 5\) ends before"),
    "outside": (annotation(thing("dog", 51, 1, 60, 5)), "object 1: .* outside the 50x40 image"),
    "worded": (annotation(thing("dog", 1, 1, "x", 5)), "object 1: a box needs four numbers"),
    "no number": (annotation(thing("dog", 1, 1, "nan", 5)), "object 1: a box needs four numbers"),
    "boxless": (annotation("<object><name>dog</name></object>"), "needs four numbers .no bndbox/xmin"),
    "nameless": (annotation(thing("", 1, 1, 5, 5)), "an object needs a name"),
    "very difficult": (annotation(thing("dog", 1, 1, 5, 5, difficult="2")), "needs a name and difficult=0 or 1"),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_malicious_and_malformed_annotations_are_errors(tmp_path, name):
    content, message = ANNOTATIONS[name]
    path = tmp_path / "1.xml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_objects(path)
    assert str(path) in str(refusal.value)


def test_annotations_need_defusedxml(tmp_path, monkeypatch):
    (tmp_path / "1.xml").write_text(annotation())
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    with pytest.raises(InputError, match=r"need defusedxml: \.venv/bin/pip install -e '\.\[eval\]'"):
        read_objects(tmp_path / "1.xml")


def test_missing_annotation_is_an_error(tmp_path):
    root = folder(tmp_path, a=annotation())
    (root / "ImageSets/Main/val.txt").write_text("b\n")
    with pytest.raises(InputError, match=r"b\.xml cannot be read"):
        list(Voc(root, "val"))


@pytest.mark.parametrize("part", ["JPEGImages", "Annotations", "ImageSets"])
def test_missing_part_of_the_folder_is_an_error(tmp_path, part):
    root = folder(tmp_path / "voc", a=annotation())
    (root / part).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"has no {part}.*: set data.root"):
        Voc(root, "val")


@pytest.mark.parametrize("text", ["", "../secret\n", b"\xff\xfe"])
def test_invalid_split_file_is_an_error(tmp_path, text):
    root = folder(tmp_path, a=annotation())
    path = root / "ImageSets/Main/val.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"val\.txt"):
        Voc(root, "val")


def test_split_file_of_one_class_has_labels_after_the_ids(tmp_path):
    root = folder(tmp_path, a=annotation(), b=annotation())
    (root / "ImageSets/Main/dog_val.txt").write_text("a  1\nb -1\n")
    assert [image.id for image in Voc(root, "dog_val")] == ["a", "b"]


def test_ilsvrc_has_its_own_folders(tmp_path):
    boxes = tmp_path / "Annotations/CLS-LOC/val"
    boxes.mkdir(parents=True)
    with pytest.raises(InputError, match=r"Data.* does not exist: set data\.root"):
        Ilsvrc(tmp_path)
    (tmp_path / "Data/CLS-LOC/val").mkdir(parents=True)
    (boxes / "ILSVRC2012_val_1.xml").write_text(annotation(thing("n02123045", 0, 1, 50, 9, difficult=None)))
    (image,) = Ilsvrc(tmp_path)
    assert image.path == tmp_path / "Data/CLS-LOC/val/ILSVRC2012_val_1.JPEG"
    assert [(o.name, o.box.tolist()) for o in image.objects] == [("n02123045", [0, 0, 50, 9])]


def test_real_split_is_read(data):
    images = list(Voc(data / "voc2012", "val"))
    assert len(images) == 177 and sum(len(image.objects) for image in images) == 744
    assert all(image.path.is_file() for image in images)

"""The reader of Flickr30k Entities, on small folders."""

from pathlib import Path

import numpy as np
import pytest
from entities_folder import XML, write_entities, xml_object

from eval.flickr30k import Flickr30kEntities, read_boxes
from proposals.errors import InputError


@pytest.fixture
def root(tmp_path) -> Path:
    return write_entities(tmp_path)


def test_phrases_with_a_box_keep_their_numbers(root):
    (image,) = Flickr30kEntities(root, "toy")
    assert (image.id, image.size) == ("7", (80, 100))
    found = [(e.sentence, e.phrase, e.text, e.types) for e in image.entities]
    assert found == [
        (0, 0, "Two dogs", ("people", "other")),
        (1, 1, "a dog", ("animals",)),
        (1, 2, "a park", ("scene",)),
    ]
    dogs, dog, park = image.entities
    np.testing.assert_array_equal(dogs.boxes, [[0, 0, 10, 20], [30, 40, 60, 60]])
    np.testing.assert_array_equal(dogs.union, [0, 0, 60, 60])
    np.testing.assert_array_equal(dog.boxes, [[0, 0, 10, 20]])
    np.testing.assert_array_equal(park.boxes, [[0, 0, 100, 80]])


@pytest.mark.parametrize("part", ["images", "Annotations", "Sentences", "other.txt"])
def test_missing_part_of_the_folder_is_an_error(root, part):
    split = "toy"
    if part == "other.txt":
        split = "other"
    else:
        (root / part).rename(root / "elsewhere")
    with pytest.raises(InputError, match=f"has no {part}: set data.root"):
        Flickr30kEntities(root, split)


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "{}"><!ENTITY c "{}">]><annotation>&c;</annotation>"""
ANNOTATIONS = {
    "bomb": (BOMB.format("ha" * 50, "&b;" * 50), "declares entities or a DTD"),
    "external": ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>', "declares"),
    "long": ("<annotation>" + " " * 1_000_001, "has more than 1000000 bytes"),
    "broken": ("<annotation><size>", "cannot be read"),
    "sizeless": ("<annotation/>", "no size/height"),
    "turned": (XML.format(id=1, w=50, h=50, objects=xml_object("1", 9, 1, 3, 5)), "object 1: the box .* ends before"),
    "outside": (XML.format(id=1, w=50, h=50, objects=xml_object("1", 51, 1, 60, 5)), "outside the 50x50 image"),
    "worded": (XML.format(id=1, w=50, h=50, objects=xml_object("1", 1, 1, "x", 5)), "needs four whole numbers"),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_malicious_and_malformed_annotations_are_errors(tmp_path, name):
    content, message = ANNOTATIONS[name]
    (tmp_path / f"{name}.xml").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_boxes(tmp_path / f"{name}.xml")
    assert f"{name}.xml" in str(caught.value)


def test_malformed_markup_is_an_error_with_its_line(root):
    (root / "Sentences" / "7.txt").write_text("[/EN#1/people A dog] .\n[/EN#1/people A dog\n")
    with pytest.raises(InputError, match=r"7\.txt:2: "):
        list(Flickr30kEntities(root, "toy"))


def test_only_a_line_feed_ends_a_caption(root):
    text = "[/EN#1/people A\u2028dog] and\x0b [/EN#4/scene a\x85park] .\r\n\r\n[/EN#1/people Two dogs] .\n"
    (root / "Sentences" / "7.txt").write_text(text, "utf-8-sig", newline="")
    (root / "toy.txt").write_text("7\r\n", "utf-8-sig", newline="")
    data = Flickr30kEntities(root, "toy")
    (image,) = data
    assert [(e.sentence, e.phrase) for e in image.entities] == [(0, 0), (0, 1), (2, 0)] and image.marked == (2, 0, 1)
    assert data.captions("7") == ["A\u2028dog and\x0b a\x85park .", "", "Two dogs ."]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", r"toy\.txt is empty: list one photo id per line"),
        (b"7 8\n", r"toy\.txt: '7 8' is not a photo id: list one id per line"),
        (b"../7\n", r"toy\.txt: '../7' is not a photo id: list one id per line, without a folder"),
        (b"7.jpg\n", r"toy\.txt: '7\.jpg' is a file name: list ids, without \.jpg"),
        ("7\n".encode("utf-16"), r"toy\.txt is UTF-16: save it as UTF-8"),
        (b"7\n\xe9\n", r"toy\.txt:2: not UTF-8 \(byte 0xe9\): save it as UTF-8"),
    ],
)
def test_invalid_split_file_is_an_error(root, text, reason):
    (root / "toy.txt").write_bytes(text)
    with pytest.raises(InputError, match=reason):
        Flickr30kEntities(root, "toy")


@pytest.mark.parametrize("size", [(0, 0), (10**400, 5), (5, -1)])
def test_photo_without_a_size_is_an_error(root, size):
    (root / "Annotations" / "7.xml").write_text(XML.format(id=7, w=size[0], h=size[1], objects=""))
    with pytest.raises(InputError, match=r"7\.xml.*(the size of the photo is .*: write its width|size/width is 1000)"):
        Flickr30kEntities(root, "toy").read("7")


def test_real_split_has_all_phrases(data):
    images = list(Flickr30kEntities(data / "flickr30k_entities", "val"))
    assert len(images) == 247
    assert sum(len(image.entities) for image in images) == 3239

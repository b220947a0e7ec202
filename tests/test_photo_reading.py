"""Photos that cannot be used are skipped, counted and named; half a data set is told before the work."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from voc_folder import OBJECT, XML, write_voc

from eval.coco import Coco
from eval.photo_reading import BAD_ANNOTATION, MISSING, REPEATED, photo_ledger, read_photos
from eval.pointing import point
from eval.voc import Voc, VocImage
from proposals.errors import InputError

CLASSES = {"person": ["person", "woman"], "diningtable": ["table"], "rocket": ["spacecraft"]}


@pytest.fixture
def root(tmp_path, astronaut, coffee) -> Path:
    return write_voc(tmp_path / "voc", astronaut, coffee)


def test_a_photo_with_a_bad_annotation_is_skipped_as_an_unreadable_one(root, grounder, tmp_path, caplog):
    whole = point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path / "whole"), resamples=50)
    turned = XML.format(w=9, h=9, objects=OBJECT.format("cup", 0, 5, 1, 2, 9))
    (root / "Annotations/turned.xml").write_text(turned)
    (root / "Annotations/vague.xml").write_text(
        XML.format(w=9, h=9, objects=OBJECT.format("cup", "Unspecified", 1, 1, 9, 9))
    )
    (root / "Annotations/gone.xml").write_text(XML.format(w=9, h=9, objects=""))
    ids = (root / "ImageSets/Main/toy.txt").read_text().split()
    (root / "ImageSets/Main/toy.txt").write_text("\n".join(["turned", "vague", "none", "gone", ids[0], *ids]))
    caplog.clear()
    metrics = point(grounder, Voc(root, "toy"), CLASSES, str(tmp_path / "out"), resamples=50)
    assert metrics["all"] == whole["all"] and metrics["photos"] == 2
    assert metrics["skipped_images"] == ["turned", "vague", "none", "gone", "woman", "sized", "broken"]
    first, last = caplog.messages
    assert first.startswith("5 of 9 photos are left out: 3 with an unusable annotation, 1 missing, 1 listed twice; the")
    assert first.endswith("turned.xml, object 1: the box (5, 1, 2, 9) ends before it begins")
    counts = "2 kept, 3 with an unusable annotation, 2 unusable, 1 listed twice, 1 missing"
    assert last == f"9 photos: {counts}; see {tmp_path}/out/skipped.jsonl"
    assert len((tmp_path / "out/skipped.jsonl").read_text().splitlines()) == 7


def test_coco_without_masks_is_refused_before_the_work(grounder, tmp_path, coffee):
    for name in ("val", "annotations"):
        (tmp_path / name).mkdir()
    Image.open(coffee).convert("RGB").save(tmp_path / "val" / "1.jpg")
    thing = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": []}
    known = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 600, "height": 400}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [thing],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(known))
    with pytest.raises(
        InputError, match=r"1 with an unusable annotation.*annotation 5 has no mask .*: use annotations"
    ):
        point(grounder, Coco(tmp_path, "val"), {}, str(tmp_path / "out"))


def test_tags_of_a_class_that_are_no_list_are_an_error(root, grounder, tmp_path):
    with pytest.raises(InputError, match="the tags of class 'zebra' must be a list"):
        point(grounder, Voc(root, "toy"), {"zebra": "horse"}, str(tmp_path))


NAMES = st.sampled_from("abcde")


class Photos:
    """Reads photos whose annotations are given as "good", "bad" or "gone" (without a file)."""

    def __init__(self, folder: Path, ids: list[str], kinds: dict[str, str]):
        self.folder, self.ids, self.kinds = folder, ids, kinds

    def read(self, name: str) -> VocImage:
        if self.kinds.get(name) == "bad":
            raise InputError(f"{name}.xml is broken")
        return VocImage(name, Path(__file__) if self.kinds.get(name) == "good" else self.folder / "none", (9, 9), ())


@given(
    st.lists(NAMES, max_size=12),
    st.fixed_dictionaries({name: st.sampled_from(["good", "bad", "gone"]) for name in "abcde"}),
    st.none() | st.integers(1, 6),
)
def test_every_photo_is_kept_or_skipped_once(ids, kinds, limit):
    photos = Photos(Path(__file__).parent, ids, kinds)
    ledger = photo_ledger(photos)
    good = [name for name in dict.fromkeys(ids) if kinds[name] == "good"][:limit]
    if not good:
        with pytest.raises(InputError, match=r"none of|there are no photos"):
            read_photos(photos, ledger, limit)
        return
    found = read_photos(photos, ledger, limit)
    assert [photo.id for photo in found] == good
    for _ in found:
        ledger.keep()
    ledger.check()
    assert ledger.came == len(ids) or len(found) == limit
    for skipped in ledger.skipped:
        assert skipped.reason == {"bad": BAD_ANNOTATION, "gone": MISSING}.get(kinds[skipped.name]) or (
            skipped.reason == REPEATED and ids.count(skipped.name) > 1
        )

"""The step ``labels`` writes the annotated classes, and ``step=shards`` reads them."""

import json

import numpy as np
import pytest
from PIL import Image

from eval.coco import Coco, CocoImage, CocoObject
from eval.labels import label
from eval.voc import VocImage, VocObject
from proposals.errors import InputError
from training.sharding import shard
from training.shards import Shards

BOX = np.array([0, 0, 9, 9], float)


def read_rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def voc_image(path, *objects: tuple[str, bool]) -> VocImage:
    return VocImage(path.stem, path, (40, 60), tuple(VocObject(name, BOX, difficult) for name, difficult in objects))


class Album:
    """Reads photos from a list."""

    def __init__(self, folder, photos):
        self.folder, self.photos = folder, {photo.id: photo for photo in photos}
        self.ids = list(self.photos)

    def read(self, name):
        return self.photos[name]


def test_labels_leave_out_difficult_objects_and_become_tags(tmp_path, astronaut, coffee, capsys):
    for name, photo in (("a", astronaut), ("b", coffee), ("c", coffee), ("d", coffee)):
        Image.open(photo).convert("RGB").resize((60, 40)).save(tmp_path / f"{name}.jpg")
    photos = [
        voc_image(tmp_path / "a.jpg", ("tvmonitor", False), ("person", False), ("person", True), ("flag", True)),
        voc_image(tmp_path / "b.jpg", ("cup", False), ("person", False)),
        voc_image(tmp_path / "c.jpg", ("cup", True)),
        CocoImage("d", tmp_path / "d.jpg", (40, 60), (CocoObject("dining table", True, BOX, [], (40, 60)),)),
    ]
    table = label(Album(tmp_path, photos), str(tmp_path / "out"))
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert rows == [
        {"path": str(tmp_path / "a.jpg"), "tags": ["person", "tvmonitor"]},
        {"path": str(tmp_path / "b.jpg"), "tags": ["cup", "person"]},
        {"path": str(tmp_path / "d.jpg"), "tags": ["dining table"]},
    ]
    assert "3 photos, 4 classes" in capsys.readouterr().out
    assert [(row["name"], row["reason"]) for row in read_rows(tmp_path / "out" / "skipped.jsonl")] == [
        ("c", "without an object")
    ]
    shard(str(table), str(tmp_path / "shards"), min_images=1, held_out=0, workers=1)
    shards = Shards(tmp_path / "shards")
    assert set(shards.vocabulary) == {"person", "tvmonitor", "cup", "dining table"}
    kept = [(name, shards.index(name)) for name in (part.name for part in (*shards.train, *shards.val))]
    tags = sorted(
        sorted(shards.vocabulary[t] for t in i.tags[i.starts[r] : i.starts[r + 1]])
        for _, i in kept
        for r in range(len(i))
    )
    assert tags == [["cup", "person"], ["dining table"], ["person", "tvmonitor"]]


def test_no_label_is_an_error(tmp_path):
    (tmp_path / "a.jpg").touch()
    album = Album(tmp_path, [voc_image(tmp_path / "a.jpg", ("cup", True))])
    with pytest.raises(InputError, match=r"none of 1 photos can be used \(1 without an object\).*set data\.root and"):
        label(album, str(tmp_path / "out"))
    with pytest.raises(InputError, match="has no annotated objects: set data=voc2012"):
        label(None, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "labels.jsonl").exists()


def test_half_a_data_set_is_told_before_the_work(tmp_path, caplog):
    (tmp_path / "a.jpg").touch()
    photos = [voc_image(tmp_path / f"{name}.jpg", ("cup", False)) for name in "abc"]
    label(Album(tmp_path, photos), str(tmp_path / "out"))
    assert caplog.messages == [
        f"2 of 3 photos are left out: 2 missing; the first: {tmp_path}/b.jpg does not exist",
        f"3 photos: 1 kept, 2 missing; see {tmp_path}/out/skipped.jsonl",
    ]
    with pytest.raises(InputError, match=r"none of 2 photos can be used \(2 missing\): looked in .* for b, c; found"):
        label(Album(tmp_path, photos[1:]), str(tmp_path / "none"))


def test_real_labels(data, tmp_path):
    rows = map(json.loads, label(Coco(data / "coco2017", "train2017"), str(tmp_path)).read_text().splitlines())
    annotations = json.loads((data / "coco2017/annotations/instances_train2017.json").read_text())
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    files = {image["id"]: image["file_name"] for image in annotations["images"]}
    expected = {(files[thing["image_id"]], names[thing["category_id"]]) for thing in annotations["annotations"]}
    assert {(row["path"].split("/")[-1], tag) for row in rows for tag in row["tags"]} == expected

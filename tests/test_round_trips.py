"""What is written is read again, and all formats of answers say the same."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zoo import NAMES, OBJECTS, write_photos
from zoo_annotations import coco_json, write_json

from eval.coco import Coco
from eval.labels import label
from grounding.answers import Answers, Grounding
from grounding.exports import FORMATS
from grounding.runtime.cells import plain_cell
from grounding.runtime.ledger import SKIPPED, Ledger, Skipped
from grounding.steps.ground import ground
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from training.sources import find_source

PHRASES = ["a cup of coffee", 'a "red" table,\n; and', "a zorgophone"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAME = st.text(st.characters(exclude_characters="\0/", min_codepoint=32, exclude_categories=["Cs"]), min_size=1)
Found = dict[tuple[str, str], tuple[list[float], float]]


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("album"), [f"deep/{name}" for name in NAMES])


@pytest.fixture(scope="module")
def outputs(tiny_grounder, album, tmp_path_factory) -> Path:
    """The folder of the answers in all formats, with maps."""
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tiny_grounder, "settings", replace(tiny_grounder.settings, presence=0)
        )  # COCO leaves out absent ones
        for form in FORMATS:
            ground(tiny_grounder, str(album), PHRASES, str(folder), form, boxes=1, pictures=None, maps=True)
    return folder


def best_boxes(records: list[dict]) -> Found:
    return {
        (record["image"], answer["phrase"]): (answer["boxes"][0], answer["scores"][0])
        for record in records
        for answer in record["groundings"]
        if answer["groundable"]
    }


def test_all_formats_say_the_same(outputs, album):
    records = json.loads((outputs / "groundings.json").read_bytes())
    expected = best_boxes(records)
    assert len(expected) == 2 * len(NAMES)
    assert best_boxes(list(map(json.loads, (outputs / "groundings.jsonl").read_text().splitlines()))) == expected
    with (outputs / "groundings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    corners = ("x1", "y1", "x2", "y2")
    found = {
        (row["image"], row["phrase"]): ([float(row[corner]) for corner in corners], float(row["score"]))
        for row in rows
        if row["groundable"] == "true"
    }
    assert found == expected
    assert {(row["image"], row["phrase"]) for row in rows} == {(r["image"], p) for r in records for p in PHRASES}


def test_our_reader_of_coco_reads_our_coco(outputs, album):
    records = json.loads((outputs / "groundings.json").read_bytes())
    expected = {key: box for key, (box, _) in best_boxes(records).items()}
    photos = list(Coco(album, "", annotations=outputs / "coco.json", images=album))
    assert sorted(str(photo.path) for photo in photos) == sorted(record["image"] for record in records)
    found = {(str(photo.path), thing.category): thing.box for photo in photos for thing in photo.objects}
    assert found.keys() == expected.keys()
    for key, box in found.items():
        np.testing.assert_allclose(box, expected[key], atol=0.02)


def test_maps_are_read(outputs, album):
    maps = sorted(outputs.rglob("*.npy"))
    assert len(maps) == 2 * len(NAMES)
    assert all(np.load(path, allow_pickle=False).shape == (60, 90) for path in maps)


def test_labels_are_read_as_tags(tmp_path, capsys):
    write_photos(tmp_path / "val")
    write_json(tmp_path / "annotations" / "instances_val.json", coco_json())
    table = label(Coco(tmp_path, "val"), str(tmp_path / "out"))
    found = {
        Path(sample.photo.path).name: set(sample.text.tags)
        for unit in find_source(table).units()
        for sample in unit.samples()
    }
    assert found == {NAMES[i]: {name for photo, name, _ in OBJECTS if photo == i} for i in {o[0] for o in OBJECTS}}


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=4))
def test_lists_of_what_was_skipped_are_read(tmp_path_factory, skipped):
    folder, ledger = tmp_path_factory.mktemp("out"), Ledger("photos")
    for name, reason, detail in skipped:
        ledger.came_in(name)
        ledger.skip(name, reason, detail)
    ledger.write(folder / SKIPPED)
    read = [Skipped(**json.loads(line)) for line in (folder / SKIPPED).read_text("ascii").splitlines()]
    assert read == [Skipped(*one) for one in skipped] == list(ledger.skipped)


def answers(name: str, phrase: str) -> Answers:
    """An answer that is not groundable, and one that is."""
    vocabulary = Vocabulary(["dog"])
    unknown = Grounding(Phrase(phrase, (), (phrase,)), np.zeros((0, 4)), np.zeros(0), None, (60, 90))
    known = Grounding(
        Phrase.parse("a dog", vocabulary), np.array([[1.0, 2, 3, 4]]), np.ones(1), np.ones((2, 3)), (60, 90)
    )
    return Answers(name, (60, 90), [unknown, known])


@given(NAME, TEXT)
def test_any_name_and_phrase_are_read_unchanged(tmp_path_factory, name, phrase):
    folder = tmp_path_factory.mktemp("out")
    for form in FORMATS.values():
        form.write(folder / form.file, [answers(name, phrase)], 1)
    record = json.loads((folder / "groundings.json").read_bytes())
    assert (record["image"], record["groundings"][0]["phrase"]) == (name, phrase)
    assert json.loads((folder / "groundings.jsonl").read_bytes()) == record
    with (folder / "groundings.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (plain_cell(first["image"]), plain_cell(first["phrase"])) == (name, phrase)
    assert json.loads(first["skipped"]) == [phrase]
    assert (second["phrase"], second["rank"]) == ("a dog", "1")
    content = json.loads((folder / "coco.json").read_bytes())
    assert (content["images"][0]["file_name"], content["not_groundable"][0]["phrase"]) == (name, phrase)

"""Files of answers, read by the programs that they are written for."""

import csv
import json
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import defusedxml.ElementTree
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from grounding import Grounder
from grounding.answers import Answers
from grounding.exports import BOXES, COLUMNS, FORMATS, as_coco, write_map
from grounding.pictures.svg import svg
from grounding.runtime.cells import plain_cell
from proposals.errors import InputError

ODD = [
    "a woman in an orange suit",
    "the <b>\"flag\"</b> & 'her' smile,;\r\n\tand so on",
    "امرأة a woman بجانب العلم \u202e\u2067",
    "👩‍🚀 a woman 🚀",
    "=SUM(A1) a null \0 byte, a man",
    "  a flag  ",
    "a zorgophone",
    "e\u0301 and \u00e9 and \u2028 a face",
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def answered(astronaut, coffee) -> list[Answers]:
    grounder = Grounder.load(method="c-mwp", side=224, presence=0)
    scenes = [grounder.look(path) for path in (astronaut, coffee)]
    asked = [ODD, ["a cup", "a zorgophone", "a cup"]]
    names = ["deep/astronaut.png", "Kaffee ☕.png"]
    return [
        Answers(name, scene.image.shape[:2], scene.ground(phrases))
        for name, scene, phrases in zip(names, scenes, asked, strict=True)
    ]


def written(path, form: str, answered: list[Answers]):
    FORMATS[form].write(path / FORMATS[form].file, iter(answered), FORMATS[form].boxes)
    assert [file.name for file in path.iterdir()] == [FORMATS[form].file]
    return path / FORMATS[form].file


def test_json_contains_the_phrases_unchanged(answered, tmp_path):
    first, second = json.loads(written(tmp_path, "json", answered).read_bytes())
    assert [g["phrase"] for g in first["groundings"]] == ODD
    assert (first["image"], first["size"]) == ("deep/astronaut.png", [512, 512])
    assert (second["image"], second["size"]) == ("Kaffee ☕.png", [400, 600])
    for record, answer in zip(first["groundings"], answered[0].groundings, strict=True):
        assert record["groundable"] == answer.groundable == bool(record["boxes"])
        np.testing.assert_allclose(np.reshape(record["boxes"], (-1, 4)), answer.boxes[:BOXES], atol=0.005)
        assert record["scores"] == list(answer.scores[:BOXES])
    assert first["groundings"][6] == {
        "phrase": "a zorgophone", "groundable": False, "tags": [], "skipped": ["zorgophone"], "read_as": "",
        "presence": None, "present": None, "boxes": [], "scores": []
    }  # fmt: skip


def test_json_of_one_image_is_one_record(answered, tmp_path):
    assert json.loads(written(tmp_path, "json", answered[:1]).read_bytes())["image"] == "deep/astronaut.png"


def test_json_lines_are_the_records_of_json(answered, tmp_path):
    (tmp_path / "lines").mkdir()
    lines = written(tmp_path / "lines", "jsonl", answered).read_bytes().splitlines()
    (tmp_path / "whole").mkdir()
    assert list(map(json.loads, lines)) == json.loads(written(tmp_path / "whole", "json", answered).read_bytes())


def test_lines_are_written_while_answers_come(answered, tmp_path):
    """Answers are written as they come: when the third image is needed, the first is in the file already."""
    for form in ("jsonl", "csv"):
        sizes = []

        def coming():
            for _ in range(20):
                yield answered[0]
                sizes.append(sum(part.stat().st_size for part in tmp_path.iterdir()))  # noqa: B023

        FORMATS[form].write(tmp_path / form, coming(), BOXES)
        assert 0 < sizes[4] < sizes[-1]


def test_csv_has_one_row_for_each_box(answered, tmp_path):
    with written(tmp_path, "csv", answered).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    phrases = dict.fromkeys(row["phrase"] for row in rows if row["image"] == "deep/astronaut.png")
    assert list(map(plain_cell, phrases)) == ODD
    best = [row for row in rows if row["image"] == "deep/astronaut.png" and row["rank"] == "1"]
    for row, answer in zip(best, (a for a in answered[0].groundings if a.groundable), strict=True):
        np.testing.assert_allclose([float(row[k]) for k in ("x1", "y1", "x2", "y2")], answer.boxes[0], atol=0.005)
        assert float(row["score"]) == answer.scores[0]
        assert tuple(json.loads(row["tags"])) == answer.phrase.tags
    (unknown,) = (row for row in rows if row["phrase"] == "a zorgophone" and row["image"].startswith("deep"))
    assert [unknown[k] for k in ("groundable", "rank", "x1", "score", "skipped")] == [
        "false", "", "", "", '["zorgophone"]'
    ]  # fmt: skip


def test_pycocotools_reads_coco(answered, tmp_path, capsys):
    path = written(tmp_path, "coco", answered)
    truth = COCO(str(path))
    phrases = list(dict.fromkeys([*ODD, "a cup"]))
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == phrases
    names = [image["file_name"] for image in truth.loadImgs(truth.getImgIds())]
    assert names == [answers.image for answers in answered]
    assert all(type(image[side]) is int for image in truth.dataset["images"] for side in ("id", "width", "height"))
    found = truth.loadAnns(truth.getAnnIds())
    assert [annotation["id"] for annotation in found] == list(range(1, len(found) + 1))
    # a phrase that is asked twice counts once; a phrase that is not groundable has no box
    assert len(found) == len(ODD) - 1 + 1
    (cup,) = truth.loadAnns(truth.getAnnIds(imgIds=[2]))
    x, y, width, height = cup["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], answered[1].groundings[0].boxes[0], atol=0.02)
    assert cup["area"] == pytest.approx(width * height, abs=0.01)
    assert (cup["iscrowd"], cup["segmentation"]) == (0, [])
    assert cup["score"] == answered[1].groundings[0].scores[0]
    zorgophone = phrases.index("a zorgophone") + 1
    assert not truth.getAnnIds(catIds=[zorgophone])
    assert truth.dataset["not_groundable"] == [
        {"image_id": image, "category_id": zorgophone, "phrase": "a zorgophone", "skipped": ["zorgophone"]}
        for image in (1, 2)
    ]


def test_pycocotools_reads_the_annotations_as_results(answered, tmp_path, capsys):
    path = written(tmp_path, "coco", answered)
    truth = COCO(str(path))
    many = as_coco(answered, boxes=5)["annotations"]
    results = truth.loadRes(many)
    assert len(results.getAnnIds()) == len(many) == 5 * len(truth.getAnnIds())
    for category in truth.getCatIds():
        scores = [a["score"] for a in results.loadAnns(results.getAnnIds(catIds=[category], imgIds=[1]))]
        assert scores == sorted(scores, reverse=True)


def test_a_map_file_is_the_heat_map_without_pickled_objects(answered, tmp_path):
    answer = answered[1].groundings[0]
    write_map(tmp_path / "cup.npy", answer)
    loaded = np.load(tmp_path / "cup.npy", allow_pickle=False)
    assert (loaded.shape, loaded.dtype) == ((400, 600), np.float64)
    np.testing.assert_array_equal(loaded, answer.heatmap)
    assert loaded.sum() == pytest.approx(answer.map.sum())


def test_an_svg_embeds_everything(answered, astronaut):
    image, answers = np.asarray(Image.open(astronaut)), answered[0].groundings
    root = defusedxml.ElementTree.fromstring(svg(image, answers, boxes=2))
    groups = root.findall(f"{SVG}g")
    known = [i for i, answer in enumerate(answers) if answer.groundable]
    assert [group.get("id") for group in groups] == [f"phrase-{i + 1}" for i in known]
    # XML allows no null byte, and reads a carriage return as the end of a line
    shown = [group.find(f"{SVG}text").text for group in groups]
    assert shown == [ODD[i].replace("\0", "\ufffd").replace("\r\n", "\n") for i in known]
    for group, i in zip(groups, known, strict=True):
        for box, rectangle in zip(answers[i].boxes[:2], group.findall(f"{SVG}rect"), strict=True):
            x, y, width, height = (float(rectangle.get(k)) for k in ("x", "y", "width", "height"))
            np.testing.assert_allclose([x, y, x + width, y + height], box, atol=0.02)
    pictures = [picture.get("{http://www.w3.org/1999/xlink}href") for picture in root.iter(f"{SVG}image")]
    assert len(pictures) == 1 + len(known)
    assert all(picture.startswith("data:image/") for picture in pictures)
    heat = np.asarray(Image.open(BytesIO(b64decode(pictures[1].partition(",")[2]))))
    hottest = np.unravel_index(heat[..., 3].argmax(), heat.shape[:2])
    y, x = np.unravel_index(answers[0].heatmap.argmax(), heat.shape[:2])
    np.testing.assert_allclose(hottest[::-1], (x, y), atol=8)


def test_a_folder_that_cannot_be_written(answered, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for form in FORMATS.values():
        with pytest.raises(InputError, match="cannot be written"):
            form.write(tmp_path / "file" / form.file, answered, 1)
    with pytest.raises(InputError, match="cannot be written"):
        write_map(tmp_path / "file" / "cup.npy", answered[1].groundings[0])


def test_an_overlay_shows_letters_of_any_script(answered, astronaut):
    """With a font without these letters, words of the same length would look the same."""
    answer = replace(answered[0].groundings[0], image=np.asarray(Image.open(astronaut)))
    for words in (("чашка", "книга"), ("φως", "γάτ"), ("امرأة", "بجانب"), ("שלום", "קפה!")):
        titles = [
            np.asarray(replace(answer, phrase=replace(answer.phrase, text=word)).overlay())[:36] for word in words
        ]
        assert (titles[0] != titles[1]).any()


def test_a_phrase_that_is_not_groundable_is_not_drawn(answered, astronaut, tmp_path):
    unknown, image = answered[0].groundings[6], np.asarray(Image.open(astronaut))
    with pytest.raises(InputError, match="'a zorgophone' is not groundable: there is nothing to draw"):
        unknown.overlay()
    with pytest.raises(InputError, match="'a zorgophone' is not groundable: it has no map"):
        write_map(tmp_path / "zorgophone.npy", unknown)
    assert f"{SVG}g" not in {child.tag for child in defusedxml.ElementTree.fromstring(svg(image, [unknown]))}

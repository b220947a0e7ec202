"""What is shown of an answer's presence: the line, the table, each file, the pictures."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
import pytest
from pycocotools.coco import COCO

from grounding import Grounder
from grounding.answers import Answers, Grounding
from grounding.batch.images import GroundingBatch
from grounding.draw import GREY
from grounding.exports import COLUMNS, FORMATS, as_record, csv_rows
from grounding.pictures.svg import svg
from grounding.settings import Settings
from grounding.steps.ground import ground, table
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

SVG = "{http://www.w3.org/2000/svg}"
PHOTO = np.random.default_rng(0).integers(90, 160, (60, 90, 3), np.uint8)


def answer(text: str, presence: float | None = None, present: bool | None = None) -> Grounding:
    """An answer with two boxes about a photo of noise."""
    boxes, scores = np.array([[20, 10, 70, 50], [5, 5, 30, 40.0]]), np.array([0.5, 0.2])
    attention = np.zeros((6, 9))
    attention[2:4, 3:6] = 1 / 6
    return Grounding(Phrase(text, (text,), ()), boxes, scores, attention, (60, 90), PHOTO, True, presence, present)


def test_an_answer_without_a_presence_prints_as_before():
    assert repr(answer("a cat")) == "Grounding('a cat': box=(20, 10, 70, 50), score=0.500, boxes=2)"


def test_an_answer_prints_its_presence_and_says_when_it_is_probably_absent():
    found = "box=(20, 10, 70, 50), score=0.500, boxes=2"
    assert repr(answer("a cat", 0.834, True)) == f"Grounding('a cat': {found}, presence=0.83)"
    assert repr(answer("a cat", 0.034, False)) == (
        f"Grounding('a cat': probably not in this photo: {found}, presence=0.03)"
    )


@pytest.fixture(scope="module")
def scene(grounder):
    return grounder.look(PHOTO)


@pytest.mark.parametrize(
    ("given", "message"),
    [(-1, "presence=-1 must be in 0..1; 0 counts every answer as present"), (2, "presence=2 must be in 0..1"),
     (float("nan"), "presence=nan must be in 0..1"), ("abc", "presence=abc must be a number"),
     (True, "presence=True must be a number")],
)  # fmt: skip
def test_a_threshold_that_is_no_probability_is_refused(grounder, scene, given, message):
    for ask in (
        lambda: Settings(presence=given),
        lambda: Grounder.load(presence=given),
        lambda: grounder.ground(PHOTO, ["a cat"], presence=given),
        lambda: scene.ground(["a cat"], presence=given),
    ):
        with pytest.raises(InputError) as raised:
            ask()
        assert str(raised.value).startswith(message)


@pytest.mark.parametrize("name", ["side", "gamma", "prior", "vote", "nms"])
def test_settings_that_are_no_numbers_are_refused(name):
    with pytest.raises(InputError, match=f"^{name}=abc must be a (whole )?number$"):
        replace(Settings(), **{name: "abc"})


def test_a_threshold_changes_no_box(grounder):
    scene = grounder.look(PHOTO)
    for low, high in zip(*(scene.ground(["a cat", "a dog"], presence=value) for value in (0, 1)), strict=True):
        np.testing.assert_array_equal(low.boxes, high.boxes)
        np.testing.assert_array_equal(low.scores, high.scores)
        assert low.presence == high.presence


def one_of_each() -> list[Grounding]:
    """An answer that is present, one that is absent, one of unknown presence, and one that is not groundable."""
    unknown = Grounding(
        Phrase("a zorgophone", (), ("zorgophone",)), np.zeros((0, 4)), np.zeros(0), None, (60, 90), PHOTO
    )
    return [answer("a cat", 0.834, True), answer("a dog", 0.034, False), answer("a cup"), unknown]


def test_the_table_says_what_is_probably_absent():
    lines = table(one_of_each()).splitlines()
    assert lines[0].split("  ")[0] == "phrase" and "presence" in lines[0]
    assert [line[lines[0].index("presence") :].split("  ")[0] for line in lines] == [
        "presence", "0.83", "0.03: probably not in this photo", "-", "-"
    ]  # fmt: skip
    assert lines[-1].endswith("zorgophone")
    assert table([answer("a cup")]).splitlines()[0].split("  ")[0:1] == ["phrase"]
    assert "presence" not in table([answer("a cup")]) and "read as" not in table([answer("a cup")])


def test_readings_are_in_the_table_and_in_every_record():
    read = replace(answer("an elephant"), phrase=Read("an elephant", ("african elephant", "indian elephant"), ()))
    first, second = table([read, answer("a cup")]).splitlines()[1:]
    assert "elephant -> african elephant, indian elephant" in first and second.split()[-2:] == ["-", "-"]
    assert as_record(read)["read_as"] == "elephant -> african elephant, indian elephant"
    (row, _) = csv_rows(Answers("x.png", (60, 90), [read]))
    assert row[COLUMNS.index("read_as")] == as_record(read)["read_as"]
    assert as_record(answer("a cup"))["read_as"] == ""


class Read(Phrase):
    """A phrase with a word that was read as other words."""

    read_as = "elephant -> african elephant, indian elephant"


def written(folder: Path, form: str, presences: type = float) -> Path:
    groundings = [
        g if g.presence is None else replace(g, presence=presences(g.presence), present=np.bool_(g.present))
        for g in one_of_each()
    ]
    FORMATS[form].write(folder / FORMATS[form].file, [Answers("x.png", (60, 90), groundings)], 2)
    return folder / FORMATS[form].file


@pytest.mark.parametrize("presences", [float, np.float64, np.float32])
def test_json_has_the_presence(tmp_path, presences):
    groundings = json.loads(written(tmp_path, "json", presences).read_bytes())["groundings"]
    assert [g["present"] for g in groundings] == [True, False, None, None]
    assert [g["presence"] for g in groundings] == [pytest.approx(0.834), pytest.approx(0.034), None, None]
    assert [len(g["boxes"]) for g in groundings] == [2, 2, 2, 0]
    assert json.loads(written(tmp_path, "jsonl", presences).read_bytes())["groundings"] == groundings


def test_csv_has_the_presence_in_each_row(tmp_path):
    with written(tmp_path, "csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["phrase"], row["rank"], row["presence"], row["present"]) for row in rows] == [
        ("a cat", "1", "0.834", "true"), ("a cat", "2", "0.834", "true"),
        ("a dog", "1", "0.034", "false"), ("a dog", "2", "0.034", "false"),
        ("a cup", "1", "", ""), ("a cup", "2", "", ""), ("a zorgophone", "", "", ""),
    ]  # fmt: skip


def test_coco_has_no_box_of_what_is_probably_absent(tmp_path, capsys):
    coco = COCO(str(written(tmp_path, "coco")))
    names = {number: category["name"] for number, category in coco.cats.items()}
    assert [names[a["category_id"]] for a in coco.dataset["annotations"]] == ["a cat", "a cat", "a cup", "a cup"]
    assert [a.get("presence") for a in coco.dataset["annotations"]] == [0.834, 0.834, None, None]
    assert coco.dataset["probably_absent"] == [
        {"image_id": 1, "category_id": 2, "phrase": "a dog", "presence": 0.034}
    ]  # fmt: skip
    assert [one["phrase"] for one in coco.dataset["not_groundable"]] == ["a zorgophone"]


def test_an_overlay_of_what_is_absent_says_so_and_its_box_is_grey_and_dashed():
    large = np.repeat(np.repeat(PHOTO, 6, 0), 6, 1)
    found, lost = (
        np.asarray(
            replace(answer("a cat", 0.5, present), image=large, boxes=np.array([[120, 60, 420, 300.0]])).overlay()
        )
        for present in (True, False)
    )
    above = [len(picture) - len(large) for picture in (found, lost)]
    assert above[1] > above[0]  # one more line of text
    grey, white, black = (154, 154, 154), (255, 255, 255), (0, 0, 0)
    assert set(map(tuple, found[above[0] + 61, 121:419].tolist())) == {white}
    assert set(map(tuple, lost[above[1] + 61, 121:419].tolist())) == {grey, black}
    left = lost[above[1] + 62 : above[1] + 298, 121]
    assert set(map(tuple, left.tolist())) == {grey, black}
    assert (lost[above[0] : above[1]] == grey).all(-1).any()  # the note


def test_the_lines_above_an_overlay_are_never_cut_off():
    long = answer("a small brown dog that sits beside a very tall house with a blue roof", 0.01, False).overlay()
    short = answer("a dog", 0.01, False).overlay()
    assert long.width == short.width == 90 and long.height > short.height


def test_an_svg_of_what_is_absent_says_so_and_its_box_is_grey_and_dashed():
    root = defusedxml.ElementTree.fromstring(svg(PHOTO, one_of_each(), boxes=2))
    found, lost, unknown = root.findall(f"{SVG}g")
    for group in (found, unknown):
        assert all(r.get("stroke") != GREY and r.get("stroke-dasharray") is None for r in group.findall(f"{SVG}rect"))
    assert found.find(f"{SVG}text").text == "a cat"
    assert lost.find(f"{SVG}text").text == "a dog (probably not in this photo)"
    rectangles = lost.findall(f"{SVG}rect")
    assert len(rectangles) == 2
    assert all(r.get("stroke") == GREY and r.get("stroke-dasharray") for r in rectangles)


class Answering:
    """A grounder with ready answers."""

    def ground(self, image: object, phrases: list[str]) -> list[Grounding]:
        return [replace(one, image=PHOTO) for one in one_of_each() if one.phrase.text in phrases]

    def ground_batch(
        self,
        images: list[str],
        phrases: list[str],
        keep_images: bool = False,
        workers: int = 0,
        batch: int | None = None,
    ) -> GroundingBatch:
        return GroundingBatch(self.ground, Vocabulary(["cat", "dog", "cup"]), images, phrases, False, keep_images)


ABSENT_LINES = {
    "coco": "1 answer is probably not in the photo; coco.json has no boxes for it (presence=0 keeps the boxes)",
    "csv": "1 answer is probably not in the photo",
}


@pytest.mark.parametrize("form", ["coco", "csv"])
@pytest.mark.parametrize("many", [False, True])
def test_the_step_draws_what_is_absent_and_counts_it(tmp_path, astronaut, capsys, form, many):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "one.png").write_bytes(astronaut.read_bytes())
    image = folder if many else folder / "one.png"
    ground(Answering(), str(image), ["a cat", "a dog"], str(tmp_path / "out"), form, workers=0)
    printed = capsys.readouterr().out
    assert (ABSENT_LINES[form] in printed.splitlines()) == (many or form == "coco")
    assert ("0.03: probably not in this photo" in printed) != many
    drawn = sorted(path.name for path in (tmp_path / "out").rglob("*.png") if path.is_file())
    assert drawn == ["01-a-cat.png", "02-a-dog.png"]


def test_the_step_counts_a_phrase_once_for_each_photo(tmp_path, astronaut, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(astronaut.read_bytes())
    asked = ["a cat", "a dog", "a dog"]
    ground(Answering(), str(folder), asked, str(tmp_path / "out"), "coco", pictures=None, workers=0)
    line = "2 answers are probably not in the photo; coco.json has no boxes for them (presence=0 keeps the boxes)"
    assert line in capsys.readouterr().out.splitlines()
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["probably_absent"]) == 2

"""Pictures of several answers: labels, all phrases in one picture, contact sheets, and how answers show themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from grounding.answers import Answers, Grounding
from grounding.draw import heat_of, heated
from grounding.pictures.board import board
from grounding.pictures.groundings import Groundings
from grounding.pictures.labels import labelled_boxes, place
from grounding.pictures.sheet import ContactSheet
from grounding.pictures.svg import COLOURS
from grounding.steps.pictures import PictureWriter
from grounding.text.phrases import Phrase
from proposals.errors import InputError

SIZE = (120, 180)
PHOTO = np.random.default_rng(0).integers(90, 160, (120, 180, 3), np.uint8)


def answer(text: str, box=(40, 20, 140, 100), present: bool | None = True) -> Grounding:
    attention = np.zeros((12, 18))
    attention[4:8, 6:12] = 1 / 24
    presence = None if present is None else 0.8 if present else 0.01
    phrase = Phrase(text, (text,), ())
    boxes, scores = np.array([box, (5, 5, 30, 40.0)]), np.array([0.5, 0.2])
    return Grounding(phrase, boxes, scores, attention, SIZE, PHOTO, True, presence, present)


UNKNOWN = Grounding(Phrase("a zorgophone", (), ("zorgophone",)), np.zeros((0, 4)), np.zeros(0), None, SIZE, PHOTO)
SEVERAL = Groundings(
    [answer("a cat"), answer("a dog", present=False), UNKNOWN, answer("a cup", (0, 0, 180, 120), None)]
)


def test_a_line_for_a_terminal():
    assert str(SEVERAL).splitlines() == [
        "a cat: box 40 20 140 100, score 0.50, presence 0.80",
        "a dog: probably not in this photo: box 40 20 140 100, score 0.50, presence 0.01",
        "a zorgophone: not groundable: not known: zorgophone",
        "a cup: box 0 0 180 120, score 0.50",
    ]
    assert "\n" not in str(answer("a\ncat"))


def test_half_of_the_mass_is_hot_however_it_is_distributed():
    rng = np.random.default_rng(1)
    for attention in (rng.random((30, 40)), rng.random((30, 40)) ** 8):
        shown = attention / attention.sum()
        hot = heat_of(attention, attention.shape[::-1]) > 0.5
        assert 0.3 < shown[hot].sum() < 0.6
    assert (heat_of(np.ones((3, 4)), (4, 3)) == 0.5).all()
    assert (heat_of(np.zeros((3, 4)), (4, 3)) == 0).all()
    assert heat_of(np.eye(3), (3, 3))[0, 1] == 0  # where no mass is, no heat is shown


@pytest.mark.parametrize("grey", [10, 128, 245])
def test_heat_is_visible_on_dark_and_light_photos(grey):
    photo = np.full((60, 90, 3), grey, np.uint8)
    attention = np.zeros((6, 9))
    attention[2:4, 3:6] = 1
    picture = np.asarray(heated(photo, attention, 1)).astype(int)
    assert np.abs(picture[30, 45] - picture[5, 5]).max() > 60


BOXES = st.tuples(st.floats(0, 180), st.floats(0, 180), st.floats(10, 120), st.floats(10, 120))


@given(st.lists(BOXES, min_size=1, max_size=8))
def test_labels_stay_inside_and_never_cover_each_other(boxes):
    taken = []
    for x, y, w, h in boxes:
        area = place((x, y, x + w, y + h), (60, 15), (300, 300), taken)
        assert area[0] >= 0 and area[1] >= 0 and area[2] <= 300 and area[3] <= 300
        assert not any(area[0] < o[2] and o[0] < area[2] and area[1] < o[3] and o[1] < area[3] for o in taken)
        taken.append(area)


def test_boxes_have_the_colours_of_the_page():
    labelled = labelled_boxes(SEVERAL, 0.5)
    assert [(one.text, one.colour, one.dashed) for one in labelled] == [
        ("a cat", COLOURS[0], False), ("a dog?", "#9a9a9a", True), ("a cup", COLOURS[3], False)
    ]  # fmt: skip
    assert labelled[0].box == (20, 10, 70, 50)
    further, best = labelled_boxes(SEVERAL[:1], 0.5, boxes=2)
    assert best == labelled[0] and (further.text, further.colour, further.dashed) == ("", COLOURS[0], True)
    (long,) = labelled_boxes([answer("a very " * 20)], 1)
    assert len(long.text) <= 40


def test_a_board_has_a_panel_for_each_groundable_phrase():
    few, many = board(PHOTO, SEVERAL[:1]), board(PHOTO, SEVERAL)
    assert few.size[0] == 2 * 180 + 8
    assert many.height > few.height
    colours = set(map(tuple, np.asarray(many).reshape(-1, 3).tolist()))
    assert {(230, 159, 0), (154, 154, 154), (240, 228, 66)} <= colours  # orange, grey, yellow
    assert board(PHOTO, [UNKNOWN]).width == 180


def test_a_notebook_shows_the_answers_beside_each_other(grounder):
    html = SEVERAL._repr_html_()
    assert html is not None and html.startswith("<img alt=") and "data:image/png;base64," in html
    assert Answers("a.jpg", (120, 180), SEVERAL)._repr_html_() == html
    assert Answers("a.jpg", (120, 180), list(SEVERAL))._repr_html_() is None
    without = Groundings(replace(one, image=None) for one in SEVERAL)
    assert without._repr_html_() is None and Groundings()._repr_html_() is None
    with pytest.raises(InputError, match="do not contain their image: call ground_batch with keep_images=True"):
        without.picture()
    shown = grounder.look(np.repeat(np.repeat(PHOTO, 2, 0), 2, 1)).show(["a cat", "a zorgophone"])
    assert isinstance(shown, Image.Image) and shown.width == 2 * 360 + 8


def test_contact_sheets_have_pages(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("grounding.pictures.sheet.PHOTOS", 3)
    sheet = ContactSheet(tmp_path)
    for number in range(4):
        sheet.add(f"{number}.jpg", PHOTO, SEVERAL)
    sheet.close()
    sheet.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contact-sheet-01.jpg", "contact-sheet-02.jpg"]
    with Image.open(tmp_path / "contact-sheet-01.jpg") as page:
        assert page.width == 3 * 400 + 16


@pytest.mark.parametrize("many", [False, True])
def test_one_picture_for_each_photo(tmp_path, many):
    writer = PictureWriter(tmp_path, "one", many)
    writer.write("a.jpg", Answers("x/a.jpg", (120, 180), SEVERAL), tmp_path / "a.jpg")
    writer.close()
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*g") if path.is_file())
    assert found == ["a.jpg/groundings.png", *(["contact-sheet-01.jpg"] if many else [])]

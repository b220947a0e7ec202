"""What is shown of an answer's presence: the line, the table, each file, the pictures."""

from dataclasses import replace

import numpy as np
import pytest

from grounding import Grounder
from grounding.answers import Grounding
from grounding.scene import Settings
from grounding.text.phrases import Phrase
from proposals.errors import InputError

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


@pytest.mark.parametrize(
    ("given", "message"),
    [(-1, "presence=-1 must be in 0..1; 0 counts every answer as present"), (2, "presence=2 must be in 0..1"),
     (float("nan"), "presence=nan must be in 0..1"), ("abc", "presence=abc must be a number"),
     (True, "presence=True must be a number")],
)  # fmt: skip
def test_a_threshold_that_is_no_probability_is_refused(grounder, given, message):
    scene = grounder.look(PHOTO)
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
    with pytest.raises(InputError, match=f"^{name}=abc must be a number$"):
        replace(Settings(), **{name: "abc"})


def test_a_threshold_changes_no_box(grounder):
    scene = grounder.look(PHOTO)
    for low, high in zip(*(scene.ground(["a cat", "a dog"], presence=value) for value in (0, 1)), strict=True):
        np.testing.assert_array_equal(low.boxes, high.boxes)
        np.testing.assert_array_equal(low.scores, high.scores)
        assert low.presence == high.presence

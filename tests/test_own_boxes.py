"""The own-box rate on hand-made photos."""

import numpy as np
import pytest

from eval.metrics import Metrics
from eval.own_boxes import add_own_boxes, all_others, other_objects, own_boxes
from eval.phrase_results import PhraseResult

BOX, OTHER = np.array([0.0, 0, 9, 9]), np.array([50.0, 50, 69, 69])


def phrase(photo: str, first, text: str = "a dog", union=BOX) -> PhraseResult:
    return PhraseResult((photo, 0, 0), text, (), 0.1, np.inf, False, first=first, union=union)


def rates(results, compared) -> tuple:
    metrics = Metrics([result.place[0] for result in results])
    count = add_own_boxes(metrics, results, compared)
    return count, metrics.values["own_box"], metrics.values["own_box_photos"]


@pytest.mark.parametrize(("height", "own"), [(7, False), (6, True)])
def test_a_box_is_shared_from_an_iou_of_seven_tenths(height, own):
    first = [np.array([0.0, 0, 9, 9]), np.array([0.0, 0, 9, height - 1])]
    assert own_boxes(first, ~np.eye(2, dtype=bool)).tolist() == [own, own]


def test_a_phrase_without_a_box_has_none_of_its_own_and_takes_none():
    assert own_boxes([None, BOX], ~np.eye(2, dtype=bool)).tolist() == [False, True]
    assert own_boxes([None, None], ~np.eye(2, dtype=bool)).tolist() == [False, False]
    zero = np.array([0.0, 0, 0, 0])  # what stands in for a missing box
    assert own_boxes([None, zero], ~np.eye(2, dtype=bool)).tolist() == [False, True]


def test_photos_with_one_category_do_not_count():
    results = [phrase("a", BOX), phrase("b", BOX), phrase("b", BOX), phrase("b", OTHER), phrase("c", BOX)]
    results += [phrase("c", OTHER)]
    assert rates(results, all_others) == (5, pytest.approx(60), pytest.approx(50))
    assert [result.own for result in results] == [None, False, False, True, True, True]
    assert rates(results[:1], all_others) == (0, None, None)


def test_phrases_of_captions_are_compared_with_other_objects_only():
    same = [phrase("a", BOX), phrase("a", BOX, "a puppy")]  # two names of one thing
    assert rates(same, other_objects) == (0, None, None)
    text = [phrase("a", BOX), phrase("a", BOX, "A dog", OTHER)]  # a system knows the text only
    assert rates(text, other_objects) == (0, None, None)
    different = [phrase("a", BOX), phrase("a", BOX, "a puppy"), phrase("a", BOX, "a ball", OTHER)]
    assert rates(different, other_objects) == (3, 0, 0)
    different[2].first = OTHER
    assert rates(different, other_objects) == (3, 100, 100)

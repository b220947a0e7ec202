import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eval.localization import MISS, contains, first_correct, inclusive, overlap


def pixels(box: np.ndarray) -> set[tuple[int, int]]:
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


box = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 6), st.integers(0, 6)).map(
    lambda t: [t[0], t[1], t[0] + t[2], t[1] + t[3]]
)
boxes = st.lists(box, min_size=1, max_size=6).map(lambda rows: np.array(rows, float))


@given(boxes, boxes)
def test_overlap_counts_pixels(ours, theirs):
    found = overlap(ours, theirs)
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            shared, union = pixels(a) & pixels(b), pixels(a) | pixels(b)
            assert abs(found[i, j] - len(shared) / len(union)) < 1e-12


@given(boxes, boxes)
def test_rank_of_the_first_correct_box(ours, truth):
    expected = MISS
    for rank, a in enumerate(ours, 1):
        if any(2 * len(pixels(a) & pixels(b)) >= len(pixels(a) | pixels(b)) for b in truth):
            expected = rank
            break
    assert first_correct(ours, truth) == expected


@given(boxes)
def test_inclusive_boxes_match_half_open_ones(rows):
    half_open = rows + np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(inclusive(half_open), rows)


def test_no_box_and_invalid_boxes_are_misses():
    assert first_correct(np.zeros((0, 4)), np.array([[0.0, 0, 5, 5]])) == MISS
    # inverted boxes are evaluated as they are
    assert first_correct(np.array([[9.0, 9, 2, 2]]), np.array([[0.0, 0, 5, 5]])) == MISS


def test_point_in_half_open_boxes():
    truth = np.array([[2.0, 3, 5, 6]])
    assert contains(truth, (2, 3))
    assert contains(truth, (4.99, 5.99))
    assert not contains(truth, (5, 4))
    assert not contains(truth, None)

"""The boxes that a training program or an annotator gets."""

from collections.abc import Iterator
from typing import NamedTuple

from grounding.answers import Answers


class ShownBox(NamedTuple):
    """A box of a phrase.

    Attributes:
        phrase: the phrase as it was given.
        box: x1, y1, x2, y2 in pixels of the image, half-open, with two decimals.
        score: its score.
        presence: the presence of the phrase; None if it is unknown.
    """

    phrase: str
    box: tuple[float, float, float, float]
    score: float
    presence: float | None


def shown_boxes(answers: Answers, boxes: int) -> Iterator[ShownBox]:
    """Yields the best boxes of the phrases that the image probably shows.

    Phrases that are not groundable have no box. Nor have those that the image probably does not show, because a
    detector that is trained on such boxes learns wrong ones.

    Args:
        answers: the answers about an image. If a phrase occurs twice, the last answer is used.
        boxes: the largest number of boxes of a phrase.

    Yields:
        The boxes in the order of the phrases, best first.
    """
    for text, answer in {answer.phrase.text: answer for answer in answers.groundings}.items():
        if not answer.absent:
            for (x1, y1, x2, y2), score in zip(answer.boxes[:boxes].round(2).tolist(), answer.scores, strict=False):
                presence = None if answer.presence is None else float(answer.presence)
                yield ShownBox(text, (x1, y1, x2, y2), float(score), presence)

"""The file types in which the page exports answers."""

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import NamedTuple

from grounding.answers import Answers, Grounding
from grounding.exports import as_coco, image_record
from grounding.page.store import StoredPhoto
from grounding.pictures.board import board
from grounding.pictures.svg import svg
from proposals.errors import InputError


class Download(NamedTuple):
    """A file type.

    Attributes:
        title: its name on the page.
        media_type: its media type.
        make: makes the bytes of a file from the photo, the answers, and the maximum number of boxes for each phrase.
    """

    title: str
    media_type: str
    make: Callable[[StoredPhoto, Sequence[Grounding], int], bytes]


def _answers(photo: StoredPhoto, answers: Sequence[Grounding]) -> Answers:
    height, width = photo.scene.image.shape[:2]
    return Answers(photo.name, (height, width), answers)


def _json(photo: StoredPhoto, answers: Sequence[Grounding], boxes: int) -> bytes:
    return json.dumps(image_record(_answers(photo, answers), boxes), indent=1, ensure_ascii=False).encode()


def _coco(photo: StoredPhoto, answers: Sequence[Grounding], boxes: int) -> bytes:
    return json.dumps(as_coco([_answers(photo, answers)], boxes), indent=1, ensure_ascii=False).encode()


def _svg(photo: StoredPhoto, answers: Sequence[Grounding], boxes: int) -> bytes:
    return svg(photo.scene.image, answers, boxes).encode()


def _png(photo: StoredPhoto, answers: Sequence[Grounding], boxes: int) -> bytes:
    """The photo with all phrases, each in its colour, and beside it the heat map of each."""
    if not any(answer.groundable for answer in answers):
        raise InputError("no phrase is groundable: use words that are in the vocabulary")
    board(photo.scene.image, answers, boxes).save(buffer := BytesIO(), "PNG")
    return buffer.getvalue()


DOWNLOADS = {
    "png": Download("PNG", "image/png", _png),
    "svg": Download("SVG", "image/svg+xml", _svg),
    "json": Download("JSON", "application/json", _json),
    "coco.json": Download("COCO", "application/json", _coco),
}

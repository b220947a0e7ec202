"""The files that answers can be taken away as, by their endings."""

import json
import math
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from grounding.answers import Answers, Grounding
from grounding.exports import as_coco, image_record
from grounding.page.photos import Kept
from grounding.svg import svg
from proposals.errors import InputError

WIDEST = 1600  # pixels of a picture of several phrases


class Download(NamedTuple):
    """A kind of file: its name on the page, its media type, and (photo, answers, boxes of a phrase) -> its bytes."""

    title: str
    media_type: str
    make: Callable[[Kept, Sequence[Grounding], int], bytes]


def _answers(kept: Kept, answers: Sequence[Grounding]) -> Answers:
    height, width = kept.scene.image.shape[:2]
    return Answers(kept.name, (height, width), answers)


def _json(kept: Kept, answers: Sequence[Grounding], boxes: int) -> bytes:
    return json.dumps(image_record(_answers(kept, answers), boxes), indent=1, ensure_ascii=False).encode()


def _coco(kept: Kept, answers: Sequence[Grounding], boxes: int) -> bytes:
    return json.dumps(as_coco([_answers(kept, answers)], boxes), indent=1, ensure_ascii=False).encode()


def _svg(kept: Kept, answers: Sequence[Grounding], boxes: int) -> bytes:
    return svg(kept.scene.image, answers, boxes).encode()


def _png(kept: Kept, answers: Sequence[Grounding], _: int) -> bytes:
    """One overlay a groundable phrase, in rows.

    Raises:
        InputError: none is groundable.
    """
    overlays = [answer.overlay() for answer in answers if answer.groundable]
    if not overlays:
        raise InputError("no phrase is groundable: there is nothing to draw")
    columns = math.ceil(math.sqrt(len(overlays)))
    for picture in overlays:
        picture.thumbnail((WIDEST // columns, WIDEST // columns))
    width, height = overlays[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(overlays) / columns) * height))
    for i, picture in enumerate(overlays):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    sheet.save(buffer := BytesIO(), "PNG")
    return buffer.getvalue()


DOWNLOADS = {
    "png": Download("PNG", "image/png", _png),
    "svg": Download("SVG", "image/svg+xml", _svg),
    "json": Download("JSON", "application/json", _json),
    "coco.json": Download("COCO", "application/json", _coco),
}

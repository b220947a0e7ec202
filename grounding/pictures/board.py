"""All phrases of a photo in one picture."""

import math
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grounding.answers import ABSENT, Grounding
from grounding.draw import GREY, captioned, heated, scale_of, scaled_size
from grounding.pictures.labels import draw_labelled, labelled_boxes
from grounding.pictures.svg import COLOURS

WIDTH = 1600  # pixels of the picture, at most
GAP = 8  # pixels between the panels
BACKGROUND = "black"


def board(image: NDArray[np.uint8], answers: Sequence[Grounding], boxes: int = 1) -> Image.Image:
    """Draws a photo with the best boxes of each phrase, and beside it the heat map of each phrase.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        answers: the answers about this photo.
        boxes: the largest number of boxes of a phrase, >= 1.

    Returns:
        An RGB picture: a grid with the labelled photo first. Its caption names the phrases that are not groundable.
    """
    shown = [number for number, answer in enumerate(answers) if answer.groundable]
    columns = _columns(len(shown) + 1, image.shape[1] / image.shape[0])
    scale = min(scale_of(image), (WIDTH / columns - GAP) / image.shape[1])
    panels = [
        _overview(image, answers, scale, boxes),
        *(_panel(image, answers, number, scale, boxes) for number in shown),
    ]
    return grid(panels, columns)


def _columns(panels: int, aspect: float) -> int:
    """The number of columns with which panels of an aspect ratio fill a picture of about 3:2."""
    return max(1, min(panels, math.ceil(math.sqrt(1.5 * panels / aspect))))


def _overview(image: NDArray[np.uint8], answers: Sequence[Grounding], scale: float, boxes: int) -> Image.Image:
    picture = Image.fromarray(image).resize(scaled_size(image, scale))
    draw_labelled(picture, labelled_boxes(answers, scale, boxes))
    unknown = [answer.phrase.text for answer in answers if not answer.groundable]
    return captioned(picture, [(f"not known: {', '.join(unknown)}", GREY)] if unknown else [])


def _panel(
    image: NDArray[np.uint8], answers: Sequence[Grounding], number: int, scale: float, boxes: int
) -> Image.Image:
    answer = answers[number]
    assert answer.map is not None  # groundable
    picture = heated(image, answer.map, scale)
    colour = GREY if answer.absent else COLOURS[number % len(COLOURS)]
    own = labelled_boxes([answer], scale, boxes)
    draw_labelled(picture, [box._replace(text="", colour=colour) for box in own])
    skipped = f"   (not known: {', '.join(answer.phrase.skipped)})" if answer.phrase.skipped else ""
    return captioned(picture, [(answer.phrase.text + skipped, colour), *([(ABSENT, GREY)] if answer.absent else [])])


def grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pastes pictures into a grid. Each row is as high as its highest picture; pictures are aligned at the bottom.

    Args:
        panels: RGB pictures.
        columns: the number of columns, >= 1.

    Returns:
        An RGB picture with a black background.
    """
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    width = max(panel.width for panel in panels)
    size = (columns * (width + GAP) - GAP, sum(heights) + GAP * (len(rows) - 1))
    picture, top = Image.new("RGB", size, BACKGROUND), 0
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            picture.paste(panel, (column * (width + GAP), top + height - panel.height))
        top += height + GAP
    return picture


def as_html(picture: Image.Image) -> str:
    """Embeds a picture in HTML for a notebook.

    Args:
        picture: an RGB picture.

    Returns:
        An ``img`` element with the picture as PNG.
    """
    picture.save(data := BytesIO(), "PNG")
    return f'<img alt="phrases and their boxes" src="data:image/png;base64,{b64encode(data.getvalue()).decode()}">'

"""Labelled boxes: the boxes of several phrases over a photo, each with its phrase on a chip of its colour."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from grounding.answers import Grounding
from grounding.draw import FONT, GREY, draw_box
from grounding.pictures.svg import COLOURS

Area = tuple[float, float, float, float]  # x1 y1 x2 y2 in pixels of the picture
LONGEST_LABEL = 40  # characters


class LabelledBox(NamedTuple):
    """A box and its label.

    Attributes:
        box: x1 y1 x2 y2 in pixels of the picture.
        text: the label; empty for none.
        colour: of the box and of the chip behind the label, ``#rrggbb``.
        dashed: whether the line is dashed.
    """

    box: Area
    text: str
    colour: str
    dashed: bool = False


def labelled_boxes(answers: Sequence[Grounding], scale: float, boxes: int = 1) -> list[LabelledBox]:
    """Makes a label of the best box of each groundable answer.

    Args:
        answers: the answers about one photo. The colours follow their order, as on the page.
        scale: the size of the picture relative to the photo.
        boxes: the largest number of boxes of an answer, >= 1. Further boxes are dashed and have no label.

    Returns:
        The boxes, the best of an answer after its further ones. What is probably not in the photo is grey and dashed,
        and its label ends with "?".
    """
    labelled: list[LabelledBox] = []
    for number, answer in enumerate(answers):
        if answer.groundable:
            colour = GREY if answer.absent else COLOURS[number % len(COLOURS)]
            best, *further = ((x1, y1, x2, y2) for x1, y1, x2, y2 in (answer.boxes[:boxes] * scale).tolist())
            labelled += [LabelledBox(box, "", colour, dashed=True) for box in reversed(further)]
            labelled.append(LabelledBox(best, _label(answer), colour, answer.absent))
    return labelled


def _label(answer: Grounding) -> str:
    text = " ".join(answer.phrase.text.split())
    text = text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
    return f"{text}?" if answer.absent else text


def draw_labelled(picture: Image.Image, labelled: Sequence[LabelledBox]) -> None:
    """Draws boxes, and over all of them their labels. A label is moved to where it covers no other label.

    Args:
        picture: an RGB picture; it is changed.
        labelled: the boxes.
    """
    draw = ImageDraw.Draw(picture)
    width = max(2, max(picture.size) // 250)
    for one in labelled:
        draw_box(draw, one.box, width, one.colour, one.dashed)
    font = ImageFont.truetype(FONT, max(11, max(picture.size) // 45))
    taken: list[Area] = []
    for one in (one for one in labelled if one.text):
        text = _shortened(one.text, font, picture.width)
        area = place(one.box, (font.getlength(text) + font.size * 0.8, font.size * 1.5), picture.size, taken)
        taken.append(area)
        draw.rounded_rectangle(area, font.size / 4, one.colour, "black")
        draw.text((area[0] + font.size * 0.4, (area[1] + area[3]) / 2), text, "black", font, anchor="lm")


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The beginning of a text that fits into a picture."""
    while len(text) > 2 and font.getlength(text) + font.size > width:
        text = f"{text[:-2]}…"
    return text


def place(box: Area, size: tuple[float, float], within: tuple[int, int], taken: Sequence[Area]) -> Area:
    """Finds a place for a label: above its box, inside, or below; otherwise the first free line of the picture.

    Args:
        box: the labelled box, in pixels of the picture.
        size: (width, height) of the label in pixels.
        within: (width, height) of the picture in pixels.
        taken: the places of other labels.

    Returns:
        The place, inside the picture if the label is not larger. It overlaps another label only if no line is free.
    """
    x1, y1, x2, y2 = box
    width, height = size
    tops = (y1 - height, y1, y2, y2 - height, *(i * height for i in range(int(within[1] // height))))
    lefts = (x1, x2 - width)
    areas = [_inside((left, top), size, within) for top in tops for left in lefts]
    free = (area for area in areas if not any(_overlap(area, other) for other in taken))
    above = (area for area in areas[:2] if area[1] == y1 - height and not any(_overlap(area, o) for o in taken))
    return next(above, None) or next(free, areas[0])


def _inside(corner: tuple[float, float], size: tuple[float, float], within: tuple[int, int]) -> Area:
    left, top = (max(0.0, min(c, w - s - 1)) for c, s, w in zip(corner, size, within, strict=True))
    return left, top, left + size[0], top + size[1]


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

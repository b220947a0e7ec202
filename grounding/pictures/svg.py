"""Answers as a vector picture: one SVG file that any browser or drawing program opens."""

import re
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grounding.answers import ABSENT, Grounding
from grounding.draw import GREY, OPACITY, heat_of, scale_of, scaled_size

# Distinct for colour-blind readers, too (Okabe and Ito 2008), and light enough to be read on black.
COLOURS = ("#e69f00", "#56b4e9", "#00c08b", "#f0e442", "#cc79a7", "#ff7f4d", "#7fa8ff", "#d0d0d0")
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def svg(
    image: NDArray[np.uint8], answers: Sequence[Grounding], boxes: int = 1, colours: Sequence[str] = COLOURS
) -> str:
    """Draws a photo, and over it a group for each groundable phrase: its heat map, its best boxes and its text.

    The file refers to no other file: the photo (JPEG, at most ``LONGEST`` pixels on the longer side) and the heat maps
    (PNG) are embedded. Coordinates are pixels of the photo, and the text is in lines above it. The groups have the ids
    ``phrase-1``, ``phrase-2`` and so on in the order of the phrases, so that an editor or a style sheet can hide them.
    A phrase that the photo probably does not show is grey, its boxes are dashed, and its text says so.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        answers: the answers about this image.
        boxes: the largest number of boxes of a phrase.
        colours: the colours of the phrases as ``#rrggbb``; they repeat if there are more phrases.

    Returns:
        SVG 1.1. A character that XML does not allow, such as a null byte, becomes U+FFFD.
    """
    height, width = image.shape[:2]
    shown = [(number, answer, answer.map) for number, answer in enumerate(answers) if answer.map is not None]
    line = max(height, width) / 25
    above = line * (len(shown) + 0.4)
    size = scaled_size(image, scale_of(image))
    groups = [
        _group(answer, number, _tinted(attention, colour, size), colour, boxes, line, line * (i + 1) - above)
        for i, (number, answer, attention) in enumerate(shown)
        for colour in [GREY if answer.absent else colours[number % len(colours)]]
    ]
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1" '
        f'width="{width}" height="{height + above:.2f}" viewBox="0 {-above:.2f} {width} {height + above:.2f}">'
    )
    ground = f'<rect y="{-above:.2f}" width="{width}" height="{above:.2f}"/>'
    photo = _picture(_embedded(Image.fromarray(image).resize(size), "JPEG"), (height, width))
    return "\n".join((head, ground, photo, *groups, "</svg>\n"))


def _group(
    answer: Grounding, number: int, tinted: Image.Image, colour: str, boxes: int, line: float, baseline: float
) -> str:
    """Returns the SVG group of one phrase."""
    text = escape(NOT_XML.sub("\ufffd", answer.phrase.text)) + (f" ({ABSENT})" if answer.absent else "")
    dashes = f' stroke-dasharray="{line / 2:.2f} {line / 3:.2f}"' if answer.absent else ""
    heat = _picture(_embedded(tinted, "PNG"), answer.size)
    rectangles = [
        f'<rect x="{x1:.2f}" y="{y1:.2f}" width="{x2 - x1:.2f}" height="{y2 - y1:.2f}" fill="none" '
        f'stroke="{colour}" stroke-width="{line / 9:.2f}"{dashes}/>'
        for x1, y1, x2, y2 in answer.boxes[:boxes].tolist()
    ]
    title = (
        f'<text x="{line / 2:.2f}" y="{baseline:.2f}" font-family="sans-serif" font-size="{0.8 * line:.2f}" '
        f'fill="{colour}" xml:space="preserve">{text}</text>'
    )
    return "\n".join((f'<g id="phrase-{number + 1}">', heat, *rectangles, title, "</g>"))


def _tinted(attention: NDArray[np.float64], colour: str, size: tuple[int, int]) -> Image.Image:
    """Returns an RGBA picture of one colour, which is more opaque where the map has more mass."""
    tint = Image.new("RGBA", size, colour)
    tint.putalpha(Image.fromarray((heat_of(attention, size) * OPACITY * 255).round().astype(np.uint8)))
    return tint


def _embedded(picture: Image.Image, form: str) -> str:
    picture.save(data := BytesIO(), form)
    return f"data:image/{form.lower()};base64,{b64encode(data.getvalue()).decode()}"


def _picture(source: str, size: tuple[int, int]) -> str:
    # xlink:href of SVG 1.1, because some editors do not read the newer href
    return f'<image width="{size[1]}" height="{size[0]}" preserveAspectRatio="none" xlink:href={quoteattr(source)}/>'

"""Pictures of attention: a map as heat over its photo, the best box, and a caption."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LONGEST = 1200  # pixels of a picture's longer side
# The font of matplotlib: Pillow's own has Latin letters only. Chinese and emoji are empty boxes in this one, too.
FONT = str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
COLOUR = 0.4  # how much of the photo's colour stays under the heat, so that it is visible on an orange suit, too
OPACITY = 0.75  # of the heat at its maximum
# The part of matplotlib's inferno that is shown: its dark end is invisible on dark photos, its pale end on light ones.
INFERNO = (0.25, 0.88)
LEVELS = 1024  # steps in which the values of a map are compared
GREY = "#9a9a9a"  # of what is probably not in the photo


def overlay(
    image: NDArray[np.uint8], attention: NDArray[np.float64], box: NDArray[np.float64], caption: str, absent: str = ""
) -> Image.Image:
    """Draws a photo under its heat map, with one box in white and a caption above.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        attention: ``(h, w)``, >= 0, the map, at any resolution.
        box: ``(4,)`` xyxy, half-open, in pixels of the image.
        caption: the text above the photo. Lines that are too long are wrapped.
        absent: the text below the caption if the photo probably does not show the thing. The box is then grey and
            dashed. Empty otherwise.

    Returns:
        An RGB picture: the photo, with its longer side at most ``LONGEST`` pixels, and the lines of text above it.
    """
    scale = scale_of(image)
    picture = heated(image, attention, scale)
    width = max(2, max(picture.size) // 250)
    draw_box(ImageDraw.Draw(picture), (box * scale).tolist(), width, GREY if absent else "white", bool(absent))
    return captioned(picture, [(text, colour) for text, colour in ((caption, "white"), (absent, GREY)) if text])


def heated(image: NDArray[np.uint8], attention: NDArray[np.float64], scale: float) -> Image.Image:
    """Draws the heat of a map over a photo, in the colours of inferno; hotter places are more opaque.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        attention: ``(h, w)``, >= 0, the map, at any resolution.
        scale: the size of the picture relative to the photo, in (0, 1].

    Returns:
        An RGB picture.
    """
    size = scaled_size(image, scale)
    resized = Image.fromarray(image).resize(size)
    pale = Image.blend(resized.convert("L").convert("RGB"), resized, COLOUR)
    photo = np.asarray(pale, dtype=np.float64)
    heat = heat_of(attention, size)[..., None]
    colours = mpl.colormaps["inferno"](np.interp(heat[..., 0], (0, 1), INFERNO))[..., :3] * 255
    return Image.fromarray((photo * (1 - OPACITY * heat) + colours * OPACITY * heat).astype(np.uint8))


def heat_of(attention: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Computes the heat that is shown for a map: the share of its mass at places with a lower value.

    The hottest places that have half of the mass together have a heat above 0.5, however the mass is distributed. The
    heat of an even map is 0.5.

    Args:
        attention: ``(h, w)``, >= 0, the map.
        size: (width, height) in pixels.

    Returns:
        ``(height, width)`` in 0..1.
    """
    heat = np.asarray(Image.fromarray(attention.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    if not heat.max() > 0:
        return np.zeros_like(heat)
    values = (heat / heat.max()).clip(0, 1)
    levels = np.rint(np.sqrt(values) * (LEVELS - 1)).astype(np.int64)
    masses = np.bincount(levels.ravel(), values.ravel(), minlength=LEVELS)
    below = (masses.cumsum() - masses / 2) / masses.sum()
    below[0] = 0
    shown: NDArray[np.float32] = below[levels].astype(np.float32)
    return shown


def scale_of(image: NDArray[np.uint8]) -> float:
    """Returns the factor, at most 1, at which the longer side of an image ``(H, W, 3)`` has ``LONGEST`` pixels."""
    longest: int = max(image.shape[:2])
    return min(1.0, LONGEST / longest)


def scaled_size(image: NDArray[np.uint8], scale: float) -> tuple[int, int]:
    """Returns (width, height) in pixels of an image ``(H, W, 3)`` after scaling, each at least 1."""
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))


def draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], width: int, colour: str, dashed: bool = False) -> None:
    """Draws the box as a light line on a black one, which is visible on any photo.

    Args:
        draw: draws on the picture.
        box: x1 y1 x2 y2, half-open, in pixels of the picture.
        width: of the light line, in pixels.
        colour: of the light line.
        dashed: whether the line has black gaps.
    """
    x1, y1 = box[:2]
    x2, y2 = max(box[2], x1 + 4), max(box[3], y1 + 4)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline="black", width=width + 2)
    draw.rectangle((x1 + 1, y1 + 1, x2 - 2, y2 - 2), outline=colour, width=width)
    if dashed:
        _gaps(draw, (x1, y1, x2, y2), width)


def _gaps(draw: ImageDraw.ImageDraw, box: Sequence[float], width: int) -> None:
    """Draws black gaps over the line of a box, which make it dashed. The corners have none."""
    (x1, y1, x2, y2), dash, thick = box, 4 * width, width + 1
    for x, y in product(np.arange(x1 + dash, x2 - 2 * dash, 2 * dash), (y1, y2 - 1 - thick)):
        draw.rectangle((x, y, x + dash, y + thick), "black")
    for x, y in product((x1, x2 - 1 - thick), np.arange(y1 + dash, y2 - 2 * dash, 2 * dash)):
        draw.rectangle((x, y, x + thick, y + dash), "black")


def captioned(picture: Image.Image, texts: Sequence[tuple[str, str]]) -> Image.Image:
    """Adds lines of text above a picture.

    Args:
        picture: an RGB picture.
        texts: (text, colour) pairs. Lines that are too long are wrapped.

    Returns:
        An RGB picture; the picture itself if there is no text.
    """
    if not texts:
        return picture
    height = max(14, max(picture.size) // 28)
    font = ImageFont.truetype(FONT, height)
    lines = [(line, colour) for text, colour in texts for line in _wrapped(text, font, picture.width - height)]
    step = 3 * height // 2
    above = step * len(lines) + height // 2
    captioned = Image.new("RGB", (picture.width, picture.height + above), "black")
    captioned.paste(picture, (0, above))
    for i, (line, colour) in enumerate(lines):
        ImageDraw.Draw(captioned).text((height // 2, height // 2 + i * step), line, colour, font)
    return captioned


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Returns the lines of a text, wrapped between words. A word that is wider than a line is cut off."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines

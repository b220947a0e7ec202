"""Pictures of attention: a map as heat over its photo, the best box, and a caption."""

from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LONGEST = 1200  # pixels of a picture's longer side
# The font of matplotlib: Pillow's own has Latin letters only. Chinese and emoji are empty boxes in this one, too.
FONT = str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
OPACITY = 0.65  # of the heat at its maximum
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
    _box(ImageDraw.Draw(picture), box * scale, width, GREY if absent else "white")
    if absent:
        _gaps(ImageDraw.Draw(picture), box * scale, width)
    return _captioned(picture, caption, absent)


def heated(image: NDArray[np.uint8], attention: NDArray[np.float64], scale: float) -> Image.Image:
    """Draws the heat of a map over a photo.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        attention: ``(h, w)``, >= 0, the map, at any resolution.
        scale: the size of the picture relative to the photo, in (0, 1].

    Returns:
        An RGB picture.
    """
    size = scaled_size(image, scale)
    photo = np.asarray(Image.fromarray(image).resize(size), dtype=np.float64)
    heat = heat_of(attention, size)[..., None]
    colours = mpl.colormaps["inferno"](heat[..., 0])[..., :3] * 255
    return Image.fromarray((photo * (1 - OPACITY * heat) + colours * OPACITY * heat).astype(np.uint8))


def heat_of(attention: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Computes the heat that is shown for a map: the square root of its values divided by their maximum.

    Args:
        attention: ``(h, w)``, >= 0, the map.
        size: (width, height) in pixels.

    Returns:
        ``(height, width)`` in 0..1.
    """
    heat = np.asarray(Image.fromarray(attention.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    return (heat / heat.max()).clip(0, 1) ** 0.5 if heat.max() > 0 else np.zeros_like(heat)


def scale_of(image: NDArray[np.uint8]) -> float:
    """Returns the factor, at most 1, at which the longer side of an image ``(H, W, 3)`` has ``LONGEST`` pixels."""
    longest: int = max(image.shape[:2])
    return min(1.0, LONGEST / longest)


def scaled_size(image: NDArray[np.uint8], scale: float) -> tuple[int, int]:
    """Returns (width, height) in pixels of an image ``(H, W, 3)`` after scaling, each at least 1."""
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))


def _box(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], width: int, colour: str) -> None:
    """Draws a light line on a black one, which is visible on any photo."""
    x1, y1, x2, y2 = box
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline="black", width=width + 2)
    draw.rectangle((x1 + 1, y1 + 1, x2 - 2, y2 - 2), outline=colour, width=width)


def _gaps(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], width: int) -> None:
    """Draws black gaps over the line of a box, which make it dashed. The corners have none."""
    (x1, y1, x2, y2), dash, thick = box, 4 * width, width + 1
    for x, y in product(np.arange(x1 + dash, x2 - 2 * dash, 2 * dash), (y1, y2 - 1 - thick)):
        draw.rectangle((x, y, x + dash, y + thick), "black")
    for x, y in product((x1, x2 - 1 - thick), np.arange(y1 + dash, y2 - 2 * dash, 2 * dash)):
        draw.rectangle((x, y, x + thick, y + dash), "black")


def _captioned(picture: Image.Image, caption: str, note: str) -> Image.Image:
    """Adds lines of text above a picture: the caption in white, the note in grey."""
    height = max(14, max(picture.size) // 28)
    font = ImageFont.truetype(FONT, height)
    texts = [(text, colour) for text, colour in ((caption, "white"), (note, GREY)) if text]
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

"""Overlays: a phrase's attention and its best box on the photo."""

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from grounding.grounder import Grounding

LONGEST = 1200


def overlay(image: np.ndarray, answer: Grounding) -> Image.Image:
    """The photo under its heat map, with the best box in white and the phrase above.

    Args:
        image: (H, W, 3) uint8 RGB; answer: a groundable phrase's answer on this image.

    Returns:
        An RGB picture of the photo's proportions, ``LONGEST`` pixels at most, and a line of text on top.
    """
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    picture = heated(image, answer.map, scale)
    _box(ImageDraw.Draw(picture), answer.boxes[0] * scale, max(2, max(picture.size) // 250))
    return _titled(picture, answer)


def heated(image: np.ndarray, attention: np.ndarray, scale: float) -> Image.Image:
    """A photo (H, W, 3) uint8 under the heat of a map (h, w) >= 0, made smaller by ``scale``: an RGB picture."""
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    photo = np.asarray(Image.fromarray(image).resize(size), dtype=np.float64)
    heat = np.asarray(Image.fromarray(attention.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    heat = (heat / heat.max()).clip(0, 1)[..., None] ** 0.5 if heat.max() > 0 else np.zeros((*heat.shape, 1))
    colours = mpl.colormaps["inferno"](heat[..., 0])[..., :3] * 255
    return Image.fromarray((photo * (1 - 0.65 * heat) + colours * 0.65 * heat).astype(np.uint8))


def _box(draw: ImageDraw.ImageDraw, box: np.ndarray, width: int) -> None:
    """White on black, to be seen on any photo."""
    x1, y1, x2, y2 = box
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline="black", width=width + 2)
    draw.rectangle((x1 + 1, y1 + 1, x2 - 2, y2 - 2), outline="white", width=width)


def _titled(picture: Image.Image, answer: Grounding) -> Image.Image:
    height = max(14, max(picture.size) // 28)
    titled = Image.new("RGB", (picture.width, picture.height + 2 * height), "black")
    titled.paste(picture, (0, 2 * height))
    font = ImageFont.load_default(height)
    skipped = f"   (not known: {', '.join(answer.phrase.skipped)})" if answer.phrase.skipped else ""
    ImageDraw.Draw(titled).text((height // 2, height // 2), answer.phrase.text + skipped, "white", font)
    return titled

"""Crops: the square parts of photos that a training sees."""

import math
import random
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Cropping(NamedTuple):
    """How photos are cropped for a training.

    Attributes:
        side: pixels of the side of a crop.
        scale: smallest and largest share of a random crop of the photo's area, in (0, 1]; its width is 3/4 to 4/3 of
            its height, and it is resized to a square. None: a random crop without resizing, with 7/8 of the side of
            the padded photo (224 of 256 pixels, Sec. 4.3).
        quality: lowest and highest JPEG quality with which a random crop is compressed, in 1..95, see :func:`degrade`.
            None: crops are not compressed.
    """

    side: int = 224
    scale: tuple[float, float] | None = None
    quality: tuple[int, int] | None = None

    @property
    def padded(self) -> int:
        """Pixels of the side of the padded photo."""
        return round(self.side * 8 / 7)


PAPER = Cropping()
SHRINK = 0.4, 1.0  # range of the share of its side to which a crop is shrunk before it is compressed


def crop(image: np.ndarray, rng: random.Random | None, cropping: Cropping = PAPER) -> Tensor:
    """Pads a photo to a square, and cuts a square out of it.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        rng: chooses the place and whether to flip. None: the centre, not flipped, not scaled.
        cropping: the sizes.

    Returns:
        ``(3, side, side)`` uint8.
    """
    side, square = cropping.side, pad_to_square(image, cropping.padded)
    if rng is None or cropping.scale is None:
        spare = cropping.padded - side
        x, y, flip = (
            (rng.randint(0, spare), rng.randint(0, spare), rng.random() < 0.5) if rng else (spare // 2,) * 2 + (0,)
        )
        cut = square.crop((x, y, x + side, y + side))
    else:
        box, flip = _random_box(rng, cropping.scale, cropping.padded), rng.random() < 0.5
        cut = square.resize((side, side), Image.Resampling.BILINEAR, box)
    if rng and cropping.quality:
        cut = degrade(cut, rng, cropping.quality)
    pixels = np.array(cut)
    return torch.from_numpy((pixels[:, ::-1] if flip else pixels).copy()).permute(2, 0, 1)


def degrade(picture: Image.Image, rng: random.Random, quality: tuple[int, int]) -> Image.Image:
    """Shrinks a picture by a random factor, compresses it as JPEG, and enlarges it again.

    Sources of photos differ in their size and compression. A network that sees them as they are learns from these
    traces which source a photo is from, and so which tags are frequent there.

    Args:
        picture: an RGB picture.
        rng: chooses the factor, in ``SHRINK``, and the quality.
        quality: lowest and highest JPEG quality, in 1..95.

    Returns:
        An RGB picture of the same size.
    """
    factor, file = rng.uniform(*SHRINK), BytesIO()
    width, height = (max(1, round(n * factor)) for n in picture.size)
    picture.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=rng.randint(*quality))
    return Image.open(file).resize(picture.size, Image.Resampling.BILINEAR)


def pad_to_square(image: np.ndarray, side: int = PAPER.padded) -> Image.Image:
    """Pads a photo to a square by mirroring, then resizes it (Sec. 4.3).

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        side: side of the result, in pixels.

    Returns:
        An RGB image of ``side`` x ``side`` pixels.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    missing = [(longest - n) // 2 for n in (height, width)]
    pads = [(before, longest - n - before) for before, n in zip(missing, (height, width), strict=True)]
    padded = np.pad(image, (*pads, (0, 0)), mode="symmetric")
    return Image.fromarray(padded).resize((side, side), Image.Resampling.BILINEAR)


def _random_box(rng: random.Random, scale: tuple[float, float], padded: int) -> tuple[float, float, float, float]:
    """A box (x1, y1, x2, y2) in the square photo, its area a uniform share of the photo's (Szegedy et al. 2015)."""
    area = rng.uniform(*scale) * padded**2
    aspect = math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
    width, height = min(math.sqrt(area * aspect), padded), min(math.sqrt(area / aspect), padded)
    x, y = rng.uniform(0, padded - width), rng.uniform(0, padded - height)
    return x, y, x + width, y + height

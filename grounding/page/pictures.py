"""Heat maps as pictures to lay over a photo."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from PIL import Image

LEAST = 0.06  # of the maximum: what is fainter is left clear


def heat(attention: np.ndarray) -> bytes:
    """A map (h, w) >= 0 as a PNG of its size: inferno's colours, clear where there is no mass.

    The square root of the share of the maximum is shown, as in ``grounding.draw``.
    """
    top = attention.max()
    shown = np.sqrt(attention / top) if top > 0 else np.zeros_like(attention)
    pixels = mpl.colormaps["inferno"](0.25 + 0.75 * shown, bytes=True)
    pixels[..., 3] = 255 * ((shown - LEAST) / (1 - LEAST)).clip(0, 1) ** 1.25
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()

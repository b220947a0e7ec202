"""Heat maps as PNG files to lay over a photo."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from PIL import Image

CLEAR_BELOW = 0.06  # of the maximum; fainter pixels are transparent


def heat_png(attention: np.ndarray) -> bytes:
    """Draws a heat map with the colours of inferno; pixels without attention are transparent.

    The square root of the values is drawn, as in ``grounding.draw``.

    Args:
        attention: ``(h, w)`` float >= 0.

    Returns:
        A PNG of the same size.
    """
    maximum = attention.max()
    shown = np.sqrt(attention / maximum) if maximum > 0 else np.zeros_like(attention)
    pixels = mpl.colormaps["inferno"](0.25 + 0.75 * shown, bytes=True)
    pixels[..., 3] = 255 * ((shown - CLEAR_BELOW) / (1 - CLEAR_BELOW)).clip(0, 1) ** 1.25
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()

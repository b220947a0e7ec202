"""Heat maps as PNG files to lay over a photo."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grounding.draw import INFERNO, heat_of


def heat_png(attention: NDArray[np.float64]) -> bytes:
    """Draws a heat map in the colours and with the scale of ``grounding.draw``; hotter pixels are more opaque.

    Args:
        attention: ``(h, w)``, >= 0.

    Returns:
        A PNG of the same size. Pixels without attention are transparent, the hottest is opaque.
    """
    heat = heat_of(attention, attention.shape[::-1])
    heat /= max(heat.max(), np.finfo(heat.dtype).tiny)
    pixels = mpl.colormaps["inferno"](np.interp(heat, (0, 1), INFERNO), bytes=True)
    pixels[..., 3] = 255 * heat
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()

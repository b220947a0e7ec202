"""Features of each pixel: colour, bins of the colour and texture histograms, contour strength."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hsv, rgb2lab

COLOUR_BINS = 12  # per channel
ORIENTATIONS = 8  # bins of the gradient's direction over the full circle
FLAT = 0.01  # per pixel, for channels in 0..1: a pixel with a smaller gradient is counted as flat
SIGMA = 0.7  # pixels, standard deviation of the Gaussian derivatives


def to_grid(image: np.ndarray, side: int, longest: int) -> np.ndarray:
    """Resizes an image to the working grid.

    Args:
        image: ``(H, W, 3)`` uint8.
        side: pixels of the result's shorter side.
        longest: maximum pixels of the result's longer side; a longer image is squeezed.

    Returns:
        ``(h, w, 3)`` uint8.
    """
    height, width = image.shape[:2]
    scale = side / min(height, width)
    shape = [min(round(length * scale), longest) for length in (width, height)]
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))


def colour_spaces(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Converts an image to Lab and HSV.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.

    Returns:
        Lab and HSV, each ``(h, w, 3)`` float32 with channels scaled to about 0..1.
    """
    unit = image.astype(np.float32) / 255
    lab = rgb2lab(unit).astype(np.float32) / 100
    lab[..., 1:] += 0.5
    return lab, rgb2hsv(unit).astype(np.float32)


def gradients(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian derivatives of an image along y and along x.

    Args:
        channels: ``(h, w, c)`` float.

    Returns:
        The derivatives along y and along x, each ``(h, w, c)``.
    """
    sigma = (SIGMA, SIGMA, 0)
    return gaussian_filter(channels, sigma, (1, 0, 0)), gaussian_filter(channels, sigma, (0, 1, 0))


def contour_strength(dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient over all channels, divided by its 98th percentile in the image.

    Args:
        dy: ``(h, w, c)`` derivatives along y.
        dx: ``(h, w, c)`` derivatives along x.

    Returns:
        ``(h, w)`` float32, clipped to 0..1.
    """
    magnitude = np.sqrt((dy**2 + dx**2).sum(2))
    return np.minimum(magnitude / max(float(np.quantile(magnitude, 0.98)), 1e-3), 1).astype(np.float32)


def colour_bins(channels: np.ndarray) -> np.ndarray:
    """Histogram bin of each channel of each pixel.

    Args:
        channels: ``(h, w, c)`` float in 0..1.

    Returns:
        ``(h, w, c)`` int32 in 0..c * COLOUR_BINS - 1; each channel has its own bins.
    """
    bins = np.clip((channels * COLOUR_BINS).astype(np.int32), 0, COLOUR_BINS - 1)
    return bins + COLOUR_BINS * np.arange(channels.shape[2], dtype=np.int32)


def texture_bins(dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Histogram bin of the gradient's signed direction, for each channel of each pixel.

    Args:
        dy: ``(h, w, c)`` derivatives along y.
        dx: ``(h, w, c)`` derivatives along x.

    Returns:
        ``(h, w, c)`` int32 in 0..c * (ORIENTATIONS + 1) - 1; each channel has its own bins, the last one for flat
        pixels.
    """
    angle = np.floor(np.arctan2(dy, dx) / (2 * np.pi) * ORIENTATIONS).astype(np.int32) % ORIENTATIONS
    bins = np.where(dy**2 + dx**2 < FLAT**2, ORIENTATIONS, angle)
    return (bins + (ORIENTATIONS + 1) * np.arange(dy.shape[2])).astype(np.int32)

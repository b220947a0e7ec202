"""What an image looks like at each pixel: colours, bins of colour and texture histograms, contour strength."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hsv, rgb2lab

COLOUR_BINS = 12  # a channel
ORIENTATIONS = 8
FLAT = 0.01  # a gradient below this has no orientation
SIGMA = 0.7  # pixels, of the Gaussian derivatives


def to_grid(image: np.ndarray, side: int, longest: int) -> np.ndarray:
    """The image resized to ``side`` pixels on its shorter side, at most ``longest`` on the other: (h, w, 3) uint8."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    shape = [min(round(length * scale), longest) for length in (width, height)]
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))


def colour_spaces(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lab and HSV of an image (h, w, 3) uint8 RGB, float32, each channel roughly in 0..1."""
    unit = image.astype(np.float32) / 255
    lab = rgb2lab(unit).astype(np.float32) / 100
    lab[..., 1:] += 0.5
    return lab, rgb2hsv(unit).astype(np.float32)


def gradients(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian derivatives along y and x, each (h, w, c)."""
    sigma = (SIGMA, SIGMA, 0)
    return gaussian_filter(channels, sigma, (1, 0, 0)), gaussian_filter(channels, sigma, (0, 1, 0))


def contour_strength(dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """(h, w) float32 in 0..1: the gradient's magnitude over all channels, relative to the image's strong edges."""
    magnitude = np.sqrt((dy**2 + dx**2).sum(2))
    return np.minimum(magnitude / max(float(np.quantile(magnitude, 0.98)), 1e-3), 1).astype(np.float32)


def colour_bins(channels: np.ndarray) -> np.ndarray:
    """(h, w, c) int32: where each channel of each pixel counts in a histogram of c * COLOUR_BINS bins."""
    bins = np.clip((channels * COLOUR_BINS).astype(np.int32), 0, COLOUR_BINS - 1)
    return bins + COLOUR_BINS * np.arange(channels.shape[2], dtype=np.int32)


def texture_bins(dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """(h, w, c) int32: the same for signed gradient orientations, c * (ORIENTATIONS + 1) bins; the last one is flat."""
    angle = np.floor(np.arctan2(dy, dx) / (2 * np.pi) * ORIENTATIONS).astype(np.int32) % ORIENTATIONS
    bins = np.where(dy**2 + dx**2 < FLAT**2, ORIENTATIONS, angle)
    return (bins + (ORIENTATIONS + 1) * np.arange(dy.shape[2])).astype(np.int32)

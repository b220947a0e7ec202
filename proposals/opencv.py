"""Box proposals of OpenCV's contributed modules: selective search and EdgeBoxes. Needs the extra ``opencv``."""

import ctypes
from threading import Lock
from types import ModuleType

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from proposals.appearance import colour_spaces, contour_strength, gradients, to_grid
from proposals.boxes import Boxes
from proposals.errors import InputError
from proposals.proposals import check_image
from proposals.segments import MAX_ASPECT

SIGMA = 3  # pixels, smoothing before the gradient; it gave EdgeBoxes the best recall on 48 photos of COCO
_RANDOM = Lock()  # OpenCV uses the random generator of the C library, which all threads share


class SelectiveSearch:
    """Selective search (Uijlings et al., IJCV 2013), OpenCV's implementation.

    The order of its boxes is partly random. The random generator of the C library is seeded before each image, but the
    order may still change if another library uses the same generator in another thread at that time.

    Args:
        count: maximum number of boxes per image.
        side: pixels of the working grid's shorter side.
        seed: seed of the random order.
        quality: whether to use OpenCV's slower mode with more colour spaces, similarities and scales.

    Raises:
        InputError: If a number is below 1, or OpenCV's contributed modules are not installed.
    """

    def __init__(self, count: int = 500, side: int = 300, seed: int = 0, quality: bool = False):
        _check(count, side)
        self.count, self.side, self.seed, self.quality = count, side, seed, quality

    def __call__(self, image: np.ndarray, name: str | None = None) -> Boxes:
        """Proposes boxes for one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: ignored.

        Returns:
            Boxes with the scores 1 / rank, because selective search gives an order but no scores.

        Raises:
            InputError: If the image has another shape or type.
        """
        check_image(image)
        grid = to_grid(image, self.side, MAX_ASPECT * self.side)
        search = _ximgproc().segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(grid[:, :, ::-1]))
        search.switchToSelectiveSearchQuality() if self.quality else search.switchToSelectiveSearchFast()
        with _RANDOM:
            ctypes.CDLL(None).srand(self.seed)
            rows = search.process()
        return _boxes(rows, 1 / np.arange(1.0, len(rows) + 1), image, grid, self.count)


class EdgeBoxes:
    """EdgeBoxes (Zitnick and Dollar, ECCV 2014), OpenCV's implementation, with an untrained edge detector.

    The authors detect edges with a structured forest that was trained on hand-drawn contours. No Python package
    contains such a forest. The edges are therefore the thinned gradient magnitude of the smoothed Lab image, and the
    boxes are worse than the published ones.

    Args:
        count: maximum number of boxes per image.
        side: pixels of the working grid's shorter side.

    Raises:
        InputError: If a number is below 1, or OpenCV's contributed modules are not installed.
    """

    def __init__(self, count: int = 500, side: int = 300):
        _check(count, side)
        self.count, self.side = count, side

    def __call__(self, image: np.ndarray, name: str | None = None) -> Boxes:
        """Proposes boxes for one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: ignored.

        Returns:
            Boxes with EdgeBoxes' scores; the whole image if it proposes no box.

        Raises:
            InputError: If the image has another shape or type.
        """
        check_image(image)
        grid = to_grid(image, self.side, MAX_ASPECT * self.side)
        strength = contour_strength(*gradients(gaussian_filter(colour_spaces(grid)[0], (SIGMA, SIGMA, 0))))
        normals = _normals(strength)
        finder = _ximgproc().createEdgeBoxes(maxBoxes=self.count)
        rows, scores = finder.getBoundingBoxes(_thin(strength, normals), normals)
        if len(rows):  # x and y are counted from 1
            rows = np.concatenate([rows[:, :2] - 1, rows[:, 2:] + 1], 1)
        return _boxes(rows, scores, image, grid, self.count)


def _normals(strength: np.ndarray) -> np.ndarray:
    """Direction across the edge at each pixel, from second derivatives: ``(h, w)`` float32 in 0..pi, in radians."""
    smooth = gaussian_filter(strength, 2)
    dyy, dxy, dxx = (gaussian_filter(smooth, 1, order) for order in ((2, 0), (1, 1), (0, 2)))
    return np.mod(np.arctan2(2 * dxy, dxx - dyy) / 2 + np.pi / 2, np.pi).astype(np.float32)


def _thin(strength: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Non-maximum suppression of edges ``(h, w)``: keeps pixels that are not weaker than one pixel further across."""
    pixels = np.mgrid[: strength.shape[0], : strength.shape[1]]
    step = np.stack([np.sin(normals), np.cos(normals)])
    both_sides = [map_coordinates(strength, pixels + sign * step, order=1, mode="nearest") for sign in (-1, 1)]
    return np.where(strength >= np.maximum(*both_sides), strength, 0).astype(np.float32)


def _boxes(rows: np.ndarray, scores: np.ndarray, image: np.ndarray, grid: np.ndarray, count: int) -> Boxes:
    """Converts rows [x y width height] of the grid, sorted by score, to distinct boxes of the image."""
    (height, width), (h, w) = image.shape[:2], grid.shape[:2]
    if not len(rows):
        rows, scores = np.array([[0, 0, w, h]]), np.ones(1)
    kept = np.sort(np.unique(rows, axis=0, return_index=True)[1])[:count]
    low, extent = np.maximum(rows[kept, :2].astype(float), 0), rows[kept, 2:]
    boxes = np.concatenate([low, np.minimum(low + extent, (w, h))], 1) * (width, height, width, height) / (w, h, w, h)
    return Boxes(boxes, np.ravel(scores)[kept], (height, width), (h, w))


def _check(count: int, side: int) -> None:
    if min(count, side) < 1:
        raise InputError(f"count={count}, side={side}: each must be 1 or more")
    _ximgproc()


def _ximgproc() -> ModuleType:
    try:
        import cv2

        return cv2.ximgproc
    except (ImportError, AttributeError) as error:
        raise InputError(
            "OpenCV's contributed modules are not installed: "
            "uninstall opencv-python if it is installed, then run .venv/bin/pip install -e '.[opencv]'"
        ) from error

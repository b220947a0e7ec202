"""Boxes from OpenCV's contributed modules: selective search and EdgeBoxes, where the extra ``opencv`` is installed."""

import ctypes
from threading import Lock
from types import ModuleType

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from proposals.appearance import colour_spaces, contour_strength, gradients, to_grid
from proposals.boxes import Boxes
from proposals.errors import InputError
from proposals.proposals import check_image
from proposals.segments import LONGEST

SMOOTH = 3  # pixels; EdgeBoxes' recall is best there, on 48 photos of COCO
_RANDOM = Lock()  # OpenCV draws its random numbers from the C library's one generator


class SelectiveSearch:
    """Selective search (Uijlings et al., IJCV 2013) as OpenCV has it.

    Its order is partly random, from the C library's generator, which is seeded before each photo: what another library
    draws from it meanwhile, in another thread, may change the order.

    Args:
        count: the most boxes of an image; side: pixels of the working grid's shorter side; seed: of the order.
        quality: the slower mode, of more colour spaces, similarities and scales.

    Raises:
        InputError: a number is below 1, or OpenCV's contributed modules are missing.
    """

    def __init__(self, count: int = 500, side: int = 300, seed: int = 0, quality: bool = False):
        _check(count, side)
        self.count, self.side, self.seed, self.quality = count, side, seed, quality

    def __call__(self, image: np.ndarray, name: str | None = None) -> Boxes:
        """The boxes of an image (H, W, 3) uint8 RGB, scored by 1 / rank, for it gives an order and no scores.

        Raises:
            InputError: the image has another shape or type.
        """
        check_image(image)
        grid = to_grid(image, self.side, LONGEST * self.side)
        search = _ximgproc().segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(grid[:, :, ::-1]))
        search.switchToSelectiveSearchQuality() if self.quality else search.switchToSelectiveSearchFast()
        with _RANDOM:
            ctypes.CDLL(None).srand(self.seed)
            found = search.process()
        return _boxes(found, 1 / np.arange(1.0, len(found) + 1), image, grid, self.count)


class EdgeBoxes:
    """EdgeBoxes (Zitnick and Dollar, ECCV 2014) as OpenCV has it, on a map of gradients.

    The authors' edges come from a structured forest that was trained on drawn contours; no package ships one, so that
    edges are the thinned magnitude of the smoothed Lab gradient here, and the boxes are worse than the published ones.

    Args:
        count: the most boxes of an image; side: pixels of the working grid's shorter side.

    Raises:
        InputError: a number is below 1, or OpenCV's contributed modules are missing.
    """

    def __init__(self, count: int = 500, side: int = 300):
        _check(count, side)
        self.count, self.side = count, side

    def __call__(self, image: np.ndarray, name: str | None = None) -> Boxes:
        """The boxes of an image (H, W, 3) uint8 RGB; the whole image where no edge is found.

        Raises:
            InputError: the image has another shape or type.
        """
        check_image(image)
        grid = to_grid(image, self.side, LONGEST * self.side)
        strength = contour_strength(*gradients(gaussian_filter(colour_spaces(grid)[0], (SMOOTH, SMOOTH, 0))))
        normals = _normals(strength)
        finder = _ximgproc().createEdgeBoxes(maxBoxes=self.count)
        found, scores = finder.getBoundingBoxes(_thin(strength, normals), normals)
        if len(found):  # x and y are counted from 1
            found = np.concatenate([found[:, :2] - 1, found[:, 2:] + 1], 1)
        return _boxes(found, scores, image, grid, self.count)


def _normals(strength: np.ndarray) -> np.ndarray:
    """(h, w) float32 in 0..pi: the direction across each edge, from the second derivatives of the smoothed map."""
    smooth = gaussian_filter(strength, 2)
    dyy, dxy, dxx = (gaussian_filter(smooth, 1, order) for order in ((2, 0), (1, 1), (0, 2)))
    return np.mod(np.arctan2(2 * dxy, dxx - dyy) / 2 + np.pi / 2, np.pi).astype(np.float32)


def _thin(strength: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The map (h, w) float32 where it is a ridge: not lower than a pixel further across the edge, on either side."""
    places = np.mgrid[: strength.shape[0], : strength.shape[1]]
    step = np.stack([np.sin(normals), np.cos(normals)])
    beside = [map_coordinates(strength, places + sign * step, order=1, mode="nearest") for sign in (-1, 1)]
    return np.where(strength >= np.maximum(*beside), strength, 0).astype(np.float32)


def _boxes(found: np.ndarray, scores: np.ndarray, image: np.ndarray, grid: np.ndarray, count: int) -> Boxes:
    """Rows x, y, width, height of the grid, best first, as boxes of the image; none twice."""
    (height, width), (h, w) = image.shape[:2], grid.shape[:2]
    if not len(found):
        found, scores = np.array([[0, 0, w, h]]), np.ones(1)
    rows = np.sort(np.unique(found, axis=0, return_index=True)[1])[:count]
    low, extent = np.maximum(found[rows, :2].astype(float), 0), found[rows, 2:]
    boxes = np.concatenate([low, np.minimum(low + extent, (w, h))], 1) * (width, height, width, height) / (w, h, w, h)
    return Boxes(boxes, np.ravel(scores)[rows], (height, width), (h, w))


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
            "OpenCV's contributed modules are missing: .venv/bin/pip install -e '.[opencv]' (and remove opencv-python)"
        ) from error

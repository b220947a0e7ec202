"""The masks of COCO's objects: polygons, run lengths, and run lengths packed into a text.

pycocotools, which draws the masks, is written in C and does not check its input.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from proposals.errors import InputError

POLYGONS = "a polygon needs three or more points near the photo: x1, y1, x2, y2, ..."
RUNS = "the run lengths must be whole numbers that add up to {} x {}"


def check_outline(outline: Any, size: tuple[int, int], where: str) -> None:
    """Checks that a mask can be drawn.

    Args:
        outline: the "segmentation" of an annotation.
        size: (height, width) of the photo.
        where: file and annotation, for error messages.

    Raises:
        InputError: there is no mask, or it is malformed.
    """
    if not outline:
        raise InputError(f"{where} has no mask (its segmentation is empty): use annotations with masks")
    if isinstance(outline, list):
        if not all(_is_polygon(polygon, size) for polygon in outline):
            raise InputError(f"{where}: {POLYGONS}")
    elif isinstance(outline, dict):
        _runs(outline, size, where)
    else:
        raise InputError(f"{where}: segmentation must be a list of polygons, or run lengths with size and counts")


def draw_mask(outline: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """Draws a mask with COCO's own program.

    Args:
        outline: see :func:`check_outline`.
        size: see :func:`check_outline`.
        where: see :func:`check_outline`.

    Returns:
        ``(H, W)`` bool.

    Raises:
        InputError: there is no mask, it is malformed, or pycocotools is not installed.
    """
    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise InputError("COCO's masks need pycocotools: .venv/bin/pip install -e '.[eval]'") from error
    check_outline(outline, size, where)
    runs = outline if isinstance(outline, list) else [{"size": list(size), "counts": _runs(outline, size, where)}]
    with warnings.catch_warnings():
        # pycocotools 2.0.11 with NumPy 2 warns that "__array__ must implement 'dtype' and 'copy'"
        warnings.simplefilter("ignore", DeprecationWarning)
        return rle.decode(rle.merge(rle.frPyObjects(runs, *size))).astype(bool)


def unpack_counts(text: str) -> list[int]:
    """Reads the run lengths that pycocotools packs into a text.

    Each character holds six bits, 48 added. A number takes the lower five bits of several characters, the lowest first;
    the sixth bit says that another one follows, and the fifth bit of the last one is the sign. From the fourth number
    on, the difference to the number before the last one is stored.

    Args:
        text: the packed run lengths.

    Returns:
        The run lengths.

    Raises:
        ValueError: the text is malformed.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{character!r} cannot be part of packed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the packed run lengths end within a number")
    return counts


def _is_polygon(polygon: Any, size: tuple[int, int]) -> bool:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    if not all(type(number) in (int, float) for number in polygon):
        return False
    reach = 2 * max(size)  # finite, and a small outline to draw
    return all(abs(number) <= reach for number in polygon)


def _runs(outline: dict, size: tuple[int, int], where: str) -> Sequence[int]:
    counts = outline.get("counts")
    try:
        runs = unpack_counts(counts) if isinstance(counts, str) else counts
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    fits = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if outline.get("size") != list(size) or not fits or sum(runs) != size[0] * size[1]:
        raise InputError(f"{where}: {RUNS.format(*size)}")
    return runs

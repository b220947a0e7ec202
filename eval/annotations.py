"""Reads XML annotations in the format of PASCAL VOC, which ILSVRC and Flickr30k Entities use, too.

The files may come from anywhere, so they are parsed with defusedxml, and their size is limited.
"""

import re
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from grounding.text.lines import read_lines
from proposals.errors import InputError

MAX_SIDE = 1_000_000  # pixels
MAX_XML = 1_000_000  # bytes; the largest file of VOC2012 and of Flickr30k Entities has 20 KB
CORNERS = ("xmin", "ymin", "xmax", "ymax")

SUFFIXES = (".jpg", ".jpeg", ".png", ".xml")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL = re.compile(r"\s+(-1|0|1)$")  # after each id in the files of one class of PASCAL VOC; names may have spaces

Number = Callable[[str], float]  # ``whole`` or ``finite``


def open_annotation(path: Path, number: Number) -> tuple[Element, tuple[int, int]]:
    """Parses an annotation.

    Args:
        path: the XML file.
        number: parses the numbers, :func:`whole` or :func:`finite`.

    Returns:
        The root element, and the photo's size (height, width).

    Raises:
        InputError: the file cannot be read, is larger than 1 MB, has a DTD or entities, is malformed, or has no size;
            or defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import fromstring
    except ImportError as error:
        raise InputError("XML annotations need defusedxml: .venv/bin/pip install -e '.[eval]'") from error
    try:
        if path.stat().st_size > MAX_XML:
            raise InputError(f"{path} has more than {MAX_XML} bytes, which is too large for an annotation")
        root = fromstring(path.read_bytes(), forbid_dtd=True)
        return root, check_size(_read(root, "size/height", number), _read(root, "size/width", number), str(path))
    except DefusedXmlException as error:
        raise InputError(f"{path} declares entities or a DTD, which an annotation must not have: {error}") from error
    except InputError:
        raise
    except (OSError, ParseError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error


def read_box(thing: Element, size: tuple[int, int], where: str, number: Number) -> np.ndarray:
    """Reads the box of an object. The file counts pixels from 1 and includes the last one.

    Args:
        thing: the object's element.
        size: (height, width) of the photo.
        where: file and number of the object, for error messages.
        number: parses the corners, :func:`whole` or :func:`finite`.

    Returns:
        ``(4,)`` float64, half-open xyxy in pixels from 0; a part of it may lie outside the photo.

    Raises:
        InputError: a corner is missing or is not a number, or the box is inverted or outside the photo.
    """
    try:
        x1, y1, x2, y2 = (_read(thing, f"bndbox/{corner}", number) for corner in CORNERS)
    except ValueError as error:
        kind = "whole numbers" if number is whole else "numbers"
        raise InputError(f"{where}: a box needs four {kind} ({error})") from error
    outside = x1 > size[1] or y1 > size[0] or x2 < 1 or y2 < 1
    check_box((x1, y1, x2, y2), x1 > x2 or y1 > y2, outside, size, where)
    return np.array([x1 - 1, y1 - 1, x2, y2], np.float64)


def read_ids(path: Path, labelled: bool = False) -> list[str]:
    """Reads the photo ids of a split, one per line.

    Args:
        path: the split's file.
        labelled: whether a label may stand after an id, as in the files of one class of PASCAL VOC.

    Returns:
        The ids.

    Raises:
        InputError: the file cannot be read or lists no photo, or a line is not a photo id.
    """
    rows = [line.strip() for line in read_lines(path) if line.strip()]
    if not rows:
        raise InputError(f"{path} is empty: list one photo id per line")
    if labelled and all(map(LABEL.search, rows)):
        rows = [LABEL.sub("", row) for row in rows]
    for row in rows:
        if Path(row).name != row or (len(row.split()) > 1 and not labelled):
            raise InputError(f"{path}: {row!r} is not a photo id: list one id per line, without a folder")
        if row.lower().endswith(SUFFIXES):
            raise InputError(f"{path}: {row!r} is a file name: list ids, without {Path(row).suffix}")
    return rows


def photo_of(folder: Path, name: str, usual: str) -> Path:
    """The file of an annotated photo.

    Args:
        folder: the folder of the photos.
        name: the photo's id.
        usual: the suffix of the data set's photos. Tools that write this format keep other suffixes.

    Returns:
        The file with the usual suffix if it exists or none does, otherwise the first with another suffix.
    """
    suffixes = (usual, *(suffix for other in PHOTO_SUFFIXES for suffix in (other, other.upper())))
    paths = [folder / f"{name}{suffix}" for suffix in suffixes]
    return next((path for path in paths if path.is_file()), paths[0])


def check_box(box: Sequence[float], inverted: bool, outside: bool, size: tuple[int, int], where: str) -> None:
    """Refuses a box that is inverted or outside the photo.

    Args:
        box: the four numbers in the file, for error messages.
        inverted: whether it ends before it begins.
        outside: whether no part of it is in the photo.
        size: (height, width) of the photo.
        where: file and object, for error messages.

    Raises:
        InputError: it is one of both.
    """
    shown = f"({', '.join(f'{number:g}' for number in box)})"
    if inverted:
        raise InputError(f"{where}: the box {shown} ends before it begins")
    if outside:
        raise InputError(f"{where}: the box {shown} lies outside the {size[1]}x{size[0]} image")


def clip_box(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part of a box that is in the photo.

    Args:
        box: ``(4,)`` half-open xyxy, in pixels.
        size: (height, width) of the photo.
    """
    height, width = size
    return np.clip(box, 0, [width, height, width, height])


def check_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Checks the size of a photo in an annotation.

    Args:
        height: in pixels.
        width: in pixels.
        where: the file, for error messages.

    Returns:
        (height, width).

    Raises:
        InputError: a number is missing, is not whole, is below 1, or is larger than any photo.
    """
    if not all(type(side) in (int, float) and 1 <= side <= MAX_SIDE for side in (height, width)):
        raise InputError(f"{where}: the size of the photo is {width} x {height}: write its width and height in pixels")
    return int(height), int(width)


def whole(text: str) -> float:
    """Parses a whole number.

    Args:
        text: the number.

    Raises:
        ValueError: it is not a whole number.
        OverflowError: it is too large for a float.
    """
    return float(int(text))


def finite(text: str) -> float:
    """Parses a number that may have a fraction.

    Args:
        text: the number.

    Raises:
        ValueError: it is not a number, or is infinite.
    """
    if not isfinite(number := float(text)):
        raise ValueError(f"{text} is not finite")
    return number


def _read(element: Element, path: str, number: Number) -> float:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    try:
        return number(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path} is {' '.join(text.split())[:40]}") from error

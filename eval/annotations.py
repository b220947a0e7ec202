"""Reads XML annotations in the format of PASCAL VOC, which ILSVRC and Flickr30k Entities use, too.

The files may come from anywhere, so they are parsed with defusedxml, and their size is limited.
"""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from proposals.errors import InputError

MAX_XML = 1_000_000  # bytes; the largest file of VOC2012 and of Flickr30k Entities has 20 KB
CORNERS = ("xmin", "ymin", "xmax", "ymax")

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
        return root, (int(_read(root, "size/height", number)), int(_read(root, "size/width", number)))
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
    box = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if x1 > x2 or y1 > y2:
        raise InputError(f"{where}: the box {box} ends before it begins")
    if x1 > size[1] or y1 > size[0] or x2 < 1 or y2 < 1:
        raise InputError(f"{where}: the box {box} lies outside the {size[1]}x{size[0]} image")
    return np.array([x1 - 1, y1 - 1, x2, y2], np.float64)


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

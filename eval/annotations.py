"""Annotations in XML as PASCAL VOC writes them, and ILSVRC and Flickr30k Entities after it: opened with care."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from proposals.errors import InputError

try:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring
except ModuleNotFoundError as error:
    raise InputError("this dataset needs defusedxml: .venv/bin/pip install -e '.[eval]'") from error

# the largest file of VOC2012, and of Flickr30k Entities, has 20 KB
MAX_XML = 1_000_000
CORNERS = ("xmin", "ymin", "xmax", "ymax")

Number = Callable[[str], float]  # ``whole`` or ``finite``


def open_annotation(path: Path, number: Number) -> tuple[Element, tuple[int, int]]:
    """The root of an annotation, and its photo's size (height, width).

    Raises:
        InputError: no such file, over 1 MB, with a DTD or entities, malformed, or without a size.
    """
    try:
        if path.stat().st_size > MAX_XML:
            raise InputError(f"{path} has more than {MAX_XML} bytes: no annotation is that long")
        root = fromstring(path.read_bytes(), forbid_dtd=True)
        return root, (int(_read(root, "size/height", number)), int(_read(root, "size/width", number)))
    except DefusedXmlException as error:
        raise InputError(f"{path} declares entities or a DTD, which no annotation needs: {error}") from error
    except InputError:
        raise
    except (OSError, ParseError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error


def read_box(thing: Element, size: tuple[int, int], where: str, number: Number) -> np.ndarray:
    """The box of an object: (4,) float64, half-open xyxy from 0; a part of it may lie outside the photo.

    The file counts pixels from 1 and includes the last.

    Args:
        size: (height, width) of the photo; where: the object's place, for the messages.

    Raises:
        InputError: a corner is missing or no number, or the box is turned or wholly outside.
    """
    try:
        x1, y1, x2, y2 = (_read(thing, f"bndbox/{corner}", number) for corner in CORNERS)
    except ValueError as error:
        kind = "whole numbers" if number is whole else "numbers"
        raise InputError(f"{where}: a box needs four {kind} ({error})") from error
    told = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if x1 > x2 or y1 > y2:
        raise InputError(f"{where}: the box {told} ends before it begins")
    if x1 > size[1] or y1 > size[0] or x2 < 1 or y2 < 1:
        raise InputError(f"{where}: the box {told} lies outside the {size[1]}x{size[0]} image")
    return np.array([x1 - 1, y1 - 1, x2, y2], np.float64)


def whole(text: str) -> float:
    """A whole number.

    Raises:
        ValueError, OverflowError: it is none, or more than a float holds.
    """
    return float(int(text))


def finite(text: str) -> float:
    """A number that may have a fraction.

    Raises:
        ValueError: it is none, or infinite.
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

"""PASCAL VOC (Everingham et al., 2010), and the boxes of ILSVRC, which are written the same way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from eval.annotations import finite, open_annotation, read_box
from proposals.errors import InputError


@dataclass(frozen=True, eq=False)
class VocObject:
    """An annotated object.

    Attributes:
        name: its class (of ILSVRC: its WordNet id).
        box: (4,) float64, half-open xyxy in pixels from 0, inside the photo.
        difficult: whether the annotators thought it too hard to be judged.
    """

    name: str
    box: np.ndarray
    difficult: bool


@dataclass(frozen=True, eq=False)
class VocImage:
    """A photo and its objects; ``size`` is (height, width) as its annotation says."""

    id: str
    path: Path
    size: tuple[int, int]
    objects: tuple[VocObject, ...]

    @property
    def classes(self) -> list[str]:
        """The classes that it shows, in the order of the alphabet; one whose objects are all difficult is none."""
        return sorted({thing.name for thing in self.objects if not thing.difficult})


class Voc:
    """The photos of a split, in the order of its file.

    Args:
        root: the folder with ``JPEGImages``, ``Annotations`` and ``ImageSets/Main/SPLIT.txt``; split: ``val``.

    Iteration gives a :class:`VocImage` each.

    Raises:
        InputError: a part of the folder is missing, or the split's file names no photo; while iterating, a malformed or
            hostile annotation.
    """

    def __init__(self, root: str | Path, split: str):
        self.root, self.split = Path(root), split
        listed = f"ImageSets/Main/{split}.txt"
        for name in ("JPEGImages", "Annotations", listed):
            if not (self.root / name).exists():
                raise InputError(f"{self.root} has no {name}: set data.root to a folder of PASCAL VOC")
        self.ids = _ids(self.root / listed)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[VocImage]:
        return map(self.read, self.ids)

    def read(self, image: str) -> VocImage:
        """One photo by its id."""
        size, objects = read_objects(self.root / "Annotations" / f"{image}.xml")
        return VocImage(image, self.root / "JPEGImages" / f"{image}.jpg", size, objects)


class Ilsvrc:
    """The photos of ILSVRC's localization task that have boxes, in the order of their names.

    Args:
        root: the folder with ``Data/CLS-LOC/SPLIT/*.JPEG`` and ``Annotations/CLS-LOC/SPLIT/*.xml``; split: ``val``.

    Iteration gives a :class:`VocImage` each, whose objects are all of the photo's label.

    Raises:
        InputError: as :class:`Voc` does.
    """

    def __init__(self, root: str | Path, split: str = "val"):
        self.root, self.split = Path(root), split
        self._photos, self._boxes = (self.root / name / "CLS-LOC" / split for name in ("Data", "Annotations"))
        for folder in (self._photos, self._boxes):
            if not folder.is_dir():
                raise InputError(f"there is no {folder}: set data.root to the folder ILSVRC, with Data and Annotations")
        self.ids = sorted(path.stem for path in self._boxes.glob("*.xml"))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[VocImage]:
        return map(self.read, self.ids)

    def read(self, image: str) -> VocImage:
        """One photo by its id."""
        size, objects = read_objects(self._boxes / f"{image}.xml")
        return VocImage(image, self._photos / f"{image}.JPEG", size, objects)


def _ids(path: Path) -> list[str]:
    """The first word of each line: the lists of one class have its label behind it."""
    try:
        ids = [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    odd = [image for image in ids if Path(image).name != image]
    if odd or not ids:
        raise InputError(f"{path}: {f'{odd[0]!r} is' if odd else 'there is'} no name of a photo; list one id a line")
    return ids


def read_objects(path: Path) -> tuple[tuple[int, int], tuple[VocObject, ...]]:
    """The size (height, width) of an annotated photo and its objects.

    The file counts pixels from 1 and includes the last; VOC2011 has fractions of pixels. What leaves the photo is cut.

    Raises:
        InputError: no such file, over 1 MB, with a DTD or entities, malformed, or a box that is turned or outside.
    """
    root, size = open_annotation(path, finite)
    things = enumerate(root.findall("object"), 1)
    return size, tuple(_object(thing, size, f"{path}, object {number}") for number, thing in things)


def _object(thing: Element, size: tuple[int, int], where: str) -> VocObject:
    name, difficult = (thing.findtext("name") or "").strip(), (thing.findtext("difficult") or "0").strip()
    if not name or difficult not in ("0", "1"):
        raise InputError(f"{where}: an object needs a name, and a difficult of 0 or 1, not {name!r} and {difficult!r}")
    height, width = size
    box = np.clip(read_box(thing, size, where, finite), 0, [width, height, width, height])
    return VocObject(name, box, difficult == "1")

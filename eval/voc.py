"""Reads PASCAL VOC (Everingham et al., 2010) and ILSVRC, whose boxes have the same format."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from eval.annotations import clip_box, finite, open_annotation, photo_of, read_box, read_ids
from eval.cures import layout_cure
from grounding.runtime.hidden import visible
from proposals.errors import InputError

# the classes of PASCAL VOC 2007 to 2012
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class VocObject:
    """An annotated object.

    Attributes:
        name: its class; in ILSVRC its WordNet id.
        box: ``(4,)`` float64, half-open xyxy in pixels from 0, inside the photo.
        difficult: whether it is marked as difficult, which excludes it from VOC's evaluation.
    """

    name: str
    box: np.ndarray
    difficult: bool


@dataclass(frozen=True, eq=False)
class VocImage:
    """A photo and its objects.

    Attributes:
        id: the name of the file without its suffix.
        path: the path of the file.
        size: (height, width), from the annotation.
        objects: the annotated objects.
    """

    id: str
    path: Path
    size: tuple[int, int]
    objects: tuple[VocObject, ...]

    @property
    def classes(self) -> list[str]:
        """The classes of its objects, in alphabetical order, without those whose objects are all difficult."""
        return sorted({thing.name for thing in self.objects if not thing.difficult})


class Voc:
    """The photos of a split of PASCAL VOC, in the order of the split's file.

    Iterating yields a :class:`VocImage` for each photo.

    Args:
        root: the folder with ``JPEGImages``, ``Annotations`` and ``ImageSets/Main/SPLIT.txt``.
        split: the name of the split, for example ``val``.

    Raises:
        InputError: a part of the folder is missing, or the split's file lists no photo; while iterating, an annotation
            is malformed.
    """

    def __init__(self, root: str | Path, split: str):
        self.root, self.split = Path(root), split
        self.folder = self.root / "JPEGImages"
        listed = f"ImageSets/Main/{split}.txt"
        for name in ("JPEGImages", "Annotations", listed):
            if not (self.root / name).exists():
                cure = layout_cure(self.root, split) or "set data.root to the folder of PASCAL VOC"
                raise InputError(f"{self.root} has no {name}: {cure}")
        self.ids = read_ids(self.root / listed, labelled=True)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[VocImage]:
        return map(self.read, self.ids)

    def read(self, image: str) -> VocImage:
        """Reads one photo's annotation.

        Args:
            image: the photo's id.

        Raises:
            InputError: the annotation cannot be read, or is malformed.
        """
        size, objects = read_objects(self.root / "Annotations" / f"{image}.xml")
        return VocImage(image, photo_of(self.folder, image, ".jpg"), size, objects)


class Ilsvrc:
    """The photos of ILSVRC's localization task that have boxes, in the order of their names.

    Iterating yields a :class:`VocImage` for each photo. All objects of a photo are of the photo's label.

    Args:
        root: the folder with ``Data/CLS-LOC/SPLIT/*.JPEG`` and ``Annotations/CLS-LOC/SPLIT/*.xml``.
        split: the name of the split, for example ``val``.

    Raises:
        InputError: a part of the folder is missing; while iterating, an annotation is malformed.
    """

    def __init__(self, root: str | Path, split: str = "val"):
        self.root, self.split = Path(root), split
        self.folder, self._boxes = (self.root / name / "CLS-LOC" / split for name in ("Data", "Annotations"))
        for folder in (self.folder, self._boxes):
            if not folder.is_dir():
                raise InputError(f"{folder} does not exist: set data.root to the folder ILSVRC")
        self.ids = [path.stem for path in visible(self._boxes.glob("*.xml"))]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[VocImage]:
        return map(self.read, self.ids)

    def read(self, image: str) -> VocImage:
        """Reads one photo's annotation.

        Args:
            image: the photo's id.

        Raises:
            InputError: the annotation cannot be read, or is malformed.
        """
        size, objects = read_objects(self._boxes / f"{image}.xml")
        return VocImage(image, photo_of(self.folder, image, ".JPEG"), size, objects)


def read_objects(path: Path) -> tuple[tuple[int, int], tuple[VocObject, ...]]:
    """Reads an annotation.

    The file counts pixels from 1 and includes the last one; VOC2011 has fractions of pixels. Boxes are clipped to the
    photo.

    Args:
        path: the XML file.

    Returns:
        The photo's size (height, width), and its objects.

    Raises:
        InputError: the file cannot be read, is larger than 1 MB, has a DTD or entities, is malformed, or a box is
            inverted or outside the photo.
    """
    root, size = open_annotation(path, finite)
    things = enumerate(root.findall("object"), 1)
    return size, tuple(_object(thing, size, f"{path}, object {number}") for number, thing in things)


def _object(thing: Element, size: tuple[int, int], where: str) -> VocObject:
    name, difficult = (thing.findtext("name") or "").strip(), (thing.findtext("difficult") or "0").strip()
    if not name or difficult not in ("0", "1"):
        raise InputError(f"{where}: an object needs a name and difficult=0 or 1, but has {name!r} and {difficult!r}")
    return VocObject(name, clip_box(read_box(thing, size, where, finite), size), difficult == "1")

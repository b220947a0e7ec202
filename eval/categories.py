"""The categories of COCO and VOC as phrases: each category that a photo shows, with the data set's own name.

- The boxes of a phrase are those of the category's objects. Crowds (COCO) and difficult objects (VOC) are no objects to
  find, as in the data sets' own evaluations. A category that has no other objects in a photo is no phrase there.
- For the question which categories a photo shows, a crowd counts. A category whose objects are all difficult is left
  out, as in VOC's classification task.
- The pixels for pointing and the difficult subset are those of the Pointing Game (``eval.pointing_game``): masks with
  crowds on COCO, boxes with difficult objects on VOC. A photo of COCO without masks has boxes instead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from eval.annotated_photos import AnnotatedPhoto, check_masks
from eval.phrase_truth import Place, union_box
from eval.pointing_game import Cue, box_cues, cues
from eval.voc import CLASSES, Ilsvrc, VocImage
from proposals.errors import InputError


@dataclass(frozen=True, eq=False)
class CategoryPhrase:
    """A category that a photo shows.

    Attributes:
        text: its name.
        boxes: ``(K, 4)`` float64, the boxes of its objects, half-open xyxy in pixels.
    """

    text: str
    boxes: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """The smallest box around all objects, ``(4,)``."""
        return union_box(self.boxes)

    def place(self, image: str) -> Place:
        """How predictions name the phrase: (image, category).

        Args:
            image: the id of the photo.
        """
        return image, self.text


@dataclass(frozen=True, eq=False)
class CategoryImage:
    """A photo and the categories that it shows.

    Attributes:
        photo: the photo and its objects.
        entities: the phrases, in alphabetical order.
        shown: the names of all categories that it shows, with those that are only crowds.
        undecided: the names of categories whose objects are all difficult.
        by_boxes: whether the pixels of the objects are their boxes, because the photo has no masks.
    """

    photo: AnnotatedPhoto
    entities: tuple[CategoryPhrase, ...]
    shown: frozenset[str]
    undecided: frozenset[str]
    by_boxes: bool

    @property
    def id(self) -> str:
        """The name of the photo."""
        return self.photo.id

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.photo.path

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), from the annotation."""
        return self.photo.size

    def cues(self) -> dict[str, Cue]:
        """The pixels of each category, by its name. They are drawn at each call, because masks are large."""
        found = box_cues(self.photo) if self.by_boxes else cues(self.photo)
        return {cue.name: cue for cue in found}


class ObjectPhotos(Protocol):
    """A data set of photos with annotated objects."""

    @property
    def root(self) -> Path:
        """The folder of the data set."""

    @property
    def split(self) -> str:
        """The name of the split."""

    @property
    def folder(self) -> Path:
        """The folder of the photos."""

    @property
    def ids(self) -> Sequence[str]:
        """The names of all photos."""

    def read(self, name: str, /) -> AnnotatedPhoto:
        """Reads a photo's annotation. Raises an InputError if it cannot be used."""


class CategoryPhotos:
    """The photos of a data set with their categories as phrases.

    Args:
        photos: ``eval.coco.Coco`` or ``eval.voc.Voc``.

    Attributes:
        photos: the data set.
        ids: the names of all photos.
        folder: the folder of the photos.

    Raises:
        InputError: ``photos`` is ImageNet, whose classes have no names.
    """

    def __init__(self, photos: ObjectPhotos):
        if isinstance(photos, Ilsvrc):
            raise InputError("the classes of ImageNet are WordNet ids, no phrases: use data=coco2017 or data=voc2012")
        self.photos, self.ids, self.folder = photos, photos.ids, photos.folder

    def read(self, name: str) -> CategoryImage:
        """Reads a photo's annotation.

        Args:
            name: one of ``ids``.

        Raises:
            InputError: the annotation cannot be read, or is malformed.
        """
        photo = self.photos.read(name)
        things = list(_objects(photo))
        boxes: dict[str, list[np.ndarray]] = {}
        for category, box, counts in things:
            if counts:
                boxes.setdefault(category, []).append(box)
        phrases = tuple(CategoryPhrase(category, np.stack(boxes[category])) for category in sorted(boxes))
        shown = frozenset(photo.classes)
        every = {category for category, _, _ in things}
        return CategoryImage(photo, phrases, shown, frozenset(every - shown), _without_masks(photo))

    def names(self, images: Iterable[CategoryImage]) -> list[str]:
        """The names that are asked of each photo: all categories of the data set, in alphabetical order.

        Args:
            images: the photos. Data in VOC's format with classes of its own has those of these photos.
        """
        listed = getattr(self.photos, "names", None)
        if listed is not None:
            return sorted(listed)
        found = {name for image in images for name in image.shown | image.undecided}
        return sorted(CLASSES if found <= set(CLASSES) else found)


def _objects(photo: AnnotatedPhoto) -> Iterable[tuple[str, np.ndarray, bool]]:
    """The category and the box of each object, and whether it is one to find."""
    if isinstance(photo, VocImage):
        return ((thing.name, thing.box, not thing.difficult) for thing in photo.objects)
    return ((thing.category, thing.box, not thing.crowd) for thing in photo.objects)


def _without_masks(photo: AnnotatedPhoto) -> bool:
    try:
        check_masks(photo)
    except InputError:
        return True
    return False

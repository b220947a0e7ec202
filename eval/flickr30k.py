"""Reads Flickr30k Entities (Plummer et al., 2015): photos, captions, and the boxes of their phrases."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.annotations import open_annotation, read_box, read_ids, whole
from eval.phrase_truth import Place, union_box
from grounding.text.lines import read_lines
from grounding.text.markup import Markup, parse_sentence, plain_sentence
from proposals.errors import InputError


@dataclass(frozen=True, eq=False)
class Entity:
    """A phrase that has at least one box.

    Attributes:
        sentence: the index of its caption, from 0.
        phrase: its index among all marked phrases of the caption, from 0.
        text: the phrase as annotated.
        types: one or more of people, clothing, bodyparts, animals, vehicles, instruments, scene, other.
        boxes: ``(K, 4)`` float64, the boxes of its coreference chain, half-open xyxy in pixels.
    """

    sentence: int
    phrase: int
    text: str
    types: tuple[str, ...]
    boxes: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """The smallest box around all boxes, ``(4,)``: the paper's ground truth."""
        return union_box(self.boxes)

    def place(self, image: str) -> Place:
        """How predictions name the phrase: (image, sentence, phrase).

        Args:
            image: the id of the photo.
        """
        return image, self.sentence, self.phrase


@dataclass(frozen=True, eq=False)
class EntityImage:
    """A photo and its phrases.

    Attributes:
        id: the name of the file without its suffix.
        path: the path of the file.
        size: (height, width), from the annotation.
        entities: the phrases that have a box.
        marked: for each caption, the number of its marked phrases, including those without a box.
    """

    id: str
    path: Path
    size: tuple[int, int]
    entities: tuple[Entity, ...]
    marked: tuple[int, ...] = ()


class Flickr30kEntities:
    """The photos of a split, in the order of the split's file.

    Iterating yields an :class:`EntityImage` for each photo. A phrase is kept if its chain has a box, which excludes
    ``notvisual`` (chain 0), ``nobox`` and scene chains without a box. ``UNRELATED_CAPTIONS`` is not used, because the
    protocol includes every caption (14,481 phrases in the test split).

    Args:
        root: the folder with ``images``, ``Annotations``, ``Sentences`` and ``SPLIT.txt``.
        split: the name of the split, for example ``val``.

    Raises:
        InputError: a part of the folder is missing, or the split's file is malformed; while iterating, an annotation is
            malformed.
    """

    def __init__(self, root: str | Path, split: str):
        self.root, self.split, self.folder = Path(root), split, Path(root, "images")
        for name in ("images", "Annotations", "Sentences", f"{split}.txt"):
            if not (self.root / name).exists():
                raise InputError(f"{self.root} has no {name}: set data.root to the folder of Flickr30k Entities")
        self.ids = read_ids(self.root / f"{split}.txt")

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[EntityImage]:
        return map(self.read, self.ids)

    def read(self, image: str) -> EntityImage:
        """Reads one photo's annotation and captions.

        Args:
            image: the photo's id.

        Raises:
            InputError: a file cannot be read, or is malformed.
        """
        size, chains = read_boxes(self.root / "Annotations" / f"{image}.xml")
        captions = list(self._marked(self.root / "Sentences" / f"{image}.txt"))
        entities = tuple(
            Entity(sentence, phrase, markup.text, markup.types, chains[markup.chain])
            for sentence, marked in enumerate(captions)
            for phrase, markup in enumerate(marked)
            if markup.chain in chains
        )
        return EntityImage(image, self.folder / f"{image}.jpg", size, entities, tuple(map(len, captions)))

    def captions(self, image: str) -> list[str]:
        """The captions of a photo as plain text, without the markup of the phrases.

        Args:
            image: the photo's id.

        Raises:
            InputError: the file cannot be read.
        """
        return [plain_sentence(line) for line in read_lines(self.root / "Sentences" / f"{image}.txt")]

    def _marked(self, path: Path) -> Iterator[list[Markup]]:
        for sentence, line in enumerate(read_lines(path)):
            try:
                yield parse_sentence(line)
            except InputError as error:
                raise InputError(f"{path}:{sentence + 1}: {error}") from error


def read_boxes(path: Path) -> tuple[tuple[int, int], dict[str, np.ndarray]]:
    """Reads the boxes of a photo.

    The file counts pixels from 1 and includes the last one. An object may belong to several chains (``<name>``), a
    chain may have several objects, and an object may be a flag (``<scene>``, ``<nobndbox>``) without a box.

    Args:
        path: the XML file.

    Returns:
        The photo's size (height, width), and for each chain its boxes, ``(K, 4)`` half-open xyxy in pixels from 0.

    Raises:
        InputError: the file cannot be read, is larger than 1 MB, has a DTD or entities, is malformed, or a box is
            inverted or outside the photo.
    """
    root, size = open_annotation(path, whole)
    chains: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, thing in enumerate(root.findall("object"), 1):
        if thing.find("bndbox") is not None:
            box = read_box(thing, size, f"{path}, object {number}", whole)
            for name in thing.findall("name"):
                chains[(name.text or "").strip()].append(box)
    return size, {chain: np.array(boxes) for chain, boxes in chains.items()}

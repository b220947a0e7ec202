"""Phrases with boxes, whichever data set they come from: Flickr30k Entities, or the categories of COCO and VOC."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

Place = tuple[str, int, int] | tuple[str, str]  # (image, sentence, phrase), or (image, category)


class AnnotatedPhrase(Protocol):
    """A phrase and its ground truth."""

    @property
    def text(self) -> str:
        """The phrase."""

    @property
    def boxes(self) -> np.ndarray:
        """``(K, 4)`` float64, half-open xyxy in pixels, at least one."""

    @property
    def union(self) -> np.ndarray:
        """``(4,)``, the smallest box around all boxes."""

    def place(self, image: str, /) -> Place:
        """How predictions name the phrase of a photo."""


class PhrasePhoto(Protocol):
    """A photo and its phrases."""

    @property
    def id(self) -> str:
        """The name of the photo."""

    @property
    def path(self) -> Path:
        """The path of the file."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), from the annotation."""

    @property
    def entities(self) -> Sequence[AnnotatedPhrase]:
        """The phrases that have a box."""


def union_box(boxes: np.ndarray) -> np.ndarray:
    """The smallest box around boxes.

    Args:
        boxes: ``(K, 4)`` xyxy, at least one.

    Returns:
        ``(4,)`` xyxy.
    """
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])

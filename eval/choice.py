"""A gamma that is chosen on other photos than those it is reported on.

Either on another split, or twofold: the photos are divided in two halves, and each is answered with the gamma that is
best on the other. The best has the largest sum of R@1, R@5 and R@10; of equal ones the smallest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from eval.attend import scenes
from eval.flickr30k import EntityImage
from eval.localization import DEPTHS, first_correct, inclusive
from grounding import Grounder
from grounding.scene import GroundingScene
from proposals.errors import InputError


@dataclass(frozen=True)
class Choice:
    """The gammas that were chosen: ``gammas[half(id)]`` for a photo, and among which."""

    gammas: tuple[float, float]
    tried: tuple[float, ...]

    def of(self, image: EntityImage) -> float:
        """The gamma that a photo is answered with."""
        return self.gammas[half(image.id)]


def choose_gammas(
    grounder: Grounder, images: Sequence[EntityImage], tried: Sequence[float], cache: str, twofold: bool
) -> Choice:
    """Tries gammas on photos.

    Args:
        tried: two or more, >= 0; cache: where what is seen is kept, for the photos are looked at again later.
        twofold: whether each half of these photos gets what is best on the other, not both what is best on all.

    Raises:
        InputError: ``tried`` is no such list, or there is no photo with a phrase to choose on.
    """
    if not isinstance(tried, list | tuple) or len(tried) < 2 or not all(type(g) in (int, float) for g in tried):
        raise InputError(f"choose={tried}: give two gammas or more, as step.choose=[0.25,0.5,0.75]")
    asked = [image for image in images if image.entities]
    counted = {image.id: hits(scene, image, tried) for image, scene in scenes(grounder, asked, cache, lambda _: None)}
    halves = ([found for image, found in counted.items() if not twofold or half(image) != h] for h in (0, 1))
    return Choice(tuple(_best(found, tried) for found in halves), tuple(tried))


def half(image: str) -> int:
    """Which half a photo is in, by a hash of its id: 0 or 1, the same in every run."""
    return sha256(image.encode()).digest()[0] % 2


def hits(scene: GroundingScene | None, image: EntityImage, tried: Sequence[float]) -> np.ndarray:
    """(len(tried),) int: how many phrases of a photo count for R@1, R@5 and R@10, added up; 0 without a scene."""
    found = np.zeros(len(tried), int)
    for row, gamma in enumerate(tried if scene else ()):
        answers = scene.ground([entity.text for entity in image.entities], gamma)
        for entity, answer in zip(image.entities, answers, strict=True):
            rank = first_correct(inclusive(answer.boxes), inclusive(entity.union[None]))
            found[row] += sum(rank <= depth for depth in DEPTHS)
    return found


def _best(found: Sequence[np.ndarray], tried: Sequence[float]) -> float:
    if not found:
        raise InputError("there is no phrase to choose a gamma on: give more photos, or another split")
    return min(zip(-np.sum(found, axis=0), tried, strict=True))[1]

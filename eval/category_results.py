"""The result of each category that a photo shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from eval.categories import CategoryImage, CategoryPhrase
from eval.localization import MISS, contains, first_correct, inclusive
from eval.phrase_results import PhraseResult
from eval.phrase_truth import Place
from eval.pointing_game import Cue, is_hit
from eval.predictions import CATEGORIES
from eval.presence_metrics import PresenceAnswer
from grounding.scene import GroundingScene


@dataclass
class CategoryResult(PhraseResult):
    """The result of one category in one photo. ``rank`` is against the union box, ``any_rank`` against any object.

    Attributes:
        difficult: whether the phrase is in the Pointing Game's difficult subset (see ``eval.pointing_game.Cue``).
        whole_any_rank: ``any_rank`` if the whole image were the only box.
        centre_hit: whether the image's centre is a hit by the Pointing Game's rule.
        hit: whether the point is a hit by the Pointing Game's rule, less than 15 pixels from a pixel of the category.
        on_pixel: whether the point is a pixel of the category.
        point: (x, y) in pixels; None for none.
        presence: the answer's presence.
    """

    difficult: bool = False
    whole_any_rank: float = MISS
    centre_hit: bool = False
    hit: bool = False
    on_pixel: bool = False
    point: tuple[float, float] | None = None
    presence: float | None = None

    @classmethod
    def of(cls, image: CategoryImage, phrase: CategoryPhrase, cue: Cue) -> "CategoryResult":
        """The result of a category without an answer: a miss.

        Args:
            image: the photo.
            phrase: the category and its boxes.
            cue: its pixels.
        """
        height, width = image.size
        union = phrase.union
        whole = inclusive(np.array([[0, 0, width, height]]))
        return cls(
            place=phrase.place(image.id),
            text=phrase.text,
            types=(phrase.text,),
            area=float((union[2] - union[0]) * (union[3] - union[1]) / (height * width)),
            whole_rank=first_correct(whole, inclusive(union[None])),
            centred=contains(phrase.boxes, (width / 2, height / 2)),
            union=inclusive(union),
            difficult=cue.difficult,
            whole_any_rank=first_correct(whole, inclusive(phrase.boxes)),
            centre_hit=is_hit(cue.mask, (width // 2, height // 2)),
        )

    def point_at(self, phrase: CategoryPhrase, cue: Cue, point: tuple[float, float] | None) -> None:
        """Compares a point with the ground truth.

        Args:
            phrase: the category and its boxes.
            cue: its pixels.
            point: (x, y) in pixels; None is a miss.
        """
        self.point, self.pointed = point, contains(phrase.boxes, point)
        if point is not None:
            x, y = floor(point[0]), floor(point[1])
            height, width = cue.mask.shape
            self.hit = is_hit(cue.mask, (x, y))
            self.on_pixel = 0 <= x < width and 0 <= y < height and bool(cue.mask[y, x])

    def as_record(self) -> dict:
        """The phrase's line in ``phrases.jsonl``; a rank of None is a miss, and ``rank`` is against any object."""
        ranks = {"rank": self.any_rank, "union_rank": self.rank}
        record = CATEGORIES.record(self.place) | {"text": self.text, "types": list(self.types), "area": self.area}
        record |= {key: None if rank == MISS else int(rank) for key, rank in ranks.items()}
        record |= {"covered": self.covered, "pointed": self.pointed, "reachable": self.reachable}
        return record | {"difficult": self.difficult, "hit": self.hit, "own": self.own, "presence": self.presence}


def unanswered(image: CategoryImage) -> list[CategoryResult]:
    """The results of a photo that cannot be read: misses.

    Args:
        image: the photo.
    """
    pixels = image.cues()
    return [CategoryResult.of(image, phrase, pixels[phrase.text]) for phrase in image.entities]


def answer_categories(
    scene: GroundingScene, image: CategoryImage, names: Sequence[str]
) -> tuple[list[CategoryResult], dict[Place, float | None]]:
    """Answers all phrases of a photo, and asks for the presence of all names.

    Args:
        scene: the scene of the photo.
        image: the photo's phrases.
        names: the names of all categories.

    Returns:
        The results, and the presence of each name by its place; None if it is unknown.
    """
    pixels, results = image.cues(), []
    proposals = inclusive(scene.proposals.boxes)
    texts = [phrase.text for phrase in image.entities]
    for phrase, answer in zip(image.entities, scene.ground(texts) if texts else [], strict=True):
        cue = pixels[phrase.text]
        result = CategoryResult.of(image, phrase, cue)
        result.compare(phrase, inclusive(answer.boxes), answer.scores)
        result.point_at(phrase, cue, answer.point)
        result.covered, result.presence = answer.groundable, answer.presence
        result.reachable = first_correct(proposals, inclusive(phrase.boxes)) < MISS
        results.append(result)
    others = [name for name in names if name not in set(texts)]
    presence: dict[Place, float | None] = {result.place: result.presence for result in results}
    return results, presence | {(image.id, n): p for n, p in zip(others, scene.presence(others), strict=True)}


def presence_answers(
    images: Sequence[CategoryImage], names: Sequence[str], known: Mapping[Place, float]
) -> list[PresenceAnswer]:
    """The answers about all pairs of photo and name, but those of categories whose objects are all difficult.

    Args:
        images: the photos.
        names: the names of all categories.
        known: the presence by photo and name. A pair that is not there has none.
    """
    return [
        PresenceAnswer(image.id, name, name in image.shown, known.get((image.id, name)))
        for image in images
        for name in names
        if name not in image.undecided
    ]

"""Selects gamma on other photos than those that it is evaluated on.

Either on another split, or by twofold cross-validation: the photos are divided into two halves, and each half is
answered with the gamma that is best on the other half. The best gamma has the largest sum of R@1, R@5 and R@10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from eval.flickr30k import EntityImage
from eval.gammas import best_gamma
from eval.localization import DEPTHS, first_correct, inclusive
from eval.protocol import OURS, Protocol
from eval.scenes import scenes
from grounding import Grounder
from grounding.scene import GroundingScene
from proposals.errors import InputError


@dataclass(frozen=True)
class GammaSelection:
    """The selected gammas. The names of the fields are keys of ``metrics.json``.

    Attributes:
        gammas: the gamma of each half of the photos; both are equal after a selection on another split.
        tried: the candidates.
    """

    gammas: tuple[float, float]
    tried: tuple[float, ...]

    def gamma_for(self, image: EntityImage) -> float:
        """The gamma that a photo's phrases are answered with."""
        return self.gammas[half(image.id)]


def select_gammas(
    grounder: Grounder,
    images: Sequence[EntityImage],
    candidates: Sequence[float],
    cache: str,
    twofold: bool,
    protocol: Protocol = OURS,
) -> GammaSelection:
    """Evaluates the recall of each candidate and selects the best.

    Args:
        grounder: answers the phrases.
        images: the photos to select on.
        candidates: two or more gammas, each >= 0.
        cache: the folder where maps and proposals are kept, because the photos are used again later.
        twofold: True to select for each half of ``images`` on the other half, False to select on all of them.
        protocol: which boxes are judged.

    Returns:
        The selected gammas; of equally good ones the smallest.

    Raises:
        InputError: ``candidates`` is not a list of two or more numbers, or there is no phrase to select on.
    """
    if (
        not isinstance(candidates, list | tuple)
        or len(candidates) < 2
        or not all(type(gamma) in (int, float) for gamma in candidates)
    ):
        raise InputError(
            f"gamma_candidates={candidates} must be two or more numbers: step.gamma_candidates=[0.25,0.5,0.75]"
        )
    used = [image for image in images if image.entities]
    hits = {
        image.id: count_hits(scene, image, candidates, protocol)
        for image, scene in scenes(grounder, used, cache, lambda *_: None)
    }
    one, other = ([h for image, h in hits.items() if not twofold or half(image) != side] for side in (0, 1))
    return GammaSelection((_best(one, candidates), _best(other, candidates)), tuple(candidates))


def half(image: str) -> int:
    """The half that a photo belongs to, by a hash of its id.

    Args:
        image: the photo's id.

    Returns:
        0 or 1, the same in every run.
    """
    return sha256(image.encode()).digest()[0] % 2


def count_hits(
    scene: GroundingScene | None, image: EntityImage, candidates: Sequence[float], protocol: Protocol = OURS
) -> np.ndarray:
    """How many phrases of a photo are found at rank 1, 5 and 10, summed over these ranks.

    Args:
        scene: the scene of the photo; None if it could not be read, which counts as no hit.
        image: the photo and its phrases.
        candidates: G gammas.
        protocol: which boxes are judged.

    Returns:
        ``(G,)`` int.
    """
    hits = np.zeros(len(candidates), int)
    if scene is None:
        return hits
    for row, gamma in enumerate(candidates):
        answers = scene.ground([entity.text for entity in image.entities], gamma)
        for entity, answer in zip(image.entities, answers, strict=True):
            judged, _ = protocol.judged(entity.place(image.id), inclusive(answer.boxes), answer.scores)
            rank = first_correct(judged, inclusive(entity.union[None]))
            hits[row] += sum(rank <= depth for depth in DEPTHS)
    return hits


def _best(hits: Sequence[np.ndarray], candidates: Sequence[float]) -> float:
    if not hits:
        raise InputError("there is no phrase to select gamma on: use more photos, or another gamma_split")
    return best_gamma(dict(zip(candidates, np.sum(hits, axis=0), strict=True)))

"""Systems that answer the phrases of Flickr30k Entities, judged under several protocols and gammas at once.

A photo is looked at once for each system; gamma and protocol need no further pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from eval.flickr30k import EntityImage
from eval.gammas import GAMMAS, best_gamma
from eval.localization import DEPTHS, SMALL, contains, first_correct, inclusive
from eval.metrics import Metrics
from eval.phrase_metrics import SCORE_SCALES, add_recall, scaled
from eval.protocol import Protocol
from eval.scenes import scenes
from grounding import Grounder
from grounding.answers import Grounding, likely_point
from grounding.rescoring import suppress
from grounding.scene import GroundingScene

Boxes = tuple[np.ndarray, np.ndarray]  # (K, 4) inclusive xyxy, best first, and (K,) scores


@dataclass(frozen=True)
class System:
    """A row of Table 4.

    Attributes:
        name: how the table calls it.
        grounder: answers the phrases.
        by_phrase: False for the proposals in their own order, after NMS, without a phrase.
    """

    name: str
    grounder: Grounder
    by_phrase: bool = True

    @property
    def proposer(self) -> str:
        """The name of the proposer's class."""
        return type(self.grounder.proposer).__name__

    @property
    def gammas(self) -> tuple[float | None, ...]:
        """The gammas to choose from, and the grounder's own, for the point; None where the area does not count."""
        return tuple(dict.fromkeys((*GAMMAS, self.grounder.settings.gamma))) if self.by_phrase else (None,)


class JudgedPhrases(NamedTuple):
    """N phrases under one protocol and one gamma.

    Attributes:
        ranks: ``(N,)``, the rank of each phrase's first correct box, from 1; infinity for none.
        scores: ``(J,)`` for each phrase, of the boxes that are judged.
    """

    ranks: np.ndarray
    scores: list[np.ndarray]


@dataclass(frozen=True)
class PhraseTable:
    """The N phrases of the photos that are evaluated.

    Attributes:
        photo: the id of each phrase's photo.
        types: the types of each phrase.
        area: ``(N,)``, the union box's share of the photo.
        labels: the label of each phrase in mAP (Phrase), by the protocol's name; None for a phrase that does not count.
    """

    photo: list[str]
    types: list[tuple[str, ...]]
    area: np.ndarray
    labels: dict[str, list[str | None]]

    @classmethod
    def of(cls, images: Sequence[EntityImage], protocols: Sequence[Protocol]) -> "PhraseTable":
        """The phrases of photos, in the order of the photos."""
        pairs = [(image, entity) for image in images for entity in image.entities]
        corners = [entity.union for _, entity in pairs]
        areas = [(b[2] - b[0]) * (b[3] - b[1]) / np.prod(i.size) for b, (i, _) in zip(corners, pairs, strict=True)]
        places = [entity.place(image.id) for image, entity in pairs]
        texts = [entity.text for _, entity in pairs]
        labels = {
            p.name: [p.label(at, text) if p.counts(at) else None for at, text in zip(places, texts, strict=True)]
            for p in protocols
        }
        return cls([i.id for i, _ in pairs], [e.types for _, e in pairs], np.array(areas), labels)


@dataclass
class SystemResults:
    """What a system finds.

    Attributes:
        system: the system.
        judged: the phrases by the protocol's name and gamma.
        map_pointed: ``(N,)`` bool, whether the maximum of the phrase's map lies in one of its boxes.
        pointed: ``(N,)`` bool, whether the answer's point does, with the grounder's own gamma.
    """

    system: System
    judged: dict[tuple[str, float | None], JudgedPhrases] = field(default_factory=dict)
    map_pointed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    pointed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def best_gamma(self, protocol: str, chosen: np.ndarray) -> float | None:
        """The gamma with the largest sum of R@1, R@5 and R@10.

        Args:
            protocol: the protocol's name.
            chosen: ``(N,)`` bool, the phrases to select on.
        """
        if not self.system.by_phrase:
            return None
        ranks = {gamma: self.judged[protocol, gamma].ranks[chosen] for gamma in GAMMAS}
        return best_gamma({gamma: sum(int((r <= k).sum()) for k in DEPTHS) for gamma, r in ranks.items()})


def answer_system(
    system: System,
    images: Sequence[EntityImage],
    protocols: Sequence[Protocol],
    cache: str,
    unread: Callable[[str, str], object],
) -> SystemResults:
    """Answers all phrases with each gamma, and judges the answers by each protocol.

    Args:
        system: the system.
        images: the photos and their phrases.
        protocols: the protocols.
        cache: the folder where maps and proposals are kept.
        unread: is called with the id of each photo that cannot be read; its phrases are misses.
    """
    ranks: dict[tuple[str, float | None], list[float]] = {(p.name, g): [] for p in protocols for g in system.gammas}
    scores: dict[tuple[str, float | None], list[np.ndarray]] = {key: [] for key in ranks}
    points: list[tuple[bool, bool]] = []
    for image, scene in scenes(system.grounder, images, cache, unread):
        for gamma in system.gammas:
            answers = _ground(system, image, scene, gamma)
            if gamma in (system.grounder.settings.gamma, None):
                points += _points(image, answers)
            for protocol in protocols:
                for entity, answer in zip(image.entities, _boxes(system, image, scene, answers), strict=True):
                    judged, kept = protocol.judged(entity.place(image.id), *answer)
                    ranks[protocol.name, gamma].append(first_correct(judged, inclusive(entity.union[None])))
                    scores[protocol.name, gamma].append(kept)
    judged_phrases = {key: JudgedPhrases(np.array(ranks[key]), scores[key]) for key in ranks}
    of_map, of_answer = np.array(points, bool).reshape(-1, 2).T
    return SystemResults(system, judged_phrases, of_map, of_answer)


def _ground(
    system: System, image: EntityImage, scene: GroundingScene | None, gamma: float | None
) -> list[Grounding] | None:
    """The answers to a photo's phrases; None if the photo could not be read, or the phrases do not matter."""
    if scene is None or not system.by_phrase:
        return None
    return scene.ground([entity.text for entity in image.entities], gamma)


def _boxes(
    system: System, image: EntityImage, scene: GroundingScene | None, answers: list[Grounding] | None
) -> list[Boxes]:
    """The boxes of each phrase of a photo; without answers the proposals in their own order, or none."""
    if answers is not None:
        return [(inclusive(answer.boxes), answer.scores) for answer in answers]
    if scene is None:
        return [(np.zeros((0, 4)), np.zeros(0))] * len(image.entities)
    proposals = scene.proposals
    kept = suppress(proposals.boxes, proposals.scores, system.grounder.settings.nms)
    return [(inclusive(proposals.boxes[kept]), proposals.scores[kept])] * len(image.entities)


def _points(image: EntityImage, answers: list[Grounding] | None) -> list[tuple[bool, bool]]:
    """For each phrase, whether the maximum of its map and the point of its answer lie in one of its boxes."""
    if answers is None:
        return [(False, False)] * len(image.entities)
    return [
        (contains(entity.boxes, map_maximum(answer)), contains(entity.boxes, answer.point))
        for entity, answer in zip(image.entities, answers, strict=True)
    ]


def map_maximum(answer: Grounding) -> tuple[float, float] | None:
    """The centre of the largest cell of an answer's map, (x, y) in pixels; None if there is no map.

    Args:
        answer: the answer to a phrase.
    """
    if answer.map is None or not (answer.voted or answer.focus):
        return answer.point
    height, width = answer.size
    return likely_point(answer.map, np.array([[0.0, 0, width, height]]), np.ones(1), answer.size)


def system_metrics(
    results: SystemResults, phrases: PhraseTable, protocol: Protocol, gamma: float | None, chosen: np.ndarray
) -> Metrics:
    """The figures of a row, with intervals over photos.

    Args:
        results: what the system finds.
        phrases: the phrases.
        protocol: the protocol.
        gamma: one of the system's gammas.
        chosen: ``(N,)`` bool, the phrases that count.

    Returns:
        Metrics with the paths (name, k) of recall, recall_small, recall_by_category and recall_by_category_small,
        ("recall_by_type", type, k), ("recall_type_mean", k), ("pointing",) and ("point",); and of average precision
        (name, scale) with the names ap_group, ap_group_small, ap_phrase and ap_phrase_small.
    """
    index = np.flatnonzero(chosen)
    judged = results.judged[protocol.name, gamma]
    ranks, scores = judged.ranks[index], [judged.scores[i] for i in index]
    metrics = Metrics([phrases.photo[i] for i in index])
    small = phrases.area[index] < SMALL
    subsets = {"": np.ones(len(index), bool), "_small": small}
    names = sorted({name for i in index for name in phrases.types[i]})
    types = {name: np.array([name in phrases.types[i] for i in index]) for name in names}
    for suffix, subset in subsets.items():
        add_recall(metrics, (f"recall{suffix}",), ranks, subset)
        each = np.concatenate([np.flatnonzero(subset & of_type) for of_type in types.values()])
        add_recall(metrics, (f"recall_by_category{suffix}",), ranks, each)
    for name, subset in types.items():
        add_recall(metrics, ("recall_by_type", name), ranks, subset)
    for depth in map(str, DEPTHS):
        metrics.add_mean(("recall_type_mean", depth), [("recall_by_type", name, depth) for name in types])
    if results.system.by_phrase:
        metrics.add_share(("pointing",), results.map_pointed[index], subsets[""])
        metrics.add_share(("point",), results.pointed[index], subsets[""])
    labels = [str(phrases.labels[protocol.name][i]) for i in index]
    for scale in SCORE_SCALES:
        pooled = [scaled(row, scale) for row in scores], ranks
        for suffix, subset in subsets.items():
            groups = {name: np.flatnonzero(subset & of_type) for name, of_type in types.items()}
            metrics.add_precision(None, (f"ap_group{suffix}", scale), groups, *pooled, with_intervals=not suffix)
            found = _by_label(labels, subset)
            metrics.add_precision(None, (f"ap_phrase{suffix}", scale), found, *pooled, with_intervals=False)
    return metrics


def _by_label(labels: Sequence[str], subset: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, list[int]] = {}
    for i in np.flatnonzero(subset).tolist():
        found.setdefault(labels[i], []).append(i)
    return {label: np.array(indices) for label, indices in found.items()}

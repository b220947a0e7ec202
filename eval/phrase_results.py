"""The result of each phrase: whether, and at which rank, its boxes are correct."""

from dataclasses import dataclass, field

import numpy as np

from eval.flickr30k import Entity, EntityImage
from eval.gammas import GAMMAS
from eval.localization import MISS, contains, first_correct, inclusive
from eval.phrase_truth import AnnotatedPhrase, Place
from eval.predictions import ENTITIES
from eval.protocol import OURS, Protocol
from grounding.scene import GroundingScene


@dataclass
class PhraseResult:
    """The result of one phrase. Ranks count from 1; infinity is a miss.

    The attributes from ``covered`` on are known for our own answers only, not for a file of predictions.

    Attributes:
        place: (image, sentence, phrase), see ``eval.predictions``.
        text: the phrase as annotated.
        types: the phrase's types, a subset of ``eval.localization.TYPES``.
        area: the union box's share of the image, in (0, 1].
        whole_rank: the rank if the whole image were the only box.
        centred: whether the image's centre lies in a box of the phrase.
        rank: the rank of the first box that is correct against the union box.
        any_rank: the rank of the first box that is correct against any single box of the phrase.
        scores: ``(J,)`` of the boxes that the protocol judges, in their order.
        covered: whether a word of the phrase has a tag.
        pointed: whether the answer's point lies in a box of the phrase (see ``Grounding.point``).
        reachable: whether any proposal is correct.
        proposal_rank: the rank of the first correct proposal in the proposer's own order.
        rank_by_gamma: ``rank`` under each of ``GAMMAS``.
        scores_by_gamma: ``scores`` under each of ``GAMMAS``.
        boxes: ``(K, 4)`` inclusive xyxy, as written to ``predictions.jsonl``.
        union: ``(4,)`` inclusive xyxy, the union box.
        first: ``(4,)`` inclusive xyxy, the best box; None without a box.
        own: whether ``first`` is the phrase's own box (see ``eval.own_boxes``); None if it is compared with no other.
    """

    place: Place
    text: str
    types: tuple[str, ...]
    area: float
    whole_rank: float
    centred: bool
    rank: float = MISS
    any_rank: float = MISS
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    covered: bool = False
    pointed: bool = False
    reachable: bool = False
    proposal_rank: float = MISS
    rank_by_gamma: dict[float, float] = field(default_factory=lambda: dict.fromkeys(GAMMAS, MISS))
    scores_by_gamma: dict[float, np.ndarray] = field(default_factory=lambda: dict.fromkeys(GAMMAS, np.zeros(0)))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    union: np.ndarray = field(default_factory=lambda: np.zeros(4))
    first: np.ndarray | None = None
    own: bool | None = None

    @classmethod
    def unanswered(cls, image: EntityImage, entity: Entity) -> "PhraseResult":
        """The result of a phrase without an answer: a miss."""
        height, width = image.size
        union = entity.union
        return cls(
            place=entity.place(image.id),
            text=entity.text,
            types=entity.types,
            area=float((union[2] - union[0]) * (union[3] - union[1]) / (height * width)),
            whole_rank=first_correct(inclusive(np.array([[0, 0, width, height]])), inclusive(union[None])),
            centred=contains(entity.boxes, (width / 2, height / 2)),
            union=inclusive(union),
        )

    def compare(
        self, entity: AnnotatedPhrase, boxes: np.ndarray, scores: np.ndarray, protocol: Protocol = OURS
    ) -> None:
        """Compares boxes with the ground truth.

        Args:
            entity: the phrase's ground truth.
            boxes: ``(K, 4)`` inclusive xyxy, best first.
            scores: ``(K,)``.
            protocol: which of them are judged; by default all, without changing or sorting them.
        """
        judged, self.scores = protocol.judged(self.place, boxes, scores)
        self.rank = first_correct(judged, inclusive(entity.union[None]))
        self.any_rank = first_correct(judged, inclusive(entity.boxes))
        self.boxes = boxes
        self.first = boxes[0].copy() if len(boxes) else None  # not a view, which would keep all boxes

    def as_record(self) -> dict:
        """The phrase's line in ``phrases.jsonl``; a rank of None is a miss."""
        record = ENTITIES.record(self.place) | {"text": self.text, "types": list(self.types)}
        record |= {"area": self.area, "rank": None if self.rank == MISS else int(self.rank)}
        return record | {"covered": self.covered, "pointed": self.pointed, "reachable": self.reachable}


def answer_phrases(
    scene: GroundingScene, image: EntityImage, gamma: float | None = None, protocol: Protocol = OURS
) -> list[PhraseResult]:
    """Answers all phrases of a photo and compares the answers with the ground truth.

    Args:
        scene: the scene of the photo.
        image: the photo's phrases.
        gamma: replaces the grounder's gamma; None to use the grounder's.
        protocol: which boxes are judged.
    """
    texts = [entity.text for entity in image.entities]
    proposals = inclusive(scene.proposals.boxes)
    results = []
    for entity, answer in zip(image.entities, scene.ground(texts, gamma), strict=True):
        result = PhraseResult.unanswered(image, entity)
        result.compare(entity, inclusive(answer.boxes), answer.scores, protocol)
        result.covered, result.pointed = answer.groundable, contains(entity.boxes, answer.point)
        own_order = protocol.judged(result.place, proposals, scene.proposals.scores)[0]
        result.proposal_rank = first_correct(own_order, inclusive(entity.union[None]))
        result.reachable = first_correct(proposals, inclusive(entity.union[None])) < MISS
        results.append(result)
    for gamma in GAMMAS:
        for result, entity, answer in zip(results, image.entities, scene.ground(texts, gamma), strict=True):
            judged, scores = protocol.judged(result.place, inclusive(answer.boxes), answer.scores)
            result.rank_by_gamma[gamma] = first_correct(judged, inclusive(entity.union[None]))
            result.scores_by_gamma[gamma] = scores
    return results

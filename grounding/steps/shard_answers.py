"""The answers about the photos of tar files: one photo at a time, or several in one pass of the network."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from grounding.answers import Answers, Grounding
from grounding.batch.looking import ReadPhoto
from grounding.batch.together import PhotoWork
from grounding.exports import image_record
from grounding.grounder import Grounder
from grounding.runtime.ledger import Skipped
from grounding.scene import GroundingScene
from grounding.shards.parts import PhotoResult
from grounding.shards.reading import WITHOUT_PHRASES, ShardPhoto
from proposals.errors import InputError

UNREADABLE = "unreadable"
TarPhoto = ShardPhoto | Skipped


class ShardQuestion(NamedTuple):
    """What a worker needs to answer about photos.

    Attributes:
        grounder: answers the phrases.
        phrases: the phrases for all photos.
        field: see :class:`ShardOptions`.
        tags: see :class:`ShardOptions`.
        boxes: the largest number of boxes of a phrase.
        maps: whether the maps are wanted.
    """

    grounder: Grounder
    phrases: tuple[str, ...]
    field: str | None
    tags: int | None
    boxes: int
    maps: bool


class WithoutPhrasesError(InputError):
    """A photo has no phrases of its own."""


class ShardWork(PhotoWork[TarPhoto, PhotoResult]):
    """Answers about photos.

    Args:
        question: what is asked.
    """

    def __init__(self, question: ShardQuestion) -> None:
        super().__init__(question.grounder.looker)
        self._question = question

    def alone(self, item: TarPhoto) -> PhotoResult:
        """The answers about one photo, or why it is skipped.

        Args:
            item: the photo.
        """
        try:
            photo, _ = self._asked(item)
            scene = self._question.grounder.look(BytesIO(photo.data), photo.name)
            return self.answer(photo, scene, self.phrases(photo, scene))
        except InputError as error:
            return self.skip(item, error)

    def read(self, item: TarPhoto) -> ReadPhoto:
        photo, _ = self._asked(item)
        return self.looker.read(BytesIO(photo.data), photo.name)

    def phrases(self, item: TarPhoto, scene: GroundingScene) -> Sequence[str]:
        _, phrases = self._asked(item)
        return phrases if self._question.tags is None else self._top_tags(scene, self._question.tags)

    def answer(self, item: TarPhoto, scene: GroundingScene, phrases: Sequence[str]) -> PhotoResult:
        groundings = scene.ground(phrases, rivalry=None if self._question.tags is None else 0)
        record = image_record(Answers(item.name, groundings[0].size, groundings), self._question.boxes)
        return PhotoResult(record, maps=_maps(groundings) if self._question.maps else None)

    def skip(self, item: TarPhoto, error: InputError) -> PhotoResult:
        if isinstance(item, Skipped):
            return PhotoResult(skipped=item)
        reason = WITHOUT_PHRASES if isinstance(error, WithoutPhrasesError) else UNREADABLE
        return PhotoResult(skipped=Skipped(item.name, reason, str(error)))

    def _asked(self, item: TarPhoto) -> tuple[ShardPhoto, list[str]]:
        """A photo that is not skipped, and its phrases; none if its most probable tags are asked for."""
        if isinstance(item, Skipped):
            raise InputError(item.detail)
        question = self._question
        if question.phrases or question.tags:
            return item, list(question.phrases)
        try:
            return item, item.phrases(question.field or "")
        except InputError as error:
            raise WithoutPhrasesError(str(error)) from error

    def _top_tags(self, scene: GroundingScene, count: int) -> list[str]:
        """The most probable tags of a photo, best first."""
        order = np.argsort(-scene.probabilities, kind="stable")[:count]
        return [self._question.grounder.tagger.vocabulary[int(tag)] for tag in order]


def _maps(groundings: Sequence[Grounding]) -> bytes:
    """The maps of a photo as npz: ``01`` for the first phrase, and so on; float32, on the grid of the proposals."""
    found = {f"{number:02d}": answer.map for number, answer in enumerate(groundings, 1) if answer.map is not None}
    arrays: dict[str, Any] = {name: values.astype(np.float32) for name, values in found.items()}
    np.savez_compressed(buffer := BytesIO(), **arrays)
    return buffer.getvalue()

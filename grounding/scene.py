"""A photo that was looked at: phrases are asked of it, and each costs little."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from grounding.answers import Grounding
from grounding.attention.atlas import Atlas
from grounding.attention.methods import METHODS
from grounding.attention.topdown import TopDown
from grounding.maps import blur, resize_mass
from grounding.rescoring import rescore, suppress, vote, vote_overlaps
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase
from proposals import Proposals
from proposals.errors import InputError

REMEMBERED = 256  # phrases of a scene whose masses are kept: 4 KB each with 500 proposals


@dataclass(frozen=True)
class Settings:
    """What decides an answer, besides the tagger and the proposals.

    Attributes:
        method: a name of ``grounding.attention.methods.METHODS``.
        target: the layer of the maps; None takes the method's own (the paper's).
        side: pixels of the image's shorter side as the network sees it (the paper: 300).
        gamma: the price of a proposal's area in S_R / A_R^gamma.
        prior: how much the proposer's own belief in a region counts beside it; 0 is the paper's method.
        vote: how much more the better proposals count where all vote on the order, see ``grounding.rescoring``; 0 is
            the paper's method: they stand in the order of their scores, thinned by ``nms``.
        nms: without a vote, boxes that overlap a better one by more than this IoU are dropped.

    The defaults are what measured best; ``Settings.paper()`` is the paper's method.
    """

    method: str = "c-mwp-partial"
    target: str | None = None
    side: int = 420
    gamma: float = 0.5
    prior: float = 0.1
    vote: float = 3.0
    nms: float = 0.7

    @classmethod
    def paper(cls) -> "Settings":
        """Those of the paper: c-MWP at 300 pixels, S_R / A_R^0.5, NMS at 0.7."""
        return cls(method="c-mwp", side=300, gamma=0.5, prior=0, vote=0)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"there is no attention method {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.side < 224:
            raise InputError(f"side={self.side}: the networks need at least 224 pixels")


class MapSource(Protocol):
    """Gives the attention maps of tags on one image: a ``grounding.attention.topdown.Scene``, or a cache of it."""

    def attend(self, units: Sequence[int], method: str, /) -> Tensor | list[Tensor]:
        """The maps of the tags with these indices, ``(1, W, h, w)``, at one target."""
        ...


class GroundingScene:
    """A photo that was looked at.

    Attributes:
        image: (H, W, 3) uint8; proposals: its proposals, best first by their own score.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        proposals: Proposals,
        source: MapSource,
        tagger: TagClassifier,
        topdown: TopDown,
        settings: Settings,
    ) -> None:
        self.image, self.proposals = image, proposals
        self._source, self._tagger, self._topdown, self._settings = source, tagger, topdown, settings
        # by method and tag
        self._maps: dict[tuple[str, str], np.ndarray] = {}
        maps = self._maps  # not through self: a scene in its own cache would wait for the garbage collector
        self._masses = lru_cache(REMEMBERED)(
            lambda method, tags: proposals.integrate(_average(maps, method, tags)[None])
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the photo and of the maps that are kept; the network's values and the proposals come on top."""
        return self.image.nbytes + sum(kept.nbytes for kept in list(self._maps.values()))

    def ground(
        self,
        phrases: Sequence[str],
        gamma: float | None = None,
        prior: float | None = None,
        nms: float | None = None,
        method: str | None = None,
        vote: float | None = None,
    ) -> list[Grounding]:
        """The boxes of each phrase, in the order asked.

        The maps of words and the masses of phrases are kept, so that asking again, under another gamma, prior, vote or
        nms too, costs no further pass and no integration; threads may ask one scene. A phrase without any known word is
        answered as not groundable, never with a made-up box.

        Args:
            gamma, prior, nms, method, vote: in place of the grounder's, see :class:`Settings`; the same proposals.

        Raises:
            InputError: no phrase, an empty one, an unknown method, or a gamma, prior, vote or nms out of range.
        """
        if isinstance(phrases, str) or not len(phrases):
            raise InputError("no phrase to ground: give a list of at least one")
        given: dict[str, Any] = {"gamma": gamma, "prior": prior, "nms": nms, "method": method, "vote": vote}
        settings = replace(self._settings, **{k: v for k, v in given.items() if v is not None})
        parsed = [Phrase.parse(text, self._tagger.vocabulary) for text in phrases]
        self.attend(sorted({tag for phrase in parsed for tag in phrase.tags}), settings.method)
        return [self._answer(phrase, settings) for phrase in parsed]

    def attend(self, tags: Sequence[str], method: str | None = None) -> list[np.ndarray]:
        """The attention map of each tag on the proposals' grid: (h, w) float64, >= 0, its mass kept.

        Args:
            method: in place of the grounder's.

        Raises:
            InputError: the vocabulary has no such tag.
        """
        method = method or self._settings.method
        new = [tag for tag in tags if (method, tag) not in self._maps]
        if new:
            ids = [self._tagger.vocabulary.index(tag) for tag in new]
            # one tensor, for there is one target
            maps = cast(Tensor, self._source.attend(ids, method)).clamp(min=0)
            maps = (blur(maps) if METHODS[method].blurred else maps)[0].cpu().double()
            resized = resize_mass(maps, self.proposals.shape).numpy()
            self._maps |= zip([(method, tag) for tag in new], resized, strict=True)
        return [self._maps[method, tag] for tag in tags]

    def words(self, box: Sequence[float], count: int = 10) -> list[tuple[str, float]]:
        """What is here? The tags whose attention is most concentrated in a box, of the whole vocabulary.

        The network looks once more, at 224 x 224 pixels, the first time that this is asked (see
        ``grounding.attention.atlas``).

        Args:
            box: (x1, y1, x2, y2), half-open, in pixels of the image; count: how many tags.

        Returns:
            (tag, the share of its map's mass that lies in the box), best first.

        Raises:
            InputError: a box that is empty or leaves the image.
        """
        vocabulary = self._tagger.vocabulary
        return [(vocabulary[tag], share) for tag, share in self._atlas.words(box, count)]

    @cached_property
    def _atlas(self) -> Atlas:
        scene = self._topdown.look(self._tagger.prepare(self.image, [224, 224]))
        return scene.atlas(size=self.image.shape[:2])

    @cached_property
    def _overlaps(self) -> sparse.csr_array:
        return vote_overlaps(self.proposals.boxes)

    def _answer(self, phrase: Phrase, settings: Settings) -> Grounding:
        size, proposals = self.image.shape[:2], self.proposals
        if not phrase.tags:
            return Grounding(phrase, np.zeros((0, 4)), np.zeros(0), None, size, self.image)
        masses = self._masses(settings.method, phrase.tags)
        scores = rescore(masses, proposals.areas, settings.gamma, proposals.scores, settings.prior)[0]
        if settings.vote:
            kept, scores = vote(self._overlaps, scores, settings.vote)
        else:
            kept = suppress(proposals.boxes, scores, settings.nms)
            scores = scores[kept]
        attention = _average(self._maps, settings.method, phrase.tags)
        return Grounding(phrase, proposals.boxes[kept], scores, attention, size, self.image, bool(settings.vote))


def _average(maps: Mapping[tuple[str, str], np.ndarray], method: str, tags: Sequence[str]) -> NDArray[np.float64]:
    """(h, w) the map of a phrase: "we simply average the word attention maps" (Sec. 4.3)."""
    average: NDArray[np.float64] = np.mean([maps[method, tag] for tag in tags], axis=0)
    return average

"""GroundingScene: one photo after the forward pass, which answers phrases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from numbers import Real
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

CACHED_PHRASES = 256  # phrases of a scene whose masses are kept; the masses of a phrase take 4 KB for 500 proposals

Map = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """The attention method and how proposals are ranked. The defaults had the best recall on Flickr30k Entities val.

    Attributes:
        method: a name in ``grounding.attention.methods.METHODS``.
        target: the layer at which maps are read; None for the method's own (the paper's).
        side: pixels of the shorter side of the image as the network receives it; 300 in the paper.
        gamma: exponent of the area in S_R / A_R^gamma, >= 0.
        prior: exponent of the proposer's own score, >= 0; 0 in the paper.
        vote: sharpness of the vote that ranks the boxes (see ``grounding.rescoring``); 0 uses non-maximum suppression,
            as in the paper.
        nms: IoU in 0..1; without a vote, a box that overlaps a better one by more is removed.
        presence: probability in 0..1; an answer whose presence is lower has ``present=False``. Its boxes are the same.
            0 counts every answer as present, as the paper does.
    """

    method: str = "c-mwp-partial"
    target: str | None = None
    side: int = 420
    gamma: float = 0.5
    prior: float = 0.1
    vote: float = 3.0
    nms: float = 0.7
    presence: float = 0.1

    @classmethod
    def paper(cls) -> "Settings":
        """Returns the settings of the paper: c-MWP at 300 pixels, S_R / A_R^0.5, NMS at an IoU of 0.7."""
        return cls(method="c-mwp", side=300, gamma=0.5, prior=0, vote=0, presence=0)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"there is no attention method {self.method!r}; choose one of {', '.join(METHODS)}")
        for name in ("side", "gamma", "prior", "vote", "nms", "presence"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InputError(f"{name}={value} must be a number")
        if not 0 <= self.presence <= 1:
            raise InputError(f"presence={self.presence} must be in 0..1; 0 counts every answer as present")
        if self.side < 224:
            raise InputError(f"side={self.side} is too small: the networks need at least 224 pixels")


class MapSource(Protocol):
    """Computes attention maps of one image at one target: a ``grounding.attention.topdown.Scene``, or a cache."""

    def attend(self, units: Sequence[int], method: str, /) -> Tensor | list[Tensor]:
        """Returns the maps ``(1, W, h, w)`` of W tags, given by their indices."""
        ...


class GroundingScene:
    """One photo after the forward pass. :meth:`ground` can be called any number of times; threads may share a scene.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        proposals: the proposals of the image.
        source: computes the maps of tags on the image.
        tagger: the network.
        topdown: the network's top-down attention, for :meth:`words`.
        settings: the defaults of :meth:`ground`.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        proposals: the proposals of the image, sorted by their own score.
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
        self._maps: dict[tuple[str, str], Map] = {}  # by method and tag
        maps = self._maps  # not self: a scene that its own cache refers to stays until the garbage collector runs
        self._masses = lru_cache(CACHED_PHRASES)(
            lambda method, tags: proposals.integrate(_average(maps, method, tags)[None])
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the photo and of the maps so far, without the network's activations and the proposals."""
        return self.image.nbytes + sum(values.nbytes for values in list(self._maps.values()))

    def ground(
        self,
        phrases: Sequence[str],
        gamma: float | None = None,
        prior: float | None = None,
        nms: float | None = None,
        method: str | None = None,
        vote: float | None = None,
        presence: float | None = None,
    ) -> list[Grounding]:
        """Finds the boxes of each phrase.

        The maps of words and the masses of phrases are kept. So a second call with the same phrases needs no further
        pass, even with another gamma, prior, vote or nms. A phrase without any known word gets an answer that is not
        groundable and has no boxes.

        Args:
            phrases: what to find.
            gamma: see :class:`Settings`; None for the scene's setting.
            prior: see :class:`Settings`; None for the scene's setting.
            nms: see :class:`Settings`; None for the scene's setting.
            method: see :class:`Settings`; None for the scene's setting.
            vote: see :class:`Settings`; None for the scene's setting.
            presence: see :class:`Settings`; None for the scene's setting.

        Returns:
            One answer for each phrase, in the same order.

        Raises:
            InputError: there is no phrase, a phrase is empty, the method is unknown, or a setting is out of range.
        """
        if isinstance(phrases, str) or not len(phrases):
            raise InputError("no phrase to ground: give a list of at least one")
        given: dict[str, Any] = {"gamma": gamma, "prior": prior, "nms": nms, "method": method, "vote": vote}
        given["presence"] = presence
        settings = replace(self._settings, **{name: value for name, value in given.items() if value is not None})
        parsed = [Phrase.parse(text, self._tagger.vocabulary) for text in phrases]
        self.attend(sorted({tag for phrase in parsed for tag in phrase.tags}), settings.method)
        return [self._answer(phrase, settings) for phrase in parsed]

    def attend(self, tags: Sequence[str], method: str | None = None) -> list[Map]:
        """Computes the attention maps of tags on the grid of the proposals.

        Args:
            tags: tags of the vocabulary.
            method: see :class:`Settings`; None for the scene's setting.

        Returns:
            One map for each tag, ``(h, w)`` float64, >= 0, with the mass that it has at the target layer.

        Raises:
            InputError: the vocabulary does not contain a tag.
        """
        method = method or self._settings.method
        new = [tag for tag in tags if (method, tag) not in self._maps]
        if new:
            ids = [self._tagger.vocabulary.index(tag) for tag in new]
            # one tensor, because there is one target
            maps = cast(Tensor, self._source.attend(ids, method)).clamp(min=0)
            maps = (blur(maps) if METHODS[method].blurred else maps)[0].cpu().double()
            resized = resize_mass(maps, self.proposals.shape).numpy()
            self._maps |= zip([(method, tag) for tag in new], resized, strict=True)
        return [self._maps[method, tag] for tag in tags]

    def words(self, box: Sequence[float], count: int = 10) -> list[tuple[str, float]]:
        """Finds the tags of the vocabulary whose attention is most concentrated in a box.

        The first call runs another forward pass at 224 x 224 pixels, see ``grounding.attention.atlas``.

        Args:
            box: (x1, y1, x2, y2), half-open, in pixels of the image.
            count: the number of tags.

        Returns:
            (tag, share of its map's mass inside the box), best first.

        Raises:
            InputError: the box is empty or reaches beyond the image.
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


def _average(maps: Mapping[tuple[str, str], Map], method: str, tags: Sequence[str]) -> Map:
    """Returns the map of a phrase, ``(h, w)``: "we simply average the word attention maps" (Zhang et al., Sec. 4.3)."""
    average: Map = np.mean([maps[method, tag] for tag in tags], axis=0)
    return average

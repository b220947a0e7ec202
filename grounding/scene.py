"""GroundingScene: one photo after the forward pass, which answers phrases."""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from torch import Tensor

from grounding.answers import Grounding, likely_point
from grounding.attention.atlas import check_box, concentration, most_fitting
from grounding.attention.methods import METHODS
from grounding.attention.topdown import TopDown
from grounding.maps import MapSource, blur, resize_mass
from grounding.pictures.groundings import Groundings
from grounding.rescoring import contest, first_box, mean_probability, rescore, suppress, vote, vote_overlaps, winning
from grounding.settings import Settings
from grounding.tagger.presence import phrase_presence, word_presence
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase, at_least_one, listed
from proposals import Proposals

# the exponent of the area for the focus and the partner, as a share of gamma; chosen on the photos of step=judge
OTHER_GAMMA = 0.8
LIKELY = 128  # tags that may name a box
CACHED_MASSES = 768  # phrases, times methods, of a scene whose masses are kept; 4 KB each for 500 proposals

Map = NDArray[np.float64]
Word = tuple[tuple[str, ...], tuple[float, ...]]  # the tags of a word and their prior weights


class Ranked(NamedTuple):
    """The boxes of a question.

    Attributes:
        order: ``(K,)`` indices of proposals, best first.
        scores: ``(K,)``, non-increasing.
        point: the point of the focus; None without one.
    """

    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    point: tuple[float, float] | None = None


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
        self._maps: dict[tuple[str, Word], Map] = {}  # by method and word
        self._probabilities: NDArray[np.float64] | None = None
        self._likely: tuple[list[int], Tensor] | None = None  # tags and their maps, for the words of a box
        self._likely_lock = threading.Lock()  # one lock a scene; cached_property of Python 3.11 has one for all scenes
        maps = self._maps  # not self: a scene that its own cache refers to stays until the garbage collector runs
        self._masses = lru_cache(CACHED_MASSES)(
            # the mass of an empty box is rounded, also to less than 0
            lambda method, words, even: proposals.integrate(_average(maps, method, words, even)[None]).clip(min=0)
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
        rivalry: float | None = None,
    ) -> Groundings:
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
            rivalry: see :class:`Settings`; None for the scene's setting.

        Returns:
            One answer for each phrase, in the same order.

        Raises:
            InputError: there is no phrase, a phrase is empty, the method is unknown, or a setting is out of range.
        """
        phrases = at_least_one(phrases)
        settings = self._settings.changed(
            gamma=gamma, prior=prior, nms=nms, method=method, vote=vote, presence=presence, rivalry=rivalry
        )
        parsed = [Phrase.parse(text, self._tagger.vocabulary) for text in phrases]
        presences = [self._presence(phrase) for phrase in parsed]
        self._attend_all(parsed, settings)
        answered = {
            _words(p): 1.0 if presence is None else presence for p, presence in zip(parsed, presences, strict=True)
        }
        answered.pop((), None)
        ranked = dict(zip(answered, self._rank(answered, settings), strict=True)) if answered else {}
        return Groundings(
            self._answer(phrase, presence, ranked.get(_words(phrase)), settings)
            for phrase, presence in zip(parsed, presences, strict=True)
        )

    def show(self, phrases: Sequence[str]) -> Image.Image:
        """Answers phrases and draws them beside each other; a notebook shows the picture.

        Args:
            phrases: what to find.

        Returns:
            An RGB picture, see ``grounding.pictures.board``.

        Raises:
            InputError: see :meth:`ground`.
        """
        return self.ground(phrases).picture()

    def prepare(self, phrases: Sequence[str], method: str | None = None) -> None:
        """Computes the maps of the phrases' words in one pass, so that :meth:`ground` needs none.

        Args:
            phrases: what will be asked.
            method: see :class:`Settings`; None for the scene's setting.

        Raises:
            InputError: a phrase is empty.
        """
        settings = self._settings.changed(method=method)
        self._attend_all([Phrase.parse(text, self._tagger.vocabulary) for text in listed(phrases)], settings)
        if self._tagger.presence is not None:
            self._estimate()

    def needs_pass(self, phrases: Sequence[str], method: str | None = None) -> bool:
        """Whether :meth:`ground` has to run the network for these phrases. Otherwise it takes some milliseconds.

        Args:
            phrases: what would be asked.
            method: see :class:`Settings`; None for the scene's setting.

        Raises:
            InputError: a phrase is empty, or the method is unknown.
        """
        settings = self._settings.changed(method=method)
        words = _all_words([Phrase.parse(text, self._tagger.vocabulary) for text in listed(phrases)])
        known = self._probabilities is not None or self._tagger.presence is None
        return not known or any(
            (name, word) not in self._maps for name in settings.methods(self._tagger) for word in words
        )

    def _attend_all(self, phrases: Sequence[Phrase], settings: Settings) -> None:
        """Computes the maps of all words of phrases, for each method that ranks boxes."""
        for method in settings.methods(self._tagger):
            self._attend(_all_words(phrases), method)

    def presence(self, phrases: Sequence[str]) -> list[float | None]:
        """How probable it is that the image shows what each phrase names. Needs no top-down pass.

        Args:
            phrases: what to look for.

        Returns:
            A probability in 0..1 for each phrase; None if it has no known word, or the tagger no presence model.

        Raises:
            InputError: a phrase is empty.
        """
        return [self._presence(Phrase.parse(text, self._tagger.vocabulary)) for text in listed(phrases)]

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
        return self._attend([((tag,), (1.0,)) for tag in listed(tags)], method or self._settings.method)

    def _attend(self, words: Sequence[Word], method: str) -> list[Map]:
        """The maps of words; those that are new come from one pass."""
        new = [word for word in words if (method, word) not in self._maps]
        if new:
            # one tensor, because there is one target
            maps = cast(Tensor, self._source.attend(self._signals(new), method))
            maps = (blur(maps) if METHODS[method].blurred else maps)[0].cpu().double()
            resized = resize_mass(maps, self.proposals.shape).numpy()
            self._maps |= zip([(method, word) for word in new], resized, strict=True)
        return [self._maps[method, word] for word in words]

    def signals(self, phrases: Sequence[str]) -> Tensor:
        """The top-down signals of the words of phrases, for which :meth:`ground` asks the source of the maps.

        Args:
            phrases: what will be asked.

        Returns:
            ``(W, tags)`` float64, each word once; W is 0 if no word is known.

        Raises:
            InputError: a phrase is empty.
        """
        return self._signals(_all_words([Phrase.parse(text, self._tagger.vocabulary) for text in listed(phrases)]))

    def _signals(self, words: Sequence[Word]) -> Tensor:
        none = torch.zeros(0, len(self._tagger.vocabulary), dtype=torch.float64)
        return torch.cat([none, *(self._signal(word)[None] for word in words)])

    def _signal(self, word: Word) -> Tensor:
        """The distribution P(A_0) of a word over the tags, ``(tags,)``: "the top-down signal is specified by a prior
        distribution over the output units" (Zhang et al., Sec. 3.1).

        A word with several tags has their prior weights times the probability that the image shows each.
        """
        tags, weights = word
        ids = [self._tagger.vocabulary.index(tag) for tag in tags]
        signal = torch.zeros(len(self._tagger.vocabulary), dtype=torch.float64)
        if len(ids) == 1:
            signal[ids[0]] = 1
            return signal
        shares = np.array(weights) * self.probabilities[ids]
        signal[ids] = torch.from_numpy(shares / shares.sum() if shares.sum() > 0 else np.array(weights))
        return signal

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """``(tags,)``, how probable it is that the image shows each tag; without a presence model, the sigmoid of the
        tagger's logits, which is not calibrated.
        """
        return self._estimate()

    def _estimate(self) -> NDArray[np.float64]:
        if self._probabilities is None:
            scores, model = self._source.score_maps[0], self._tagger.presence
            estimate = model.probabilities(scores) if model else scores.mean((1, 2)).double().sigmoid().cpu().numpy()
            self._probabilities = estimate
        return self._probabilities

    def _presence(self, phrase: Phrase) -> float | None:
        if self._tagger.presence is None or not phrase.readings:
            return None
        index = self._tagger.vocabulary.index
        words = (
            (weights, self.probabilities[[index(tag) for tag in tags]].tolist()) for tags, weights in _words(phrase)
        )
        return phrase_presence([word_presence(weights, probabilities) for weights, probabilities in words])

    def words(self, box: Sequence[float], count: int = 10) -> list[tuple[str, float]]:
        """Finds the tags that name best what is in a box.

        A tag is scored by its probability times the share of its c-MWP map that lies in the box. Only the ``LIKELY``
        tags with the highest logits are considered. The first call runs another forward pass, at 224 x 224 pixels.

        Args:
            box: (x1, y1, x2, y2), half-open, in pixels of the image.
            count: the number of tags.

        Returns:
            (tag, share of its map's mass inside the box), best first.

        Raises:
            InputError: the box is empty or reaches beyond the image, or ``count`` is no whole number above 0.
        """
        check_box(box, self.image.shape[:2])  # before the maps, which take time
        with self._likely_lock, torch.inference_mode(False):
            if self._likely is None:
                # at this size the maps of the coarse target have too few cells
                topdown = self._topdown if self._settings.target else self._topdown.at(self._tagger.target)
                scene = topdown.look(self._tagger.prepare(self.image, [224, 224]), "c-mwp")
                tags = scene.score_maps[0].flatten(1).mean(1).argsort(descending=True)[:LIKELY].tolist()
                self._likely = tags, scene.attend(tags, "c-mwp")[0]
        tags, maps = self._likely
        shares = concentration(maps, box, self.image.shape[:2])
        best = most_fitting(shares, torch.from_numpy(self.probabilities[tags]), count)
        return [(self._tagger.vocabulary[tags[place]], float(shares[place])) for place in best]

    @cached_property
    def _overlaps(self) -> sparse.csr_array:
        return vote_overlaps(self.proposals.boxes)

    def _rank(self, questions: Mapping[tuple[Word, ...], float], settings: Settings) -> list[Ranked]:
        """Ranks the boxes for each of several questions: different words of one photo, with their presence."""
        boxes, overlaps = self.proposals.boxes, self._overlaps
        words = list(questions)
        names = settings.methods(self._tagger)
        scores = np.stack([self._scores(words, name, settings) for name in names])
        if not settings.vote:
            kept = [suppress(boxes, row, settings.nms) for row in scores[0]]
            return [Ranked(order, row[order]) for order, row in zip(kept, scores[0], strict=True)]
        mean = mean_probability(scores, settings.vote)
        contested = contest(mean, np.array(list(questions.values())), settings.rivalry)
        firsts = [first_box(overlaps, row) for row in contested]
        votes = [vote(overlaps, row, first) for row, first in zip(mean, firsts, strict=True)]
        focus = settings.focus
        if focus is None:
            return [Ranked(*ranked) for ranked in votes]
        focused = winning(scores[names.index(focus)], settings.vote)
        points = [self._point(asked, row, focus) for asked, row in zip(words, focused, strict=True)]
        return [Ranked(*ranked, point) for ranked, point in zip(votes, points, strict=True)]

    def _scores(self, questions: Sequence[tuple[Word, ...]], method: str, settings: Settings) -> NDArray[np.float64]:
        """f(R) of each question and proposal by one of the methods, ``(Q, N)``."""
        own = method == settings.method
        even = method not in (settings.method, settings.focus)  # the maps of a partner need not sum to 1
        masses = np.concatenate([self._masses(method, words, even) for words in questions])
        gamma = settings.gamma if own else OTHER_GAMMA * settings.gamma
        return rescore(masses, self.proposals.areas, gamma, self.proposals.scores, settings.prior)

    def _point(
        self, words: tuple[Word, ...], probabilities: NDArray[np.float64], focus: str
    ) -> tuple[float, float] | None:
        """The point of a question: where the map of the focus is largest, in the area of its own best boxes."""
        order, won = vote(self._overlaps, probabilities)
        attention = _average(self._maps, focus, words)
        return likely_point(attention, self.proposals.boxes[order], won, self.image.shape[:2])

    def _answer(self, phrase: Phrase, presence: float | None, ranked: Ranked | None, settings: Settings) -> Grounding:
        size = self.image.shape[:2]
        if ranked is None:
            return Grounding(phrase, np.zeros((0, 4)), np.zeros(0), None, size, self.image)
        shown = settings.focus or settings.method
        return Grounding(
            phrase,
            self.proposals.boxes[ranked.order],
            ranked.scores,
            _average(self._maps, shown, _words(phrase)),
            size,
            self.image,
            bool(settings.vote),
            presence,
            None if presence is None else presence >= settings.presence,
            ranked.point,
        )


def _words(phrase: Phrase) -> tuple[Word, ...]:
    return tuple((reading.tags, reading.weights) for reading in phrase.readings)


def _all_words(phrases: Sequence[Phrase]) -> list[Word]:
    """The words of phrases, each once."""
    return list(dict.fromkeys(word for phrase in phrases for word in _words(phrase)))


def _average(maps: Mapping[tuple[str, Word], Map], method: str, words: Sequence[Word], even: bool = False) -> Map:
    """The map of a phrase, ``(h, w)``: "we simply average the word attention maps" (Zhang et al. 2016, Sec. 4.3).

    With ``even``, each map is first divided by its mass, if it has any, so that each word counts the same.
    """
    of_words = np.stack([maps[method, word] for word in words])
    if even:
        mass = of_words.sum((1, 2), keepdims=True)
        of_words = np.divide(of_words, mass, out=np.zeros_like(of_words), where=mass > 0)
    average: Map = of_words.mean(0)
    return average

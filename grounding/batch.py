"""Answers about many images, one image after another, in memory that does not grow with their number."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from itertools import islice

from tqdm import tqdm

from grounding.answers import Answers, Grounding
from grounding.images import Photo, image_name, is_one_image
from grounding.pictures.groundings import Groundings
from grounding.runtime.ledger import Ledger, Skipped
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

log = logging.getLogger(__name__)

NAMED = 10  # skipped images that the warning names
Phrases = Sequence[str] | Sequence[Sequence[str]]


class GroundingBatch(Iterator[Answers]):
    """An iterator over the answers about images. Each image is read when its turn comes, and then released.

    An image that cannot be used is skipped. After the last image a warning names the skipped ones.

    Args:
        ground: answers phrases about one image.
        vocabulary: the tagger's vocabulary. Phrases that all images share are checked before the first image.
        images: see ``Grounder.ground_batch``.
        phrases: see ``Grounder.ground_batch``.
        progress: see ``Grounder.ground_batch``.
        keep_images: see ``Grounder.ground_batch``.

    Attributes:
        ledger: counts the images that came in, were answered, or could not be used, so far.

    Raises:
        InputError: there is no phrase, a phrase is empty, the number of lists of phrases differs from the number of
            images, or ``images`` is a single image.
    """

    def __init__(
        self,
        ground: Callable[[Photo, Sequence[str]], list[Grounding]],
        vocabulary: Vocabulary,
        images: Iterable[Photo],
        phrases: Phrases,
        progress: bool,
        keep_images: bool,
    ) -> None:
        self.ledger = Ledger("images", cure="give images that can be read")
        self._ground, self._keep_images = ground, keep_images
        self._phrases, self._common = phrases, _common(phrases, vocabulary)
        if is_one_image(images):
            name = image_name(images)
            listed = repr(name) if isinstance(images, str | os.PathLike) else "image"
            raise InputError(f"{name} is one image, not a list of images: call ground for it, or give [{listed}]")
        total = len(images) if isinstance(images, Sized) else None
        if not self._common and total not in (None, len(phrases)):
            raise InputError(self._mismatch(f"{total} images"))
        # disable=None: tqdm is silent if the output is not a terminal
        self._answers = self._run(tqdm(images, total=total, unit="photo", disable=None if progress else True))

    def __next__(self) -> Answers:
        return next(self._answers)

    def _run(self, images: Iterable[Photo]) -> Iterator[Answers]:
        for number, image in enumerate(images):
            name = image_name(image) if isinstance(image, str | os.PathLike) else f"image {number}"
            phrases = self._phrases_of(number)
            self.ledger.came_in(name)
            try:
                groundings = self._ground(image, phrases)
            except InputError as error:
                self.ledger.skip(name, "unusable", str(error))
                continue
            self.ledger.keep()
            if not self._keep_images:
                groundings = Groundings(replace(answer, image=None) for answer in groundings)
            yield Answers(name, groundings[0].size, groundings)
        self.ledger.check()
        if self.ledger.reasons:
            log.warning("%s: %s", self.ledger.line(), self.reasons)

    def _phrases_of(self, number: int) -> Sequence[str]:
        if self._common:
            return self._common
        if number >= len(self._phrases):
            raise InputError(self._mismatch("more images"))
        return self._phrases[number]

    def _mismatch(self, images: str) -> str:
        return f"{len(self._phrases)} lists of phrases, but {images}: give one list for all, or one for each image"

    @property
    def done(self) -> int:
        """The number of images that were answered, so far."""
        return self.ledger.kept

    @property
    def skipped(self) -> list[Skipped]:
        """The images that could not be used, so far: their names, and the error messages as ``detail``."""
        return list(self.ledger.skipped)

    @property
    def reasons(self) -> str:
        """The names of the skipped images and their error messages, at most ``NAMED`` of them."""
        named = "; ".join(map(str, islice(self.ledger.skipped, NAMED)))
        count = self.ledger.reasons.total()
        return f"{named}; and {count - NAMED} more" if count > NAMED else named


def _common(phrases: Phrases, vocabulary: Vocabulary) -> list[str]:
    """Returns the phrases that every image shares, after checking each; an empty list if each image has its own."""
    if isinstance(phrases, str) or not len(phrases):
        raise InputError("no phrase to ground: give a list of at least one")
    common = [phrase for phrase in phrases if isinstance(phrase, str) or not isinstance(phrase, Sequence)]
    if common and len(common) < len(phrases):
        raise InputError("phrases and lists of phrases are mixed: give one list for all, or one for each image")
    return [Phrase.parse(text, vocabulary).text for text in common]

"""Answers about many images, in their order, in memory that does not grow with their number."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
from tqdm import tqdm

from grounding.answers import Answers, Grounding
from grounding.batch.looking import Looker, ReadPhoto
from grounding.batch.together import PhotoWork
from grounding.images import Photo, image_name, is_one_image, read_image
from grounding.pictures.groundings import Groundings
from grounding.runtime.ledger import Ledger, Skipped
from grounding.runtime.workers import in_order, use_one_thread, worker_pool
from grounding.scene import GroundingScene
from grounding.text.phrases import Phrase, at_least_one
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

log = logging.getLogger(__name__)

NAMED = 10  # skipped images that the warning names
AHEAD = 4  # images in the queue of each worker
Phrases = Sequence[str] | Sequence[Sequence[str]]
Ground = Callable[[Photo, Sequence[str]], list[Grounding]]


class ImageQuestion(NamedTuple):
    """The phrases that are asked about one image.

    Attributes:
        name: the path of the image, or "image 0", "image 1" and so on.
        image: see ``Grounder.look``; an error if the image was read before others were answered, and cannot be used.
        phrases: what to find.
    """

    name: str
    image: "Photo | InputError"
    phrases: Sequence[str]


Work = Callable[[ImageQuestion], Groundings | str]
Results = Iterator[tuple[ImageQuestion, Groundings | str]]


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
        workers: see ``Grounder.ground_batch``.
        proposer: makes the proposals, each worker with one thread.
        together: answers questions about several images in one pass of the network; None for one after the other.

    Attributes:
        ledger: counts the images that came in, were answered, or could not be used, so far.

    Raises:
        InputError: there is no phrase, a phrase is empty, the number of lists of phrases differs from the number of
            images, or ``images`` is a single image.
    """

    def __init__(
        self,
        ground: Ground,
        vocabulary: Vocabulary,
        images: Iterable[Photo],
        phrases: Phrases,
        progress: bool,
        keep_images: bool,
        workers: int = 0,
        proposer: object = None,
        together: Callable[[Iterable[ImageQuestion]], Results] | None = None,
    ) -> None:
        if not isinstance(workers, int) or workers < 0:
            raise InputError(f"workers={workers} must be a whole number, 0 or more")
        self.ledger = Ledger("images", cure="give images that can be read")
        self._ground, self._work = ground, partial(_answer, ground, keep_images)
        self._proposer, self._workers = proposer, workers
        self._together = together
        self._phrases = at_least_one(cast(Iterable[str], phrases))
        self._common = _common(self._phrases, vocabulary)
        if is_one_image(images):
            name = image_name(images)
            listed = repr(name) if isinstance(images, str | os.PathLike) else "image"
            raise InputError(f"{name} is one image, not a list of images: call ground for it, or give [{listed}]")
        if not isinstance(images, Iterable):
            raise InputError(f"{repr(images)[:60]} is no list of images: give their paths, as in ['photo.jpg']")
        total = len(images) if isinstance(images, Sized) else None
        if not self._common and total not in (None, len(self._phrases)):
            raise InputError(self._mismatch(f"{total} images"))
        # disable=None: tqdm is silent if the output is not a terminal
        self._bar = partial(tqdm, total=total, unit="photo", disable=None if progress else True)
        self._answers = self._run(images)

    def __next__(self) -> Answers:
        return next(self._answers)

    def _run(self, images: Iterable[Photo]) -> Iterator[Answers]:
        for question, result in self._bar(self._results(self._questions(images))):
            self.ledger.came_in(question.name)
            if isinstance(result, str):
                self.ledger.skip(question.name, "unusable", result)
                continue
            self.ledger.keep()
            yield Answers(question.name, result[0].size, result)
        self.ledger.check()
        if self.ledger.reasons:
            log.warning("%s: %s", self.ledger.line(), self.reasons)

    def _results(self, questions: Iterable[ImageQuestion]) -> Results:
        if self._together:
            yield from self._together(questions)
            return
        begin = (_begin, self._work, self._proposer) if self._workers else ()
        ready = partial(rehearse, self._ground, self._common or self._phrases[0])
        with worker_pool(self._workers, *begin, rehearse=ready) as pool:
            work = _work_of_process if self._workers else self._work
            yield from in_order(pool, work, questions, self._workers * AHEAD)

    def _questions(self, images: Iterable[Photo]) -> Iterator[ImageQuestion]:
        for number, image in enumerate(images):
            name = image_name(image) if isinstance(image, str | os.PathLike) else f"image {number}"
            later = self._workers or self._together  # the caller may close a file before its turn comes
            yield ImageQuestion(name, _sendable(image) if later else image, self._phrases_of(number))

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
    common = [phrase for phrase in phrases if isinstance(phrase, str) or not isinstance(phrase, Sequence)]
    if common and len(common) < len(phrases):
        raise InputError("phrases and lists of phrases are mixed: give one list for all, or one for each image")
    return [Phrase.parse(text, vocabulary).text for text in common]


def _sendable(image: Photo) -> "Photo | InputError":
    """An image that can be sent to a worker or read later: an open file, a PIL image and a tensor are read here."""
    if isinstance(image, str | os.PathLike | bytes | np.ndarray):
        return image
    try:
        return read_image(image, None)
    except InputError as error:
        return error


def _answer(ground: Ground, keep_images: bool, question: ImageQuestion) -> Groundings | str:
    """Answers about one image, or returns the reason why it cannot be used."""
    try:
        if isinstance(question.image, InputError):
            raise question.image
        return _kept(ground(question.image, question.phrases), keep_images)
    except InputError as error:
        return str(error)


def _kept(answers: Iterable[Grounding], images: bool) -> Groundings:
    """The answers, with or without their images."""
    return Groundings(answers if images else (replace(answer, image=None) for answer in answers))


class ImageWork(PhotoWork[ImageQuestion, Groundings | str]):
    """Answers questions about images, of which several share a pass of the network.

    Args:
        looker: what the grounder looks with.
        keep_images: see ``Grounder.ground_batch``.
    """

    def __init__(self, looker: Looker, keep_images: bool) -> None:
        super().__init__(looker)
        self._keep_images = keep_images

    def read(self, item: ImageQuestion) -> ReadPhoto:
        if isinstance(item.image, InputError):
            raise item.image
        for text in at_least_one(item.phrases):  # what is refused costs no look at the image
            Phrase.parse(text, self.looker.tagger.vocabulary)
        return self.looker.read(item.image)

    def phrases(self, item: ImageQuestion, scene: GroundingScene) -> Sequence[str]:
        return item.phrases

    def answer(self, item: ImageQuestion, scene: GroundingScene, phrases: Sequence[str]) -> Groundings:
        return _kept(scene.ground(phrases), self._keep_images)

    def skip(self, item: ImageQuestion, error: InputError) -> str:
        return str(error)


def rehearse(ground: Ground, phrases: Sequence[str]) -> None:
    """Answers about two made photos. What is loaded, compiled and captured for them is there for the real ones.

    Args:
        ground: answers phrases about one image.
        phrases: what to find.
    """
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    for photo in (noise, noise[:, :96]):  # a network is captured again for the second size
        with suppress(InputError):
            ground(photo, phrases)


_work: Work  # set in a worker process


def _begin(work: Work, proposer: object) -> None:
    """Runs at the start of a worker, so that the weights are not sent with each image."""
    global _work
    _work = work
    use_one_thread(proposer)


def _work_of_process(question: ImageQuestion) -> Groundings | str:
    return _work(question)

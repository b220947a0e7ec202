"""Several photos in one pass of the network, as it pays on a GPU. Threads do the rest of the work beside it.

    read    (threads)      decodes a photo, computes its proposals, resizes it for the network
    group                  up to ``size`` photos that have one size for the network
    ask     (this thread)  one forward pass, and one top-down pass for the words of all photos of the group
    answer  (threads)      ranks the boxes of a photo

The answers come in the order of the photos. They equal those of one photo at a time, up to the rounding of the passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grounding.attention.topdown import Scene, TopDown
from grounding.batch.groups import Numbered, grouped, in_turn
from grounding.batch.looking import Looker, ReadPhoto
from grounding.maps import SCORES, CachedScene, map_key
from grounding.runtime.ranks import cores
from grounding.runtime.workers import in_order, one_threaded
from grounding.scene import GroundingScene
from proposals.errors import InputError

ON_A_GPU = 8  # photos in a pass by default; a guess, because no GPU was available
WAITING = 4  # a photo waits for others of its size until WAITING * size later photos have been read
AHEAD = 2  # photos in the queue of each thread
Item = TypeVar("Item")
Result = TypeVar("Result")


class PhotoWork(ABC, Generic[Item, Result]):
    """What is done with each photo before and after the network. Threads call the methods at the same time.

    Args:
        looker: what the grounder looks with.

    Attributes:
        looker: the same, with one thread for the proposals of a photo, because there is a photo for each core.
    """

    def __init__(self, looker: Looker) -> None:
        self.looker = looker._replace(proposer=one_threaded(looker.proposer))

    @abstractmethod
    def read(self, item: Item) -> ReadPhoto:
        """Reads a photo, see :meth:`Looker.read`.

        Args:
            item: the photo.

        Raises:
            InputError: the photo cannot be used.
        """

    @abstractmethod
    def phrases(self, item: Item, scene: GroundingScene) -> Sequence[str]:
        """The phrases that are asked about a photo.

        Args:
            item: the photo.
            scene: the photo after the forward pass.

        Raises:
            InputError: there are none.
        """

    @abstractmethod
    def answer(self, item: Item, scene: GroundingScene, phrases: Sequence[str]) -> Result:
        """The answers.

        Args:
            item: the photo.
            scene: the photo; it has the maps of the phrases.
            phrases: what is asked.

        Raises:
            InputError: the phrases cannot be answered.
        """

    @abstractmethod
    def skip(self, item: Item, error: InputError) -> Result:
        """The result for a photo that cannot be used.

        Args:
            item: the photo.
            error: why.
        """


class Asked(NamedTuple, Generic[Item]):
    """A photo after the network.

    Attributes:
        item: the photo.
        scene: its scene; or why it cannot be used.
        phrases: what is asked.
    """

    item: Item
    scene: GroundingScene | InputError
    phrases: Sequence[str] = ()


def batch_size(batch: int | None, topdown: TopDown, workers: int | None = None) -> int:
    """The number of photos that go through the network together.

    Args:
        batch: the setting; None for ``ON_A_GPU`` where photos share a pass, and 1 on a CPU or with worker processes.
        topdown: the network.
        workers: the number of worker processes, if it is known.

    Raises:
        InputError: the setting is no whole number above 0, or there are worker processes, which do not share a pass.
    """
    check_batch(batch)
    if batch is None:
        return ON_A_GPU if topdown.together and not workers else 1
    if batch > 1 and workers:
        raise InputError(f"batch={batch} needs workers=0, not {workers}: photos of several processes share no pass")
    return batch


def check_batch(batch: int | None) -> None:
    """Checks the setting of :func:`batch_size`.

    Args:
        batch: the setting.

    Raises:
        InputError: it is no whole number above 0.
    """
    if batch is not None and (type(batch) is not int or batch < 1):
        raise InputError(
            f"batch={batch} must be a whole number, 1 or more: photos that go through the network together"
        )


def answer_together(work: PhotoWork[Item, Result], items: Iterable[Item], size: int) -> Iterator[tuple[Item, Result]]:
    """Answers about photos, of which up to ``size`` share a pass of the network.

    In memory are the photos of a pass, at most ``WAITING * size`` that wait for others of their size or for their turn,
    and ``2 * AHEAD`` for each core that are being read or answered.

    Args:
        work: what is done with a photo.
        items: the photos.
        size: the largest number of photos in a pass.

    Yields:
        (photo, result), in the order of the photos.
    """
    threads = cores()
    pool = ThreadPoolExecutor(threads, "photos")
    try:
        photos = in_order(pool, partial(_read, work), items, AHEAD * threads)
        groups = grouped(photos, _size, size, WAITING * size)
        asked = in_turn(numbered for group in groups for numbered in _ask(work, group))
        for question, result in in_order(pool, partial(_answer, work), asked, AHEAD * threads):
            yield question.item, result
    finally:
        pool.shutdown(cancel_futures=True)


def _read(work: PhotoWork[Item, Result], item: Item) -> ReadPhoto | InputError:
    try:
        return work.read(item)
    except InputError as error:
        return error


def _size(photo: tuple[Item, ReadPhoto | InputError]) -> tuple[int, ...] | None:
    """The size of a photo for the network; None if it cannot be read."""
    return None if isinstance(photo[1], InputError) else tuple(photo[1].prepared.shape)


def _answer(work: PhotoWork[Item, Result], asked: Asked[Item]) -> Result:
    if isinstance(asked.scene, InputError):
        return work.skip(asked.item, asked.scene)
    try:
        return work.answer(asked.item, asked.scene, asked.phrases)
    except InputError as error:
        return work.skip(asked.item, error)


def _ask(
    work: PhotoWork[Item, Result], group: Sequence[Numbered[tuple[Item, ReadPhoto | InputError]]]
) -> list[Numbered[Asked[Item]]]:
    """Asks the network about photos of one size. Photos that cannot be read are a group of their own."""
    items = [item for _, (item, _) in group]
    photos = [photo for _, (_, photo) in group if not isinstance(photo, InputError)]
    try:
        if photos:
            asked = _seen(work, items, photos)
        else:
            asked = [Asked(item, cast(InputError, error)) for _, (item, error) in group]
    except InputError as error:  # as for each photo alone: the size alone decides
        asked = [Asked(item, error) for item in items]
    return [(number, question) for (number, _), question in zip(group, asked, strict=True)]


def _seen(work: PhotoWork[Item, Result], items: Sequence[Item], photos: Sequence[ReadPhoto]) -> list[Asked[Item]]:
    """One forward pass and one top-down pass for photos of one size."""
    looker = work.looker
    look = partial(looker.topdown.look, method=looker.settings.method)
    together = look(torch.cat([photo.prepared for photo in photos]))
    scores = together.score_maps.float().cpu().numpy()
    sources = [
        CachedScene({SCORES: own[None]}, partial(look, photo.prepared))
        for photo, own in zip(photos, scores, strict=True)
    ]
    scenes = map(looker.scene, photos, sources)
    asked, signals = zip(*map(partial(_question, work), items, scenes), strict=True)
    for method in looker.settings.methods(looker.tagger):
        keep_maps(together, sources, signals, method)
    return list(asked)


def _question(work: PhotoWork[Item, Result], item: Item, scene: GroundingScene) -> tuple[Asked[Item], Tensor]:
    """What is asked about a photo, and its signals ``(W, tags)``."""
    try:
        phrases = work.phrases(item, scene)
        return Asked(item, scene, phrases), scene.signals(phrases)
    except InputError as error:
        return Asked(item, error), torch.zeros(0, len(work.looker.tagger.vocabulary), dtype=torch.float64)


def keep_maps(together: Scene, sources: Sequence[CachedScene], signals: Sequence[Tensor], method: str) -> None:
    """Computes the maps of each photo's own words in one pass.

    Args:
        together: N photos.
        sources: the N photos, each by itself. They keep the maps.
        signals: of each photo, ``(W, tags)`` with its own W.
        method: the method.
    """
    padded = pad_sequence(list(signals), batch_first=True)  # signals of zeros have maps of zeros, which nobody reads
    if not padded.numel():  # no word of any photo is known
        return
    # one tensor, because there is one target
    maps = cast(Tensor, together.attend(padded, method)).float().cpu().numpy()
    for source, own, found in zip(sources, signals, maps, strict=True):
        source.kept |= zip([map_key(method, signal) for signal in own], found[: len(own)], strict=True)

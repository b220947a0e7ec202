"""Streaming: photos to train on, straight from tars behind HTTP, in object storage or on a disk, without an index.

The order depends on the seed, the epoch and the number of ranks only. The shards are shuffled, each rank has every
``ranks``-th of them, and the photos of consecutive shards are shuffled together in memory. So a training that was
killed continues at the shard where it was: it reads again only the shards whose photos were in memory, and leaves out
those photos of them that it has used. Webdataset reads the tars.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import numpy as np

from grounding.runtime.ledger import Skipped
from grounding.shards.addresses import find_shards
from grounding.shards.fetching import FetchOptions, ShardCache, fetch, is_remote
from grounding.shards.reading import ShardPhoto, check_installed, read_shard
from grounding.tagger.packaged import tagger_path
from grounding.tagger.tagger import TagClassifier
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.sample_text import SampleText
from training.samples import MISSING_TEXT
from training.shard_maker import UNKNOWN_TAGS
from training.shards import SHARDS, VOCABULARY, Shard, list_shards, read_folder, read_vocabulary
from training.tar_reader import TEXTS, parse_text

log = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class StreamOptions:
    """How a training reads tars that have no index.

    Attributes:
        vocabulary: a file with a tag on each line, as the ``vocabulary.txt`` of ``step=shards``; None for the tags of
            ``init``.
        validation: the tars for validation: addresses, as for the training.
        buffer: consecutive shards with at least this number of photos are shuffled together; the photos are in memory.
        fetch: how remote shards are fetched.
    """

    vocabulary: str | None = None
    validation: str | None = None
    buffer: int = 4096
    fetch: FetchOptions = field(default_factory=FetchOptions)

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise InputError(f"step.stream.buffer={self.buffer} must be 1 or more: it is a number of photos")


class StreamPlace(NamedTuple):
    """Where a rank is in its shards.

    Attributes:
        window: how many times photos were shuffled together before, in this epoch.
        shard: the first of the rank's shards whose photos are shuffled together now.
        used: how many of these photos are used.
    """

    window: int = 0
    shard: int = 0
    used: int = 0


class StreamPhoto(NamedTuple):
    """A photo and its tags.

    Attributes:
        name: its key, and its tar.
        data: the encoded photo.
        tags: indices in the vocabulary.
    """

    name: str
    data: bytes
    tags: tuple[int, ...]


class StreamedShards:
    """Tars that are read from one end to the other.

    Args:
        root: tars, see :func:`grounding.shards.addresses.find_shards`; or the URL of a folder that ``step=shards``
            wrote, which has the vocabulary and the list of the tars.
        options: see :class:`StreamOptions`.
        init: what the training starts from; its tags are used if there is no vocabulary.
        untagged: whether photos without a known tag are used.

    Attributes:
        root: ``root``, for messages.
        options: ``options``.
        vocabulary: the tags.
        train: the tars for training; ``photos`` and ``bytes`` are 0 if they are not known.
        val: the tars for validation.

    Raises:
        InputError: there are no tars, no tars for validation, no vocabulary, or the same tar is in both.
    """

    def __init__(self, root: str | Sequence[str], options: StreamOptions, init: str, untagged: bool = False):
        check_installed()
        self.root, self.options, self._untagged = str(root), options, untagged
        self._cache, self._base = ShardCache(options.fetch), ""
        self._counts: np.ndarray | None = None
        _check_parts([root] if isinstance(root, str) else [str(part) for part in root])
        found = find_shards(root)
        if found is None:
            self._open_folder((root if isinstance(root, str) else str(root[0])).rstrip("/"))
            return
        self.train = [Shard(tar.address, 0, 0) for tar in found]
        self.val = _validation(options)
        if both := {shard.name for shard in self.train} & {shard.name for shard in self.val}:
            raise InputError(f"{min(both)} is given for training and for validation: take it out of data.root=")
        self.vocabulary = _vocabulary(options, init)

    def _open_folder(self, base: str) -> None:
        """Reads the list of tars and the vocabulary that ``step=shards`` wrote to a remote folder."""
        if self.options.validation or self.options.vocabulary:
            raise InputError(
                f"{base} is a folder of step=shards, which has a vocabulary and photos for validation: leave out "
                "step.stream.vocabulary= and step.stream.validation=, or name its tars"
            )
        with TemporaryDirectory() as folder:
            for name in (SHARDS, VOCABULARY):
                fetch(f"{base}/{name}", Path(folder, name), self.options.fetch)
            about = read_folder(Path(folder, SHARDS))
            self.train, self.val = (list_shards(about, kind, Path(folder)) for kind in ("train", "val"))
            pairs = read_vocabulary(Path(folder, VOCABULARY), about.get("vocabulary"))
        self._base = f"{base}/"
        self.vocabulary = Vocabulary(tuple(tag for tag, _ in pairs))
        self._counts = np.array([count for _, count in pairs])

    def frequencies(self, first: int | None = None, count_unknown: bool = False) -> np.ndarray:
        """``(tags,)`` float, the share of the training photos that have each tag.

        They are known for a folder of ``step=shards`` if all tags are used, and estimated from the first tar otherwise.

        Args:
            first: see :meth:`photos`.
            count_unknown: see :meth:`photos`.
        """
        if self._counts is not None and first is None:
            return self._counts / max(sum(shard.photos for shard in self.train), 1)
        counts, photos = np.full(len(self.vocabulary), 0.5), 1  # half a photo, so that no tag is impossible
        for photo in self.photos(self.train[0], first, count_unknown):
            counts[list(photo.tags)] += 1
            photos += 1
        return counts / photos

    def photos(
        self, shard: Shard, first: int | None = None, count_unknown: bool = False, counts: Counter[str] | None = None
    ) -> Iterator[StreamPhoto]:
        """The photos of a tar that can be used, in its order.

        Args:
            shard: the tar.
            first: use only the first N tags of a photo. None: all.
            count_unknown: whether tags outside the vocabulary count among the first N.
            counts: gets the number of photos that are left out for each reason.

        Yields:
            The photos.

        Raises:
            InputError: the tar cannot be fetched, has another size than it should have, or is damaged at its beginning.
        """
        counts = Counter() if counts is None else counts
        address = self._base + shard.name
        with self._cache.local(address) as path:
            if shard.bytes and path.stat().st_size != shard.bytes:
                size = f"{path.stat().st_size} bytes instead of {shard.bytes}"
                raise InputError(f"{address} has {size}: copy the shards again, or remove {self._cache.folder}")
            for photo in read_shard(path, address):
                if isinstance(photo, Skipped):
                    counts[photo.reason] += 1
                    log.warning("%s: %s %s", address, photo.reason, photo.detail)
                    continue
                try:
                    tags = self._tags(photo, first, count_unknown)
                except InputError as error:
                    counts[str(error).partition(": ")[0]] += 1
                else:
                    yield StreamPhoto(f"{photo.name} of {address}", photo.data, tags)

    def _tags(self, photo: ShardPhoto, first: int | None, count_unknown: bool) -> tuple[int, ...]:
        text = _text(photo)
        rows, _ = text.known_tags(self.vocabulary)
        if not rows and not self._untagged:
            raise InputError(UNKNOWN_TAGS if any(text) else MISSING_TEXT)
        if count_unknown and text.tags:
            rows = [self.vocabulary.index(tag) for tag in text.all_tags()[:first] if tag in self.vocabulary]
        return tuple(rows[:first])

    @cached_property
    def description(self) -> list[object]:
        """What distinguishes these photos from others."""
        return [list(self.vocabulary), self.train, self.val]


def is_streamed(root: str | Sequence[str]) -> bool:
    """Whether shards are read as a stream: tars or URLs, not folders of this machine."""
    parts = [root] if isinstance(root, str) else [str(part) for part in root]
    return any(is_remote(part) or (not Path(part).is_dir() and _names_tars(part)) for part in parts)


def _names_tars(part: str) -> bool:
    return part.lower().endswith((".tar", ".tar}")) or (Path(part).is_file() and find_shards(part) is not None)


def _check_parts(parts: Sequence[str]) -> None:
    """Refuses folders of step=shards among several parts: each has tags and photos for validation of its own."""
    for part in parts if len(parts) > 1 else ():
        if Path(part, SHARDS).is_file() or find_shards(part) is None:
            raise InputError(
                f"data.root= has {part}, a folder, beside tars or URLs: name the tars of all folders, such as "
                f"{part.rstrip('/')}/train-*.tar, or give folders of this machine alone"
            )


def _validation(options: StreamOptions) -> list[Shard]:
    if options.validation is None:
        raise InputError(
            "tars have no list of photos for validation: set step.stream.validation= to a tar that is not in data.root="
        )
    found = find_shards(options.validation)
    if found is None:
        raise InputError(f"step.stream.validation={options.validation} names no tar file")
    return [Shard(shard.address, 0, 0) for shard in found]


def _vocabulary(options: StreamOptions, init: str) -> Vocabulary:
    if options.vocabulary is None:
        if init == "torchvision":
            raise InputError("init=torchvision has no tags: set step.stream.vocabulary= to a file of tags")
        return TagClassifier.load(tagger_path(init), presence=False, lexicon=False).vocabulary
    try:
        lines = Path(options.vocabulary).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"step.stream.vocabulary={options.vocabulary} cannot be read ({error}): use a text file with one tag on "
            "each line"
        ) from error
    return Vocabulary(tuple(line.partition("\t")[0] for line in lines if line.strip()))


def _text(photo: ShardPhoto) -> SampleText:
    """The text of the JSON file; if it has none, that of the text file."""
    text = SampleText()
    for suffix in TEXTS:
        data = photo.texts.get(suffix[1:])
        if data is not None and not any(text):
            text = parse_text(data, suffix)
    return text


def own_shards(shards: Sequence[Shard], seed: int, epoch: int, rank: int, ranks: int) -> list[Shard]:
    """The shards of a rank in an epoch, in the order in which it reads them.

    Each rank has the same number, so that no rank waits long for another. The shards that are left over are others in
    each epoch.

    Args:
        shards: all shards.
        seed: seed of the training.
        epoch: epoch, from 0.
        rank: this rank, from 0.
        ranks: number of ranks, at most that of the shards.

    Returns:
        The shards.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(shards))
    return [shards[i] for i in order[: len(order) // ranks * ranks][rank::ranks]]


def windows(
    photos: Iterator[Iterator[StreamPhoto]], key: Sequence[int], buffer: int, start: StreamPlace
) -> Iterator[tuple[StreamPlace, StreamPhoto]]:
    """Shuffles the photos of consecutive shards together, and reads ahead while they are used.

    Args:
        photos: the photos of each shard from ``start`` on.
        key: decides the order.
        buffer: a window ends with the shard with which it has this number of photos.
        start: where to begin.

    Yields:
        Each photo, with the place after it.
    """
    number, used = start.window, start.used
    for first, window in ahead(_read_windows(photos, buffer, start.shard)):
        rank = key[2:] if any(key[2:]) else ()
        order = np.random.default_rng([*key[:2], number, *rank]).permutation(len(window))
        for at in range(used, len(order)):
            yield StreamPlace(number, first, at + 1), window[order[at]]
        number, used = number + 1, 0


def _read_windows(
    photos: Iterator[Iterator[StreamPhoto]], buffer: int, shard: int
) -> Iterator[tuple[int, list[StreamPhoto]]]:
    first, window = shard, list[StreamPhoto]()
    for number, own in enumerate(photos, shard + 1):
        window += own
        if len(window) >= buffer:
            yield first, window
            first, window = number, []
    if window:
        yield first, window


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Computes the next item in a thread while the last one is used."""
    pool = ThreadPoolExecutor(1)
    try:
        waiting = pool.submit(list, islice(items, 1))
        while item := waiting.result():
            waiting = pool.submit(list, islice(items, 1))
            yield from item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def validation_photos(shards: StreamedShards, rank: int, ranks: int) -> Iterator[StreamPhoto]:
    """Every ``ranks``-th photo for validation, in the order of the shards."""
    every = chain.from_iterable(shards.photos(shard) for shard in shards.val)
    return islice(every, rank, None, ranks)

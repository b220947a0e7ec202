"""Several folders of shards as one set of training data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.shards import Shard, ShardIndex, Shards

KEPT = 64  # indices in memory


class MergedShards:
    """Folders that ``grounding step=shards`` wrote, read like one :class:`training.shards.Shards`.

    A tag of any folder is a tag. The name of a shard begins with the number of its folder: ``1/train-000000.tar``.

    Args:
        roots: the folders.
        repeat: how often the training photos of each folder are seen in an epoch, >= 1; None: once.

    Attributes:
        root: the folders, for messages.
        train: the shards for training; those of a repeated folder occur several times.
        val: the shards for validation.
        settings: ``settings`` of the first folder.

    Raises:
        InputError: a folder cannot be read, occurs twice, or ``repeat`` does not have one number for each folder.
    """

    def __init__(self, roots: Sequence[str | Path], repeat: Sequence[int] | None = None):
        times = [1] * len(roots) if repeat is None else list(repeat)
        if len(times) != len(roots) or any(type(n) is not int or n < 1 for n in times):
            raise InputError(
                f"repeat={times} must have a whole number >= 1 for each of the {len(roots)} folders of root="
            )
        if len({Path(root).resolve() for root in roots}) < len(roots):
            raise InputError(
                "a folder of shards is given twice: give it once, and set step.repeat= to see it more often"
            )
        self.root = ", ".join(map(str, roots))
        self._folders, self._times = [Shards(root) for root in roots], times
        self.settings: dict[str, Any] = self._folders[0].settings
        self.train = [shard for number, folder in enumerate(self._folders)
                      for shard in _named(folder.train, number) * times[number]]  # fmt: skip
        self.val = [shard for number, folder in enumerate(self._folders) for shard in _named(folder.val, number)]
        self.index = lru_cache(KEPT)(self._index)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tags of all folders, the most frequent first."""
        total: Counter[str] = Counter()
        for folder, times in zip(self._folders, self._times, strict=True):
            total.update(dict(zip(folder.vocabulary, (folder.counts * times).tolist(), strict=True)))
        return Vocabulary(tuple(sorted(total, key=lambda tag: (-total[tag], tag))))

    def used_counts(self, first: int | None = None, count_unknown: bool = False) -> np.ndarray:
        """``(tags,)`` int64, number of photos of an epoch for which a training uses each tag.

        Args:
            first: see :meth:`training.shards.Shards.used_counts`.
            count_unknown: see :meth:`training.shards.Shards.used_counts`.

        Returns:
            The counts; a repeated photo counts each time.

        Raises:
            InputError: an index is damaged, or does not have the places of the tags.
        """
        total = np.zeros(len(self.vocabulary), np.int64)
        for folder, times, rows in zip(self._folders, self._times, self._rows, strict=True):
            total[rows] += times * folder.used_counts(first, count_unknown)
        return total

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        """For each folder, the rows of its tags in the vocabulary."""
        return [np.array([self.vocabulary.index(tag) for tag in f.vocabulary], np.int32) for f in self._folders]

    def _index(self, name: str) -> ShardIndex:
        """The index of a shard, see :meth:`training.shards.Shards.index`; its tags are rows of :attr:`vocabulary`."""
        number, own = _split(name)
        index = self._folders[number].index(own)
        return replace(index, tags=self._rows[number][index.tags])

    def read(self, name: str, row: int) -> bytes:
        """Reads the JPEG of a photo.

        Args:
            name: name of the shard.
            row: row of the photo in the shard, from 0.

        Returns:
            The bytes of the JPEG.

        Raises:
            InputError: the tar is missing or truncated.
        """
        number, own = _split(name)
        return self._folders[number].read(own, row)


def open_shards(root: str | Path | Sequence[str | Path], repeat: Sequence[int] | None = None) -> Shards | MergedShards:
    """Opens one folder of shards, or several as one.

    Args:
        root: a folder, or a list of folders.
        repeat: see :class:`MergedShards`.

    Returns:
        The shards.

    Raises:
        InputError: see :class:`MergedShards`.
    """
    if isinstance(root, str | Path):
        if repeat is None:
            return Shards(root)
        root = [root]
    return MergedShards(list(root), repeat)


def _named(shards: Sequence[Shard], number: int) -> list[Shard]:
    return [shard._replace(name=f"{number}/{shard.name}") for shard in shards]


def _split(name: str) -> tuple[int, str]:
    number, _, own = name.partition("/")
    return int(number), own

"""Counting tags in bounded memory."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

CAPACITY = 2_000_000


@dataclass
class TagCounter:
    """Counts the photos that have each tag; exact while there are at most ``capacity`` distinct tags.

    If there are more, the rarest tags are dropped until half of ``capacity`` is left ("lossy counting", Manku and
    Motwani 2002). A tag with ``true`` photos then has a count between ``true - error`` and ``true``, and a tag with
    more than ``error`` photos is never lost.

    Attributes:
        capacity: distinct tags in memory at a time, about 150 bytes each.
        photos: number of photos that were counted, with or without tags.
        counts: number of photos with each tag.
        error: the largest possible difference between a count and the true number; 0 if all counts are exact.
        dropped: number of tags that were dropped; a tag that was dropped twice counts twice.
    """

    capacity: int = CAPACITY
    photos: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    error: int = 0
    dropped: int = 0

    def add(self, tags: Iterable[str]) -> None:
        """Counts one photo.

        Args:
            tags: the photo's distinct tags.
        """
        self.photos += 1
        self.counts.update(tags)
        self._limit()

    def merge(self, other: "TagCounter") -> None:
        """Adds the counts of another counter, which counted other photos."""
        self.photos += other.photos
        self.error += other.error
        self.dropped += other.dropped
        self.counts.update(other.counts)
        self._limit()

    def most_common(
        self, max_tags: int, min_images: int, stop_words: frozenset[str] = frozenset()
    ) -> list[tuple[str, int]]:
        """The most frequent tags and their counts.

        Args:
            max_tags: number of tags at most.
            min_images: smallest count.
            stop_words: tags to leave out.

        Returns:
            Pairs of tag and count, the most frequent first; tags with equal counts in alphabetical order.
        """
        pairs = ((tag, n) for tag, n in self.counts.items() if n >= min_images and tag not in stop_words)
        return list(islice(sorted(pairs, key=lambda pair: (-pair[1], pair[0])), max_tags))

    def _limit(self) -> None:
        """Drops the rarest tags if there are too many."""
        if len(self.counts) <= self.capacity:
            return
        counts = np.fromiter(self.counts.values(), np.int64, len(self.counts))
        # the largest count that is dropped
        largest = int(np.partition(counts, -(self.capacity // 2) - 1)[-(self.capacity // 2) - 1])
        self.error += largest
        self.dropped += int((counts <= largest).sum())
        self.counts = Counter({tag: count for tag, count in self.counts.items() if count > largest})

"""Counting tags in bounded memory."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

MOST = 2_000_000


@dataclass
class TagCounter:
    """In how many photos each tag occurs; exact while there are at most ``most`` distinct tags.

    When there are more, the rarest are forgotten until half as many are left ("lossy counting", Manku and Motwani
    2002). A tag that occurs ``true`` times then counts between ``true - error`` and ``true``, and one that occurs more
    than ``error`` times is never lost.

    Attributes:
        most: distinct tags that are kept at a time; some 150 bytes each.
        photos: that were counted, with or without a tag.
        counts: of each tag.
        error: the most that a count may be too low by; 0 where all are exact.
        forgotten: tags that were forgotten, those that came back and were forgotten again counted twice.
    """

    most: int = MOST
    photos: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    error: int = 0
    forgotten: int = 0

    def add(self, tags: Iterable[str]) -> None:
        """Counts one photo; its tags are given once each."""
        self.photos += 1
        self.counts.update(tags)
        self._forget()

    def merge(self, other: "TagCounter") -> None:
        """Adds what another counter counted on other photos."""
        self.photos += other.photos
        self.error += other.error
        self.forgotten += other.forgotten
        self.counts.update(other.counts)
        self._forget()

    def best(self, tags: int, minimum: int, stop: frozenset[str] = frozenset()) -> list[tuple[str, int]]:
        """The most frequent tags and their counts, at most ``tags``, equal ones by the alphabet.

        Args:
            minimum: the least count; stop: tags that are left out.
        """
        kept = ((tag, count) for tag, count in self.counts.items() if count >= minimum and tag not in stop)
        return list(islice(sorted(kept, key=lambda pair: (-pair[1], pair[0])), tags))

    def _forget(self) -> None:
        if len(self.counts) <= self.most:
            return
        counts = np.fromiter(self.counts.values(), np.int64, len(self.counts))
        # the most that any of those has who are not among the first half
        least = int(np.partition(counts, -(self.most // 2) - 1)[-(self.most // 2) - 1])
        self.error += least
        self.forgotten += int((counts <= least).sum())
        self.counts = Counter({tag: count for tag, count in self.counts.items() if count > least})

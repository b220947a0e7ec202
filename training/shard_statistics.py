"""Statistics of shards: how many photos were kept, and how many tags they have."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PERCENTILES = (5, 50, 95)
FIVE = 5


@dataclass
class ShardStatistics:
    """Sums over samples, so that the statistics of two parts can be added. The index of a shard stores them.

    Attributes:
        train: number of photos for training.
        held_out: number of photos for validation.
        bytes: size of the tar files.
        tags: number of photos for each number of tags.
        texts: number of samples with a text.
        named: number of distinct tags per text, summed.
        known: number of these tags that are in the vocabulary.
        one: number of texts with at least one tag of the vocabulary.
        five: number of texts with at least five tags of the vocabulary.
    """

    train: int = 0
    held_out: int = 0
    bytes: int = 0
    tags: Counter[int] = field(default_factory=Counter)
    texts: int = 0
    named: int = 0
    known: int = 0
    one: int = 0
    five: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ShardStatistics":
        """The inverse of :meth:`to_json`."""
        tags = Counter({int(number): photos for number, photos in values["tags"].items()})
        return cls(**{**values, "tags": tags})

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values, in an order that does not depend on the order of the samples."""
        tags = {str(number): self.tags[number] for number in sorted(self.tags)}
        return vars(self) | {"tags": tags}

    def add(self, other: "ShardStatistics") -> None:
        """Adds the statistics of another part."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def text(self, named: int, known: int) -> None:
        """Counts a text.

        Args:
            named: number of distinct tags in the text.
            known: number of them that are in the vocabulary.
        """
        self.texts += 1
        self.named += named
        self.known += known
        self.one += known >= 1
        self.five += known >= FIVE

    def keep(self, held_out: bool, tags: int) -> None:
        """Counts a photo that is kept.

        Args:
            held_out: whether it is for validation.
            tags: number of its tags.
        """
        self.held_out += held_out
        self.train += not held_out
        self.tags[tags] += 1

    def percentile(self, percent: float) -> int:
        """The smallest number of tags that at least ``percent`` percent of the photos do not exceed."""
        below = 0
        for number in sorted(self.tags):
            below += self.tags[number]
            if 100 * below >= percent * self.tags.total():
                return number
        return 0

    def summary(self) -> dict[str, float]:
        """Tags per photo (mean and percentiles), and the coverage by the vocabulary in [0, 1]."""
        photos = max(self.tags.total(), 1)
        mean = sum(number * count for number, count in self.tags.items()) / photos
        return {
            "tags_mean": mean,
            **{f"tags_{percent}": self.percentile(percent) for percent in PERCENTILES},
            "coverage": self.known / max(self.named, 1),
            "with_one": self.one / max(self.texts, 1),
            "with_five": self.five / max(self.texts, 1),
        }


def format_table(stats: Mapping[str, Any], seconds: float, samples: int) -> str:
    """A table of the statistics.

    Args:
        stats: ``stats`` of ``shards.json``.
        seconds: duration of this run.
        samples: number of samples that this run processed.

    Returns:
        The table, several lines.
    """
    spread = "/".join(f"{stats[f'tags_{percent}']}" for percent in PERCENTILES)
    left = f"{'at most ' if stats['error'] else ''}{stats['left_out']:,} distinct tags left out"
    inexact = f"; counts are too low by at most {stats['error']:,}" if stats["error"] else ""
    lines = {
        "photos": f"{stats['train']:,} for training, {stats['held_out']:,} for validation",
        "tags": f"{stats['tags_kept']:,} in the vocabulary",
        "tags per photo": f"{stats['tags_mean']:.1f}; 5/50/95 %: {spread}",
        "coverage": f"{stats['coverage']:.1%} of the tags in the texts are in the vocabulary",
        "": f"{stats['with_one']:.1%} of the texts have a tag of the vocabulary, {stats['with_five']:.1%} have five",
        "rare tags": f"the rarest tag has {stats['rarest']:,} photos; {left}{inexact}",
        "size": f"{stats['bytes'] / 1e6:,.1f} MB",
        "time": f"{seconds:.1f} s, {samples / max(seconds, 1e-9):,.0f} samples/s in this run",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())

"""Statistics: what became of the samples of a source, and how its tags are spread."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PERCENTILES = (5, 50, 95)
FIVE = 5


@dataclass
class Statistics:
    """Sums over samples; those of two parts add up to those of the whole.

    Attributes:
        train, held_out: photos that are kept; bytes: of their tars.
        skipped: samples that are not kept, by the reason's kind.
        tags: kept photos by how many tags they have.
        texts: samples with a text; named: the distinct tags in each text, known: those of them in the vocabulary.
        one, five: texts with at least so many tags of the vocabulary.
    """

    train: int = 0
    held_out: int = 0
    bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    tags: Counter[int] = field(default_factory=Counter)
    texts: int = 0
    named: int = 0
    known: int = 0
    one: int = 0
    five: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Statistics":
        """The inverse of ``plain``."""
        tags = Counter({int(number): photos for number, photos in values["tags"].items()})
        return cls(**{**values, "skipped": Counter(values["skipped"]), "tags": tags})

    def plain(self) -> dict[str, Any]:
        """As JSON has it, in an order that does not depend on that of the samples."""
        tags = {str(number): self.tags[number] for number in sorted(self.tags)}
        return vars(self) | {"skipped": dict(sorted(self.skipped.items())), "tags": tags}

    def add(self, other: "Statistics") -> None:
        """Adds those of another part."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def text(self, named: int, known: int) -> None:
        """Counts a text by its distinct tags and by those of them that the vocabulary has."""
        self.texts += 1
        self.named += named
        self.known += known
        self.one += known >= 1
        self.five += known >= FIVE

    def keep(self, held_out: bool, tags: int) -> None:
        """Counts a photo that is kept, with so many tags."""
        self.held_out += held_out
        self.train += not held_out
        self.tags[tags] += 1

    def skip(self, reason: str) -> None:
        """Counts a sample that is not kept; what follows a colon in the reason are details."""
        self.skipped[reason.partition(":")[0]] += 1

    @property
    def samples(self) -> int:
        """All, kept or not."""
        return self.train + self.held_out + self.skipped.total()

    def percentile(self, percent: float) -> int:
        """The least number of tags that so many percent of the kept photos do not exceed."""
        below = 0
        for number in sorted(self.tags):
            below += self.tags[number]
            if 100 * below >= percent * self.tags.total():
                return number
        return 0

    def summary(self) -> dict[str, float]:
        """Tags of a kept photo (mean, percentiles) and the vocabulary's coverage, shares 0..1."""
        photos = max(self.tags.total(), 1)
        mean = sum(number * count for number, count in self.tags.items()) / photos
        return {
            "tags_mean": mean,
            **{f"tags_{percent}": self.percentile(percent) for percent in PERCENTILES},
            "coverage": self.known / max(self.named, 1),
            "with_one": self.one / max(self.texts, 1),
            "with_five": self.five / max(self.texts, 1),
        }


def table(values: Mapping[str, Any], seconds: float, made: int) -> str:
    """The statistics of ``shards.json`` for people.

    Args:
        values: its ``stats``; seconds: that this run took; made: the samples that it worked on.
    """
    spread = "/".join(f"{values[f'tags_{percent}']}" for percent in PERCENTILES)
    left = f"{'at most ' if values['error'] else ''}{values['left_out']:,} distinct tags left out"
    inexact = f"; counts are too low by at most {values['error']:,}" if values["error"] else ""
    lines = {
        "photos": f"{values['train']:,} for training, {values['held_out']:,} held out",
        **{f"skipped, {reason}": f"{count:,}" for reason, count in values["skipped"].items()},
        "tags": f"{values['tags_kept']:,} in the vocabulary",
        "tags a photo": f"{values['tags_mean']:.1f}; 5/50/95 %: {spread}",
        "coverage": f"{values['coverage']:.1%} of what the texts name is in the vocabulary",
        "": f"{values['with_one']:.1%} of the texts have a known tag, {values['with_five']:.1%} have five",
        "the tail": f"the rarest tag has {values['rarest']:,} photos; {left}{inexact}",
        "size": f"{values['bytes'] / 1e6:,.1f} MB",
        "time": f"{seconds:.1f} s, {made / max(seconds, 1e-9):,.0f} samples/s in this run",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())

"""The maker of shards: a unit of the input -> a shard, and that of its held-out photos."""

from contextlib import ExitStack
from dataclasses import dataclass
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.counting import TagCounter
from training.shards import ShardWriter, index_path, read_about, write_index, write_shard
from training.sources import DAMAGED, Sample, Unit, read_photo
from training.statistics import Statistics
from training.thumbnails import Thumbnail, thumbnail


@dataclass(frozen=True)
class Settings:
    """What shards follow from, beside their source.

    Attributes:
        side: pixels of a thumbnail's longer side, at most; min_side: of a photo's shorter side, at least.
        max_tags: at most so many are kept; min_images: each must occur in so many photos.
        stop_words: tags that are never kept; held_out: the share of the photos that is kept from training, 0..1.

    Raises:
        InputError: one is out of its range.
    """

    side: int
    min_side: int
    max_tags: int
    min_images: int
    stop_words: frozenset[str]
    held_out: float

    def __post_init__(self):
        for name in ("side", "min_side", "max_tags", "min_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be 1 or more")
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out={self.held_out} must be 0 or more and below 1: it is a share of the photos")

    def holds_out(self, key: str) -> bool:
        """Whether a photo is kept from training; a function of its key alone."""
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self.held_out * 2**64

    def count(self, unit: Unit) -> TagCounter:
        """Counts the tags of a unit's photos for training, out of their texts alone."""
        counter = TagCounter()
        for sample in unit.samples():
            if not sample.reason and not self.holds_out(sample.key):
                counter.add(sample.text.named())
        return counter


class Made(NamedTuple):
    """What became of a unit: its samples, how its tar is damaged, and whether its shard was there before."""

    samples: int
    damage: str | None
    before: bool


@dataclass(frozen=True)
class Maker:
    """Makes units into shards.

    Attributes:
        settings, vocabulary: what the shards follow from; identity: tells them, and the source, apart.
        output: the folder.
    """

    settings: Settings
    vocabulary: Vocabulary
    identity: str
    output: Path

    def __call__(self, unit: Unit) -> Made:
        """Writes the shard of a unit, unless it is there. The index of the training photos is written last.

        Raises:
            InputError: it cannot be written.
        """
        before = self._there(unit.number)
        if before is not None:
            return Made(before.samples, None, True)
        statistics, skipped = Statistics(), []
        with Pair(self.output, unit.number) as pair:
            for sample in unit.samples():
                if reason := self._add(sample, pair, statistics):
                    statistics.skip(reason)
                    skipped.append({"source": unit.source, "key": sample.key, "reason": reason})
        pair.write_indices({"made": self.identity, "skipped": skipped}, statistics)
        damage = next((line["reason"] for line in skipped if line["reason"].startswith(DAMAGED)), None)
        return Made(statistics.samples, damage, False)

    def _add(self, sample: Sample, pair: "Pair", statistics: Statistics) -> str:
        """Adds a sample to its shard, or tells why not."""
        try:
            rows, agree = self._tags(sample, statistics)
            photo = self._thumbnail(sample)
        except InputError as error:
            return str(error)
        held_out = self.settings.holds_out(sample.key)
        pair.writer(held_out).add(sample.key, photo, rows, agree, [self.vocabulary[row] for row in rows])
        statistics.keep(held_out, len(rows))
        return ""

    def _tags(self, sample: Sample, statistics: Statistics) -> tuple[list[int], list[int]]:
        if sample.reason:
            raise InputError(sample.reason)
        named = sample.text.named()
        statistics.text(len(named), sum(tag in self.vocabulary for tag in named))
        rows, agree = sample.text.known(self.vocabulary)
        if not rows:
            raise InputError("none of its tags is in the vocabulary")
        return rows, agree

    def _thumbnail(self, sample: Sample) -> Thumbnail:
        return thumbnail(read_photo(sample.photo), self.settings.side, self.settings.min_side)

    def _there(self, number: int) -> Statistics | None:
        """The statistics of a shard that is there and whole, None where none is."""
        try:
            about = read_about(index_path(tar_path(self.output, "train", number)))
            tars = {self.output / entry["name"]: entry["bytes"] for entry in about["train"] + about["val"]}
            whole = all(tar.stat().st_size == size and index_path(tar).exists() for tar, size in tars.items())
            return Statistics.of(about["stats"]) if whole and about["made"] == self.identity else None
        except (InputError, OSError, KeyError, TypeError):
            return None


class Pair:
    """The shards of a unit, written together: of its training photos and, where it has any, of those held out."""

    def __init__(self, output: Path, number: int):
        self.train, self.val = (tar_path(output, kind, number) for kind in ("train", "val"))
        self._writers: dict[Path, ShardWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Pair":
        for path in (self.train, self.val):
            remove_parts(path)
            remove_parts(index_path(path))
        self.writer(held_out=False)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def writer(self, held_out: bool) -> ShardWriter:
        """Where a photo belongs."""
        path = self.val if held_out else self.train
        if path not in self._writers:
            self._writers[path] = self._open.enter_context(write_shard(path))
        return self._writers[path]

    def write_indices(self, about: dict[str, Any], statistics: Statistics) -> None:
        """Writes the indices of the tars that are written; that of the training photos, which tells of all, last."""
        listed = [{"name": p.name, "photos": len(w), "bytes": w.bytes} for p, w in self._writers.items()]
        statistics.bytes = sum(entry["bytes"] for entry in listed)
        if self.val in self._writers:
            write_index(index_path(self.val), self._writers[self.val], {"made": about["made"]})
        told = about | {"train": listed[:1], "val": listed[1:], "stats": statistics.plain()}
        write_index(index_path(self.train), self._writers[self.train], told)


def tar_path(output: Path, kind: str, number: int) -> Path:
    """Where the shard of a unit is; kind: train or val."""
    return output / f"{kind}-{number:06d}.tar"


def remove_parts(path: Path) -> None:
    """Removes what a run that was killed left of a file."""
    for left in path.parent.glob(f".{escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)


def read_unit(output: Path, number: int) -> dict[str, Any]:
    """What the index of a unit's shard tells beside its arrays: train, val, skipped, stats.

    Raises:
        InputError: it is missing.
    """
    return read_about(index_path(tar_path(output, "train", number)))

"""Making shards: a unit of the input -> a shard for training, and one for validation."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from grounding.runtime.ledger import Ledger, LedgerError
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.samples import MISSING_PHOTO, MISSING_TEXT, SourceSample, read_photo
from training.shard_statistics import ShardStatistics
from training.shard_writer import ShardWriter, write_index, write_shard
from training.shards import index_path, read_about
from training.sources import WorkUnit
from training.tag_counter import TagCounter
from training.tar_reader import DAMAGED
from training.thumbnails import Thumbnail, make_thumbnail

UNKNOWN_TAGS = "without a tag of the vocabulary"
MAX_PLACE = 2**16 - 1  # fits into two bytes


def holds_out(key: str, share: float) -> bool:
    """Whether a photo is for validation. This depends only on its key.

    Args:
        key: key of the photo.
        share: fraction of the photos for validation, in 0..1.

    Returns:
        Whether it is.
    """
    digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True)
class ShardSettings:
    """The settings that decide the content of shards, together with their source.

    Attributes:
        side: longer side of a thumbnail, in pixels, at most.
        min_side: shorter side of a photo, in pixels, at least.
        max_tags: size of the vocabulary at most.
        min_images: number of photos that must have a tag.
        stop_words: tags that are dropped.
        held_out: fraction of the photos for validation, in [0, 1).
        untagged: whether photos without a text, or without a tag of the vocabulary, are kept for training.

    Raises:
        InputError: a setting is out of range.
    """

    side: int
    min_side: int
    max_tags: int
    min_images: int
    stop_words: frozenset[str]
    held_out: float
    untagged: bool = False

    def __post_init__(self) -> None:
        for name in ("side", "min_side", "max_tags", "min_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be 1 or more")
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out={self.held_out} must be at least 0 and below 1: it is a fraction of the photos")

    def holds_out(self, key: str) -> bool:
        """Whether a photo is for validation; this depends only on its key."""
        return holds_out(key, self.held_out)

    def count(self, unit: WorkUnit) -> TagCounter:
        """Counts the tags of a unit's training photos, from their texts alone.

        Args:
            unit: the unit.

        Returns:
            The counts.
        """
        counter = TagCounter()
        for sample in unit.samples():
            if not sample.reason and not self.holds_out(sample.key):
                counter.add(sample.text.all_tags())
        return counter


class UnitResult(NamedTuple):
    """The result of a unit.

    Attributes:
        samples: number of its samples.
        damage: how its tar is damaged, or None.
        existed: whether its shard existed before.
    """

    samples: int
    damage: str | None
    existed: bool


@dataclass(frozen=True)
class ShardMaker:
    """Makes the shards of units.

    Attributes:
        settings: the settings.
        vocabulary: the tags.
        identity: digest of the settings, the vocabulary and the source; a shard with another identity is made again.
        output: folder of the shards.
    """

    settings: ShardSettings
    vocabulary: Vocabulary
    identity: str
    output: Path

    def __call__(self, unit: WorkUnit) -> UnitResult:
        """Writes the shards of a unit, unless they exist.

        The index of the training photos is written last, so shards with it are complete.

        Args:
            unit: the unit.

        Returns:
            The result of the unit.

        Raises:
            InputError: a shard cannot be written.
        """
        before = self._existing(unit)
        if before is not None:
            return UnitResult(before, None, True)
        statistics, ledger, damage = ShardStatistics(), Ledger("samples"), None
        with ShardPair(self.output, unit.number) as pair:
            for sample in ledger.reading(unit.samples(), lambda sample: sample.key):
                if reason := self._add(sample, pair, statistics):
                    kind, _, detail = reason.partition(": ")
                    ledger.skip(sample.key, kind, detail, unit.source)
                    damage = detail if kind == DAMAGED else damage
                else:
                    ledger.keep()
        ledger.check()
        pair.write_indices({"made": self.identity, "ledger": ledger.to_json()}, statistics)
        return UnitResult(ledger.came, damage, False)

    def _add(self, sample: SourceSample, pair: "ShardPair", statistics: ShardStatistics) -> str:
        """Adds a sample to its shard; returns why it is skipped, or ""."""
        try:
            rows, agree, places = self._tags(sample, statistics)
            photo = self._thumbnail(sample)
        except InputError as error:
            return str(error)
        held_out = self.settings.holds_out(sample.key) and bool(rows)  # what has no tag cannot be validated
        names = [self.vocabulary[row] for row in rows]
        pair.writer(held_out).add(sample.key, photo, rows, agree, names, places)
        statistics.keep(held_out, len(rows))
        return ""

    def _tags(self, sample: SourceSample, statistics: ShardStatistics) -> tuple[list[int], list[int], list[int]]:
        """The known tags of a sample, how many captions contain each, and their places in a list of tags."""
        if self.settings.untagged and sample.reason == MISSING_TEXT:
            return [], [], []
        if sample.reason:
            raise InputError(sample.reason)
        tags = sample.text.all_tags()
        statistics.text(len(tags), sum(tag in self.vocabulary for tag in tags))
        rows, agree = sample.text.known_tags(self.vocabulary)
        if not rows and not self.settings.untagged:
            raise InputError(UNKNOWN_TAGS)
        if not sample.text.tags:
            return rows, agree, list(range(len(rows)))
        place = {tag: min(number, MAX_PLACE) for number, tag in enumerate(tags)}
        return rows, agree, [place[self.vocabulary[row]] for row in rows]

    def _thumbnail(self, sample: SourceSample) -> Thumbnail:
        return make_thumbnail(read_photo(sample.photo), self.settings.side, self.settings.min_side)

    def _existing(self, unit: WorkUnit) -> int | None:
        """The number of samples of a unit's shards; None if they do not exist, are incomplete or lack a photo."""
        try:
            about = read_about(index_path(tar_path(self.output, "train", unit.number)))
            tars = {self.output / entry["name"]: entry["bytes"] for entry in about["train"] + about["val"]}
            complete = all(tar.stat().st_size == size and index_path(tar).exists() for tar, size in tars.items())
            ledger = Ledger("samples")
            ledger.add_json(about["ledger"])
            ShardStatistics.from_json(about["stats"])
        except (InputError, LedgerError, OSError, KeyError, TypeError):
            return None
        return ledger.came if complete and about["made"] == self.identity and not _has_arrived(unit, ledger) else None


def _has_arrived(unit: WorkUnit, ledger: Ledger) -> bool:
    """Whether a photo that was missing when the shards were made exists now."""
    missing = {skipped.name for skipped in ledger.skipped if skipped.reason == MISSING_PHOTO}
    photos = (sample.photo for sample in unit.listed if sample.key in missing and sample.photo)
    return any(Path(photo.path).exists() for photo in photos)


class ShardPair:
    """The shards of a unit, written at the same time: for training and, if the unit has such photos, for validation.

    Args:
        output: folder of the shards.
        number: number of the unit.
    """

    def __init__(self, output: Path, number: int):
        self.train, self.val = (tar_path(output, kind, number) for kind in ("train", "val"))
        self._writers: dict[Path, ShardWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> "ShardPair":
        for path in (self.train, self.val):
            remove_parts(path)
            remove_parts(index_path(path))
        self.writer(held_out=False)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def writer(self, held_out: bool) -> ShardWriter:
        """The writer for a photo.

        Args:
            held_out: whether the photo is for validation.

        Returns:
            The writer of its shard.
        """
        path = self.val if held_out else self.train
        if path not in self._writers:
            self._writers[path] = self._open.enter_context(write_shard(path))
        return self._writers[path]

    def write_indices(self, about: Mapping[str, Any], statistics: ShardStatistics) -> None:
        """Writes the indices of the complete tars; that of the training photos, which describes both, comes last.

        Args:
            about: JSON values to store.
            statistics: statistics of the unit, which are stored, too; their ``bytes`` is set.
        """
        listed = [{"name": p.name, "photos": len(w), "bytes": w.bytes} for p, w in self._writers.items()]
        statistics.bytes = sum(entry["bytes"] for entry in listed)
        if self.val in self._writers:
            write_index(index_path(self.val), self._writers[self.val], {"made": about["made"]})
        values = {**about, "train": listed[:1], "val": listed[1:], "stats": statistics.to_json()}
        write_index(index_path(self.train), self._writers[self.train], values)


def tar_path(output: Path, kind: str, number: int) -> Path:
    """The path of a unit's shard; ``kind`` is ``"train"`` or ``"val"``."""
    return output / f"{kind}-{number:06d}.tar"


def remove_parts(path: Path) -> None:
    """Removes incomplete files of a path, which a killed run left."""
    for part in path.parent.glob(f".{escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def read_unit(output: Path, number: int) -> dict[str, Any]:
    """Reads what the index of a unit's shard stores in addition to its arrays: train, val, ledger, stats.

    Args:
        output: folder of the shards.
        number: number of the unit.

    Returns:
        The JSON values.

    Raises:
        InputError: the index is missing.
    """
    return read_about(index_path(tar_path(output, "train", number)))

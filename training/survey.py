"""Checks a source of training photos for the step ``check``."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from grounding.runtime.ledger import Ledger, show_names
from grounding.steps.check import Survey
from proposals.errors import InputError
from training.samples import MISSING_PHOTO, SourceSample, read_photo
from training.sources import Source, find_source
from training.tag_counter import TagCounter
from training.thumbnails import make_thumbnail

TAR_END = 1024  # bytes of zeros
MOST_FREQUENT = 8  # tags that are named


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos and their texts, as the step ``shards`` reads them.

    Attributes:
        images: see ``training.sources.find_source``.
        captions: see ``training.sources.find_source``.
        min_images: number of photos that must have a tag.
        min_side: shorter side of a photo, in pixels, at least.
        opened: number of photos that are opened, chosen at random with the same result each time.
        limit: number of samples that are read. None: all.
    """

    images: str
    captions: str | None = None
    min_images: int = 10
    min_side: int = 32
    opened: int = 200
    limit: int | None = None

    def survey(self) -> Survey:
        """Reads all texts and looks up all photos, and opens a few.

        Returns:
            What the source holds; see :class:`grounding.steps.check.Checkable`.

        Raises:
            InputError: the source cannot be read, see ``training.sources.find_source``.
        """
        source = find_source(self.images, self.captions)
        counts = _Counts(Ledger("samples", source.folder, "give photos that have tags or captions"), self.opened)
        for where, sample in tqdm(self._samples(source), unit="photo", desc="checking", disable=None):
            counts.add(sample, where)
        facts = {"source": _describe(source)} | _tar_facts(source)
        facts |= counts.facts(self.min_images) | {"opened": self._open(counts.chosen)}
        return Survey(counts.ledger, facts)

    def _samples(self, source: Source) -> Iterator[tuple[str, SourceSample]]:
        number = 0
        for unit in source.units():
            for sample in unit.samples():
                if number == self.limit:
                    return
                number += 1
                yield unit.source, sample

    def _open(self, samples: Sequence[SourceSample]) -> str:
        """Opens photos as the step ``shards`` does; says how many would be skipped and why."""
        ledger = Ledger("photos at random")
        for sample in ledger.reading(samples, lambda sample: sample.key):
            try:
                assert sample.photo is not None  # only such samples are chosen
                make_thumbnail(read_photo(sample.photo), min_side=self.min_side)
            except InputError as error:
                ledger.skip(sample.key, *str(error).split(": ", 1))
            else:
                ledger.keep()
        ledger.check()
        first = next(ledger.skipped, None)
        return f"{ledger.line()}{'' if first is None else f'; the first: {first}'}"


@dataclass
class _Counts:
    """Counts over the samples of a source.

    Attributes:
        ledger: counts the samples.
        opened: number of photos to choose.
        chosen: photos that were chosen at random.
        texts: number of samples for each number of captions; 0 for tags.
        tags: counts the tags.
    """

    ledger: Ledger
    opened: int
    chosen: list[SourceSample] = field(default_factory=list)
    texts: Counter[int] = field(default_factory=Counter)
    tags: TagCounter = field(default_factory=TagCounter)

    def __post_init__(self) -> None:
        self._random = random.Random(0)

    def add(self, sample: SourceSample, where: str) -> None:
        self.ledger.came_in(sample.key)
        reason = sample.reason or _why_missing(sample)
        if reason:
            kind, _, detail = reason.partition(": ")
            self.ledger.skip(sample.key, kind, detail, where)
            return
        self.ledger.keep()
        self.texts[len(sample.text.captions)] += 1
        self.tags.add(sample.text.all_tags())
        self._choose(sample)

    def _choose(self, sample: SourceSample) -> None:
        """Keeps each of n samples with the same probability (reservoir sampling)."""
        if len(self.chosen) < self.opened:
            self.chosen.append(sample)
        elif (at := self._random.randrange(self.ledger.kept)) < self.opened:
            self.chosen[at] = sample

    def facts(self, min_images: int) -> dict[str, str]:
        frequent = self.tags.most_common(len(self.tags.counts), min_images)
        first = ", ".join(f"{tag} ({count:,})" for tag, count in frequent[:MOST_FREQUENT])
        captions = sum(number * count for number, count in self.texts.items())
        photos = self.texts.total() - self.texts[0]
        each = f"{captions:,}, {captions / max(photos, 1):.1f} for each of {photos:,} photos"
        facts = {"captions": each} if photos else {}
        facts |= {"tagged": f"{self.texts[0]:,} photos have tags, not captions"} if self.texts[0] else {}
        few = f"{len(self.tags.counts):,} distinct, {len(frequent):,} of them in {min_images} photos or more"
        return facts | {"tags": f"{few}: {first}" if first else f"{few}: lower step.min_images= of step=shards"}


def _why_missing(sample: SourceSample) -> str:
    """Why the photo of a sample would be skipped, without opening it; "" if it is there."""
    if sample.photo is None or sample.photo.size is not None:
        return "" if sample.photo is None or sample.photo.size else "empty"
    try:
        size = Path(sample.photo.path).stat().st_size
    except (OSError, ValueError):
        return f"{MISSING_PHOTO}: no such file"
    return "" if size else "empty"


def _describe(source: Source) -> str:
    size = sum(path.stat().st_size for path in source.files)
    files = source.files[0] if len(source.files) == 1 else f"{len(source.files):,} files in {source.files[0].parent}"
    return f"{files}, {size / 1e6:,.1f} MB" + ("" if source.photos is None else f"; photos in {source.photos}")


def _tar_facts(source: Source) -> dict[str, str]:
    """What is wrong with a set of tars: numbers that are missing, tars that are cut off."""
    if source.rows is not None:
        return {}
    cut, gaps = [path.name for path in source.files if not _is_complete(path)], _gaps([p.name for p in source.files])
    facts = {"cut off": f"{len(cut):,} tars, {show_names(cut)}: copy them again"} if cut else {}
    return facts | ({"numbers missing": f"{len(gaps):,}, {show_names(gaps)}: is the copy complete?"} if gaps else {})


def _is_complete(tar: Path) -> bool:
    with tar.open("rb") as file:
        file.seek(max(tar.stat().st_size - TAR_END, 0))
        return file.read() == bytes(TAR_END)


def _gaps(names: Sequence[str]) -> list[str]:
    """Names that a numbered series lacks between its first and last one; none if the names are no such series."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    series = {(match[1], len(match[2]), match[3]) for match in found if match}
    if len(series) != 1 or not all(found):
        return []
    (begin, digits, end) = next(iter(series))
    numbers = {int(match[2]) for match in found if match}
    if max(numbers) - min(numbers) > 100 * len(numbers):  # not a series
        return []
    missing = (number for number in range(min(numbers), max(numbers)) if number not in numbers)
    return [f"{begin}{number:0{digits}d}{end}" for number in missing]

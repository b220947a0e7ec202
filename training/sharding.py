"""The step ``shards``: photos and their texts -> shards to train on, with all cores and machines.

    grounding step=shards images=FOLDER_OF_TARS
    grounding step=shards 'images="s3://bucket/crawl/{00000..00127}.tar"'
    grounding step=shards images=PHOTOS captions=table.csv
    grounding step=shards images=coco/train2017 captions=coco/annotations/captions_train2017.json
    grounding step=shards images=flickr30k_entities
    torchrun --nproc-per-node 4 -m grounding step=shards images=FOLDER     # or srun: the ranks share the units

There are two passes, in memory that does not grow with the number of samples. The first reads the texts and counts the
tags; the most frequent ones are the vocabulary. The second makes a shard of each unit of the input, completely or not
at all. So a run that was stopped continues where it was when the same command runs again.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tqdm import tqdm

from grounding.runtime.artefacts import atomic_path, write_json
from grounding.runtime.ledger import SKIPPED, Ledger, show_names
from grounding.runtime.ranks import cores, process_group, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import in_order, worker_pool
from grounding.shards.fetching import FetchOptions, is_remote
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import normalize
from proposals.errors import InputError
from training.photo_finder import look_up
from training.shard_maker import ShardMaker, ShardSettings, read_unit, remove_parts, tar_path
from training.shard_statistics import ShardStatistics, format_table
from training.shard_writer import encode_vocabulary
from training.shards import FORMAT, SHARDS, VOCABULARY, index_path, read_vocabulary
from training.sources import Source, WorkUnit, count_samples, find_source
from training.tag_counter import TagCounter

log = logging.getLogger(__name__)

COUNTED = "counted.json"  # result of the first pass
AHEAD = 2  # units per worker that are submitted before their results are needed


def shard(
    images: str,
    output: str,
    captions: str | None = None,
    side: int = 200,
    min_side: int = 32,
    max_tags: int = 18_000,
    min_images: int = 10,
    stop_words: str | None = None,
    held_out: float = 0.05,
    images_per_shard: int = 10_000,
    workers: int | None = None,
    untagged: bool = False,
    fetch: FetchOptions | None = None,
) -> dict[str, Any]:
    """Makes shards of photos and their tags (see ``training.shards``), and prints their statistics.

    Args:
        images: see ``training.sources.find_source``.
        output: folder to write to.
        captions: see ``training.sources.find_source``.
        side: longer side of a thumbnail, in pixels, at most.
        min_side: shorter side of a photo, in pixels, at least.
        max_tags: size of the vocabulary at most.
        min_images: number of photos that must have a tag.
        stop_words: a file of tags to drop, one per line; a line that starts with # is a comment.
        held_out: fraction of the photos for validation, in [0, 1).
        images_per_shard: samples per shard, for a source that is not tar files; a tar becomes one shard.
        workers: number of processes. None: the number of cores; 0: this process alone.
        untagged: whether photos without a text, or without a tag of the vocabulary, are kept for training: with
            ``step=train step.teacher=FILE`` another tagger teaches them.
        fetch: how remote tars are fetched; None for the default.

    Returns:
        ``stats`` of ``shards.json``; an empty dict on ranks other than 0.

    Raises:
        InputError: there is nothing to read or no photo can be used, no tag is frequent enough, or a setting is out of
            range; ``output`` has shards of other photos or settings, contains the photos, or cannot be written; or a
            worker was killed.
    """
    settings = ShardSettings(side, min_side, max_tags, min_images, _read_stop_words(stop_words), held_out, untagged)
    workers = cores() if workers is None else workers
    if workers < 0 or images_per_shard < 1:
        raise InputError(
            f"workers={workers} must be 0 or more, and images_per_shard={images_per_shard} must be 1 or more"
        )
    _check_apart(Path(output), images, captions)
    start, source = time.perf_counter(), find_source(images, captions, images_per_shard, fetch or FetchOptions())
    _check_writable(Path(output))
    with process_group() as wait, worker_pool(workers) as pool:
        job = ShardJob(source, settings, Path(output), pool, max(workers, 1) * AHEAD, wait)
        pairs, counted = job.count()
        units, samples = job.make(pairs, counted["vocabulary"])
        wait()
    if job.rank:
        return {}
    stats = job.publish(counted, units)
    print(format_table(stats, time.perf_counter() - start, samples))
    return stats


def _read_stop_words(path: str | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"stop_words={path} cannot be read ({error}): use a text file with one tag per line"
        ) from error
    return frozenset(normalize(line) for line in lines if not line.startswith("#"))


def _check_apart(output: Path, *sources: str | None) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"output={output} is a file: use a folder")
    for source in (Path(source).resolve() for source in sources if source is not None and not is_remote(source)):
        if output.resolve() in (source, source.parent if source.is_file() else source):
            raise InputError(f"output={output} contains the photos: use another folder for the shards")


def _check_writable(output: Path) -> None:
    """Refuses a folder that cannot be written before the tags are counted, which may take hours."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"output={output} cannot be written: {reason}; use another folder") from error


@dataclass
class ShardJob:
    """One run of the step, on one rank.

    Attributes:
        source: the input.
        settings: the settings.
        output: folder to write to.
        pool: the workers; None to work in this process.
        ahead: units that are submitted before their results are needed.
        wait: waits for all ranks.
        rank: this rank.
        world: number of ranks.
        identity: settings and source, by which shards of other runs can be distinguished.
    """

    source: Source
    settings: ShardSettings
    output: Path
    pool: ProcessPoolExecutor | None
    ahead: int
    wait: Callable[[], object]

    def __post_init__(self) -> None:
        self.rank, self.world = rank_of()
        settings = asdict(self.settings) | {"stop_words": _digest("\n".join(sorted(self.settings.stop_words)))}
        if not self.settings.untagged:
            del settings["untagged"]  # shards that were made before there was this setting are complete
        size = {} if self.source.rows is None else {"images_per_shard": self.source.size}
        self.identity = settings | size | self.source.identity() | {"grounding": VERSION}

    def count(self) -> tuple[list[tuple[str, int]], dict[str, Any]]:
        """The first pass: counts the tags, or reads the counts of an earlier run.

        Returns:
            The vocabulary as pairs of tag and count, and the content of ``counted.json``.

        Raises:
            InputError: no tag is frequent enough, or the folder has shards of other photos or settings.
        """
        counted = self._counted()
        if counted is not None:
            self.wait()  # ranks that count in this run also wait once
            return read_vocabulary(self.output / VOCABULARY, counted["vocabulary"]), counted
        counter = self._count_all()
        pairs = counter.most_common(self.settings.max_tags, self.settings.min_images, self.settings.stop_words)
        if not pairs:
            raise InputError(self._explain_no_tags(counter.photos))
        return pairs, self._write_counted(pairs, counter)

    def make(self, pairs: Sequence[tuple[str, int]], digest: str) -> tuple[int, int]:
        """The second pass: makes the shards of this rank's units.

        Args:
            pairs: the vocabulary as pairs of tag and count.
            digest: SHA-256 of ``vocabulary.txt``.

        Returns:
            The number of units of all ranks, and the number of samples that this rank processed.
        """
        identity = _digest(json.dumps([self.identity, digest], sort_keys=True))
        maker = ShardMaker(self.settings, Vocabulary(tuple(tag for tag, _ in pairs)), identity, self.output)
        units: Counter[int] = Counter()
        samples, existed = 0, 0
        with tqdm(unit="photo", desc="making shards", disable=None) as bar:
            for unit, result in in_order(self.pool, maker, self._own_units(units), self.ahead):
                existed += result.existed
                samples += 0 if result.existed else result.samples
                bar.update(result.samples)
                if result.damage:
                    log.warning("%s: %s", unit.source, result.damage)
        if existed:
            log.info("%d shards existed before and were kept", existed)
        return units.total(), samples

    def publish(self, counted: dict[str, Any], units: int) -> dict[str, Any]:
        """Writes ``skipped.jsonl``, then ``shards.json``, unless no photo can be used.

        Args:
            counted: the content of ``counted.json``.
            units: number of units.

        Returns:
            ``stats`` of ``shards.json``.

        Raises:
            InputError: no photo can be used; the shards are removed.
        """
        for name in (SKIPPED, SHARDS):
            remove_parts(self.output / name)
        train, val, total = [], [], ShardStatistics()
        ledger = self._ledger()
        for number in range(units):
            about = read_unit(self.output, number)
            ledger.add_json(about["ledger"])
            total.add(ShardStatistics.from_json(about["stats"]))
            train += [entry for entry in about["train"] if entry["photos"]]
            val += about["val"]
        self._finish(ledger, units)
        self._warn(total)
        tags = {name: counted[name] for name in ("tags_kept", "rarest", "left_out", "error")}
        counts = {"samples": ledger.came, "skipped": dict(sorted(ledger.reasons.items()))}
        stats = counts | total.to_json() | total.summary() | tags
        made = {"format": FORMAT, "settings": self.identity, "vocabulary": counted["vocabulary"]}
        write_json(self.output / SHARDS, made | {"train": train, "val": val, "stats": stats})
        for counts in self.output.glob(".counts-*.json"):
            counts.unlink(missing_ok=True)
        return stats

    def _own_units(self, units: Counter[int]) -> Iterator[WorkUnit]:
        """This rank's units; ``units`` counts the units of each rank."""
        for unit in self.source.units():
            owner = unit.number % self.world
            units[owner] += 1
            if owner == self.rank:
                yield unit

    def _counted(self) -> dict[str, Any] | None:
        """The ``counted.json`` of an earlier run; None if there is none."""
        path, others = self.output / COUNTED, f"{self.output} has shards of other photos or settings"
        if not path.exists():
            if any(self.output.glob("*.tar")) or (self.output / SHARDS).exists():
                raise InputError(f"{others}: use another folder, or remove this one")
            return None
        try:
            counted = json.loads(path.read_bytes())
            then = counted["settings"]
            different = [name for name, value in self.identity.items() if then.get(name) != value]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}): remove the folder and start again") from error
        if different:
            raise InputError(f"{others} ({', '.join(different)}): use another folder, or remove this one")
        return counted if (self.output / VOCABULARY).exists() else None

    def _count_all(self) -> TagCounter:
        """Counts the tags of all ranks. Each rank adds the counts of all, so no rank waits for another's sum."""
        counter = self._count_own()
        if self.world == 1:
            return counter
        write_json(self._counts(self.rank), vars(counter))
        self.wait()
        total = TagCounter()
        for rank in range(self.world):
            total.merge(_read_counts(self._counts(rank)))
        return total

    def _count_own(self) -> TagCounter:
        counter, missing = TagCounter(), False
        with tqdm(unit="photo", desc="counting tags", disable=None) as bar:
            for unit, counts in in_order(self.pool, self.settings.count, self._own_units(Counter()), self.ahead):
                missing = missing or _warn_of_missing(unit)
                counter.merge(counts)
                bar.update(counts.photos)
        return counter

    def _write_counted(self, pairs: Sequence[tuple[str, int]], counter: TagCounter) -> dict[str, Any]:
        text, digest = encode_vocabulary(pairs)
        counted = {
            "settings": self.identity,
            "vocabulary": digest,
            "photos": counter.photos,
            "tags_kept": len(pairs),
            "rarest": pairs[-1][1],
            "left_out": len(counter.counts) + counter.dropped - len(pairs),
            "error": counter.error,
        }
        if self.rank == 0:
            remove_parts(self.output / VOCABULARY)
            with atomic_path(self.output / VOCABULARY) as part:
                part.write_bytes(text)
            write_json(self.output / COUNTED, counted)
        return counted

    def _explain_no_tags(self, photos: int) -> str:
        """The message if no tag is frequent enough in ``photos`` photos."""
        if photos:
            few = f"no tag occurs in {self.settings.min_images} of the {photos} photos for training"
            return f"{few}: lower step.min_images=, or use other images"
        ledger = self._ledger()
        for unit in self.source.units():
            count_samples(unit, ledger)
        ledger.require_kept()
        none = f"held_out={self.settings.held_out} leaves none of the {ledger.kept} photos with a text for training"
        return f"{none}: lower step.held_out=, or use more photos"

    def _ledger(self) -> Ledger:
        return Ledger("samples", self.source.folder, "give photos that can be read and have tags or captions")

    def _finish(self, ledger: Ledger, units: int) -> None:
        """Lists what was skipped; if nothing was kept, removes the shards, so that a corrected run can begin."""
        try:
            ledger.finish(self.output)
        finally:
            if not ledger.kept:
                tars = [tar_path(self.output, kind, number) for number in range(units) for kind in ("train", "val")]
                for path in (self.output / COUNTED, self.output / VOCABULARY, *tars, *map(index_path, tars)):
                    path.unlink(missing_ok=True)

    def _warn(self, total: ShardStatistics) -> None:
        for what, photos in (("training", total.train), ("validation", total.held_out)):
            if not photos:
                log.warning(
                    "no photo is for %s, and step=train needs some: set another step.held_out= (now %s) and output",
                    what, self.settings.held_out,
                )  # fmt: skip

    def _counts(self, rank: int) -> Path:
        return self.output / f".counts-{rank}-of-{self.world}.json"


def _warn_of_missing(unit: WorkUnit) -> bool:
    """Warns at once if photos of a unit are missing, because their number is only known at the end."""
    looked_up, missing = look_up(unit.listed)
    if missing:
        few = "%d of %d photos that were looked up are missing: %s; is the copy complete? step=check lists all"
        log.warning(few, len(missing), looked_up, show_names(missing))
    return bool(missing)


def _read_counts(path: Path) -> TagCounter:
    try:
        found = json.loads(path.read_bytes())
        return TagCounter(**found | {"counts": Counter(found["counts"])})
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): all ranks must share one output folder") from error


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

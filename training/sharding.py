"""The step ``shards``: photos and the texts beside them -> shards to train on, on all cores and machines.

    grounding step=shards images=FOLDER_OF_TARS
    grounding step=shards images=PHOTOS captions=table.csv
    grounding step=shards images=coco/train2017 captions=coco/annotations/captions_train2017.json
    grounding step=shards images=flickr30k_entities
    torchrun --nproc-per-node 4 -m grounding step=shards images=FOLDER     # or srun: the ranks share the units

Two passes, in memory that does not grow with the samples. The first reads the texts and counts tags, the most frequent
of which are the vocabulary. The second makes each unit of the input into a shard, whole or not at all, so that a run
that is stopped goes on where it was when it is started again.
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
from grounding.runtime.ranks import cores, process_group, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import in_order, worker_pool
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import normalize
from proposals.errors import InputError
from training.counting import TagCounter
from training.maker import Maker, Settings, read_unit, remove_parts
from training.shards import FORMAT, SHARDS, SKIPPED, VOCABULARY, read_vocabulary, vocabulary_text
from training.sources import Source, Unit, find_source
from training.statistics import Statistics, table

log = logging.getLogger(__name__)

COUNTED = "counted.json"  # what the first pass found
AHEAD = 2  # units handed out before they are wanted, for each worker


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
) -> dict[str, Any]:
    """Makes shards of photos and their tags, see ``training.shards``, and prints what they hold.

    Args:
        images, captions: see ``training.sources.find_source``.
        images_per_shard: samples in a shard, for a source that is not a folder of tar files.
        output: the folder that is written to.
        side, min_side, max_tags, min_images, held_out: see :class:`Settings`.
        stop_words: a file of tags that are never kept, one a line; a line that starts with # is a comment.
        workers: processes; None for as many as there are cores, 0 for this one alone.

    Returns:
        The ``stats`` of ``shards.json``; of a rank other than 0, nothing.

    Raises:
        InputError: nothing to read, no tag that is frequent enough, or settings out of range; ``output`` holds shards
            of other photos or settings, is where the photos are, or cannot be written; a worker was killed.
    """
    settings = Settings(side, min_side, max_tags, min_images, _read_stop(stop_words), held_out)
    workers = cores() if workers is None else workers
    if workers < 0 or images_per_shard < 1:
        raise InputError(f"workers={workers} must be 0 or more, images_per_shard={images_per_shard} 1 or more")
    _check_apart(Path(output), images, captions)
    start, source = time.perf_counter(), find_source(images, captions, images_per_shard)
    _check_writable(Path(output))
    with process_group() as wait, worker_pool(workers) as pool:
        job = Job(source, settings, Path(output), pool, max(workers, 1) * AHEAD, wait)
        pairs, counted = job.count()
        units, samples = job.make(pairs, counted["vocabulary"])
        wait()
    if job.rank:
        return {}
    stats = job.publish(counted, units)
    print(table(stats, time.perf_counter() - start, samples))
    return stats


def _read_stop(path: str | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"stop_words={path} cannot be read ({error}): name a text file of tags, one a line") from error
    return frozenset(normalize(line) for line in lines if not line.startswith("#"))


def _check_apart(output: Path, *sources: str | None) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"output={output} is a file: name a folder")
    for source in (Path(source).resolve() for source in sources if source is not None):
        if output.resolve() in (source, source.parent if source.is_file() else source):
            raise InputError(f"output={output} is where the photos are: the shards need a folder of their own")


def _check_writable(output: Path) -> None:
    """Tells of a folder that cannot be written before the tags are counted, not hours after."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"output={output} cannot be written: {reason}; name another folder") from error


@dataclass
class Job:
    """One run of the step, by one rank."""

    source: Source
    settings: Settings
    output: Path
    pool: ProcessPoolExecutor | None
    ahead: int
    wait: Callable[[], object]  # for all ranks

    def __post_init__(self):
        self.rank, self.world = rank_of()
        plain = asdict(self.settings) | {"stop_words": _digest("\n".join(sorted(self.settings.stop_words)))}
        cut = {} if self.source.rows is None else {"images_per_shard": self.source.size}
        self.identity = plain | cut | self.source.identity() | {"grounding": VERSION}

    def count(self) -> tuple[list[tuple[str, int]], dict[str, Any]]:
        """The first pass: the vocabulary with its counts, and what ``counted.json`` tells of them.

        Where an earlier run counted, it is read.
        """
        counted = self._counted()
        if counted is not None:
            self.wait()  # as those ranks do that count
            return read_vocabulary(self.output / VOCABULARY, counted["vocabulary"]), counted
        counter = self._count_all()
        pairs = counter.best(self.settings.max_tags, self.settings.min_images, self.settings.stop_words)
        if not pairs:
            raise InputError(self._why_none(counter.photos))
        return pairs, self._write_counted(pairs, counter)

    def make(self, pairs: Sequence[tuple[str, int]], digest: str) -> tuple[int, int]:
        """The second pass: makes this rank's units.

        Args:
            pairs: the vocabulary with its counts; digest: of its file.

        Returns:
            How many units there are, those of other ranks too, and how many samples were worked on.
        """
        identity = _digest(json.dumps([self.identity, digest], sort_keys=True))
        maker = Maker(self.settings, Vocabulary(tuple(tag for tag, _ in pairs)), identity, self.output)
        units, samples, before = Counter(), 0, 0
        with tqdm(unit="photo", desc="making shards", disable=None) as bar:
            for unit, made in in_order(self.pool, maker, self._mine(units), self.ahead):
                before += made.before
                samples += 0 if made.before else made.samples
                bar.update(made.samples)
                if made.damage:
                    log.warning("%s: %s", unit.source, made.damage)
        if before:
            log.info("%d shards were there before", before)
        return units.total(), samples

    def publish(self, counted: dict[str, Any], units: int) -> dict[str, Any]:
        """Writes what belongs to no single shard, ``shards.json`` last, and returns its ``stats``."""
        for name in (SKIPPED, SHARDS):
            remove_parts(self.output / name)
        train, val, total = [], [], Statistics()
        with atomic_path(self.output / SKIPPED) as aside, aside.open("w", encoding="utf-8") as file:
            for number in range(units):
                about = read_unit(self.output, number)
                total.add(Statistics.of(about["stats"]))
                train += [entry for entry in about["train"] if entry["photos"]]
                val += about["val"]
                file.writelines(json.dumps(line) + "\n" for line in about["skipped"])
        told = {name: counted[name] for name in ("tags_kept", "rarest", "left_out", "error")}
        stats = {"samples": total.samples} | total.plain() | total.summary() | told
        made = {"format": FORMAT, "settings": self.identity, "vocabulary": counted["vocabulary"]}
        write_json(self.output / SHARDS, made | {"train": train, "val": val, "stats": stats})
        for left in self.output.glob(".counts-*.json"):
            left.unlink(missing_ok=True)
        return stats

    def _mine(self, units: Counter) -> Iterator[Unit]:
        """This rank's units; ``units`` counts those of every rank."""
        for unit in self.source.units():
            owner = unit.number % self.world
            units[owner] += 1
            if owner == self.rank:
                yield unit

    def _counted(self) -> dict[str, Any] | None:
        """What an earlier run counted, None where none did.

        Raises:
            InputError: it was of other photos or settings.
        """
        path, others = self.output / COUNTED, f"{self.output} has shards of other photos or settings"
        if not path.exists():
            if any(self.output.glob("*.tar")) or (self.output / SHARDS).exists():
                raise InputError(f"{others}: choose another folder, or remove it")
            return None
        try:
            counted = json.loads(path.read_bytes())
            then = counted["settings"]
            different = [name for name, value in self.identity.items() if then.get(name) != value]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}): remove the folder and start anew") from error
        if different:
            raise InputError(f"{others} ({', '.join(different)}): choose another folder, or remove it")
        return counted if (self.output / VOCABULARY).exists() else None

    def _count_all(self) -> TagCounter:
        """Counts the photos of every rank. Each adds up the same files, so that none has to wait for a sum."""
        counter = self._count_mine()
        if self.world == 1:
            return counter
        write_json(self._counts(self.rank), vars(counter))
        self.wait()
        total = TagCounter()
        for rank in range(self.world):
            total.merge(_read_counts(self._counts(rank)))
        return total

    def _count_mine(self) -> TagCounter:
        counter = TagCounter()
        with tqdm(unit="photo", desc="counting tags", disable=None) as bar:
            for _, found in in_order(self.pool, self.settings.count, self._mine(Counter()), self.ahead):
                counter.merge(found)
                bar.update(found.photos)
        return counter

    def _write_counted(self, pairs: Sequence[tuple[str, int]], counter: TagCounter) -> dict[str, Any]:
        text, digest = vocabulary_text(pairs)
        counted = {
            "settings": self.identity,
            "vocabulary": digest,
            "photos": counter.photos,
            "tags_kept": len(pairs),
            "rarest": pairs[-1][1],
            "left_out": len(counter.counts) + counter.forgotten - len(pairs),
            "error": counter.error,
        }
        if self.rank == 0:
            remove_parts(self.output / VOCABULARY)
            with atomic_path(self.output / VOCABULARY) as aside:
                aside.write_bytes(text)
            write_json(self.output / COUNTED, counted)
        return counted

    def _why_none(self, photos: int) -> str:
        """What to tell where no tag is frequent enough among so many photos."""
        if photos:
            few = f"no tag occurs in {self.settings.min_images} of the {photos} photos for training"
            return f"{few}: lower step.min_images=, or name other images"
        skipped = ((unit, sample) for unit in self.source.units() for sample in unit.samples() if sample.reason)
        found = (f"the first is {sample.key or unit.source}: {sample.reason}" for unit, sample in skipped)
        return f"no photo for training has a text ({next(found, 'there is none')}); name other images"

    def _counts(self, rank: int) -> Path:
        return self.output / f".counts-{rank}-of-{self.world}.json"


def _read_counts(path: Path) -> TagCounter:
    try:
        found = json.loads(path.read_bytes())
        return TagCounter(**found | {"counts": Counter(found["counts"])})
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): all ranks must see one folder") from error


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

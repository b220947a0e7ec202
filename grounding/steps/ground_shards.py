"""The step ``ground`` with tar files of photos: any number of shards, on all cores, by any number of processes.

    grounding 'image="crawl/{00000..00127}.tar"' 'phrases=[a kite, a dog]' format=parquet
    torchrun --nproc-per-node 4 -m grounding image=crawl/ 'phrases=[a kite]'     # the ranks share the shards

The results of a shard are one file, which appears complete or not at all. A run that was stopped continues at the photo
where it was when the same command is started again.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from dataclasses import field as setting
from functools import partial
from itertools import islice
from pathlib import Path

from grounding.batch.images import rehearse
from grounding.batch.together import answer_together, batch_size, check_batch
from grounding.exports import BOXES
from grounding.grounder import Grounder
from grounding.runtime.artefacts import atomic_path, write_json_lines
from grounding.runtime.ledger import SKIPPED
from grounding.runtime.ranks import cores, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import fitting_workers, in_order, use_one_thread, worker_pool
from grounding.shards.addresses import InputShard
from grounding.shards.fetching import FetchOptions, ShardCache
from grounding.shards.parquet import check_pyarrow, write_parquet
from grounding.shards.parts import OutputFolder, PhotoResult, ShardPart, Writer
from grounding.shards.reading import check_installed, read_shard
from grounding.shards.sharing import ShardProgress, UnreadableShardError, share_shards
from grounding.steps.shard_answers import ShardQuestion, ShardWork, TarPhoto
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError, SkippedError
from proposals.provenance import settings_of

CURE = "give tar files of photos that can be read"
AHEAD = 4  # photos in the queue of each worker
ONE_RUN = threading.Lock()  # runs of several threads follow each other, because the work is a global variable
Answer = Callable[[Iterable[TarPhoto]], Iterator[tuple[TarPhoto, PhotoResult]]]
WRITERS: dict[str, tuple[str, Writer]] = {"jsonl": (".jsonl", write_json_lines), "parquet": (".parquet", write_parquet)}


@dataclass(frozen=True)
class ShardOptions:
    """How ``step=ground`` works on tar files.

    Attributes:
        field: where each photo's own phrases are: a field of its JSON, see ``ShardPhoto.phrases``; None if all photos
            have the same phrases.
        tags: instead of phrases, ask for this number of most probable tags of each photo, each on its own; None to ask
            for phrases. With ``form="parquet"`` the answers are an index of what is where in the photos.
        workers: the number of processes that answer; 0 for this process; None for one per core, as far as they fit
            into the free memory, and for 0 on a GPU or if photos go through the network together.
        batch: the largest number of photos that go through the network together, see ``grounding.batch.together``; None
            for 8 on a GPU, and for 1 on a CPU.
        lease: seconds after which the shard of a process that has died is taken over.
        fetch: how remote shards are fetched.
    """

    field: str | None = None
    tags: int | None = None
    workers: int | None = None
    batch: int | None = None
    lease: float = 120
    fetch: FetchOptions = setting(default_factory=FetchOptions)

    def __post_init__(self) -> None:
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 0):
            raise InputError(f"workers={self.workers} must be a whole number, 0 or more")
        if self.tags is not None and (not isinstance(self.tags, int) or self.tags < 1):
            raise InputError(f"tags={self.tags} must be a whole number, 1 or more")
        check_batch(self.batch)


def ground_shards(
    grounder: Grounder,
    shards: Sequence[InputShard],
    phrases: Sequence[str],
    output: str | Path,
    form: str = "jsonl",
    boxes: int | None = None,
    maps: bool = False,
    options: ShardOptions | None = None,
) -> ShardProgress:
    """Grounds phrases in the photos of tar files. The answers about a tar are one file in ``output``.

    Args:
        grounder: answers the phrases.
        shards: the tar files.
        phrases: what to find in every photo; empty if each photo has its own.
        output: the folder of the answers, which all processes see. It also gets ``skipped.jsonl``, the photos of all
            shards that were skipped, and for each shard ``ledger-NAME.json``, the counts.
        form: ``jsonl`` or ``parquet``.
        boxes: the largest number of boxes of a phrase; None for 10.
        maps: whether to write ``maps-NAME.tar`` too, with the maps of each photo as npz, on the grid of its proposals.
        options: see :class:`ShardOptions`.

    Returns:
        What became of the shards.

    Raises:
        InputError: there is no phrase, both phrases and a field are given, the folder has other answers, or an extra is
            not installed.
        SkippedError: photos were skipped or shards could not be read; all others are done.
    """
    folder, progress = _share(grounder, shards, phrases, output, form, boxes, maps, options or ShardOptions())
    _report(progress, folder)
    return progress


def ground_shard(
    grounder: Grounder,
    shard: InputShard,
    phrases: Sequence[str],
    output: str | Path,
    form: str = "jsonl",
    boxes: int | None = None,
    maps: bool = False,
    options: ShardOptions | None = None,
) -> str:
    """Grounds phrases in the photos of one tar file: a task for a scheduler such as Dask (``docs/scale.md``).

    The scheduler may run a task twice, also at the same time: the lease of the tar lets one process work, and what is
    done is kept. When all tasks have ended, ``ground_shards`` with all tars writes the list of what was skipped.

    Args:
        grounder: see :func:`ground_shards`.
        shard: the tar file.
        phrases: see :func:`ground_shards`.
        output: see :func:`ground_shards`; the same folder for all tasks.
        form: see :func:`ground_shards`.
        boxes: see :func:`ground_shards`.
        maps: see :func:`ground_shards`.
        options: see :class:`ShardOptions`; ``workers=0`` to answer in this process.

    Returns:
        The counts of its photos: ``1,000 photos: 998 kept, 2 unreadable``.

    Raises:
        InputError: the tar cannot be fetched or read, or see :func:`ground_shards`.
    """
    folder, progress = _share(grounder, [shard], phrases, output, form, boxes, maps, options or ShardOptions())
    if progress.failed:
        raise UnreadableShardError(progress.failed[shard.name])
    return folder.ledger(progress.done, CURE).line()


def _share(
    grounder: Grounder,
    shards: Sequence[InputShard],
    phrases: Sequence[str],
    output: str | Path,
    form: str,
    boxes: int | None,
    maps: bool,
    options: ShardOptions,
) -> tuple[OutputFolder, ShardProgress]:
    """Answers about the tars that are left, together with other processes."""
    check_installed()
    phrases = _check_phrases(phrases, options, grounder.tagger.vocabulary)
    suffix, write = WRITERS[_check_format(form)]
    cache = ShardCache(options.fetch)
    size, workers = batch_size(options.batch, grounder.topdown, options.workers), options.workers
    if workers is None:
        workers = 0 if size > 1 or grounder.topdown.together else fitting_workers(cores())
    question = ShardQuestion(grounder, tuple(phrases), options.field, options.tags, boxes or BOXES, maps)
    folder = OutputFolder(output, "groundings", suffix, _identity(question))
    ready = partial(rehearse, grounder.ground, question.phrases or [grounder.tagger.vocabulary[0]])
    with ONE_RUN, worker_pool(workers, _begin, question, rehearse=ready) as pool:
        answer: Answer = partial(in_order, pool, _answer, ahead=workers * AHEAD)
        if size > 1:
            answer = partial(answer_together, _work, size=size)

        def work(shard: InputShard, check: Callable[[], None]) -> None:
            try:
                with _readable(shard, cache) as photos:
                    _ground_shard(shard, photos, folder, write, answer, check)
            except OSError as error:
                raise InputError(f"{folder.folder} cannot be written: {error.strerror or error}") from error

        def tidy(shard: InputShard) -> None:
            folder.part(shard.name, shard.address).remove()

        return folder, share_shards(shards, folder.folder, options.lease, folder.done, work, tidy)


def _ground_shard(
    shard: InputShard,
    photos: Iterator[TarPhoto],
    folder: OutputFolder,
    write: Writer,
    answer: Answer,
    check: Callable[[], None],
) -> None:
    with closing(folder.part(shard.name, shard.address)) as part:
        for _, result in answer(islice(photos, part.done, None)):
            check()
            part.add(result)
        if part.maps.is_dir():
            _pack_maps(part, folder.folder / f"maps-{shard.name}.tar")
        folder.finish(part, write)


@contextmanager
def _readable(shard: InputShard, cache: ShardCache) -> Iterator[Iterator[TarPhoto]]:
    with ExitStack() as stack:
        try:
            path = stack.enter_context(cache.local(shard.address))
        except InputError as error:
            raise UnreadableShardError(str(error)) from error
        yield _photos(path, shard)


def _photos(path: Path, shard: InputShard) -> Iterator[TarPhoto]:
    try:
        yield from read_shard(path, f"{shard.name}.tar")
    except (InputError, OSError) as error:
        raise UnreadableShardError(str(error)) from error


def _pack_maps(part: ShardPart, path: Path) -> None:
    """Packs the maps of a shard into a tar, which webdataset reads."""
    from webdataset import TarWriter

    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        TarWriter(file, mtime=0, format="PAX_FORMAT") as tar,  # the same bytes each time
    ):
        for number, record in part.records():
            tar.write({"__key__": record["image"], "npz": (part.maps / f"{number:09d}").read_bytes()})


def _check_phrases(phrases: Sequence[str], options: ShardOptions, vocabulary: Vocabulary) -> list[str]:
    given = {"phrases=": bool(phrases), "step.shards.field=": options.field, "step.shards.tags=": options.tags}
    asked = [name for name, value in given.items() if value]
    if not asked:
        raise InputError(
            "no phrase to ground: set phrases= for all photos, step.shards.field=caption for those of each photo, or "
            "step.shards.tags=10 for its most probable tags"
        )
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} are given: give one of them")
    return [Phrase.parse(text, vocabulary).text for text in phrases]


def _check_format(form: str) -> str:
    if form == "json":  # the default of the command line
        return "jsonl"
    if form not in WRITERS:
        raise InputError(f"format={form} is not written for tar files: choose {' or '.join(WRITERS)}")
    if form == "parquet":
        check_pyarrow()
    return form


def _identity(question: ShardQuestion) -> dict[str, object]:
    """What the answers depend on, except for the photos."""
    grounder = question.grounder
    return {
        "grounding": VERSION,
        "tagger": grounder.tagger.digest(),
        "settings": asdict(grounder.settings),
        "target": grounder.target,
        "proposer": settings_of(grounder.proposer),
        "phrases": question.phrases,
        "field": question.field,
        "tags": question.tags,
        "boxes": question.boxes,
        "maps": question.maps,
    }


def _report(progress: ShardProgress, folder: OutputFolder) -> None:
    """Writes the list of what was skipped in all shards, and prints the counts."""
    rank, world = rank_of()
    if rank:  # the first rank waits for the others, so it sees all shards
        return
    ledger = folder.ledger(progress.done, CURE)
    for name, reason in progress.failed.items():
        ledger.came_in(name)
        ledger.skip(name, "unreadable shards", reason)
    ledger.check()
    ledger.write(folder.folder / SKIPPED)
    ledger.require_kept()
    listed = f"; see {folder.folder / SKIPPED}" if ledger.reasons else ""
    line = f"{len(progress.done):,} shards, {ledger.line()}{listed}"
    if ledger.reasons and world == 1:  # a launcher would stop the other ranks
        raise SkippedError(line)
    print(f"{line}; answers: {folder.folder}")


_work: ShardWork  # of a worker process


def _begin(question: ShardQuestion) -> None:
    """Runs at the start of a worker."""
    global _work
    use_one_thread(question.grounder.proposer)  # so the answers do not depend on the number of workers
    _work = ShardWork(question)


def _answer(photo: TarPhoto) -> PhotoResult:
    return _work.alone(photo)

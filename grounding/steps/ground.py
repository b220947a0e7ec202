"""The step ``ground``: finds phrases in images, and writes boxes and overlays."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

from grounding.answers import ABSENT, Answers, Grounding
from grounding.batch.images import GroundingBatch
from grounding.batch.together import check_batch
from grounding.exports import FORMATS, Format, write_map
from grounding.grounder import Grounder
from grounding.photos import MAX_BYTES, UNREAD_FORMAT, PhotoList, find_photos
from grounding.runtime.ledger import SKIPPED, Ledger
from grounding.runtime.ranks import cores
from grounding.runtime.terminal import columns as width
from grounding.runtime.terminal import in_one_line
from grounding.runtime.workers import fitting_workers
from grounding.shards.addresses import find_shards
from grounding.steps.ground_shards import ShardOptions, ground_shards
from grounding.steps.pictures import PictureWriter, check_pictures, file_name
from grounding.text.phrases import read_phrases
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError, SkippedError

STDIN = "-"
PHOTOS_PER_WORKER = 8  # at least, because it takes seconds to make the workers ready
NAMED = 5  # largest number of phrases without a known word that are listed


def ground(
    grounder: Grounder,
    image: str | Sequence[str] | None,
    phrases: str | Sequence[str],
    output: str,
    form: str = "json",
    boxes: int | None = None,
    pictures: str | None = "png",
    maps: bool = False,
    workers: int | None = None,
    batch: int | None = None,
    shards: ShardOptions | None = None,
) -> None:
    """Grounds phrases in images, and writes one file with all answers and an overlay of each groundable one.

    The answers about a single image are printed as a table. Of many images, those that cannot be used are skipped, and
    each image has its own folder of overlays. ``skipped.jsonl`` lists them, and the files of a folder that are hidden
    or no photos. Answers that are probably not in their photo are drawn, too, and their pictures say so.

    Args:
        grounder: answers the phrases.
        image: a file, a folder, a pattern such as ``*.jpg``, or "-" for the standard input; or a list
            of files, folders and patterns. Or tar files of photos, see ``grounding.shards.addresses.find_shards`` and
            ``grounding.steps.ground_shards``.
        phrases: what to find, or a text file with one phrase per line.
        output: the folder to write to.
        form: the format of the answers, a name in ``grounding.exports.FORMATS``.
        boxes: the largest number of boxes of a phrase; None for the default of the format.
        pictures: the format of the overlays, "png" or "svg"; "one" for one picture of all phrases of a photo, and
            contact sheets of many photos; None for no pictures.
        maps: whether to write each heat map as ``.npy``.
        workers: the number of processes that answer about many images; 0 for this process; None for one per core, if
            there are ``PHOTOS_PER_WORKER`` images for each, they fit into the free memory, no GPU is used, and no batch
            is set.
        batch: the largest number of images that go through the network together, see ``Grounder.ground_batch``; of tar
            files, ``shards`` has it.
        shards: how to work on tar files.

    Raises:
        InputError: there is no image or no image that can be read, there is no phrase, a phrase is empty, a format is
            unknown, or cannot hold the names of the images.
        SkippedError: some images were skipped, or are in a format that is not read; all others are done.
    """
    if not image:
        raise InputError("no image: set image=PHOTO, image=FOLDER, or image=- for the standard input")
    if (tars := find_shards(image)) is not None:
        if batch is not None or workers is not None:
            raise InputError("image= has tar files: set step.shards.batch= or step.shards.workers= for them")
        _check("jsonl", boxes, None)
        texts = read_phrases(phrases) if phrases else []
        ground_shards(grounder, tars, texts, output, form, boxes, maps, shards)
        return
    _check(form, boxes, pictures)
    check_batch(batch)
    source, texts, shape = (
        find_photos(image if isinstance(image, list) else str(image)),
        read_phrases(phrases),
        FORMATS[form],
    )
    if shape.check and source.many:
        shape.check(map(source.name, source.paths))
    ledger, found = source.left_out, None
    if source.many:
        if workers is None:
            workers = _workers(grounder, len(source.paths)) if batch in (None, 1) else 0
        found = grounder.ground_batch(
            source.paths, texts, keep_images=pictures is not None, workers=workers, batch=batch
        )
    answers = (
        _answer_one(grounder, source.paths[0], texts) if found is None else _answer_many(found, ledger, Path(output))
    )
    drawn = _draw(answers, source, Path(output), shape, pictures, maps)
    counts, unknown = Counter[str](), dict[str, None]()
    shape.write(Path(output, shape.file), _count(drawn, counts, unknown), boxes or shape.boxes)
    if counts["absent"] and (source.many or shape.omits_absent):
        print(f"\n{_absent_line(counts['absent'], shape)}")
    if unknown:
        print(f"\n{unknown_line([*unknown], grounder.tagger.vocabulary)}")
    listed = f"; see {Path(output, SKIPPED)}" if ledger.reasons else ""
    if found is not None and (found.ledger.reasons or ledger.reasons[UNREAD_FORMAT]):
        raise SkippedError(f"{ledger.line()}{listed}")
    print(f"\n{'' if found is None else f'{ledger.line()}{listed}; '}boxes and overlays: {output}")


def _check(form: str, boxes: int | None, pictures: str | None) -> None:
    if form not in FORMATS:
        raise InputError(f"there is no format {form!r}; choose one of {', '.join(FORMATS)}")
    check_pictures(pictures)
    if boxes is not None and (not isinstance(boxes, int) or boxes < 1):
        raise InputError(f"boxes={boxes} must be a whole number, 1 or more: it is the number of boxes of a phrase")


def _workers(grounder: Grounder, images: int) -> int:
    """The number of workers that save time and fit into the memory; 0 for none."""
    count = fitting_workers(min(cores(), images // PHOTOS_PER_WORKER))
    return count if next(grounder.tagger.parameters()).device.type == "cpu" else 0


def _answer_one(grounder: Grounder, path: str, phrases: Sequence[str]) -> Iterator[Answers]:
    """Yields the answers about one image, after printing them as a table."""
    groundings = grounder.ground(_standard_input() if path == STDIN else path, phrases)
    print(table(groundings))
    yield Answers(path, groundings[0].size, groundings)


def _standard_input() -> BytesIO:
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""  # None if it is closed
    if len(data) > MAX_BYTES:
        raise InputError(f"the standard input has more than {MAX_BYTES} bytes; make the image smaller")
    return BytesIO(data)


def _answer_many(batch: GroundingBatch, ledger: Ledger, output: Path) -> Iterator[Answers]:
    """Yields the answers about many images, then lists in the ledger those that were skipped.

    Raises:
        InputError: no image can be used.
    """
    yield from batch
    ledger.merge(batch.ledger)
    ledger.check()
    ledger.write(output / SKIPPED)
    ledger.require_kept()


def _count(batch: Iterable[Answers], counts: Counter[str], unknown: dict[str, None]) -> Iterator[Answers]:
    """Yields the answers, counts in ``counts["absent"]`` the phrases that are probably not in their photo, and collects
    in ``unknown`` the phrases without a known word.
    """
    for answers in batch:
        unknown.update(dict.fromkeys(answer.phrase.text for answer in answers.groundings if not answer.groundable))
        counts["absent"] += len({answer.phrase.text for answer in answers.groundings if answer.absent})
        yield answers


def unknown_line(phrases: Sequence[str], vocabulary: Vocabulary) -> str:
    """Says which phrases have no known word, and which words are known.

    Args:
        phrases: the phrases, at least one.
        vocabulary: the tags that are known.
    """
    listed = ", ".join(repr(in_one_line(phrase)) for phrase in phrases[:NAMED])
    more = f" and {len(phrases) - NAMED} more" if len(phrases) > NAMED else ""
    known = f"{len(vocabulary):,} words, such as {', '.join(vocabulary.tags[:3])}"
    return f"no word of {listed}{more} is known: the tagger has {known}; write in the language of these words"


def _absent_line(count: int, form: Format) -> str:
    line, them = ("1 answer is", "it") if count == 1 else (f"{count} answers are", "them")
    omitted = f"; {form.file} has no boxes for {them} (presence=0 keeps the boxes)" if form.omits_absent else ""
    return f"{line} probably not in the photo{omitted}"


def _draw(
    batch: Iterable[Answers], source: PhotoList, output: Path, form: Format, pictures: str | None, maps: bool
) -> Iterator[Answers]:
    """Writes the overlays and maps of answers, and yields the answers, named as their format requires."""
    writer = PictureWriter(output, pictures, source.many)
    for answers in batch:
        name = source.name(answers.image)
        folder = output / name if source.many else output
        writer.write(name, answers, folder)
        for number, answer in enumerate(answers.groundings, 1):
            if answer.groundable and maps:
                write_map(folder / f"{file_name(number, answer)}.npy", answer)
        yield answers._replace(image=name) if form.relative else answers
    writer.close()


def table(answers: Sequence[Grounding]) -> str:
    """Formats answers as a table.

    Args:
        answers: the answers about one image.

    Returns:
        A heading, then one line for each phrase: its best box, its score, its presence, how its words were read, and
        the words that no tag covers. Presence and readings have no column if no answer has them.
    """
    columns = {
        "phrase": [in_one_line(answer.phrase.text) for answer in answers],
        "box (x1 y1 x2 y2)": [_best_box(answer) for answer in answers],
        "score": [f"{answer.scores[0]:.3f}" if answer.groundable else "-" for answer in answers],
        "presence": [_presence(answer) for answer in answers],
        "read as": [answer.phrase.read_as or "-" for answer in answers],
        "skipped words": [in_one_line(", ".join(answer.phrase.skipped)) or "-" for answer in answers],
    }
    for name in ("presence", "read as"):
        if set(columns[name]) == {"-"}:
            del columns[name]
    widths = [max(map(width, [name, *cells])) for name, cells in columns.items()]
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    filled = [[cell + " " * (w - width(cell)) for cell, w in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in filled)


def _best_box(answer: Grounding) -> str:
    return " ".join(f"{side:.0f}" for side in answer.boxes[0]) if answer.groundable else "not groundable"


def _presence(answer: Grounding) -> str:
    if answer.presence is None:
        return "-"
    return f"{answer.presence:.2f}: {ABSENT}" if answer.absent else f"{answer.presence:.2f}"

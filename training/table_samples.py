"""The samples of a table or of captions: the rows of one photo are joined, wherever they stand."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from grounding.photos import PhotoFile
from grounding.text.captions import read_captions
from training.grouping import grouped
from training.photo_finder import PhotoFinder
from training.sample_text import SampleText
from training.samples import MISSING_TEXT, SourceSample
from training.table_readers import photo_path, read_table

BROKEN = "\0"  # begins the key of a row without a photo; no path contains it

_Row = tuple[str, Any]  # key; the path of the photo, its tags and captions, or why the row has none


def table_samples(path: Path, photos: Path) -> Iterator[SourceSample]:
    """The samples of a table, in the order of the first row of each photo.

    Args:
        path: the table.
        photos: the folder of the photos. The paths may also be relative to the folder of the table.

    Yields:
        A sample for each photo, and for each row without one.

    Raises:
        InputError: the table cannot be read, or none of its first photos exists.
    """
    yield from _samples(_table_rows(path), PhotoFinder([photos, path.parent], path))


def caption_samples(path: Path, photos: Path) -> Iterator[SourceSample]:
    """The samples of COCO captions, in the order of the first caption of each photo.

    Args:
        path: the captions.
        photos: the folder of the photos.

    Yields:
        A sample for each photo.

    Raises:
        InputError: the captions cannot be read, or none of the first photos exists.
    """
    rows = ((caption.image, SampleText.of({"caption": caption.text})) for caption in read_captions(path))
    yield from _samples(((_stem(image), [image, *text]) for image, text in rows), PhotoFinder([photos], path))


def _table_rows(path: Path) -> Iterator[_Row]:
    for number, row in enumerate(read_table(path)):
        image = None if isinstance(row, str) else photo_path(row)
        if isinstance(row, str) or image is None:
            yield f"{BROKEN}{number}", row if isinstance(row, str) else "without a path"
        else:
            yield _stem(image), [image, *SampleText.of(row)]


def _stem(image: str) -> str:
    """The path of a photo without its suffix."""
    place = PurePosixPath(image)
    return place.with_suffix("").as_posix() if place.name else image


def _samples(rows: Iterator[_Row], finder: PhotoFinder) -> Iterator[SourceSample]:
    """Photos that differ only in their suffix are in one group; the first has the key of the group."""
    for key, values in finder.decide(grouped(rows), _first_photo):
        if key.startswith(BROKEN):
            yield SourceSample("", None, reason=values[0])
            continue
        texts: dict[str, list[SampleText]] = {}
        for image, tags, captions in values:
            place = PurePosixPath(image).as_posix()
            texts.setdefault(place, []).append(SampleText(tuple(tags), tuple(captions)))
        for number, (image, found) in enumerate(texts.items()):
            yield _sample(finder(image), finder.folder, number > 0, _merge(found))


def _first_photo(group: tuple[str, list[Any]]) -> str:
    return "" if group[0].startswith(BROKEN) else group[1][0][0]


def _merge(texts: list[SampleText]) -> SampleText:
    return SampleText(*(tuple(line for text in texts for line in text[kind]) for kind in range(2)))


def _sample(path: Path, photos: Path, again: bool, text: SampleText) -> SourceSample:
    """The sample of a photo; its key is the path without the suffix, or with it if it occurs again."""
    place = PurePosixPath((path.relative_to(photos) if path.is_relative_to(photos) else path).as_posix())
    key = place.with_suffix("").as_posix() if place.name else str(place)
    key = f"{key}//{place.suffix}" if again else key  # no other key has //
    return SourceSample(key, PhotoFile(path.stem, str(path)), text, "" if any(text) else MISSING_TEXT)

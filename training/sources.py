"""Sources: photos with tags or captions, divided into units of work.

A source is one of

- a tar file, or a folder of them (WebDataset, as img2dataset writes it): ``KEY.jpg`` with ``KEY.json`` or ``KEY.txt``;
- a table (CSV, JSON lines or Parquet) of paths and tags or captions;
- COCO captions and the folder of their photos;
- Flickr30k Entities: ``Sentences/ID.txt`` and ``images/ID.jpg``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from grounding.photos import SUFFIXES, PhotoFile
from grounding.text.captions import read_captions
from grounding.text.markup import plain_sentence
from proposals.errors import InputError
from proposals.shards import members
from training.sample_text import SampleText
from training.table_readers import READERS, parse_object, photo_path, read_table

MAX_TEXT = 1 << 20  # bytes of a sample's JSON or text
KINDS = "a folder of .tar files, a table (.csv, .jsonl, .parquet), COCO captions (.json) or a folder with Sentences/"
DAMAGED = "damaged tar"


class SourceSample(NamedTuple):
    """A photo and its text.

    Attributes:
        key: name of the sample, unique in its unit.
        photo: where the bytes of the photo are; None if it has none.
        text: tags or captions.
        reason: why the sample cannot be used: the kind of reason, or the kind, a colon and details. "" if it can.
    """

    key: str
    photo: PhotoFile | None
    text: SampleText = SampleText()
    reason: str = ""


@dataclass(frozen=True)
class WorkUnit:
    """Samples that are processed together, and whose photos are in the same shards.

    Attributes:
        number: number of the unit, from 0.
        source: name of the file that the samples come from.
        tar: the tar with the samples, or None.
        listed: the samples, if there is no tar.
    """

    number: int
    source: str
    tar: Path | None = None
    listed: tuple[SourceSample, ...] = ()

    def samples(self) -> Iterator[SourceSample]:
        """The samples in order.

        If two samples have the same key, the second gets a reason. If the tar is damaged, the last sample describes the
        damage; the samples before it are complete.
        """
        seen: set[str] = set()
        for sample in self.listed if self.tar is None else _tar_samples(self.tar):
            if sample.reason:
                yield sample
            elif sample.key in seen:
                yield sample._replace(reason="second sample of this key")
            else:
                seen.add(sample.key)
                yield sample


@dataclass(frozen=True)
class Source:
    """The input of ``step=shards``.

    Attributes:
        files: the files to read: tars, a table or captions.
        size: samples per unit, for files that are not tar files.
        rows: reads the samples of files that are not tar files; None for tar files.
    """

    files: tuple[Path, ...]
    size: int
    rows: Callable[[], Iterator[SourceSample]] | None = None

    def units(self) -> Iterator[WorkUnit]:
        """The units in order, in constant memory.

        Raises:
            InputError: the table or the captions cannot be read.
        """
        if self.rows is None:
            yield from (WorkUnit(number, tar.name, tar) for number, tar in enumerate(self.files))
            return
        rows, number = self.rows(), 0
        name = self.files[0].parent.name if len(self.files) > 1 else self.files[0].name
        while part := tuple(islice(rows, self.size)):
            yield WorkUnit(number, name, None, part)
            number += 1

    def identity(self) -> dict[str, Any]:
        """Values by which sources can be distinguished.

        Returns:
            The number of files, the name of the first, and a digest of all names and sizes.

        Raises:
            InputError: a file is missing.
        """
        digest = sha256()
        for path in self.files:
            try:
                digest.update(f"{path.name}\t{path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        return {"files": len(self.files), "first": self.files[0].name, "source": digest.hexdigest()}


def find_source(images: str | Path, captions: str | Path | None = None, size: int = 10_000) -> Source:
    """Opens a source, see the top of this file.

    Args:
        images: a tar or a folder of them, a table, a folder of photos, or the folder of Flickr30k Entities.
        captions: a table, COCO captions, or a folder of Flickr30k Entities sentences. None if ``images`` has the texts.
        size: samples per unit, for a source that is not tar files.

    Returns:
        The source.

    Raises:
        InputError: a file or folder does not exist, or is of an unknown kind.
    """
    images = Path(images)
    for path in (images, *([] if captions is None else [Path(captions)])):
        if not path.exists():
            raise InputError(f"{path} does not exist: give {KINDS}")
    if captions is None:
        return _find_alone(images, size)
    captions = Path(captions)
    if captions.suffix.lower() in READERS:
        return Source((captions,), size, lambda: _table_samples(captions, images))
    if captions.is_dir():
        return _entities(captions, images / "images" if (images / "images").is_dir() else images, size)
    if captions.suffix.lower() == ".json":
        return Source((captions,), size, lambda: _coco_samples(captions, images))
    raise InputError(f"captions={captions} is of an unknown kind: give {KINDS}")


def _find_alone(images: Path, size: int) -> Source:
    if images.is_file() and images.suffix.lower() in READERS:
        return Source((images,), size, lambda: _table_samples(images, images.parent))
    if images.is_file() and images.suffix.lower() == ".tar":
        return Source((images,), size)
    if (images / "Sentences").is_dir():
        return _entities(images / "Sentences", images / "images", size)
    tars = tuple(sorted(images.glob("*.tar")))
    if not tars:
        raise InputError(f"images={images} has photos without texts: give {KINDS}, or set captions= as well")
    return Source(tars, size)


def _entities(sentences: Path, photos: Path, size: int) -> Source:
    folder = sentences / "Sentences" if (sentences / "Sentences").is_dir() else sentences
    files = tuple(sorted(folder.glob("*.txt")))
    if not files:
        raise InputError(f"{folder} has no .txt files: give a folder of Flickr30k Entities sentences")
    return Source(files, size, lambda: _entities_samples(folder, photos))


def _entities_samples(sentences: Path, photos: Path) -> Iterator[SourceSample]:
    for image, found in groupby(read_captions(sentences), lambda caption: caption.image):
        text = SampleText(captions=tuple(plain_sentence(caption.text) for caption in found))
        yield SourceSample(image, PhotoFile(image, str(photos / f"{image}.jpg")), text)


def _coco_samples(path: Path, photos: Path) -> Iterator[SourceSample]:
    captions: dict[str, list[str]] = {}
    for caption in read_captions(path):
        captions.setdefault(caption.image, []).append(caption.text)
    for image, found in captions.items():
        yield _sample_of_path(image, photos, SampleText(captions=tuple(found)))


def _table_samples(path: Path, photos: Path) -> Iterator[SourceSample]:
    """The samples of a table; consecutive rows with the same photo are one sample."""
    base = None
    for image, rows in groupby(enumerate(read_table(path)), lambda row: photo_path(row[1]) or row[0]):
        if isinstance(image, int):
            row = next(rows)[1]
            yield SourceSample("", None, reason=row if isinstance(row, str) else "no path")
        else:
            base = base or (path.parent if _is_beside(image, path, photos) else photos)
            yield _sample_of_path(image, base, _merge([SampleText.of(row) for _, row in rows]))


def _is_beside(image: str, table: Path, photos: Path) -> bool:
    """Whether a table's paths are relative to its own folder, decided by the first path."""
    return not (photos / image).exists() and (table.parent / image).exists()


def _merge(texts: list[SampleText]) -> SampleText:
    return SampleText(*(tuple(line for text in texts for line in text[kind]) for kind in range(2)))


def _sample_of_path(image: str, photos: Path, text: SampleText) -> SourceSample:
    """The sample of a photo that is listed by its path; its key is the path without the suffix."""
    path = photos / image
    inside = path.relative_to(photos) if path.is_relative_to(photos) else path
    key = PurePosixPath(inside.as_posix()).with_suffix("").as_posix()
    return SourceSample(key, PhotoFile(path.stem, str(path)), text, "" if any(text) else "no tags or captions")


def _tar_samples(path: Path) -> Iterator[SourceSample]:
    for key, parts in groupby(_tar_files(path), lambda part: part[0]):
        found: dict[str, PhotoFile] = {}
        for _, suffix, part in parts:
            if isinstance(part, str):
                yield SourceSample(key, None, reason=part)
            elif suffix in (".json", ".txt") or (suffix in SUFFIXES and not found.keys() & SUFFIXES):
                found[suffix] = part
        if found:
            yield _sample_of_files(key, found)


def _tar_files(path: Path) -> Iterator[tuple[str, str, PhotoFile | str]]:
    """Key, suffix and place of each file in a tar; at the end a description of the damage, if there is any."""
    try:
        for member in members(path):
            # as in WebDataset, the suffix begins at the first dot
            stem, dot, suffix = PurePosixPath(member.name).name.partition(".")
            if stem:
                key = PurePosixPath(member.name).with_name(stem).as_posix()
                yield key, (dot + suffix).lower(), PhotoFile(key, str(path), member.offset_data, member.size)
    except InputError as error:
        yield "", "", f"{DAMAGED}: {str(error).removeprefix(f'{path} is ')}; the files before it are kept"


def _sample_of_files(key: str, files: dict[str, PhotoFile]) -> SourceSample:
    photo = next((files[suffix] for suffix in files if suffix in SUFFIXES), None)
    if photo is None:
        return SourceSample(key, None, reason="no photo")
    try:
        text = _read_json(files[".json"]) if ".json" in files else SampleText()
        if not any(text) and ".txt" in files:
            text = SampleText.of({"caption": _read(files[".txt"]).decode("utf-8-sig", "replace")})
    except InputError as error:
        return SourceSample(key, photo, reason=str(error))
    return SourceSample(key, photo, text, "" if any(text) else "no tags or captions")


def _read_json(file: PhotoFile) -> SampleText:
    found = parse_object(_read(file), "JSON")
    if isinstance(found, str):
        raise InputError(found)
    return SampleText.of(found)


def _read(file: PhotoFile) -> bytes:
    if file.size > MAX_TEXT:
        raise InputError(f"text too long: {file.size} bytes")
    return read_photo(file)


def read_photo(file: PhotoFile) -> bytes:
    """Reads the bytes of a photo or a text.

    Args:
        file: where it is.

    Returns:
        The bytes.

    Raises:
        InputError: the file cannot be read. The message does not contain its path, so that it is the same on every
            machine.
    """
    try:
        return file.read()
    except InputError as error:
        raise InputError(f"unreadable file: {str(error).removeprefix(f'{file} ')}") from error
    except ValueError as error:  # a path that no system accepts
        raise InputError("unreadable file: invalid name") from error

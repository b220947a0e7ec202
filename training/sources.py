"""Sources: photos and their texts, wherever they lie, cut into units that are worked on apart.

- a folder of tar files (WebDataset, as img2dataset writes them), or one: ``KEY.jpg`` with ``KEY.json`` or ``KEY.txt``;
- a table, CSV, JSON lines or Parquet, of paths and tags or captions;
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
from training.tables import READERS, parse_object, path_of, read_table
from training.text import Text

MAX_TEXT = 1 << 20  # bytes of a sample's JSON or text
KINDS = "a folder of .tar files, a table (.csv, .jsonl, .parquet), COCO captions (.json) or a folder with Sentences/"
DAMAGED = "damaged tar"


class Sample(NamedTuple):
    """A photo and its text.

    Attributes:
        key: its name, unique in its unit; photo: where its bytes are.
        reason: why it cannot be used, empty where it can: the kind, or the kind, a colon, and the details.
    """

    key: str
    photo: PhotoFile | None
    text: Text = Text()
    reason: str = ""


@dataclass(frozen=True)
class Unit:
    """Samples that are worked on together.

    Attributes:
        number: from 0; source: the name of the file that they come from.
        tar: where they are, or None; listed: the samples themselves, where there is no tar.
    """

    number: int
    source: str
    tar: Path | None = None
    listed: tuple[Sample, ...] = ()

    def samples(self) -> Iterator[Sample]:
        """The samples in order; of two with one key the second has a reason.

        The last sample of a damaged tar tells of the damage; those before it are whole.
        """
        seen: set[str] = set()
        for sample in self.listed if self.tar is None else _of_tar(self.tar):
            if sample.reason:
                yield sample
            elif sample.key in seen:
                yield sample._replace(reason="second sample of this key")
            else:
                seen.add(sample.key)
                yield sample


@dataclass(frozen=True)
class Source:
    """What there is to make shards of.

    Attributes:
        files: whose samples are read: tars, a table, ...; size: samples in a unit where the files are no tars.
        rows: gives the samples of files that are no tars.
    """

    files: tuple[Path, ...]
    size: int
    rows: Callable[[], Iterator[Sample]] | None = None

    def units(self) -> Iterator[Unit]:
        """The units in order, in constant memory.

        Raises:
            InputError: a table or the captions cannot be read.
        """
        if self.rows is None:
            yield from (Unit(number, tar.name, tar) for number, tar in enumerate(self.files))
            return
        rows, number = self.rows(), 0
        name = self.files[0].parent.name if len(self.files) > 1 else self.files[0].name
        while part := tuple(islice(rows, self.size)):
            yield Unit(number, name, None, part)
            number += 1

    def identity(self) -> dict[str, Any]:
        """Tells sources apart: how many files, the name of the first, and a digest of all names and sizes.

        Raises:
            InputError: a file is gone.
        """
        digest = sha256()
        for path in self.files:
            try:
                digest.update(f"{path.name}\t{path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        return {"files": len(self.files), "first": self.files[0].name, "source": digest.hexdigest()}


def find_source(images: str | Path, captions: str | Path | None = None, size: int = 10_000) -> Source:
    """What lies at ``images`` and ``captions``; see the head of this file.

    Args:
        images: tars, a table, a folder of photos, or the folder of Entities.
        captions: a table, COCO captions, or a folder of Entities sentences; None where ``images`` has the texts, too.
        size: samples in a unit, where the source is no tars.

    Raises:
        InputError: there is no such file or folder, or it is of no kind that is known.
    """
    images = Path(images)
    for path in (images, *([] if captions is None else [Path(captions)])):
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder; name {KINDS}")
    if captions is None:
        return _find_alone(images, size)
    captions = Path(captions)
    if captions.suffix.lower() in READERS:
        return Source((captions,), size, lambda: _of_table(captions, images))
    if captions.is_dir():
        return _entities(captions, images / "images" if (images / "images").is_dir() else images, size)
    if captions.suffix.lower() == ".json":
        return Source((captions,), size, lambda: _of_coco(captions, images))
    raise InputError(f"{captions} is of no kind that is known: name {KINDS}")


def _find_alone(images: Path, size: int) -> Source:
    if images.is_file() and images.suffix.lower() in READERS:
        return Source((images,), size, lambda: _of_table(images, images.parent))
    if images.is_file() and images.suffix.lower() == ".tar":
        return Source((images,), size)
    if (images / "Sentences").is_dir():
        return _entities(images / "Sentences", images / "images", size)
    tars = tuple(sorted(images.glob("*.tar")))
    if not tars:
        raise InputError(f"{images} has no texts beside photos: name {KINDS}, or set captions= beside images=")
    return Source(tars, size)


def _entities(sentences: Path, photos: Path, size: int) -> Source:
    folder = sentences / "Sentences" if (sentences / "Sentences").is_dir() else sentences
    files = tuple(sorted(folder.glob("*.txt")))
    if not files:
        raise InputError(f"{folder} holds no .txt file: name a folder of Flickr30k Entities sentences")
    return Source(files, size, lambda: _of_entities(folder, photos))


def _of_entities(sentences: Path, photos: Path) -> Iterator[Sample]:
    for image, found in groupby(read_captions(sentences), lambda caption: caption.image):
        text = Text(captions=tuple(plain_sentence(caption.text) for caption in found))
        yield Sample(image, PhotoFile(image, str(photos / f"{image}.jpg")), text)


def _of_coco(path: Path, photos: Path) -> Iterator[Sample]:
    captions: dict[str, list[str]] = {}
    for caption in read_captions(path):
        captions.setdefault(caption.image, []).append(caption.text)
    for image, found in captions.items():
        yield _listed(image, photos, Text(captions=tuple(found)))


def _of_table(path: Path, photos: Path) -> Iterator[Sample]:
    """The rows of a table; those of one photo that follow one another are one sample."""
    base = None
    for image, rows in groupby(enumerate(read_table(path)), lambda row: path_of(row[1]) or row[0]):
        if isinstance(image, int):
            row = next(rows)[1]
            yield Sample("", None, reason=row if isinstance(row, str) else "no path")
        else:
            base = base or (path.parent if _is_beside(image, path, photos) else photos)
            yield _listed(image, base, _joined([Text.of(row) for _, row in rows]))


def _is_beside(image: str, table: Path, photos: Path) -> bool:
    """Whether a table's paths are relative to its own folder, as its first one shows."""
    return not (photos / image).exists() and (table.parent / image).exists()


def _joined(texts: list[Text]) -> Text:
    return Text(*(tuple(line for text in texts for line in text[kind]) for kind in range(2)))


def _listed(image: str, photos: Path, text: Text) -> Sample:
    """A photo that a list names by its path; its key is that, without the suffix."""
    path = photos / image
    inside = path.relative_to(photos) if path.is_relative_to(photos) else path
    key = PurePosixPath(inside.as_posix()).with_suffix("").as_posix()
    return Sample(key, PhotoFile(path.stem, str(path)), text, "" if any(text) else "no tags or captions")


def _of_tar(path: Path) -> Iterator[Sample]:
    for key, parts in groupby(_parts(path), lambda part: part[0]):
        found: dict[str, PhotoFile] = {}
        for _, suffix, part in parts:
            if isinstance(part, str):
                yield Sample(key, None, reason=part)
            elif suffix in (".json", ".txt") or (suffix in SUFFIXES and not found.keys() & SUFFIXES):
                found[suffix] = part
        if found:
            yield _packed(key, found)


def _parts(path: Path) -> Iterator[tuple[str, str, PhotoFile | str]]:
    """Key, suffix and place of each file in a tar; at the end, if it is damaged, why."""
    try:
        for member in members(path):
            # as WebDataset cuts names: the suffix begins at the first dot
            stem, dot, suffix = PurePosixPath(member.name).name.partition(".")
            if stem:
                key = PurePosixPath(member.name).with_name(stem).as_posix()
                yield key, (dot + suffix).lower(), PhotoFile(key, str(path), member.offset_data, member.size)
    except InputError as error:
        yield "", "", f"{DAMAGED}: {str(error).removeprefix(f'{path} is ')}; what stands before is kept"


def _packed(key: str, files: dict[str, PhotoFile]) -> Sample:
    photo = next((files[suffix] for suffix in files if suffix in SUFFIXES), None)
    if photo is None:
        return Sample(key, None, reason="no photo")
    try:
        text = _read_json(files[".json"]) if ".json" in files else Text()
        if not any(text) and ".txt" in files:
            text = Text.of({"caption": _read(files[".txt"]).decode("utf-8-sig", "replace")})
    except InputError as error:
        return Sample(key, photo, reason=str(error))
    return Sample(key, photo, text, "" if any(text) else "no tags or captions")


def _read_json(file: PhotoFile) -> Text:
    found = parse_object(_read(file), "JSON")
    if isinstance(found, str):
        raise InputError(found)
    return Text.of(found)


def _read(file: PhotoFile) -> bytes:
    if file.size > MAX_TEXT:
        raise InputError(f"too long a text: {file.size} bytes")
    return read_photo(file)


def read_photo(file: PhotoFile) -> bytes:
    """A file's bytes.

    Raises:
        InputError: it cannot be read; the message does not say where it lies, so that it is the same everywhere.
    """
    try:
        return file.read()
    except InputError as error:
        raise InputError(f"unreadable file: {str(error).removeprefix(f'{file} ')}") from error
    except ValueError as error:  # a path that no system can have
        raise InputError("unreadable file: its name is none") from error

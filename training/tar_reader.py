"""Reads the photos of a WebDataset tar and their texts: each photo gets a text of its own key, or a reason.

As in WebDataset, the key of a file is its path up to the first dot of its name, and files of one key are one sample.
Here they need not be neighbours. If a sample has several photos, such as ``1.a.jpg`` and ``1.b.jpg``, each needs its
own text, ``1.a.txt`` and ``1.b.txt``.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from grounding.photos import SUFFIXES, PhotoFile
from grounding.runtime.ledger import LedgerError
from proposals.errors import InputError
from proposals.shards import members
from training.grouping import grouped
from training.sample_text import SampleText
from training.samples import MISSING_TEXT, SourceSample, read_photo
from training.table_readers import parse_object

TEXTS = (".json", ".txt")
MAX_TEXT = 1 << 20  # bytes of a sample's JSON or text
DAMAGED = "in the damaged part of a tar"
REPEATED = "of a key that repeats"
HIDDEN = "hidden"
META = re.compile("__[^/]*__($|/)")  # names that WebDataset leaves out


class _Member(NamedTuple):
    """A photo or a text in a tar.

    Attributes:
        name: its path in the tar.
        field: what stands between the key and the suffix: ``a`` in ``1.a.jpg``, mostly "".
        suffix: in lower case, with its dot.
        run: number of the group of neighbours that it is in.
        offset: where its bytes begin.
        size: number of its bytes; -1 for a link or a sparse file.
    """

    name: str
    field: str
    suffix: str
    run: int
    offset: int
    size: int

    @property
    def is_photo(self) -> bool:
        return self.suffix in SUFFIXES


def tar_samples(path: Path) -> Iterator[SourceSample]:
    """The samples of a tar, in the order of their first files.

    Args:
        path: an uncompressed tar. It is read twice: first its headers, then the texts.

    Yields:
        A sample for each photo, and for each text without a photo. If the tar is damaged, the last sample describes
        the damage, and the samples before it are complete.

    Raises:
        LedgerError: the number of samples with a photo is not that of the photos in the tar.
    """
    damage: list[str] = []
    for key, found in grouped(_keyed_members(path, damage.append)):
        files = [_Member(*member) for member in found]
        samples = list(_samples_of_key(path, key, files))
        if sum(sample.photo is not None for sample in samples) != sum(file.is_photo for file in files):
            raise LedgerError(
                f"{path} has {len(files)} files of the key {key}, but {len(samples)} samples: report this"
            )
        yield from samples
    if damage:
        yield SourceSample("", None, reason=f"{DAMAGED}: {damage[0]}; the files before it are kept")


def _keyed_members(path: Path, damaged: Callable[[str], None]) -> Iterator[tuple[str, _Member]]:
    """Key and place of each photo and text of a tar."""
    run, last = 0, ""
    try:
        for member in members(path, links=True):
            place = PurePosixPath(member.name)
            # a name that begins with a dot has no key in WebDataset; so the whole name is the key
            hidden = place.name.startswith(".") or META.match(member.name)
            stem, _, rest = (place.name, "", place.suffix[1:]) if hidden else place.name.partition(".")
            field, _, suffix = rest.rpartition(".")
            key = place.with_name(stem).as_posix() if stem else ""
            run, last = run + (key != last), key
            if f".{suffix}".lower() in SUFFIXES or (f".{suffix}".lower() in TEXTS and not hidden):
                size = member.size if member.isreg() and not member.issparse() else -1
                yield key, _Member(member.name, field, f".{suffix}".lower(), run, member.offset_data, size)
    except InputError as error:
        damaged(str(error).removeprefix(f"{path} is "))


def _samples_of_key(path: Path, key: str, files: list[_Member]) -> Iterator[SourceSample]:
    """A sample for each photo of a key; if it has none, a sample without a photo."""
    if PurePosixPath(key).name.startswith(".") or META.match(key):
        yield from _refused(path, key, files, HIDDEN)
        return
    first = [file for file in files if file.run == files[0].run]
    if not _repeats(files):
        first = files
    elif _repeats(first) or {file.is_photo for file in first} != {True, False}:
        first = []  # which text belongs to which photo is not certain
    yield from _samples_of_files(path, key, first)
    yield from _refused(path, key, [file for file in files if file not in first], REPEATED)


def _repeats(files: list[_Member]) -> bool:
    return len({(file.field, file.suffix) for file in files}) < len(files)


def _refused(path: Path, key: str, files: list[_Member], reason: str) -> Iterator[SourceSample]:
    """A sample for each photo; one for all texts, if there are only texts."""
    photos = [file for file in files if file.is_photo]
    for file in photos:
        yield SourceSample(key, _photo(path, key, file), reason=f"{reason}: {file.name}")
    if files and not photos:
        yield SourceSample(key, None, reason=f"{reason}: {files[0].name}")


def _samples_of_files(path: Path, key: str, files: list[_Member]) -> Iterator[SourceSample]:
    photos = [file for file in files if file.is_photo]
    fields = {file.field for file in photos}
    for number, file in enumerate(photos):
        own = [text for text in files if not text.is_photo and text.field == file.field]
        if not own and len(photos) == 1:
            own = [text for text in files if not text.is_photo]
        if file.field in {before.field for before in photos[:number]}:
            yield SourceSample(key, _photo(path, key, file), reason=f"second photos of a sample: {file.name}")
        else:
            name = f"{key}.{file.field}" if file.field and len(fields) > 1 else key
            yield _sample(path, name, file, own)
    if files and not photos:
        yield SourceSample(key, None, reason=f"without a photo: {files[0].name}")


def _sample(path: Path, key: str, file: _Member, texts: list[_Member]) -> SourceSample:
    photo = _photo(path, key, file)
    if file.size < 0:
        return SourceSample(
            key,
            photo,
            reason=f"links or sparse files: {file.name}; pack it with tar --dereference --hard-dereference, without -S",
        )
    try:
        text = _read_texts(path, key, texts)
    except InputError as error:
        return SourceSample(key, photo, reason=str(error))
    return SourceSample(key, photo, text, "" if any(text) else MISSING_TEXT)


def _photo(path: Path, key: str, file: _Member) -> PhotoFile:
    return PhotoFile(key, str(path), file.offset, max(file.size, 0))


def _read_texts(path: Path, key: str, files: list[_Member]) -> SampleText:
    """The text of the JSON file; if it has none, that of the text file."""
    text = SampleText()
    for suffix in TEXTS:
        found = [file for file in files if file.suffix == suffix]
        if len(found) > 1:
            raise InputError(f"with several texts: {found[0].name} and {found[1].name}")
        if found and not any(text):
            text = parse_text(_read(_photo(path, key, found[0])), suffix)
    return text


def parse_text(data: bytes, suffix: str) -> SampleText:
    """Reads the text of a photo.

    Args:
        data: a JSON object or a caption.
        suffix: ``.json`` or ``.txt``.

    Returns:
        The text; it is empty if there is none.

    Raises:
        InputError: the JSON is broken, or the text is not UTF-8.
    """
    if suffix == ".json":
        found = parse_object(data)
        if isinstance(found, str):
            raise InputError(f"with broken JSON: {found}")
        return SampleText.of(found)
    try:
        return SampleText.of({"caption": data.decode("utf-8-sig")})
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: byte {data[error.start]:#x} in the text") from error


def _read(file: PhotoFile) -> bytes:
    if file.size is not None and file.size > MAX_TEXT:
        raise InputError(f"with a text that is too long: {file.size} bytes")
    return read_photo(file)

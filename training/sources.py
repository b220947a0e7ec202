"""Sources: photos with tags or captions, divided into units of work.

A source is one of

- tar files (WebDataset, as img2dataset writes them): ``KEY.jpg`` with ``KEY.json`` or ``KEY.txt``. They are given as a
  file, a folder, a pattern, URLs or a list of these, see ``grounding.shards.addresses``;
- a table (CSV, JSON or Parquet, see ``training.table_readers``) of paths and tags or captions;
- COCO captions and the folder of their photos;
- Flickr30k Entities: ``Sentences/ID.txt`` and ``images/ID.jpg``.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from grounding.photos import PhotoFile
from grounding.runtime.hidden import visible
from grounding.runtime.ledger import Ledger
from grounding.shards.addresses import InputShard, find_shards
from grounding.shards.fetching import PIPE, FetchOptions, ShardCache, is_remote
from grounding.text.captions import read_captions
from grounding.text.markup import plain_sentence
from proposals.errors import InputError
from training.cures import source_cure
from training.photo_finder import PhotoFinder
from training.sample_text import SampleText
from training.samples import MISSING_TEXT, SourceSample
from training.table_readers import READERS, is_coco
from training.table_samples import caption_samples, table_samples
from training.tar_reader import REPEATED, tar_samples

KINDS = (
    "tar files or a folder of them, a table (.csv, .tsv, .jsonl, .parquet), COCO captions (.json) or a folder with "
    "Sentences/"
)
FIRST_LINES = 100  # of a text file, that are searched for the first that is no comment
EDGE = 1 << 16  # bytes at both ends of a tar that identify it, together with its size


@dataclass(frozen=True)
class WorkUnit:
    """Samples that are processed together, and whose photos are in the same shards.

    Attributes:
        number: number of the unit, from 0.
        source: name of the file that the samples come from.
        tar: path or address of the tar with the samples, or None.
        listed: the samples, if there is no tar.
        fetch: how a remote tar is fetched; None for the default.
    """

    number: int
    source: str
    tar: Path | str | None = None
    listed: tuple[SourceSample, ...] = ()
    fetch: FetchOptions | None = None

    def samples(self) -> Iterator[SourceSample]:
        """The samples in order, see ``training.tar_reader``; of two with the same key, the second gets a reason.

        A remote tar is on this machine only while its samples are read.

        Raises:
            InputError: a remote tar cannot be fetched.
        """
        seen: set[str] = set()
        with closing(self._read()) as samples:
            for sample in samples:
                if not sample.reason and sample.key in seen:
                    yield sample._replace(reason=REPEATED)
                else:
                    seen.update([sample.key] if not sample.reason else [])
                    yield sample

    def _read(self) -> Generator[SourceSample]:
        if self.tar is None:
            yield from self.listed
            return
        with ShardCache(self.fetch).local(str(self.tar)) as path:
            yield from tar_samples(path)


def count_samples(unit: WorkUnit, ledger: Ledger) -> None:
    """Counts the samples of a unit that have a text, without opening their photos.

    Args:
        unit: the unit.
        ledger: counts them.
    """
    for sample in ledger.reading(unit.samples(), lambda sample: sample.key):
        if sample.reason:
            kind, _, detail = sample.reason.partition(": ")
            ledger.skip(sample.key, kind, detail, unit.source)
        else:
            ledger.keep()


@dataclass(frozen=True)
class Source:
    """The input of ``step=shards``.

    Attributes:
        files: the files to read: tars, a table or captions.
        size: samples per unit, for files that are not tar files.
        rows: reads the samples of files that are not tar files; None for tar files.
        photos: the folder of the photos that the files name; None for tar files.
        tars: tar files of which some are remote; ``files`` is empty then.
        fetch: how remote tars are fetched.
    """

    files: tuple[Path, ...]
    size: int
    rows: Callable[[], Iterator[SourceSample]] | None = None
    photos: Path | None = None
    tars: tuple[InputShard, ...] = ()
    fetch: FetchOptions | None = None

    def units(self) -> Iterator[WorkUnit]:
        """The units in order, in bounded memory.

        Raises:
            InputError: the table or the captions cannot be read, or none of the first photos exists.
        """
        if self.rows is None:
            yield from (WorkUnit(number, tar.name, tar) for number, tar in enumerate(self.files))
            named = ((f"{tar.name}.tar", tar.address) for tar in self.tars)
            yield from (WorkUnit(number, name, tar, fetch=self.fetch) for number, (name, tar) in enumerate(named))
            return
        rows, number = self.rows(), 0
        while part := tuple(islice(rows, self.size)):
            yield WorkUnit(number, self.name, None, part)
            number += 1

    @property
    def name(self) -> str:
        """A short name: that of the file, or of the folder of several files."""
        return self.files[0].parent.name if len(self.files) > 1 else self.files[0].name

    @property
    def folder(self) -> Path | str:
        """The folder of the photos, or of the tars; of remote tars, the address of the first."""
        if self.tars:
            return self.tars[0].address
        return self.files[0].parent if self.photos is None else self.photos

    def identity(self) -> dict[str, Any]:
        """Values by which sources can be distinguished: all that decides the samples, except for pixels of photos.

        Returns:
            The number of files, the name of the first, and a digest of all names and contents; of tars, the sizes and
            the bytes at both ends; of remote tars, the addresses alone. For tables and captions also the folder of the
            photos.

        Raises:
            InputError: a file is missing.
        """
        digest = sha256()
        for tar in self.tars:
            digest.update(f"{tar.address}\n".encode("utf-8", "surrogateescape"))
        for path in (*self.files, *(Path(tar.address) for tar in self.tars if not tar.remote)):
            try:
                digest.update(f"{path.name}\t{path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
                _add_content(path, digest, whole=self.rows is not None)
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        photos = {} if self.photos is None else {"photos": str(self.photos.resolve())}
        first = self.tars[0].address if self.tars else self.files[0].name
        return {"files": len(self.files) + len(self.tars), "first": first, "source": digest.hexdigest()} | photos


def _add_content(path: Path, digest: Any, whole: bool) -> None:
    with path.open("rb") as file:
        while data := file.read(EDGE):
            digest.update(data)
            if not whole:
                file.seek(max(path.stat().st_size - EDGE, EDGE))
                digest.update(file.read(EDGE))
                return


def find_source(
    images: str | Path, captions: str | Path | None = None, size: int = 10_000, fetch: FetchOptions | None = None
) -> Source:
    """Opens a source, see the top of this file.

    Args:
        images: tars, a table, a folder of photos, or the folder of Flickr30k Entities.
        captions: a table, COCO captions, or a folder of Flickr30k Entities sentences. None if ``images`` has the texts.
        size: samples per unit, for a source that is not tar files.
        fetch: how remote tars are fetched; None to refuse them.

    Returns:
        The source.

    Raises:
        InputError: a file or folder does not exist, or is of an unknown kind.
    """
    if tars := _find_tars(str(images)):
        return _of_tars(tars, captions, size, fetch)
    images = Path(images)
    for path in (images, *([] if captions is None else [Path(captions)])):
        if not path.exists():
            raise InputError(f"{path} does not exist: give {KINDS}")
    if captions is None:
        return _find_alone(images, size)
    captions = Path(captions)
    if captions.suffix.lower() in READERS:
        reader = caption_samples if captions.suffix.lower() == ".json" and is_coco(captions) else table_samples
        return Source((captions,), size, partial(reader, captions, images), images)
    if captions.is_dir():
        return _entities(captions, images / "images" if (images / "images").is_dir() else images, size)
    raise InputError(f"captions={captions} is of an unknown kind: {source_cure(captions) or f'give {KINDS}'}")


def _find_tars(images: str) -> list[InputShard] | None:
    """The tars that a URL, a pattern or a list names; None if ``images`` is another file or folder."""
    if is_remote(images):
        tars = find_shards(images)
        if tars is None:
            raise InputError(f"images={images} names no tar file: give URLs that end with .tar")
        return tars
    return find_shards(images) if not Path(images).exists() or _lists_tars(Path(images)) else None


def _lists_tars(path: Path) -> bool:
    """Whether a file is a list of tars, and not of captions."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next((line.strip() for line in islice(file, FIRST_LINES) if line.strip() and line[0] != "#"), "")
    return line.lower().endswith((".tar", ".tar}")) or line.startswith(PIPE)


def _of_tars(tars: list[InputShard], captions: str | Path | None, size: int, fetch: FetchOptions | None) -> Source:
    if captions is not None:
        raise InputError(f"captions={captions} are of photos in a folder, but images= names tar files: leave it out")
    if not any(tar.remote for tar in tars):
        if missing := [tar.address for tar in tars if not Path(tar.address).exists()]:
            raise InputError(f"{missing[0]} does not exist: give {KINDS}")
        return Source(tuple(Path(tar.address) for tar in tars), size)
    if fetch is None:
        raise InputError(f"{tars[0].address} is remote, and this step reads tars of this machine: copy some of them")
    return Source((), size, tars=tuple(tars), fetch=fetch)


def _find_alone(images: Path, size: int) -> Source:
    if images.is_file() and images.suffix.lower() in READERS:
        return Source((images,), size, partial(table_samples, images, images.parent), images.parent)
    if images.is_file() and images.suffix.lower() == ".tar":
        return Source((images,), size)
    if (images / "Sentences").is_dir():
        return _entities(images / "Sentences", images / "images", size)
    tars = tuple(visible(images.glob("*.tar")))
    if not tars:
        cure = source_cure(images) or f"give {KINDS}, or set captions= as well"
        raise InputError(f"images={images} has no texts that are read: {cure}")
    return Source(tars, size)


def _entities(sentences: Path, photos: Path, size: int) -> Source:
    folder = sentences / "Sentences" if (sentences / "Sentences").is_dir() else sentences
    files = tuple(visible(folder.glob("*.txt")))
    if not files:
        raise InputError(f"{folder} has no .txt files: give a folder of Flickr30k Entities sentences")
    return Source(files, size, partial(_entities_samples, folder, photos), photos)


def _entities_samples(sentences: Path, photos: Path) -> Iterator[SourceSample]:
    finder = PhotoFinder([photos], sentences)
    for image, found in finder.decide(_sentences(sentences), lambda pair: f"{pair[0]}.jpg"):
        text = SampleText(captions=found)
        yield SourceSample(image, PhotoFile(image, str(finder(f"{image}.jpg"))), text, "" if found else MISSING_TEXT)


def _sentences(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for image, found in groupby(read_captions(folder), lambda caption: caption.image):
        yield image, tuple(plain_sentence(caption.text) for caption in found)

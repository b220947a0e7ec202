"""Annotated photos that all ranks answer together: what their answers depend on, and the answers in order."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from eval.photo_reading import AnnotatedFile
from grounding import Grounder
from grounding.cache import weights_digest
from grounding.runtime.ranks import rank_of
from grounding.runtime.version import VERSION
from grounding.shards.photo_parts import share_photos
from proposals.errors import InputError
from proposals.provenance import settings_of

CODE = ("*.py", "*.txt")  # files of the packages on which answers depend

Photo = TypeVar("Photo", bound=AnnotatedFile)


class PhotoAnswer(NamedTuple):
    """What a step computed for a photo.

    Attributes:
        value: what ``json`` makes of the answer: lists for tuples; None with an error.
        error: why the photo cannot be used; "" if it can.
    """

    value: Any
    error: str


def answer_together(
    grounder: Grounder,
    photos: Sequence[Photo],
    answer: Callable[[Photo], Any],
    output: str | Path,
    settings: Mapping[str, Any],
    lease: float,
) -> Iterator[PhotoAnswer] | None:
    """Answers photos, each on one of the ranks.

    Args:
        grounder: answers; part of the key of kept answers.
        photos: the photos; part of the key, too.
        answer: answers about a photo with values that ``json`` can encode. It raises an InputError for a photo that
            cannot be used.
        output: the output folder, which all ranks see.
        settings: all else that the answers depend on.
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The answer about each photo, in order; None on ranks other than the first.

    Raises:
        InputError: the folder cannot be written.
    """

    def record(photo: Photo) -> dict[str, Any]:
        try:
            return {"image": photo.id, "answer": answer(photo)}
        except InputError as error:
            return {"image": photo.id, "error": str(error)}

    records = share_photos(photos, record, output, identity(grounder, photos, settings), lease)
    if rank_of()[0] > 0:
        return None
    return (PhotoAnswer(record.get("answer"), record.get("error", "")) for record in records)


def identity(grounder: Grounder, photos: Sequence[AnnotatedFile], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What answers depend on: the program, the weights, the settings, and the photos with their annotations.

    Photos are known by their names, the sizes of their files and their annotations.

    Args:
        grounder: the grounder.
        photos: the photos.
        settings: of the step.
    """
    return {
        "grounding": VERSION,
        "code": _code(),
        "weights": weights_digest(grounder.tagger),
        "settings": asdict(grounder.settings),
        "proposer": settings_of(grounder.proposer),
        "step": _plain(settings),
        "photos": _digest([[photo.id, _size(photo.path), _plain(photo)] for photo in photos]),
    }


@cache
def _code() -> str:
    """A digest of the code of the three packages."""
    digest = sha256()
    for package in ("proposals", "grounding", "eval"):
        spec = find_spec(package)
        root = Path(str(spec and spec.origin)).parent
        for path in sorted(path for pattern in CODE for path in root.rglob(pattern)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _plain(value: Any) -> Any:
    """A value as lists, dictionaries and numbers. Of a path the name, because machines have other folders."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        own = [_plain(part) for part in value]
        return sorted(own, key=repr) if isinstance(value, set | frozenset) else own
    return value.name if isinstance(value, Path) else value


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, default=repr).encode("utf-8", "surrogatepass")).hexdigest()

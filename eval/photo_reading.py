"""Reads the annotations of a data set before the work begins, and counts the photos that cannot be used."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from grounding.runtime.ledger import Ledger, show_names
from proposals.errors import InputError

log = logging.getLogger(__name__)

REPEATED = "listed twice"
BAD_ANNOTATION = "with an unusable annotation"
MISSING = "missing"
UNUSABLE = "unusable"  # the photo cannot be read, or has another size than its annotation says
FAULTS = (REPEATED, BAD_ANNOTATION, MISSING, UNUSABLE)
NAMED = 10  # photos that a table names


class AnnotatedFile(Protocol):
    """An annotated photo: its name and its file."""

    @property
    def id(self) -> str:
        """The name."""

    @property
    def path(self) -> Path:
        """The path of the file."""


class PhotoReader(Protocol):
    """A data set of annotated photos.

    Attributes:
        ids: the names of all photos.
        folder: the folder of the photos.
    """

    ids: Sequence[str]
    folder: Path

    def read(self, name: str, /) -> Any:
        """Reads a photo's annotation. Raises an InputError if it cannot be used."""


def photo_ledger(photos: PhotoReader, cure: str = "set data.root and data.split to another data set") -> Ledger:
    """The ledger of a step that reads annotated photos.

    Args:
        photos: the data set.
        cure: what to do if no photo can be used, as an imperative.
    """
    return Ledger("photos", photos.folder, cure)


def read_photos(
    photos: PhotoReader,
    ledger: Ledger,
    limit: int | None = None,
    check: Callable[[Any], object] = lambda _: None,
    files: bool = True,
) -> list:
    """Reads all annotations, skips the photos that cannot be used, and warns of them.

    Args:
        photos: the data set.
        ledger: counts the photos. The caller keeps or skips those that are returned.
        limit: the largest number of photos; None for all.
        check: raises an InputError for an annotation that is not complete enough.
        files: whether a photo whose file does not exist is skipped.

    Returns:
        The photos, in the order of the data set.

    Raises:
        InputError: no photo can be used.
    """
    found: list = []
    seen: set[str] = set()
    for name in photos.ids:
        if limit is not None and len(found) >= limit:
            break
        ledger.came_in(name)
        if name in seen:
            ledger.skip(name, REPEATED)
            continue
        seen.add(name)
        try:
            photo = photos.read(name)
            check(photo)
        except InputError as error:
            ledger.skip(name, BAD_ANNOTATION, str(error))
            continue
        if files and not photo.path.is_file():
            ledger.skip(name, MISSING, f"{photo.path} does not exist")
        else:
            found.append(photo)
    if not found:
        ledger.require_kept()
    if ledger.reasons:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in ledger.reasons.most_common())
        first = next(ledger.skipped)
        log.warning(
            "%d of %d photos are left out: %s; the first: %s", ledger.reasons.total(), ledger.came, reasons, first
        )
    return found


def require_files(photos: Sequence[AnnotatedFile], folder: Path) -> None:
    """Warns of photos whose files do not exist.

    Args:
        photos: the photos.
        folder: the folder of the photos, for the error message.

    Raises:
        InputError: no file exists.
    """
    missing = [photo.path.name for photo in photos if not photo.path.is_file()]
    if missing and len(missing) == len(photos):
        raise InputError(
            f"none of {len(photos):,} photos exists: looked in {folder} for {show_names(missing)}; copy the photos, or "
            "set data.root"
        )
    if missing:
        log.warning("%d of %d photos are missing: %s", len(missing), len(photos), show_names(missing))


def faulty_names(ledger: Ledger) -> list[str]:
    """The names of the photos that have a fault, for ``metrics.json``.

    Args:
        ledger: of a step that reads annotated photos.
    """
    return [skipped.name for skipped in ledger.skipped if skipped.reason in FAULTS]


def name_some(names: Sequence[str]) -> str:
    """Names some photos, for a table.

    Args:
        names: of any number of photos.
    """
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more

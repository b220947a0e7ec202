"""Files that appear whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from proposals.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside ``path``; renames it to ``path`` when the block ends well, else removes it.

    A reader, or a run that is killed, never meets half a file.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{gethostname()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where the folder is none, there is nothing to remove
            aside.unlink(missing_ok=True)


def write_json(path: str | Path, value: object) -> None:
    """Writes a value as indented JSON in UTF-8, whole or not at all.

    Raises:
        InputError: as :func:`atomic_path` does.
    """
    # the name of a file may hold bytes that are no text; as an escape of JSON it is read as it was
    text = json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    with atomic_path(path) as aside:
        aside.write_bytes(text)


def write_json_lines(path: str | Path, records: Iterable[object]) -> None:
    """Writes records as JSON, a line of ASCII each, as they come; the file appears whole or not at all.

    Raises:
        InputError: as :func:`atomic_path` does.
    """
    # of ASCII, for text may hold what some readers take for the end of a line
    with atomic_path(path) as aside, aside.open("w", encoding="ascii") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)

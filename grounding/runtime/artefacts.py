"""Writes files atomically: a file appears complete or not at all."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from threading import get_ident

from proposals.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path to write to, and renames it to ``path`` at the end.

    If the block raises an exception, the temporary file is removed and ``path`` stays as it was. So no reader finds an
    incomplete file, even if the writer is killed. Missing folders are created.

    Args:
        path: where the file appears.

    Yields:
        The temporary path, in the same folder.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{gethostname()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # if the folder could not be created, there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: object) -> None:
    """Writes a value as indented JSON in UTF-8, atomically.

    Args:
        path: where the file appears.
        value: anything that ``json`` can encode.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_encoded(value))


def write_once(path: str | Path, value: object) -> None:
    """Writes a value as JSON, atomically, unless the file exists. Of several processes, only the first one writes.

    On a file system without hard links, the last of the processes that write at the same moment wins.

    Args:
        path: where the file appears.
        value: anything that ``json`` can encode.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{gethostname()}.{os.getpid()}.{get_ident()}.once")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(_encoded(value))
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            aside.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # if the folder could not be created, there is nothing to remove
            aside.unlink(missing_ok=True)


def write_json_lines(path: str | Path, records: Iterable[object]) -> None:
    """Writes records as JSON lines, one record per line, atomically.

    Each record is written before the next one is computed, so that memory does not grow with their number.

    Args:
        path: where the file appears.
        records: anything that ``json`` can encode.

    Raises:
        InputError: the file cannot be written.
    """
    # ASCII only: some readers take other characters, such as U+2028, for the end of a line
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _encoded(value: object) -> bytes:
    # A file name may contain bytes that are not text; they become JSON escapes, which decode to the same name
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")

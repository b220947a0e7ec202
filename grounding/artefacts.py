"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

from proposals.errors import InputError


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
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
        aside.unlink(missing_ok=True)

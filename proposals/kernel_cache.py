"""Where numba keeps the compiled kernels: once per installation, or for this process if no folder can be written."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def ensure_kernel_cache() -> None:
    """Gives numba a folder that can be written, before it is imported.

    numba looks for the folder of ``NUMBA_CACHE_DIR``, then beside the source files, then in the user's cache. If none
    can be written, for example in a container that is read-only, it refuses to compile at all. Then a private folder is
    used that lasts as long as this process: the files are pickles, so no folder that others can write is shared.
    """
    if any(map(_writable, _places())):
        return
    folder = tempfile.mkdtemp(prefix="numba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[VARIABLE] = folder


def _places() -> Iterator[Path]:
    if given := os.environ.get(VARIABLE):
        yield Path(given)
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"


def _writable(folder: Path) -> bool:
    """Whether files can be written in a folder, or the folder can be created."""
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
    except (OSError, StopIteration):
        return False
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)

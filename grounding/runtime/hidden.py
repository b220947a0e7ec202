"""Hidden files, which no data set means: macOS's ``._photo.jpg``, ``.DS_Store``, ``.ipynb_checkpoints``."""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePath

from grounding.runtime.ledger import show_names

log = logging.getLogger(__name__)


def is_hidden(path: PurePath) -> bool:
    """Whether a file or one of its folders is hidden.

    Args:
        path: a relative path. A name that begins with a dot is hidden, such as macOS's ``._photo.jpg``; so is the
            folder ``__MACOSX``, which contains such files.
    """
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in path.parts)


def visible(paths: Iterable[Path]) -> list[Path]:
    """Leaves out hidden files. A warning counts and names them.

    Args:
        paths: paths of files, of which only the names matter.

    Returns:
        The others, sorted.
    """
    listed = sorted(paths)
    hidden = [path.name for path in listed if is_hidden(Path(path.name))]
    if hidden:
        log.warning("left out %d hidden files of %s: %s", len(hidden), listed[0].parent, show_names(hidden))
    return [path for path in listed if not is_hidden(Path(path.name))]

"""The taggers that are part of the package, by name. MODEL_CARD.md beside their files describes them."""

import os
from importlib.resources import files
from pathlib import Path

from proposals.errors import InputError

FOLDER = Path(str(files("grounding.tagger.weights")))
TAGGERS = ("efficientnet", "googlenet")  # NAME.safetensors in the folder
DEFAULT = "efficientnet"


def tagger_path(path: str | os.PathLike[str] | None = None) -> Path:
    """The file of a tagger.

    Args:
        path: a file, or the name of a tagger of the package (``TAGGERS``); None or ``"embedded"`` for the default one.
            A text that is such a name is never a file: give a ``Path`` or ``./googlenet``.

    Returns:
        Its path.

    Raises:
        InputError: ``path`` is neither a text nor a path, or there is no such file.
    """
    names = ", ".join(TAGGERS)
    if path is not None and not isinstance(path, str | os.PathLike):
        raise InputError(f"path={repr(path)[:60]} must be the path of a tagger's file, {names}, or None")
    name = DEFAULT if path in (None, "", "embedded") else path
    if isinstance(name, str) and name in TAGGERS:
        return FOLDER / f"{name}.safetensors"
    if not Path(name).exists():
        raise InputError(f"{name} does not exist: give the path of a tagger's file, or the name of one: {names}")
    return Path(name)

"""The key under which proposals are stored: the proposer's settings and a hash of the code."""

import sys
from collections.abc import Iterable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proposals.proposals import Proposer

# The modules whose code determines the proposals. Stored proposals are recomputed when one of them changes.
# tests/test_provenance.py compares this list with the imports.
MODULES = (
    "proposals.appearance",
    "proposals.boxes",
    "proposals.consensus",
    "proposals.matfile",
    "proposals.mergetree",
    "proposals.opencv",
    "proposals.partition",
    "proposals.pool",
    "proposals.proposals",
    "proposals.published",
    "proposals.ranking",
    "proposals.regiongraph",
    "proposals.segments",
    "proposals.shards",
)


def settings_of(proposer: Proposer) -> dict[str, Any]:
    """Everything that a proposer's output depends on, besides the image.

    Args:
        proposer: any proposer, also one that is defined outside this package.

    Returns:
        The name of its class, its public attributes except ``threads``, and the hash of the code.
    """
    return _attributes(proposer) | {"code": code_of({*MODULES, type(proposer).__module__})}


def code_of(modules: Iterable[str]) -> str:
    """Hashes the source code of some modules.

    Args:
        modules: full names, in any order; a module without a source file, such as a notebook, is left out.

    Returns:
        64 hexadecimal digits.
    """
    digest = sha256()
    for name in sorted(set(modules)):
        if source := _source(name):
            digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def _source(module: str) -> Path | None:
    """The source file of a module, which need not be imported."""
    loaded = sys.modules.get(module)
    spec = getattr(loaded, "__spec__", None) if loaded else find_spec(module)
    origin = spec.origin if spec else getattr(loaded, "__file__", None)
    return Path(origin) if origin and Path(origin).is_file() else None


def _attributes(proposer: Proposer) -> dict[str, Any]:
    values = {k: v for k, v in vars(proposer).items() if not k.startswith("_") and k != "threads"}
    plain = {k: str(v) for k, v in values.items() if isinstance(v, str | int | float | tuple | list | Path)}
    inner = {k: _attributes(v) for k, v in values.items() if callable(v)}
    return {"class": type(proposer).__name__} | plain | inner

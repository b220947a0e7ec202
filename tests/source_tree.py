"""The project's source files, and which of its modules each of them imports."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("proposals", "grounding", "training", "eval")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def modules() -> dict[str, Path]:
    """The file of every module in the four packages, by the module's full name."""
    return {_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported_names(path: Path) -> set[str]:
    """Full names of everything that a file imports.

    Imports inside functions and under ``TYPE_CHECKING`` count. ``from a import b`` gives ``a.b``, whether ``b`` is a
    module or not.
    """
    nodes = list(ast.walk(parse(path)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    from_imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in from_imports), f"{path}: use absolute imports"
    return names | {f"{node.module}.{alias.name}" for node in from_imports for alias in node.names}


def imported_modules(path: Path) -> set[str]:
    """The project's modules that a file imports; a package counts as its ``__init__``."""
    known = modules()
    nearest = {name if name in known else name.rpartition(".")[0] for name in imported_names(path)}
    return nearest & known.keys()


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

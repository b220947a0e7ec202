"""The source tree stays small enough to read: sizes of files and functions, and names that occur once."""

import ast
from collections import Counter
from pathlib import Path
from statistics import median

from source_tree import PACKAGES, ROOT, modules, parse

FOLDERS = [ROOT / name for name in (*PACKAGES, "tests")]
SOURCES = [path for folder in FOLDERS for kind in ("py", "js", "css", "html") for path in folder.rglob(f"*.{kind}")]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from a function's first statement to its last one, without the decorators, signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def functions(path: Path) -> dict[str, int]:
    """The length of each function in a file, nested ones included, by file, line and name."""
    nodes = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": body_lines(node) for node in nodes}


def test_the_top_of_grounding_holds_at_most_14_modules():
    found = [path.name for path in (ROOT / "grounding").glob("*.py")]
    assert len(found) <= 14, found


def test_no_file_has_more_than_400_lines():
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert not {path: count for path, count in lines.items() if count > 400}


def test_functions_are_short():
    python = [path for path in SOURCES if path.suffix == ".py"]
    lengths = {name: count for path in python for name, count in functions(path).items()}
    assert median(lengths.values()) <= 6
    assert not {name: count for name, count in lengths.items() if count > 60}


def test_no_two_public_classes_have_one_name():
    names = Counter(node.name for path in modules().values() for node in parse(path).body if is_public_class(node))
    assert not {name: count for name, count in names.items() if count > 1}


def is_public_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and not node.name.startswith("_")

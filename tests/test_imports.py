"""The packages import in one direction, and only the command line knows Hydra."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "proposals": {"proposals"},
    "grounding": {"grounding", "proposals"},
    "training": {"training", "grounding", "proposals"},
    "eval": {"eval", "grounding", "proposals"},
}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names}


def test_packages_import_downwards_only():
    for package, allowed in MAY_IMPORT.items():
        paths = list((ROOT / package).rglob("*.py"))
        assert paths
        for path in paths:
            forbidden = (MAY_IMPORT.keys() | {"tests"}) - allowed
            assert not imported(path) & forbidden, path
            assert "hydra" not in imported(path) or path.name == "__main__.py", path
            assert "pickle" not in imported(path), path

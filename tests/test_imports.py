"""Modules import in one direction only, and only the command line knows Hydra.

All imports count, also those inside functions and under ``TYPE_CHECKING``.
"""

from graphlib import CycleError, TopologicalSorter

from source_tree import imported_modules, imported_names, modules

MAY_IMPORT = {
    "proposals": {"proposals"},
    "grounding": {"grounding", "proposals"},
    "training": {"training", "grounding", "proposals"},
    "eval": {"eval", "grounding", "proposals"},
}
# The subpackages and modules of grounding/, lowest first. Each may import from its own row and from the rows above it.
LAYERS = [
    {"runtime"},
    {"text"},
    {"images", "maps", "photos"},
    {"shards"},
    {"attention"},
    {"tagger"},
    {"answers", "draw", "exports", "formats", "pictures", "rescoring"},
    {"settings"},
    {"batch", "cache", "grounder", "scene"},
    {"steps"},
    {"page"},
    {"__main__"},
]


def test_packages_import_downwards():
    for name, path in modules().items():
        package = name.partition(".")[0]
        assert {i.partition(".")[0] for i in imported_modules(path)} <= MAY_IMPORT[package], name
        assert not any(i.partition(".")[0] in {"tests", "conf"} for i in imported_names(path)), name


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: imported_modules(path) for name, path in modules().items()}).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def layer(module: str) -> int:
    """The row of ``LAYERS`` that a module of grounding/ belongs to."""
    part = module.split(".")[1]
    rows = [row for row, names in enumerate(LAYERS) if part in names]
    assert rows, f"add {part} to LAYERS"
    return rows[0]


def test_layers_of_grounding_import_downwards():
    # grounding/__init__.py is left out: it only gives out names of the layers, and loads them on demand
    inside = {name: path for name, path in modules().items() if name.startswith("grounding.")}
    for name, path in inside.items():
        found = imported_modules(path)
        assert "grounding" not in found, f"{name} imports from the package's face; import from the module"
        upward = [other for other in found & inside.keys() if layer(other) > layer(name)]
        assert not upward, f"{name} imports {upward} from a higher layer"


def test_only_the_command_line_imports_hydra():
    importers = {name for name, path in modules().items() if imports(path, "hydra")}
    assert importers == {"grounding.__main__"}


def test_nothing_imports_pickle():
    assert not [name for name, path in modules().items() if imports(path, "pickle")]


def imports(path, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imported_names(path))

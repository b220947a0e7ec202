"""The keys of stored maps and proposals contain exactly the modules that compute them."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from grounding import cache
from proposals import SegmentProposer, provenance
from proposals.provenance import code_of, settings_of

# Modules that the computing modules import, but that cannot change a number in a map or in a proposal.
HARMLESS = {
    "grounding": "re-exports names",
    "grounding.attention": "only a docstring",
    "grounding.attention.engine": "only a docstring",
    "grounding.tagger": "only a docstring",
    "grounding.text": "only a docstring",
    "grounding.runtime.artefacts": "writes files",
    "grounding.runtime.terminal": "messages",
    "grounding.attention.atlas": "reads maps",
    "grounding.tagger.presence": "reads the scores, no map",
    "grounding.tagger.packaged": "finds the tagger's file, and its weights are part of the key",
    "grounding.tagger.tensors": "reads and writes files, and the tagger's weights are part of the key",
    "grounding.text.lexicon": "maps are stored by the tag's index, whatever word asked for them",
    "grounding.text.vocabulary": "maps are stored by the tag's index, and the tagger's weights are part of the key",
    "grounding.text.words": "see vocabulary",
    "proposals": "re-exports names",
    "proposals.cores": "number of threads",
    "proposals.errors": "error messages",
}


def imports_of(module: str) -> set[str]:
    """The modules of the project that a module imports, directly or through others that are not in ``HARMLESS``."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += direct_imports(name) if name not in HARMLESS else ()
    return found


def direct_imports(module: str) -> set[str]:
    tree = ast.parse(Path(find_spec(module).origin).read_text("utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("grounding", "proposals") and is_module(name)}


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_key_of_proposals_contains_the_modules_that_compute_them():
    roots = ("proposals.segments", "proposals.boxes", "proposals.published", "proposals.opencv", "proposals.shards")
    assert sorted(set.union(*map(imports_of, roots)) - HARMLESS.keys()) == list(provenance.MODULES)


def test_key_of_maps_contains_the_modules_that_compute_them():
    roots = ("grounding.attention.topdown", "grounding.tagger.tagger", "grounding.images")
    assert sorted(set.union(*map(imports_of, roots)) - HARMLESS.keys()) == list(cache.MODULES)


@pytest.mark.parametrize("modules", [provenance.MODULES, cache.MODULES])
def test_every_listed_module_exists(modules):
    assert all(map(is_module, modules))


def test_hash_depends_on_the_source_but_not_on_the_order(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("first_module", "second_module"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    before = code_of(["first_module", "second_module"])
    assert code_of(["second_module", "first_module"]) == before
    assert code_of(["first_module"]) != before
    (tmp_path / "second_module.py").write_text("x = 2\n")
    assert code_of(["first_module", "second_module"]) != before


def test_key_of_a_custom_proposer_contains_its_own_module():
    class Own(SegmentProposer):
        pass

    assert settings_of(Own())["code"] != settings_of(SegmentProposer())["code"]
    assert settings_of(SegmentProposer(seed=1)) != settings_of(SegmentProposer())

"""The docstrings of the public interface parse as Google style, so that the reference can be built from them."""

import logging
import re
from collections.abc import Iterator

import pytest
from source_tree import PACKAGES, ROOT

griffe = pytest.importorskip("griffe", reason="griffe is not installed: .venv/bin/pip install -e '.[docs]'")


def public(found) -> Iterator:
    """A package, module, class or function, and everything public inside it. Imported names are left out."""
    yield found
    for member in found.members.values():
        if not member.is_alias and (member.is_special or not member.name.startswith("_")):
            yield from public(member)


@pytest.fixture(scope="module")
def documented() -> list:
    packages = [griffe.load(name, search_paths=[ROOT], docstring_parser="google") for name in PACKAGES]
    return [found for package in packages for found in public(package) if found.docstring]


def test_public_docstrings_parse_without_a_warning(documented, caplog):
    with caplog.at_level(logging.WARNING, "griffe"):
        for found in documented:
            found.docstring.parse("google")
    assert len(documented) > 500
    assert not caplog.messages


def test_each_parameter_has_a_line_of_its_own(documented):
    shared = {}
    for found in documented:
        entries = [
            entry for section in found.docstring.parsed for entry in entries_of(section, "parameters", "attributes")
        ]
        names = {entry.name for entry in entries} | parameters_of(found) | set(found.members)
        text = " ".join(entry.description for entry in entries)
        shared[found.path] = [name for name in re.findall(r"; (\w+): ", text) if name in names]
    assert not {path: names for path, names in shared.items() if names}


def test_args_sections_document_every_parameter(documented):
    missing = {}
    for found in documented:
        entries = [entry for section in found.docstring.parsed for entry in entries_of(section, "parameters")]
        described = {entry.name.lstrip("*") for entry in entries}
        missing[found.path] = parameters_of(found) - described if described else set()
    assert not {path: names for path, names in missing.items() if names}


def entries_of(section, *kinds: str) -> list:
    return section.value if section.kind.value in kinds else []


def parameters_of(found) -> set[str]:
    """Parameters of a function, or of the class that its docstring documents."""
    function = found.members.get("__init__") if found.is_class else found
    names = {parameter.name for parameter in getattr(function, "parameters", ())}
    return {name for name in names - {"self", "cls"} if not name.startswith("_")}

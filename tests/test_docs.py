"""The README and the documentation agree with the code: links, commands, the table of methods."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from docs_lines import PAGES, ROOT, commands
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser

from grounding.attention.methods import METHODS
from grounding.runtime import front_door
from grounding.runtime.renamed import RENAMED

FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
# see docs/hooks.py
COPIED = {"project/model-card.md": "grounding/tagger/weights/MODEL_CARD.md"}


@pytest.mark.parametrize(("page", "command"), sorted({(line.page, line.command) for line in commands()}))
def test_the_settings_of_a_command_exist(page, command, monkeypatch, tmp_path):
    if "cluster=slurm" in command:
        pytest.importorskip("submitit", reason="submitit is not installed: .venv/bin/pip install -e '.[slurm]'")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command, comments=True)
    for word in words:
        if word.endswith((".jpg", ".txt")) and "*" not in word:
            Path(word.rpartition("=")[2]).touch()
    for folder in ("shop", "crawl", "TARS"):
        Path(folder).mkdir()
    asked = front_door.read(words)
    if asked.text is not None or "--shell-completion" in words:
        return
    parsed = OverridesParser.create().parse_overrides([word for word in asked.hydra if not word.startswith("-")])
    overrides = [
        f"{one.get_key_element()}={next(iter(one.sweep_string_iterator()))}"
        if one.is_sweep_override()
        else one.input_line
        for one in parsed
    ]
    with initialize_config_module("conf", version_base="1.3"):
        assert compose("config", overrides, return_hydra_config=True).step


def test_there_are_commands():
    assert len(list(commands())) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_behind_links_exist(page):
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if not link.startswith("http"):
            assert behind(page, link).exists(), f"{page.name}: {link}"


def behind(page: Path, link: str) -> Path:
    """The file that a link leads to; of a page that MkDocs copies into docs, the original."""
    path = (page.parent / link).resolve()
    if path.exists() or not path.is_relative_to(ROOT / "docs"):
        return path
    name = path.relative_to(ROOT / "docs").as_posix()
    return ROOT / COPIED.get(name, name)


def test_the_changelog_has_every_renamed_setting():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for old, new in RENAMED.items():
        assert f"| `{old.rpartition(':')[2]}` | `{new}` |" in text, old


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def test_the_targets_of_make_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for page in PAGES:
        assert set(re.findall(r"(?:`|^ {4}|^)make (\w+)", page.read_text("utf-8"), re.MULTILINE)) <= set(targets), page


def test_the_table_of_methods_is_that_of_the_code():
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: .venv/bin/pip install -e '.[docs]'")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    rows = hooks.methods_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(METHODS)
    for row, method in zip(rows, METHODS.values(), strict=True):
        assert method.equation in row.replace("\\|", "|") and method.source in row
    assert "<!-- methods -->" in (ROOT / "docs" / "method" / "methods.md").read_text("utf-8")

"""The pages of results/: their tables are those of the CSV files, and their commands are accepted."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from grounding.runtime.renamed import refuse_renamed

FOLDER = Path(__file__).parents[1] / "results"
PAGES = sorted(FOLDER.glob("*.md"))
COMMANDS = sorted(
    {c for page in PAGES for c in re.findall(r"^ {4}grounding (.+)$", page.read_text("utf-8"), re.MULTILINE)}
)


@pytest.fixture(scope="module")
def tables() -> dict:
    return runpy.run_path(str(FOLDER / "tables.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_csv_files(tables, page):
    text = page.read_text("utf-8")
    assert tables["updated"](text) == text, "run: python results/tables.py"


def test_every_csv_file_has_a_table():
    shown = {name for page in PAGES for name in re.findall(r"<!-- table (\S+)", page.read_text("utf-8"))}
    assert shown == {path.name for path in FOLDER.glob("*.csv")}


def test_every_row_of_a_csv_file_is_shown(tables):
    """A condition that no table names would hide rows."""
    for path in FOLDER.glob("*.csv"):
        conditions = {c for p in PAGES for c in re.findall(rf"<!-- table {path.name}(.*?) -->", p.read_text("utf-8"))}
        shown = [tables["table"](path, dict(c.split("=") for c in condition.split())) for condition in conditions]
        rows = len(path.read_text("utf-8").splitlines()) - 1
        assert sum(len(text.splitlines()) - 2 for text in shown) == rows, path.name


@pytest.mark.parametrize("row", ["1,234,5", "1"])
def test_a_row_with_another_number_of_cells_is_refused(tables, tmp_path, row):
    (tmp_path / "a.csv").write_text(f"name,value\na,1\n{row}\n")
    with pytest.raises(ValueError, match=r"row 2 of a\.csv has another number of cells: quote a text with a comma"):
        tables["table"](tmp_path / "a.csv", {})


def test_an_interval_is_part_of_its_cell_and_empty_columns_are_left_out(tables, tmp_path):
    (tmp_path / "a.csv").write_text("run,R@1,R@1 low,R@1 high,note\nx,40.1,36.7,43.4,\ny,1.0,,,other\n")
    text = "before\n<!-- table a.csv run=x -->\nold\n<!-- end -->\nafter\n"
    expected = "| R@1 |\n| --- |\n| 40.1 (36.7 to 43.4) |"
    assert tables["updated"](text, tmp_path) == text.replace("old", f"\n{expected}\n")
    with pytest.raises(ValueError, match="no row"):
        tables["table"](tmp_path / "a.csv", {"run": "z"})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_accepted(command):
    """Every setting of a command exists; nothing is run."""
    overrides = shlex.split(command)
    refuse_renamed(overrides)
    with initialize_config_module("conf", version_base="1.3"):
        assert compose("config", overrides)

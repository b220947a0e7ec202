"""The command lines and the Python recipes that README.md and docs/ show."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHOWN = [page for page in PAGES if page.name == "README.md" or page.is_relative_to(ROOT / "docs")]
COMMAND = re.compile(
    r"(cat \S+ \| |(?:srun|torchrun) (?:\S+ )*?(?:-m )?)?grounding ((?!finds|is |has |runs |decides ).*)"
)
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)


class Line(NamedTuple):
    """A command line.

    Attributes:
        page: the page that shows it, relative to the repository.
        before: the words before ``grounding``: ``torchrun ... -m``, ``cat photo.jpg |`` or nothing.
        command: the words after ``grounding``.
    """

    page: str
    before: str
    command: str


def commands(pages: list[Path] = PAGES) -> Iterator[Line]:
    """Each command line of ``grounding`` in a block, in a table or in a sentence."""
    for page in pages:
        text = page.read_text("utf-8").replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines()]
        lines += re.findall(r"`((?:srun [^`]*)?grounding [^`]*)`", text.replace("\n", " "))
        for line in lines:
            found = COMMAND.match(line)
            if found and not line.endswith(".") and "STEP" not in line:
                yield Line(page.relative_to(ROOT).as_posix(), (found[1] or "").strip(), found[2])


def recipes() -> Iterator[tuple[str, str]]:
    """(page, code) for each block of Python; in the README, a block is indented."""
    for page in SHOWN:
        text = page.read_text("utf-8")
        blocks = FENCED.findall(text)
        if page.name == "README.md":
            blocks = [block for block in map(dedent, INDENTED.findall(text)) if "import " in block]
        yield from ((page.relative_to(ROOT).as_posix(), block) for block in blocks)

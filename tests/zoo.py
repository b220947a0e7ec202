"""A zoo of data sets: tiny ones, each written in the layout in which one well-known tool writes it.

All have the same three photos with the same texts or boxes, so that what a reader finds can be compared with a plain
reference. ``zoo_tables``, ``zoo_tars`` and ``zoo_annotations`` write the members; ``test_zoo`` reads them.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from made_crawl import photo

WIDTH, HEIGHT = 90, 60
PHOTOS = tuple(photo(number, (WIDTH, HEIGHT)) for number in range(3))
NAMES = ("1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg", "Rue du Café.jpg")
STEMS = tuple(Path(name).stem for name in NAMES)
# a comma, quotes, a semicolon, an apostrophe, letters outside of ASCII, a tag of two words
CAPTIONS = (
    ("A child in a pink dress, climbing.", 'A girl says "hello"; she goes up.'),
    ("A black dog and a white dog's ball",),
    ("Ein Café mit Gästen", "Two people, a table", "An empty street"),
)
TAGS = (("dog", "ice cream"), ("cat",), ("café", "dog", "T-shirt"))
# photo, class, box (x1, y1, x2, y2 in pixels from 0, half-open)
OBJECTS = ((0, "dog", (10, 20, 50, 60)), (0, "cat", (0, 0, 30, 40)), (2, "dog", (5, 6, 90, 60)))

Texts = dict[int, tuple[str, ...]]
Boxes = set[tuple[int, str, tuple[int, ...]]]


class Given(NamedTuple):
    """What a user gives: ``images=`` and perhaps ``captions=``, or the root of annotations and settings of ``data``."""

    path: Path
    second: Any = None

    def settings(self, folder: Path) -> str:
        """What a user writes on the command line, with paths relative to the data set."""

        def relative(path: object) -> str:
            return Path("DATA", path.relative_to(folder)).as_posix() if isinstance(path, Path) else str(path)

        if isinstance(self.second, dict):
            more = "".join(f" data.{name}={relative(value)}" for name, value in self.second.items() if name != "data")
            return f"data={self.second['data']} data.root={relative(self.path)}{more}"
        return f"images={relative(self.path)}" + (f" captions={relative(self.second)}" if self.second else "")


class Member(NamedTuple):
    """A data set.

    Attributes:
        tool: the tool or the data set whose layout it has.
        write: writes it into an empty folder, and returns what a user gives.
        kind: what is read: "captions", "tags", "objects" or "photos".
        texts: the expected texts by the number of the photo; None for the usual ones.
        skipped: how many samples are skipped for each kind of reason.
        refused: a part of the message of a data set that is refused, "…" for anything; "" if it is read.
    """

    tool: str
    write: Callable[[Path], Given]
    kind: str
    texts: Texts | None
    skipped: dict[str, int]
    refused: str

    @property
    def message(self) -> str:
        """The message of a data set that is refused, as a regular expression."""
        return ".*".join(map(re.escape, self.refused.split("…")))

    def row(self, folder: Path) -> str:
        """The line of the documentation.

        Args:
            folder: an empty folder.
        """
        result = f"refused: {self.refused}" if self.refused else self.kind
        reasons = "".join(f"; {count} {reason}" for reason, count in self.skipped.items())
        return f"| {self.tool} | `{self.write(folder).settings(folder)}` | {result}{reasons} |"


class Zoo(list[Member]):
    """A list of members that grows by a decorator."""

    def member(
        self,
        tool: str,
        kind: str = "captions",
        texts: Texts | None = None,
        skipped: dict[str, int] | None = None,
        refused: str = "",
    ) -> Callable[[Callable[[Path], Given]], Callable[[Path], Given]]:
        """Adds the data set that the decorated function writes."""

        def add(write: Callable[[Path], Given]) -> Callable[[Path], Given]:
            self.append(Member(tool, write, kind, texts, skipped or {}, refused))
            return write

        return add


def first_captions() -> Texts:
    """The texts of a layout with one caption for each photo."""
    return {number: captions[:1] for number, captions in enumerate(CAPTIONS)}


def pairs() -> list[tuple[str, str]]:
    """The name of the photo and the text of each caption."""
    return [(name, text) for name, texts in zip(NAMES, CAPTIONS, strict=True) for text in texts]


def write_photos(folder: Path, names: Iterable[str] = NAMES) -> Path:
    """Writes the photos under these names, and returns the folder."""
    for name, data in zip(names, PHOTOS, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_text(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Writes a text with the line ends that it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path

"""Reads captions from files: plain text, JSON lines, COCO, Flickr30k Entities."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from grounding.runtime.hidden import visible
from grounding.text import markup
from proposals.errors import InputError

TABLES = (".csv", ".tsv", ".parquet", ".token")
# Kaggle's captions.txt (image,caption), Flickr30k's results.csv (image_name| ...), Flickr8k.token.txt (1.jpg#0, a tab)
_TABLE = re.compile(
    r'"?(image|image_name|image_id|file_?name|path)"?(\s*[,;|\t]\s*"?[a-z_]{1,20}"?)+|\S+\.\w+#\d+\t.*', re.IGNORECASE
)


class Caption(NamedTuple):
    """One sentence about an image.

    Attributes:
        image: name of the image.
        sentence: number of the caption among those of the image, from 0.
        text: the sentence, as in the file.
        marked: whether the sentence has the markup of Flickr30k Entities.
        where: file and line, for error messages.
    """

    image: str
    sentence: int
    text: str
    marked: bool
    where: str


def read_captions(source: str | Path) -> Iterator[Caption]:
    """Reads the captions of a file or folder. Blank captions are left out.

    The format is recognised by the content:

    - a folder of text files, or a folder that contains ``Sentences/`` (Flickr30k Entities): one file for each image;
    - a text file: one caption on each line; the image has the name of the file;
    - JSON lines: ``{"image": "1.jpg", "caption": "..."}`` or ``{"image": "1.jpg", "captions": ["...", "..."]}``;
    - COCO captions: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``.

    Args:
        source: the file or folder.

    Yields:
        The captions, in the order of the files and lines.

    Raises:
        InputError: the source cannot be read or is a table, or a line is malformed; the message has the file and the
            line.
    """
    source = Path(source)
    try:
        yield from _read_folder(source) if source.is_dir() else _read_file(source)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}") from error


def _read_folder(folder: Path) -> Iterator[Caption]:
    folder = folder / "Sentences" if (folder / "Sentences").is_dir() else folder
    paths = visible(folder.glob("*.txt"))
    if not paths:
        raise InputError(f"{folder} has no .txt file: give a file of captions, or a folder of text files")
    marked = any(markup.START in line for path in paths for _, line in _lines(path))
    for path in paths:
        yield from _read_text(path, marked)


def _read_file(path: Path) -> Iterator[Caption]:
    if path.suffix.lower() in TABLES:
        raise _not_captions(path, "table")
    first = next((line for _, line in _lines(path) if line), "")
    if _TABLE.fullmatch(first):
        raise _not_captions(path, "table")
    if (path.suffix.lower() == ".json" and first.startswith("[")) or first == "[" or first.startswith(("[{", '["')):
        raise _not_captions(path, "JSON array")
    if not first.startswith("{"):
        return _read_text(path, any(markup.START in line for _, line in _lines(path)))
    try:
        is_line = "annotations" not in json.loads(first)
    except (ValueError, RecursionError):
        is_line = path.suffix == ".jsonl"
    return _read_jsonl(path) if is_line else _read_coco(path)


def _not_captions(path: Path, kind: str) -> InputError:
    """The error for a file whose columns and names would be taken for captions."""
    example = '{"image": "1.jpg", "caption": "a dog"}'
    return InputError(f"{path} is a {kind}, not captions: write JSON lines, {example}")


def _read_text(path: Path, marked: bool) -> Iterator[Caption]:
    for number, line in _lines(path):
        if line:
            yield Caption(path.stem, number - 1, line, marked, f"{path}:{number}")


def _read_jsonl(path: Path) -> Iterator[Caption]:
    sentences: Counter[str] = Counter()
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if line:
            image, captions = _image_and_captions(_parse(line, path, number), where)
            yield from _number(image, captions, sentences, where)


def _image_and_captions(entry: Any, where: str) -> tuple[str, list[str]]:
    if isinstance(entry, dict) and isinstance(image := entry.get("image"), str) and image:
        captions = entry["captions"] if "captions" in entry else [entry.get("caption")]
        if isinstance(captions, list) and all(isinstance(caption, str) for caption in captions):
            return image, captions
    raise InputError(f'{where}: expected {{"image": "name", "caption": "text"}} or a list as "captions"')


def _read_coco(path: Path) -> Iterator[Caption]:
    document = _parse("\n".join(line for _, line in _lines(path)), path)
    try:
        names = {image["id"]: image["file_name"] for image in document["images"]}
        annotations = list(document["annotations"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f'{path}: COCO captions need the lists "images" (with id and file_name) and "annotations"'
        ) from error
    sentences: Counter[str] = Counter()
    for number, annotation in enumerate(annotations):
        where = f"{path}: annotation {number}"
        try:
            image, caption = names[annotation["image_id"]], annotation["caption"]
        except (KeyError, TypeError) as error:
            raise InputError(f'{where} needs a "caption" and an "image_id" that is the id of an image') from error
        if not isinstance(image, str) or not isinstance(caption, str):
            raise InputError(f"{where}: the file name and the caption must be text")
        yield from _number(image, [caption], sentences, where)


def _number(image: str, captions: list[str], sentences: Counter[str], where: str) -> Iterator[Caption]:
    """Numbers the captions of an image, continuing after those that were read before."""
    for text in captions:
        if text.strip():
            yield Caption(image, sentences[image], text, False, where)
        sentences[image] += 1


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The line numbers from 1, and the lines without white space at both ends."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: not UTF-8 text: save the file as UTF-8") from error


def _parse(text: str, path: Path, line: int = 1) -> Any:
    """Parses JSON; ``line`` is the line of the file where the text begins, for error messages."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line - 1 + error.lineno}"
        raise InputError(f"{where}: invalid JSON at column {error.colno} ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{line}: invalid JSON ({error})") from error

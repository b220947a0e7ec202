"""Writes the pictures of answers: one for each phrase, or one for each photo and contact sheets."""

import re
from pathlib import Path

from grounding.answers import Answers, Grounding
from grounding.pictures.board import board
from grounding.pictures.sheet import ContactSheet
from grounding.pictures.svg import svg
from grounding.runtime.artefacts import atomic_path
from proposals.errors import InputError

PICTURES = ("png", "svg", "one")
ALL = "groundings.png"  # the picture of all phrases of a photo


def check_pictures(kind: str | None) -> None:
    """Checks the kind of pictures.

    Args:
        kind: "png" or "svg", a picture for each phrase; "one", a picture for each photo; None for none.

    Raises:
        InputError: it is another.
    """
    if kind is not None and kind not in PICTURES:
        raise InputError(f"pictures={kind!r} is not a picture format; choose one of {', '.join(PICTURES)}, or null")


class PictureWriter:
    """Writes the pictures of the answers about photos, one photo after another.

    Args:
        output: the folder of the contact sheets.
        kind: see :func:`check_pictures`.
        many: whether there may be many photos; with "one" they get contact sheets.
    """

    def __init__(self, output: Path, kind: str | None, many: bool) -> None:
        self._kind = kind
        self._sheet = ContactSheet(output) if many and kind == "one" else None

    def write(self, name: str, answers: Answers, folder: Path) -> None:
        """Writes the pictures of one photo.

        Args:
            name: the photo's name on the contact sheet.
            answers: the answers, with their image.
            folder: the folder for its pictures.

        Raises:
            InputError: a file cannot be written.
        """
        image = answers.groundings[0].image
        if self._kind is None or image is None:
            return
        if self._kind == "one":
            with atomic_path(folder / ALL) as temporary:
                board(image, answers.groundings).save(temporary, "PNG")
        else:
            for number, answer in enumerate(answers.groundings, 1):
                if answer.groundable:
                    _write_picture(answer, folder / f"{file_name(number, answer)}.{self._kind}")
        if self._sheet:
            self._sheet.add(name, image, answers.groundings)

    def close(self) -> None:
        """Writes the last contact sheet.

        Raises:
            InputError: it cannot be written.
        """
        if self._sheet:
            self._sheet.close()


def file_name(number: int, answer: Grounding) -> str:
    """The name of a file about one answer, without a suffix.

    Args:
        number: the phrase's number among those of the photo, from 1.
        answer: the answer.

    Returns:
        The number, and the phrase in plain letters.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", answer.phrase.text.lower()).strip("-")[:60]
    return f"{number:02d}-{slug}".rstrip("-")


def _write_picture(answer: Grounding, path: Path) -> None:
    with atomic_path(path) as temporary:
        if path.suffix == ".svg":
            assert answer.image is not None  # checked by the caller
            temporary.write_text(svg(answer.image, [answer]), "utf-8")
        else:
            answer.overlay().save(temporary, "PNG")

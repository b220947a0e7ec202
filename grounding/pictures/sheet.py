"""Contact sheets: many photos with their labelled boxes on few pages."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grounding.answers import Grounding
from grounding.draw import captioned
from grounding.pictures.board import grid
from grounding.pictures.labels import draw_labelled, labelled_boxes
from grounding.runtime.artefacts import atomic_path

COLUMNS = 4
PHOTOS = 24  # of a page
CELL = 400  # pixels of the longer side of a photo


class ContactSheet:
    """Collects photos, and writes a page whenever enough have come.

    Args:
        folder: the folder to write to. The pages are ``contact-sheet-01.jpg``, ``contact-sheet-02.jpg`` and so on.

    Attributes:
        pages: the number of pages so far.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.pages = Path(folder), 0
        self._cells: list[Image.Image] = []

    def add(self, name: str, image: NDArray[np.uint8], answers: Sequence[Grounding]) -> None:
        """Adds a photo.

        Args:
            name: the text above it.
            image: ``(H, W, 3)`` uint8 RGB.
            answers: the answers about it; their best boxes are drawn.

        Raises:
            InputError: a page cannot be written.
        """
        scale = min(1.0, CELL / max(image.shape[:2]))
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        picture = Image.fromarray(image).resize(size)
        draw_labelled(picture, labelled_boxes(answers, scale))
        cell = Image.new("RGB", (CELL, picture.height))
        cell.paste(picture, ((CELL - picture.width) // 2, 0))
        self._cells.append(captioned(cell, [(name, "white")]))
        if len(self._cells) == PHOTOS:
            self.close()

    def close(self) -> None:
        """Writes the last page.

        Raises:
            InputError: the page cannot be written.
        """
        if self._cells:
            self.pages += 1
            with atomic_path(self.folder / f"contact-sheet-{self.pages:02d}.jpg") as temporary:
                grid(self._cells, min(COLUMNS, len(self._cells))).save(temporary, "JPEG", quality=88)
        self._cells = []

"""What is answered to phrases."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from grounding.attention import resize_mass
from grounding.phrases import Phrase


@dataclass(frozen=True, eq=False, repr=False)
class Grounding:
    """The answer to one phrase. A terminal prints it in a line; a notebook shows its overlay.

    Attributes:
        phrase: the caller's text, its tags, and the words that no tag covers.
        boxes: (K, 4) float64 xyxy, half-open, in pixels of the image, best first; empty if not groundable.
        scores: (K,) of ``grounding.rescoring``, non-increasing: the mass that each box wins in the vote, f(R) without.
        map: (h, w) the phrase's mass on the proposals' grid, None if not groundable.
        size: (height, width) of the image.
        image: (H, W, 3) uint8, the photo, shared with its scene; None from ``Grounder.ground_batch``, whose answers may
            be kept by the thousand.
    """

    phrase: Phrase
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    map: NDArray[np.float64] | None
    size: tuple[int, int]
    image: NDArray[np.uint8] | None = field(default=None)

    @property
    def groundable(self) -> bool:
        """Whether the vocabulary knows any of the phrase's words."""
        return self.map is not None

    @cached_property
    def heatmap(self) -> NDArray[np.float64] | None:
        """(H, W) float64, the map at the image's own pixels with its mass kept."""
        if self.map is None:
            return None
        resized: NDArray[np.float64] = resize_mass(torch.from_numpy(self.map)[None], self.size)[0].numpy()
        return resized

    @property
    def point(self) -> tuple[float, float] | None:
        """(x, y) in pixels of the image: where the map has its maximum, None if not groundable."""
        if self.map is None:
            return None
        y, x = np.unravel_index(self.map.argmax(), self.map.shape)
        height, width = self.map.shape
        return float((x + 0.5) * self.size[1] / width), float((y + 0.5) * self.size[0] / height)

    def __repr__(self) -> str:
        found = "not groundable"
        if self.groundable:
            box = ", ".join(f"{side:.0f}" for side in self.boxes[0])
            found = f"box=({box}), score={self.scores[0]:.3f}, boxes={len(self.boxes)}"
        skipped = f", skipped={self.phrase.skipped}" if self.phrase.skipped else ""
        return f"Grounding({self.phrase.text!r}: {found}{skipped})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the overlay as PNG; None, and so the line of text, where there is none."""
        # matplotlib takes a quarter of a second, and most answers are never shown
        from grounding.draw import overlay

        if self.image is None or not self.groundable:
            return None
        overlay(self.image, self).save(png := BytesIO(), "PNG")
        return png.getvalue()


class Answers(NamedTuple):
    """What is answered about one image.

    Attributes:
        image: its name; size: (height, width) in pixels; groundings: one a phrase, in the order asked.
    """

    image: str
    size: tuple[int, int]
    groundings: Sequence[Grounding]

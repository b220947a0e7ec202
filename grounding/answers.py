"""The answers to phrases."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from grounding.maps import resize_mass
from grounding.runtime.terminal import in_one_line
from grounding.text.phrases import Phrase
from proposals.errors import InputError

LONGEST = 200  # characters of a phrase that is printed
ABSENT = "probably not in this photo"  # how people read ``present=False``


@dataclass(frozen=True, eq=False, repr=False)
class Grounding:
    """The answer to one phrase. ``print`` writes it as one line, a notebook shows its overlay.

    Attributes:
        phrase: the phrase as the caller wrote it, its tags, and the words that no tag covers.
        boxes: ``(K, 4)`` float64 xyxy, half-open, in pixels of the image, best first; empty if not groundable.
        scores: ``(K,)``, non-increasing: the probability that each box wins in the vote, or f(R) without a vote (see
            ``grounding.rescoring``).
        map: ``(h, w)``, the mass of the phrase on the grid of the proposals; None if not groundable. After a vote it is
            the map of the method's focus, if it has one (see ``grounding.attention.methods``).
        size: (height, width) of the image in pixels.
        image: ``(H, W, 3)`` uint8 RGB, the photo; None in the answers of ``Grounder.ground_batch``, unless its
            ``keep_images`` is set.
        voted: whether the scores come from a vote.
        focus: the point of the method's focus in a vote; None without one.
        presence: probability in 0..1 that the photo shows what the phrase names; None if it is unknown: the tagger has
            no presence model, or the phrase is not groundable. The boxes and scores do not depend on it.
        present: whether ``presence`` reaches the threshold (``Settings.presence``); None if ``presence`` is None.
    """

    phrase: Phrase
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    map: NDArray[np.float64] | None
    size: tuple[int, int]
    image: NDArray[np.uint8] | None = field(default=None)
    voted: bool = False
    presence: float | None = None
    present: bool | None = None
    focus: tuple[float, float] | None = None

    @property
    def groundable(self) -> bool:
        """Whether the vocabulary contains any word of the phrase."""
        return self.map is not None

    @property
    def absent(self) -> bool:
        """Whether the photo probably does not show what the phrase names; False if this is unknown."""
        return self.present is not None and not self.present

    @cached_property
    def heatmap(self) -> NDArray[np.float64] | None:
        """``(H, W)`` float64, the map at the resolution of the image, with the same mass; None if not groundable."""
        if self.map is None:
            return None
        resized: NDArray[np.float64] = resize_mass(torch.from_numpy(self.map)[None], self.size)[0].numpy()
        return resized

    @property
    def point(self) -> tuple[float, float] | None:
        """(x, y) in pixels of the image, the most likely point of the object; None if not groundable.

        Without a vote it is the maximum of the map. After a vote it is the maximum among those cells that the largest
        total score of boxes covers, because the maximum of the whole map is sometimes beside the object.
        """
        if self.map is None or self.focus is not None:
            return self.focus
        if self.voted:
            return likely_point(self.map, self.boxes, self.scores, self.size)
        return _maximum(self.map, self.size)

    def __repr__(self) -> str:
        result = "not groundable"
        if self.groundable:
            box = ", ".join(f"{side:.0f}" for side in self.boxes[0])
            result = f"box=({box}), score={self.scores[0]:.3f}, boxes={len(self.boxes)}"
        if self.presence is not None:
            result += f", presence={self.presence:.2f}"
        if self.absent:
            result = f"{ABSENT}: {result}"
        skipped = f", skipped={self.phrase.skipped}" if self.phrase.skipped else ""
        return f"Grounding({self.phrase.text!r}: {result}{skipped})"

    def __str__(self) -> str:
        parts = []
        if self.groundable:
            parts = [f"box {' '.join(f'{side:.0f}' for side in self.boxes[0])}", f"score {self.scores[0]:.2f}"]
        if self.presence is not None:
            parts.append(f"presence {self.presence:.2f}")
        if self.phrase.read_as:
            parts.append(f"read as {self.phrase.read_as}")
        if self.phrase.skipped:
            parts.append(f"not known: {in_one_line(', '.join(self.phrase.skipped), LONGEST)}")
        verdict = f"{ABSENT}: " if self.absent else "" if self.groundable else "not groundable: "
        return f"{in_one_line(self.phrase.text, LONGEST)}: {verdict}{', '.join(parts)}"

    def overlay(self) -> Image.Image:
        """Draws the photo under the phrase's heat map, with the best box in white and the phrase above.

        If the photo probably does not show what the phrase names, the picture says so and its box is grey and dashed.

        Returns:
            An RGB picture, see ``grounding.draw.overlay``.

        Raises:
            InputError: the phrase is not groundable, or the answer does not contain its image.
        """
        # matplotlib takes a quarter of a second to import, and most answers are never shown
        from grounding.draw import overlay

        if self.map is None:
            raise InputError(f"{self.phrase.text!r} is not groundable: there is nothing to draw")
        if self.image is None:
            raise InputError("the answer does not contain its image: call ground_batch with keep_images=True")
        skipped = f"   (not known: {', '.join(self.phrase.skipped)})" if self.phrase.skipped else ""
        return overlay(self.image, self.map, self.boxes[0], self.phrase.text + skipped, ABSENT if self.absent else "")

    def to_supervision(self, boxes: int | None = None, class_id: int = 0) -> Any:
        """Converts the boxes to ``supervision.Detections``. This needs the package supervision.

        The boxes of what is probably not in the photo are converted, too; ``absent`` says so.

        Args:
            boxes: the largest number of boxes; None for all.
            class_id: the number of the class, which chooses the colour of supervision's annotators.

        Returns:
            The detections, best first: ``xyxy`` in pixels, half-open, the scores as ``confidence``, and the phrase as
            ``data["class_name"]``; none if the phrase is not groundable.

        Raises:
            InputError: supervision is not installed.
        """
        try:
            supervision: Any = import_module("supervision")
        except ImportError as error:
            raise InputError("to_supervision needs the package supervision: pip install supervision") from error
        kept = self.boxes[:boxes]
        return supervision.Detections(
            xyxy=kept.copy(),
            confidence=self.scores[:boxes].copy(),
            class_id=np.full(len(kept), class_id),
            data={"class_name": np.array([self.phrase.text] * len(kept), dtype=str)},
        )

    def _repr_png_(self) -> bytes | None:
        """Returns the overlay as PNG for a notebook; None if there is nothing to draw, so that it prints the line."""
        if self.image is None or not self.groundable:
            return None
        self.overlay().save(png := BytesIO(), "PNG")
        return png.getvalue()


def likely_point(
    attention: NDArray[np.float64], boxes: NDArray[np.float64], scores: NDArray[np.float64], size: tuple[int, int]
) -> tuple[float, float]:
    """The maximum of a map among those cells that the largest total score of boxes covers.

    The maximum of the whole map is sometimes beside the object.

    Args:
        attention: ``(h, w)``, the map.
        boxes: ``(K, 4)`` xyxy in pixels of the image.
        scores: ``(K,)``, >= 0.
        size: (height, width) of the image in pixels.

    Returns:
        (x, y) in pixels of the image.
    """
    covering, (height, width) = np.zeros(attention.shape), attention.shape
    cells = boxes * np.array([width, height] * 2) / np.array(size[::-1] * 2)
    for (x1, y1), (x2, y2), score in zip(np.floor(cells[:, :2]), np.ceil(cells[:, 2:]), scores, strict=True):
        covering[int(y1) : int(y2), int(x1) : int(x2)] += score
    return _maximum(np.where(covering >= covering.max(), attention, -1), size)


def _maximum(attention: NDArray[np.float64], size: tuple[int, int]) -> tuple[float, float]:
    """The centre of the largest cell, (x, y) in pixels of the image."""
    y, x = np.unravel_index(attention.argmax(), attention.shape)
    return float((x + 0.5) * size[1] / attention.shape[1]), float((y + 0.5) * size[0] / attention.shape[0])


class Answers(NamedTuple):
    """The answers about one image. A notebook shows them beside each other if they contain their image.

    Attributes:
        image: the image's name.
        size: (height, width) in pixels.
        groundings: one for each phrase, in the order of the phrases.
    """

    image: str
    size: tuple[int, int]
    groundings: Sequence[Grounding]

    def _repr_html_(self) -> str | None:
        show = getattr(self.groundings, "_repr_html_", None)
        return show() if show else None

"""The protocols of phrase localization on Flickr30k Entities: how the ranked boxes of a phrase are judged.

``ours`` judges the boxes as they are. ``iccv15`` does what the published evaluation program of Plummer et al. (ICCV
2015) does. The paper used this program ("We use the evaluation code from [12]", Sec. 4.3), but not all of its settings
are known, so tables show both protocols. ``docs/how-to/judge.md`` lists the differences.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torchvision.ops import nms

from eval.flickr30k import EntityImage, Flickr30kEntities
from eval.phrase_list import ListedPhrase, approximate_list, read_phrase_list
from eval.phrase_truth import Place
from proposals.errors import InputError

NMS = 0.5  # a box whose IoU with a better one is larger is removed
NAMES = ("ours", "iccv15")


class Protocol:
    """Our protocol: boxes are judged as they are, and mAP (Phrase) groups phrases by their text in lower case.

    Attributes:
        name: ``ours`` or ``iccv15``.
        by_category: whether the overall recall is also given by category, where a phrase counts once for each type.
    """

    name = "ours"
    by_category = False

    def judged(self, place: Place, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The boxes of a phrase that are judged.

        Args:
            place: the phrase.
            boxes: ``(K, 4)`` inclusive xyxy, best first.
            scores: ``(K,)``.

        Returns:
            ``(J, 4)`` and ``(J,)``, in the order in which they are judged.
        """
        return boxes, scores

    def counts(self, place: Place) -> bool:
        """Whether a phrase is evaluated."""
        return True

    def parsed(self, place: Place) -> bool:
        """Whether a parser found the phrase; otherwise it is a miss."""
        return True

    def label(self, place: Place, text: str) -> str:
        """The label that mAP (Phrase) groups a phrase by."""
        return text.lower()


class ReleasedProtocol(Protocol):
    """The protocol of the published evaluation program of Plummer et al.

    - The program sorts the boxes by their score and applies its own NMS, at an IoU of 0.5. Of equal scores, the box
      that is listed last comes first.
    - A phrase that a parser did not find has no box, so it is a miss.
    - mAP (Phrase) groups the phrases by some of their words, see ``eval.phrase_list``.
    - The overall recall is by label (each phrase counts once) or by category (once for each of its types).

    Args:
        phrases: the phrases that are evaluated.
    """

    name = "iccv15"
    by_category = True

    def __init__(self, phrases: Mapping[Place, ListedPhrase]):
        self._phrases = phrases

    def judged(self, place: Place, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The boxes that the program's NMS keeps, by their score; none if the phrase was not parsed."""
        if not self.parsed(place):
            return boxes[:0], scores[:0]
        backwards = [array[::-1].copy() for array in (boxes, scores)]
        half_open = backwards[0] + np.array([0, 0, 1, 1])
        kept = nms(torch.from_numpy(half_open), torch.from_numpy(backwards[1]), NMS).numpy()
        return backwards[0][kept], backwards[1][kept]

    def counts(self, place: Place) -> bool:
        """Whether the list has the phrase."""
        return place in self._phrases

    def parsed(self, place: Place) -> bool:
        """Whether the list says that a parser found the phrase."""
        return place in self._phrases and self._phrases[place].parsed

    def label(self, place: Place, text: str) -> str:
        """The words of the list."""
        return self._phrases[place].label


OURS = Protocol()


def find_protocol(
    name: str, data: Flickr30kEntities, images: Sequence[EntityImage], phrase_list: str | None = None
) -> Protocol:
    """A protocol by its name.

    Args:
        name: one of ``NAMES``.
        data: the data set, for its captions.
        images: the photos that are evaluated.
        phrase_list: the ``phraseList.txt`` of the program, for ``iccv15``; None to approximate it.

    Raises:
        InputError: the name is unknown, or the list cannot be used.
    """
    if name not in NAMES:
        raise InputError(f"protocol={name} must be one of {', '.join(NAMES)}")
    if name == OURS.name:
        if phrase_list is not None:
            raise InputError(f"phrase_list={phrase_list} is of the other protocol: set step.protocol=iccv15")
        return OURS
    if phrase_list is None:
        return ReleasedProtocol(approximate_list(data, images))
    protocol = ReleasedProtocol(read_phrase_list(phrase_list))
    if not any(protocol.counts(entity.place(image.id)) for image in images for entity in image.entities):
        raise InputError(f"{phrase_list} lists no phrase of these photos: set data.split to its split")
    return protocol

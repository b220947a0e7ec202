"""The own-box rate: how many phrases of a photo get a first box that no other phrase of the photo gets, too.

A first box is a phrase's own if its IoU with the first box of every other phrase of the photo is below 0.7. A phrase
without a box has no own box, and takes none from the others. Photos with a single phrase do not count.
"""

from collections.abc import Callable, Sequence

import numpy as np

from eval.localization import THRESHOLD, overlap
from eval.metrics import Metrics
from eval.phrase_results import PhraseResult

SAME_BOX = 0.7  # IoU of two boxes that count as the same

Compared = Callable[[Sequence[PhraseResult]], np.ndarray]


def all_others(results: Sequence[PhraseResult]) -> np.ndarray:
    """Compares each phrase with all others of its photo, as for categories, which are different things.

    Args:
        results: the N phrases of one photo.

    Returns:
        ``(N, N)`` bool.
    """
    return ~np.eye(len(results), dtype=bool)


def other_objects(results: Sequence[PhraseResult]) -> np.ndarray:
    """Compares each phrase with those of the photo that have another text, and another place in the photo.

    Captions name the same thing several times. The place is another one if the IoU of the union boxes is below 0.5.

    Args:
        results: the N phrases of one photo.

    Returns:
        ``(N, N)`` bool.
    """
    unions = np.stack([result.union for result in results])
    texts = np.array([result.text.lower() for result in results])
    return (overlap(unions, unions) < THRESHOLD) & (texts[:, None] != texts[None])


def own_boxes(first: Sequence[np.ndarray | None], compared: np.ndarray) -> np.ndarray:
    """Whether the phrases of a photo have a box of their own.

    Args:
        first: for each of the N phrases its best box, inclusive xyxy; None without a box.
        compared: ``(N, N)`` bool, the phrases that each phrase is compared with.

    Returns:
        ``(N,)`` bool.
    """
    boxed = np.array([box is not None for box in first])
    boxes = np.stack([np.zeros(4) if box is None else box for box in first])
    shared = (overlap(boxes, boxes) >= SAME_BOX) & compared & boxed[None]
    return boxed & ~shared.any(1)


def add_own_boxes(metrics: Metrics, results: Sequence[PhraseResult], compared: Compared) -> int:
    """Adds the share of phrases with a box of their own, and the share of photos where all phrases have one.

    The attribute ``own`` of the results is set.

    Args:
        metrics: receives ``own_box`` and ``own_box_photos``.
        results: the results of all phrases.
        compared: which phrases of a photo are compared.

    Returns:
        The number of phrases that count: those that are compared with another phrase.
    """
    own, counts, every, first = (np.zeros(len(results), bool) for _ in range(4))
    photos: dict[str, list[int]] = {}
    for number, result in enumerate(results):
        photos.setdefault(result.place[0], []).append(number)
    for numbers in photos.values():
        phrases = [results[number] for number in numbers]
        pairs = compared(phrases)
        own[numbers], counts[numbers] = own_boxes([phrase.first for phrase in phrases], pairs), pairs.any(1)
        for phrase, has, compares in zip(phrases, own[numbers], counts[numbers], strict=True):
            phrase.own = bool(has) if compares else None
        first[numbers[0]] = pairs.any()  # one phrase stands for the photo
        every[numbers[0]] = own[numbers][pairs.any(1)].all()
    metrics.add_share(("own_box",), own, counts)
    metrics.add_share(("own_box_photos",), every, first)
    return int(counts.sum())

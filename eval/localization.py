"""The measures of phrase localization: which boxes are correct, and the rank of the first correct one."""

import numpy as np

THRESHOLD = 0.5  # IoU of a correct box
DEPTHS = (1, 5, 10)  # the k of recall@k
SMALL = 0.25  # share of the image's area; the paper calls smaller instances small
TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
MISS = np.inf  # the rank of a phrase without a correct box


def inclusive(boxes: np.ndarray) -> np.ndarray:
    """Converts half-open boxes to the first and last pixels in them, the format of ``predictions.jsonl``.

    Args:
        boxes: ``(..., 4)`` half-open xyxy, in pixels.

    Returns:
        ``(..., 4)`` inclusive xyxy, in pixels from 0.
    """
    return boxes - np.array([0, 0, 1, 1])


def overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of inclusive boxes (the "+1" of the VOC and Entities programs).

    Args:
        boxes: ``(N, 4)`` inclusive xyxy.
        truth: ``(M, 4)`` inclusive xyxy.

    Returns:
        ``(N, M)`` in [0, 1].
    """
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = (high - low + 1).clip(min=0).prod(2)
    areas = [(b[:, 2:] - b[:, :2] + 1).clip(min=0).prod(1) for b in (boxes, truth)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def first_correct(boxes: np.ndarray, truth: np.ndarray) -> float:
    """The rank of the first box with an IoU of at least 0.5 with any ground-truth box.

    Args:
        boxes: ``(N, 4)`` inclusive xyxy, best first.
        truth: ``(M, 4)`` inclusive xyxy.

    Returns:
        The rank, from 1; infinity if no box is correct.
    """
    correct = (overlap(boxes, truth) >= THRESHOLD).any(1)
    return float(correct.argmax() + 1) if correct.any() else MISS


def contains(boxes: np.ndarray, point: tuple[float, float] | None) -> bool:
    """Whether a point lies in any box.

    Args:
        boxes: ``(M, 4)`` half-open xyxy, in pixels.
        point: (x, y) in pixels; None lies in no box.
    """
    if point is None:
        return False
    x, y = point
    return bool(((boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])).any())

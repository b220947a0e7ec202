"""The measures of phrase localization: which boxes are right, how soon they come, and what they are told for."""

import numpy as np

THRESHOLD = 0.5
DEPTHS = (1, 5, 10)
GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the range of Sec. 4.3
SMALL = 0.25  # of the image: the paper's small instances are below
TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
MISS = np.inf


def gamma_told(metrics: dict) -> str:
    """The gamma of an evaluation for a table; those of the halves where it was chosen twofold (see ``eval.choice``)."""
    if "chosen" not in metrics:
        return f"{metrics['gamma']:g}"
    return " / ".join(f"{gamma:g}" for gamma in dict.fromkeys(metrics["chosen"]["gammas"])) + ", chosen"


def inclusive(boxes: np.ndarray) -> np.ndarray:
    """Half-open xyxy boxes (..., 4) by the first and last pixels in them, as ``predictions.jsonl`` has them."""
    return boxes - np.array([0, 0, 1, 1])


def overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union, last pixels included (the "+1" of the VOC and Entities programs).

    Args:
        boxes: (N, 4) and truth: (M, 4), inclusive xyxy.

    Returns:
        (N, M) in 0..1.
    """
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = (high - low + 1).clip(min=0).prod(2)
    areas = [(b[:, 2:] - b[:, :2] + 1).clip(min=0).prod(1) for b in (boxes, truth)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def first_correct(boxes: np.ndarray, truth: np.ndarray) -> float:
    """The rank, from 1, of the first box (N, 4) that overlaps any of the truth (M, 4) by 0.5; infinity for none."""
    correct = (overlap(boxes, truth) >= THRESHOLD).any(1)
    return float(correct.argmax() + 1) if correct.any() else MISS


def contains(boxes: np.ndarray, point: tuple[float, float] | None) -> bool:
    """Whether a point (x, y), in pixels, lies in any of the half-open boxes (M, 4); None never does."""
    if point is None:
        return False
    x, y = point
    return bool(((boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])).any())

"""How good probabilities are: area under the ROC curve, expected calibration error, Brier score, log loss."""

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-6  # of a probability in the log loss


def measure(truth: NDArray[np.bool_], chances: NDArray[np.float64]) -> dict[str, float]:
    """Measures probabilities.

    Args:
        truth: ``(n,)``, what is true.
        chances: ``(n,)`` in 0..1, the probability of each.

    Returns:
        ``auc``: area under the ROC curve, NaN if all are true or none is; ``ece``: expected calibration error with ten
        bins of equal width; ``brier``: mean squared error; ``log_loss``: in nats.
    """
    kept = np.clip(chances, SMALLEST, 1 - SMALLEST)
    return {
        "auc": area_under_roc(truth, chances),
        "ece": calibration_error(truth, chances),
        "brier": float(((chances - truth) ** 2).mean()),
        "log_loss": float(-np.where(truth, np.log(kept), np.log1p(-kept)).mean()),
    }


def area_under_roc(truth: NDArray[np.bool_], chances: NDArray[np.float64]) -> float:
    """The probability that a true one has a larger value than a false one; equal values count half.

    Args:
        truth: ``(n,)``, what is true.
        chances: ``(n,)``, the values.

    Returns:
        The area in 0..1; NaN if all are true or none is.
    """
    _, which, counts = np.unique(chances, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    true, false = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - true * (true + 1) / 2) / (true * false)) if true * false else float("nan")


def calibration_error(truth: NDArray[np.bool_], chances: NDArray[np.float64], bins: int = 10) -> float:
    """The expected calibration error: in each bin |share that is true - mean probability|, averaged over all.

    Args:
        truth: ``(n,)``, what is true.
        chances: ``(n,)`` in 0..1, the probabilities.
        bins: number of bins of equal width.

    Returns:
        The error in 0..1.
    """
    which = np.minimum((chances * bins).astype(int), bins - 1)
    gaps = np.bincount(which, truth.astype(np.float64) - chances, bins)
    return float(np.abs(gaps).sum() / len(chances))

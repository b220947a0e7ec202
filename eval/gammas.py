"""The exponent gamma of a proposal's area in the score S_R / A_R^gamma (Sec. 4.3), and which one is best."""

from collections.abc import Mapping
from typing import TypeVar

GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the values of Sec. 4.3

Gamma = TypeVar("Gamma", str, float)  # a number, or its text as a key of metrics.json


def best_gamma(recalls: Mapping[Gamma, float]) -> Gamma:
    """The gamma with the largest recall.

    Args:
        recalls: for each gamma the sum of R@1, R@5 and R@10.

    Returns:
        The best gamma; of equal ones the smallest.
    """
    return min(recalls, key=lambda gamma: (-recalls[gamma], float(gamma)))


def gamma_text(metrics: dict) -> str:
    """The gamma of an evaluation, for a table.

    Args:
        metrics: the metrics of step=evaluate.

    Returns:
        The gamma; both gammas where each half of the photos has its own (see ``eval.gamma_selection``).
    """
    if "chosen" not in metrics:
        return f"{metrics['gamma']:g}"
    return " / ".join(f"{gamma:g}" for gamma in dict.fromkeys(metrics["chosen"]["gammas"])) + ", chosen"

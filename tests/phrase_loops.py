"""Random results of phrases, and the metrics of phrase localization as plain loops over their definitions."""

import numpy as np
import pytest

from eval.localization import TYPES
from eval.phrase_results import PhraseResult

TEXTS = ["a dog", "A dog", "his hat", "two men"]


def random_results(rng: np.random.Generator, photos: int = 5, most: int = 30) -> list[PhraseResult]:
    results = []
    for i in range(rng.integers(1, most)):
        count = int(rng.choice([0, 1, 1, 3, 8]))
        scores = -np.sort(-rng.integers(0, 4, count) / 2.0)  # ties, within a phrase and between phrases
        results.append(
            PhraseResult(
                place=(str(i * photos // most), 0, i), text=str(rng.choice(TEXTS)),
                types=tuple(rng.choice(TYPES, rng.integers(1, 3), replace=False)), area=float(rng.random() / 2),
                whole_rank=rng.choice([1, np.inf]), centred=bool(rng.random() < 0.5),
                rank=float(rng.choice([*range(1, count + 1), np.inf])), any_rank=rng.choice([1, 4, np.inf]),
                scores=scores, covered=bool(rng.random() < 0.9), pointed=bool(rng.random() < 0.6),
            )
        )  # fmt: skip
    return results


def slow_recall(results: list[PhraseResult], depth: int, name: str = "rank") -> float | None:
    hits = 0
    for phrase in results:
        if getattr(phrase, name) <= depth:
            hits += 1
    return 100 * hits / len(results) if results else None


def slow_precision(results: list[PhraseResult]) -> float | None:
    """Average precision, as the module ``eval.average_precision`` defines it."""
    if not results:
        return None
    rows = []
    for order, phrase in enumerate(results):
        for rank, score in enumerate(phrase.scores, 1):
            rows.append((-score, rank, order, rank == phrase.rank))
    true, points = 0, []
    for total, (*_, correct) in enumerate(sorted(rows), 1):
        true += correct
        points.append((true / len(results), true / total))
    best = [max([p for r, p in points if r >= k / 10 - 1e-12], default=0) for k in range(11)]
    return 100 * sum(best) / 11


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def same(found: float | None, expected: float | None) -> bool:
    return found is expected if expected is None else found == pytest.approx(expected)

"""Bootstrap intervals: how far a figure would move with other photos of the same kind.

Photos are drawn with replacement, not phrases, for the phrases of one photo rise and fall together. A resample is a
weight a photo: how often it was drawn.
"""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def resamples(photos: int, count: int | None = None, seed: int = 0) -> np.ndarray:
    """(count, photos) float64: how often each photo is drawn in each resample; each row sums to ``photos``."""
    count = RESAMPLES if count is None else count
    return np.random.default_rng(seed).multinomial(photos, np.full(photos, 1 / photos), count).astype(float)


def resampled_share(hits: np.ndarray, photo: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) the percentage of hits in each resample; NaN where it has no trial.

    Args:
        hits: (N,) bool, one a trial; photo: (N,) int64, whose it is; weights: (B, photos).
    """
    trials = np.bincount(photo, minlength=weights.shape[1])
    good = np.bincount(photo, hits, weights.shape[1])
    total = weights @ trials
    return np.divide(100 * (weights @ good), total, out=np.full(len(total), np.nan), where=total > 0)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The central 95 % of resampled figures (B,), NaN left out; None of nothing."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

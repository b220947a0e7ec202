"""Bootstrap intervals: how much a result would vary with other photos of the same kind.

A resample draws photos, not phrases, with replacement, because the phrases of one photo are not independent. It is
stored as one weight per photo: how often the photo was drawn.
"""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def resamples(photos: int, count: int | None = None, seed: int = 0) -> np.ndarray:
    """Draws bootstrap resamples of photos.

    Args:
        photos: number of photos, P.
        count: number of resamples, B; None for ``RESAMPLES``.
        seed: the seed of the random numbers.

    Returns:
        ``(B, P)`` float64, how often each photo is drawn. Each row sums to P.
    """
    count = RESAMPLES if count is None else count
    return np.random.default_rng(seed).multinomial(photos, np.full(photos, 1 / photos), count).astype(float)


def resampled_share(hits: np.ndarray, photo: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The percentage of hits in each resample.

    Args:
        hits: ``(N,)`` bool, one value per trial.
        photo: ``(N,)`` int64, the index of each trial's photo.
        weights: ``(B, P)`` from :func:`resamples`.

    Returns:
        ``(B,)`` in percent; NaN where a resample has no trial.
    """
    trials = np.bincount(photo, minlength=weights.shape[1])
    good = np.bincount(photo, hits, weights.shape[1])
    total = weights @ trials
    return np.divide(100 * (weights @ good), total, out=np.full(len(total), np.nan), where=total > 0)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The central 95 % percentile interval.

    Args:
        values: ``(B,)`` the statistic in each resample; NaN values are left out.

    Returns:
        The lower and upper bound; None if all values are NaN.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def class_mean_interval(
    hits: np.ndarray, counts: np.ndarray, count: int | None = None, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of an accuracy that is averaged over classes.

    Args:
        hits: ``(P, C)`` number of hits of each class in each photo.
        counts: ``(P, C)`` number of trials. A class without a trial in a resample does not count there.
        count: number of resamples; None for ``RESAMPLES``.
        seed: the seed of the random numbers.

    Returns:
        The lower and upper bound, in percent; None if no resample has a trial.
    """
    weights = resamples(len(counts), count, seed)
    drawn_hits, drawn = weights @ hits, weights @ counts
    present = drawn > 0
    means = np.divide(drawn_hits, drawn, out=np.zeros_like(drawn), where=present).sum(1) / present.sum(1)
    return interval(100 * means)

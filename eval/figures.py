"""Figures: percentages and average precisions, each with its interval over photos."""

from collections.abc import Mapping, Sequence

import numpy as np

from eval.bootstrap import interval, resampled_share, resamples
from eval.precision import Pooled

AT_ONCE = 100  # resamples of average precision: its arrays are as long as there are true positives

Path = tuple[str, ...]


class Figures:
    """Collects named figures of trials (phrases) that belong to photos.

    Args:
        photo: of each of the N trials, its photo's name.

    Attributes:
        values, intervals: nested dictionaries of one shape: a figure in percent, and its (low, high); None of nothing.
    """

    def __init__(self, photo: Sequence[str]):
        names = {name: i for i, name in enumerate(dict.fromkeys(photo))}
        self._photo = np.array([names[name] for name in photo], np.int64)
        self._weights = resamples(len(names))
        self._resampled: dict[Path, np.ndarray] = {}
        self.values: dict = {}
        self.intervals: dict = {}

    def share(self, path: Path, hits: np.ndarray, chosen: np.ndarray) -> None:
        """The percentage of hits (N,) among the chosen (N,) trials, each counting once."""
        found = 100 * float(hits[chosen].mean()) if chosen.any() else None
        self._put(path, found, resampled_share(hits[chosen], self._photo[chosen], self._weights))

    def mean(self, path: Path, parts: Sequence[Path]) -> None:
        """The mean of figures that were collected before and are not None, each counting once."""
        found = [value for value in map(self._get, parts) if value is not None]
        known = np.array([self._resampled[part] for part in parts]).reshape(len(parts), -1)
        self._put(path, float(np.mean(found)) if found else None, _mean_of_known(known))

    def precision(
        self,
        each: Path | None,
        mean: Path,
        labels: Mapping[str, np.ndarray],
        scores: Sequence[np.ndarray],
        ranks: np.ndarray,
        spread: bool = True,
    ) -> None:
        """Average precision of each label, under ``each`` unless that is None, and its mean over labels.

        Args:
            labels: for each the numbers of its trials, in their order; scores, ranks: of all N trials, see ``Pooled``.
            spread: whether to find the intervals, which takes most of the time.
        """
        weights = self._weights if spread else self._weights[:0]
        sums, known, found = np.zeros(len(weights)), np.zeros(len(weights)), []
        for label, trials in labels.items():
            if len(trials):
                pooled = Pooled.of([scores[i] for i in trials], ranks[trials], self._photo[trials])
                value = float(pooled.average_precision(np.ones((1, self._weights.shape[1])))[0])
                parts = np.array_split(weights, -(-len(weights) // AT_ONCE) or 1)
                resampled = np.concatenate([pooled.average_precision(part) for part in parts])
                found.append(value)
                sums += np.nan_to_num(resampled)
                known += ~np.isnan(resampled)
            else:
                value, resampled = None, np.full(len(weights), np.nan)
            if each is not None:
                self._put((*each, label), value, resampled)
        means = np.divide(sums, known, out=np.full(len(sums), np.nan), where=known > 0)
        self._put(mean, float(np.mean(found)) if found else None, means)

    def _put(self, path: Path, value: float | None, resampled: np.ndarray) -> None:
        self._resampled[path] = resampled
        for tree, leaf in ((self.values, value), (self.intervals, interval(resampled))):
            for key in path[:-1]:
                tree = tree.setdefault(key, {})
            tree[path[-1]] = leaf

    def _get(self, path: Path) -> float | None:
        value = self.values
        for key in path:
            value = value[key]
        return value


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """(B,) the mean over rows (K, B) without NaN; NaN where there is none."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.divide(np.where(known, values, 0).sum(0), count, out=np.full(values.shape[1], np.nan), where=count > 0)

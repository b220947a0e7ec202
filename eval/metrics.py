"""Metrics in percent, each with its bootstrap interval over photos."""

from collections.abc import Mapping, Sequence

import numpy as np

from eval.average_precision import PooledBoxes
from eval.bootstrap import interval, resampled_share, resamples

CHUNK = 100  # resamples of average precision at a time: its arrays have a row for each true positive

Path = tuple[str, ...]


class Metrics:
    """Collects metrics of phrases. Each metric has a path, the keys of ``metrics.json`` that lead to it.

    Args:
        photo: for each of the N phrases, the name of its photo.

    Attributes:
        values: nested dictionary of the metrics in percent; None where there is no phrase.
        intervals: nested dictionary with the same keys: (low, high); None where there is no interval.
    """

    def __init__(self, photo: Sequence[str]):
        names = {name: i for i, name in enumerate(dict.fromkeys(photo))}
        self._photo = np.array([names[name] for name in photo], np.int64)
        self._weights = resamples(len(names))
        self._resampled: dict[Path, np.ndarray] = {}
        self.values: dict = {}
        self.intervals: dict = {}

    def add_share(self, path: Path, hits: np.ndarray, subset: np.ndarray) -> None:
        """Adds the percentage of hits in a subset of the phrases.

        Args:
            path: the keys of the metric.
            hits: ``(N,)`` bool.
            subset: ``(N,)`` bool, the phrases that count; or their indices, which may occur several times.
        """
        chosen = hits[subset]
        share = 100 * float(chosen.mean()) if len(chosen) else None
        self._put(path, share, resampled_share(chosen, self._photo[subset], self._weights))

    def add_mean(self, path: Path, parts: Sequence[Path]) -> None:
        """Adds the mean of metrics that were added before. Metrics without a value do not count.

        Args:
            path: the keys of the mean.
            parts: the paths of the metrics to average.
        """
        values = [value for value in map(self._get, parts) if value is not None]
        resampled = np.array([self._resampled[part] for part in parts]).reshape(len(parts), -1)
        self._put(path, float(np.mean(values)) if values else None, _mean_of_known(resampled))

    def add_precision(
        self,
        each: Path | None,
        mean: Path,
        labels: Mapping[str, np.ndarray],
        scores: Sequence[np.ndarray],
        ranks: np.ndarray,
        with_intervals: bool = True,
    ) -> None:
        """Adds the average precision (AP) of each label and its mean over labels.

        Args:
            each: the keys of the labels' APs; None to add the mean only.
            mean: the keys of the mean.
            labels: for each label the indices of its phrases, in their order.
            scores: the scores of all N phrases, see :meth:`PooledBoxes.of`.
            ranks: ``(N,)``, of all phrases.
            with_intervals: whether to compute the intervals, which takes most of the time.
        """
        weights = self._weights if with_intervals else self._weights[:0]
        sums, known, found = np.zeros(len(weights)), np.zeros(len(weights)), []
        for label, phrases in labels.items():
            value, resampled = None, np.full(len(weights), np.nan)
            if len(phrases):
                pooled = PooledBoxes.of([scores[i] for i in phrases], ranks[phrases], self._photo[phrases])
                value = float(pooled.average_precision(np.ones((1, self._weights.shape[1])))[0])
                chunks = np.array_split(weights, -(-len(weights) // CHUNK) or 1)
                resampled = np.concatenate([pooled.average_precision(chunk) for chunk in chunks])
                found.append(value)
                sums += np.nan_to_num(resampled)
                known += ~np.isnan(resampled)
            if each is not None:
                self._put((*each, label), value, resampled)
        means = np.divide(sums, known, out=np.full(len(sums), np.nan), where=known > 0)
        self._put(mean, float(np.mean(found)) if found else None, means)

    def difference(self, other: "Metrics", path: Path) -> tuple[float, tuple[float, float] | None]:
        """A metric minus that of another system on the same phrases, with the paired 95 % interval over photos.

        Args:
            other: the metrics of the other system.
            path: the keys of a metric that both have.

        Returns:
            The difference in percentage points, and (low, high); None without an interval.
        """
        drawn = self._resampled[path] - other._resampled[path]
        return (self._get(path) or 0.0) - (other._get(path) or 0.0), interval(drawn)

    def _put(self, path: Path, value: float | None, resampled: np.ndarray) -> None:
        self._resampled[path] = resampled
        for tree, leaf in ((self.values, value), (self.intervals, interval(resampled))):
            for key in path[:-1]:
                tree = tree.setdefault(key, {})
            tree[path[-1]] = leaf

    def _get(self, path: Path) -> float | None:
        tree = self.values
        for key in path[:-1]:
            tree = tree[key]
        return tree[path[-1]]


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over rows without the NaNs: ``(K, B)`` to ``(B,)``; NaN where a column has only NaNs."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.divide(np.where(known, values, 0).sum(0), count, out=np.full(values.shape[1], np.nan), where=count > 0)

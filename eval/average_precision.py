"""Average precision of ranked boxes, as the Flickr30k Entities protocol pools them.

All boxes of all instances of a label are pooled into one list, sorted by score. An instance has at most one true
positive, its first correct box; every other box is a false positive. AP is that of VOC07: the mean over the recalls
0, 0.1, ..., 1 of the highest precision at that recall or above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = np.arange(11) / 10
SLACK = 1e-12  # rounding error of a recall that is compared with k / 10


@dataclass(frozen=True, eq=False)
class PooledBoxes:
    """The pooled list of a label, reduced to what average precision needs: its true positives.

    Attributes:
        positives: ``(I,)`` int64, the photo of each instance.
        photo: ``(T,)`` int64, the photo of each true positive, in the order of the list.
        above: ``(T, P)`` float64, the number of boxes of each photo in the list down to each true positive, included.
        photos: ``(P,)`` int64, the photos of the columns of ``above``.
    """

    positives: np.ndarray
    photo: np.ndarray
    above: np.ndarray
    photos: np.ndarray

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], ranks: np.ndarray, photo: np.ndarray) -> "PooledBoxes":
        """Pools the boxes of instances.

        The instances come in the order of split file, sentence and phrase. Boxes of equal score are sorted by their
        rank, then by this order.

        Args:
            scores: for each instance the scores of its boxes, best first.
            ranks: ``(I,)`` float64, the rank of each instance's first correct box, from 1; infinity for none.
            photo: ``(I,)`` int64, the photo of each instance.
        """
        lengths = np.array([len(s) for s in scores], np.int64)
        instance = np.repeat(np.arange(len(scores)), lengths)
        rank = np.arange(len(instance)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        order = np.lexsort((instance, rank, -np.concatenate([*scores, np.zeros(0)])))
        instance, rank = instance[order], rank[order]
        photos, column = np.unique(photo, return_inverse=True)
        true = np.flatnonzero(rank == np.asarray(ranks)[instance])
        # count the boxes between consecutive true positives by photo, then sum down the list
        gap = np.searchsorted(true, np.arange(len(instance)))
        inside = gap < len(true)
        cells = gap[inside] * len(photos) + column[instance[inside]]
        between = np.bincount(cells, minlength=len(true) * len(photos)).reshape(len(true), len(photos))
        return cls(np.asarray(photo), np.asarray(photo)[instance[true]], between.cumsum(0).astype(float), photos)

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Average precision in resamples of photos.

        Args:
            weights: ``(B, photos of the split)``, how often each photo counts; all ones for the original photos.

        Returns:
            ``(B,)`` in percent; NaN where a resample has no instance.
        """
        positives = weights[:, self.positives].sum(1)
        true = np.cumsum(weights[:, self.photo], 1)
        boxes = weights[:, self.photos] @ self.above.T
        precision = np.divide(true, boxes, out=np.zeros_like(true), where=boxes > 0)
        known = np.maximum(positives, 1)[:, None]
        best = [np.max(precision, 1, initial=0, where=true / known >= level - SLACK) for level in LEVELS]
        return np.where(positives > 0, 100 * np.mean(best, 0), np.nan)

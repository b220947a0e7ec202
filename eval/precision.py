"""Average precision of ranked boxes, as the Flickr30k Entities protocol pools them.

All boxes of all instances of a label stand in one list, by score. An instance has at most one true positive, its first
correct box; every other box is a false positive. AP is VOC07's: the mean over the recalls 0, 0.1, ... 1 of the best
precision at that recall or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = np.arange(11) / 10
SLACK = 1e-12  # of a recall that is compared with k / 10


@dataclass(frozen=True, eq=False)
class Pooled:
    """The list of a label, as far as average precision needs it: at its true positives.

    Attributes:
        positives: (I,) int64, the photo of each instance.
        photo: (T,) int64, the photo of each true positive, in the order of the list.
        above: (T, P) float64, how many boxes of each photo stand in the list down to each true positive, it included.
        photos: (P,) int64, the photos that the columns are of.
    """

    positives: np.ndarray
    photo: np.ndarray
    above: np.ndarray
    photos: np.ndarray

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], ranks: np.ndarray, photo: np.ndarray) -> "Pooled":
        """Pools instances, given in the order of split file, sentence and phrase, which breaks ties after the rank.

        Args:
            scores: of each instance's boxes, best first; ranks: (I,) float64 of its first correct box, from 1, infinity
                for none; photo: (I,) int64.
        """
        lengths = np.array([len(s) for s in scores], np.int64)
        instance = np.repeat(np.arange(len(scores)), lengths)
        rank = np.arange(len(instance)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        order = np.lexsort((instance, rank, -np.concatenate([*scores, np.zeros(0)])))
        instance, rank = instance[order], rank[order]
        photos, column = np.unique(photo, return_inverse=True)
        true = np.flatnonzero(rank == np.asarray(ranks)[instance])
        # boxes between one true positive and the next, by photo, then summed down the list
        gap = np.searchsorted(true, np.arange(len(instance)))
        inside = gap < len(true)
        cells = gap[inside] * len(photos) + column[instance[inside]]
        between = np.bincount(cells, minlength=len(true) * len(photos)).reshape(len(true), len(photos))
        return cls(np.asarray(photo), np.asarray(photo)[instance[true]], between.cumsum(0).astype(float), photos)

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """(B,) in percent, for each resample of photos; NaN where it holds no instance.

        Args:
            weights: (B, photos of the split), how often each counts; ones for the figure itself.
        """
        positives = weights[:, self.positives].sum(1)
        true = np.cumsum(weights[:, self.photo], 1)
        boxes = weights[:, self.photos] @ self.above.T
        precision = np.divide(true, boxes, out=np.zeros_like(true), where=boxes > 0)
        known = np.maximum(positives, 1)[:, None]
        best = [np.max(precision, 1, initial=0, where=true / known >= level - SLACK) for level in LEVELS]
        return np.where(positives > 0, 100 * np.mean(best, 0), np.nan)

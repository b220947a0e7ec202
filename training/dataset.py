"""The training data: photos and their tags, read from shards into batches."""

import random
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from grounding.images import read_image
from proposals.errors import InputError
from training.crops import PAPER, Cropping, crop
from training.merged_shards import MergedShards
from training.order import PhotoPosition
from training.shards import ShardIndex, Shards

TRIES = 16  # photos in a row that may be broken


class TrainingBatch(NamedTuple):
    """Photos and their tags.

    Attributes:
        images: ``(n, 3, side, side)`` uint8 RGB.
        rows: ``(P,)`` int64, the photo of each positive pair.
        columns: ``(P,)`` int64, the tag of each positive pair.
        skipped: a line for each broken photo; another photo of its shard replaces it.
        error: why the shards cannot be read any more; ``""`` if they can.
        place: of photos that are streamed: where the rank is after them, see ``training.streaming.StreamPlace``.
    """

    images: Tensor
    rows: Tensor
    columns: Tensor
    skipped: tuple[str, ...] = ()
    error: str = ""
    place: tuple[int, int, int] = (0, 0, 0)


class ShardDataset(torch.utils.data.Dataset):
    """Batches of photos, indexed by lists of positions.

    Use it with a ``DataLoader`` with ``batch_size=None`` whose sampler yields lists of positions.

    Args:
        shards: the shards to read.
        tags_per_image: use only the first N tags of a photo. None: all.
        count_unknown: whether tags outside the vocabulary count among the first N.
        cropping: how the photos are cropped.
    """

    def __init__(
        self,
        shards: Shards | MergedShards,
        tags_per_image: int | None = None,
        count_unknown: bool = False,
        cropping: Cropping = PAPER,
    ):
        self.shards, self.cropping = shards, cropping
        self.tags_per_image, self.count_unknown = tags_per_image, count_unknown

    def __getitem__(self, positions: Sequence[PhotoPosition]) -> TrainingBatch:
        skipped: list[str] = []
        try:
            samples = [self._sample(position, skipped) for position in positions]
        except InputError as error:
            return failed_batch(skipped, str(error))
        return make_batch(samples, skipped)

    def _sample(self, position: PhotoPosition, skipped: list[str]) -> tuple[Tensor, np.ndarray]:
        """A crop ``(3, side, side)`` and the tags of a photo.

        A broken photo is replaced by the next photo of its shard that can be read. So the order of the other photos
        does not change, and every batch has its full size.
        """
        index = self.shards.index(position.shard)
        rng = random.Random(position.crop_seed) if position.crop_seed else None
        for row in range(position.row, position.row + TRIES):
            row %= len(index)
            data = self.shards.read(position.shard, row)
            try:
                return crop(read_image(BytesIO(data)), rng, self.cropping), self._tags(index, row)
            except InputError as error:
                skipped.append(f"photo {row} of {position.shard}: {error}")
        raise InputError(f"{position.shard} has {TRIES} broken photos in a row: make the shards again")

    def _tags(self, index: ShardIndex, row: int) -> np.ndarray:
        mine = slice(index.starts[row], index.starts[row + 1])
        first = self.tags_per_image
        return index.tags[mine] if first is None else index.tags[mine][index.order(self.count_unknown)[mine] < first]


def make_batch(
    samples: Sequence[tuple[Tensor, np.ndarray]], skipped: Sequence[str], place: tuple[int, int, int] = (0, 0, 0)
) -> TrainingBatch:
    """Puts photos together.

    Args:
        samples: for each photo its crop, and its tags; at least one.
        skipped: see :class:`TrainingBatch`.
        place: see :class:`TrainingBatch`.

    Returns:
        The batch.
    """
    images, tags = zip(*samples, strict=True)
    rows = np.repeat(np.arange(len(tags)), [len(t) for t in tags])
    columns = torch.from_numpy(np.concatenate(tags).astype(np.int64))
    return TrainingBatch(torch.stack(images), torch.from_numpy(rows), columns, tuple(skipped), "", place)


def failed_batch(skipped: Sequence[str], error: str, place: tuple[int, int, int] = (0, 0, 0)) -> TrainingBatch:
    """A batch without photos, because they cannot be read.

    Args:
        skipped: see :class:`TrainingBatch`.
        error: the reason.
        place: see :class:`TrainingBatch`.

    Returns:
        The batch.
    """
    none = torch.zeros(0, dtype=torch.long)
    return TrainingBatch(torch.zeros(0, 3, 0, 0, dtype=torch.uint8), none, none, tuple(skipped), error, place)

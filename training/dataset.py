"""The training data: photos and their tags, read from shards into batches."""

import math
import random
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from grounding.images import read_image
from proposals.errors import InputError
from training.merged_shards import MergedShards
from training.order import PhotoPosition
from training.shards import ShardIndex, Shards

PADDED, CROP = 256, 224  # pixels, Sec. 4.3
TRIES = 16  # photos in a row that may be broken


class TrainingBatch(NamedTuple):
    """Photos and their tags.

    Attributes:
        images: ``(n, 3, 224, 224)`` uint8 RGB.
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
        crop_scale: smallest and largest share of a random crop of the photo's area. None: 224 of 256 pixels.
    """

    def __init__(
        self,
        shards: Shards | MergedShards,
        tags_per_image: int | None = None,
        count_unknown: bool = False,
        crop_scale: tuple[float, float] | None = None,
    ):
        self.shards, self.crop_scale = shards, crop_scale
        self.tags_per_image, self.count_unknown = tags_per_image, count_unknown

    def __getitem__(self, positions: Sequence[PhotoPosition]) -> TrainingBatch:
        skipped: list[str] = []
        try:
            samples = [self._sample(position, skipped) for position in positions]
        except InputError as error:
            return failed_batch(skipped, str(error))
        return make_batch(samples, skipped)

    def _sample(self, position: PhotoPosition, skipped: list[str]) -> tuple[Tensor, np.ndarray]:
        """A crop ``(3, 224, 224)`` and the tags of a photo.

        A broken photo is replaced by the next photo of its shard that can be read. So the order of the other photos
        does not change, and every batch has its full size.
        """
        index = self.shards.index(position.shard)
        rng = random.Random(position.crop_seed) if position.crop_seed else None
        for row in range(position.row, position.row + TRIES):
            row %= len(index)
            data = self.shards.read(position.shard, row)
            try:
                return crop(pad_to_square(read_image(BytesIO(data))), rng, self.crop_scale), self._tags(index, row)
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
    return TrainingBatch(torch.zeros(0, 3, CROP, CROP, dtype=torch.uint8), none, none, tuple(skipped), error, place)


def pad_to_square(image: np.ndarray, side: int = PADDED) -> Image.Image:
    """Pads a photo to a square by mirroring, then resizes it (Sec. 4.3).

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        side: side of the result, in pixels.

    Returns:
        An RGB image of ``side`` x ``side`` pixels.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    missing = [(longest - n) // 2 for n in (height, width)]
    pads = [(before, longest - n - before) for before, n in zip(missing, (height, width), strict=True)]
    padded = np.pad(image, (*pads, (0, 0)), mode="symmetric")
    return Image.fromarray(padded).resize((side, side), Image.Resampling.BILINEAR)


def crop(image: Image.Image, rng: random.Random | None, scale: tuple[float, float] | None = None) -> Tensor:
    """Cuts 224 x 224 pixels out of a square photo.

    Args:
        image: an RGB image of 256 x 256 pixels.
        rng: chooses the place and whether to flip. None: the centre, not flipped.
        scale: smallest and largest share of the area that is cut out, and resized to 224 x 224 pixels; its width is
            3/4 to 4/3 of its height. None: 224 x 224 pixels, not resized.

    Returns:
        ``(3, 224, 224)`` uint8.
    """
    if rng is None or scale is None:
        spare = PADDED - CROP
        x, y, flip = (
            (rng.randint(0, spare), rng.randint(0, spare), rng.random() < 0.5) if rng else (spare // 2,) * 2 + (0,)
        )
        pixels = np.array(image)[y : y + CROP, x : x + CROP]
    else:
        box, flip = _random_box(rng, scale), rng.random() < 0.5
        pixels = np.array(image.resize((CROP, CROP), Image.Resampling.BILINEAR, box))
    return torch.from_numpy((pixels[:, ::-1] if flip else pixels).copy()).permute(2, 0, 1)


def _random_box(rng: random.Random, scale: tuple[float, float]) -> tuple[float, float, float, float]:
    """A box (x1, y1, x2, y2) in the square photo, its area a uniform share of the photo's (Szegedy et al. 2015)."""
    area = rng.uniform(*scale) * PADDED**2
    aspect = math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
    width, height = min(math.sqrt(area * aspect), PADDED), min(math.sqrt(area / aspect), PADDED)
    x, y = rng.uniform(0, PADDED - width), rng.uniform(0, PADDED - height)
    return x, y, x + width, y + height

"""Photos and their tags, from shards to batches, in an order that only the seed and the epoch decide."""

import random
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from grounding.images import read_image
from proposals.errors import InputError
from training.shards import Shard, Shards, read

PADDED, CROP = 256, 224
WINDOW = 1 << 16  # photos whose order is drawn together: so many places are in memory at once
TRIES = 16


class Place(NamedTuple):
    """Where a photo is, by its shard's name and its row there, and what its crop is drawn by; None: the centre."""

    shard: str
    row: int
    draw: str | None


class Batch(NamedTuple):
    """Photos (n, 3, 224, 224) uint8 RGB, and the rows and columns (P,) of their positives in (n, tags).

    Attributes:
        skipped: photos that are broken, and why; another of their shard stands in for each.
        gone: why the shards can no longer be read; "" while they can.
    """

    images: Tensor
    rows: Tensor
    columns: Tensor
    skipped: tuple[str, ...] = ()
    gone: str = ""


def order(shards: Sequence[Shard], seed: int, epoch: int, skip: int = 0) -> Iterator[tuple[str, int]]:
    """All photos in an order that is a function of seed and epoch: a permutation, without replacement.

    Shards are drawn first, then, among as many of them as have ``WINDOW`` photos, the photos; so a rank reads from few
    files at a time, and of a billion photos only so many places are in memory.

    Args:
        skip: so many photos are left out at the beginning.

    Yields:
        (shard's name, row in it).
    """
    drawn = np.random.default_rng([seed, epoch]).permutation(len(shards))
    for number, window in enumerate(_windows([shards[i] for i in drawn])):
        total = photos_of(window)
        if skip >= total:
            skip -= total
            continue
        which = np.repeat(np.arange(len(window)), [shard.photos for shard in window])
        rows = np.concatenate([np.arange(shard.photos) for shard in window])
        permuted = np.random.default_rng([seed, epoch, number]).permutation(total)[skip:]
        yield from ((window[which[i]].name, int(rows[i])) for i in permuted)
        skip = 0


def _windows(shards: Sequence[Shard]) -> Iterator[list[Shard]]:
    window: list[Shard] = []
    photos = 0
    for shard in shards:
        window.append(shard)
        photos += shard.photos
        if photos >= WINDOW:
            yield window
            window, photos = [], 0
    if window:
        yield window


def photos_of(shards: Sequence[Shard]) -> int:
    """How many photos they have together."""
    return sum(shard.photos for shard in shards)


def shares(
    shards: Sequence[Shard], seed: int, epoch: int, batch: int, start: int, rank: int, ranks: int, most: int
) -> Iterator[list[Place]]:
    """What a rank reads in an epoch: of every step's photos its share, at most so many at a time.

    The last photos, too few for a step, are left out.

    Args:
        batch: photos of a step, of all ranks together, a multiple of ``ranks``; start: the first step, from 0.
    """
    photos = order(shards, seed, epoch, start * batch)
    for step in range(start, photos_of(shards) // batch):
        drawn = [Place(*at, f"{seed}/{epoch}/{step}/{i}") for i, at in enumerate(islice(photos, batch))]
        share = drawn[rank * batch // ranks : (rank + 1) * batch // ranks]
        yield from (share[i : i + most] for i in range(0, len(share), most))


def in_turn(shards: Sequence[Shard], rank: int, ranks: int, most: int) -> Iterator[list[Place]]:
    """What a rank reads to validate: all photos in their order, dealt out to the ranks, at most so many at a time."""
    mine = islice((Place(shard.name, row, None) for shard in shards for row in range(shard.photos)), rank, None, ranks)
    while places := list(islice(mine, most)):
        yield places


class Photos(torch.utils.data.Dataset):
    """Batches by their places: for a DataLoader whose sampler gives lists of places, with ``batch_size=None``.

    Args:
        shards: where from; first: so many tags of a photo count, its first ones; None: all.
    """

    def __init__(self, shards: Shards, first: int | None = None):
        self.shards, self.first = shards, first

    def __getitem__(self, places: Sequence[Place]) -> Batch:
        skipped: list[str] = []
        try:
            samples = [self._sample(place, skipped) for place in places]
        except InputError as error:
            none = torch.zeros(0, dtype=torch.long)
            return Batch(torch.zeros(0, 3, CROP, CROP, dtype=torch.uint8), none, none, tuple(skipped), str(error))
        images, tags = zip(*samples, strict=True)
        rows = np.repeat(np.arange(len(tags)), [len(t) for t in tags])
        columns = np.concatenate(tags).astype(np.int64)
        return Batch(torch.stack(images), torch.from_numpy(rows), torch.from_numpy(columns), tuple(skipped))

    def _sample(self, place: Place, skipped: list[str]) -> tuple[Tensor, np.ndarray]:
        """A crop (3, 224, 224) and the photo's tags; in place of a broken photo the next one of its shard that is not.

        So the other photos stay where they are in the order, and every batch has its size.
        """
        index = self.shards.index(place.shard)
        rng = random.Random(place.draw) if place.draw else None
        for row in range(place.row, place.row + TRIES):
            row %= len(index)
            data = read(self.shards.root, place.shard, index, row)
            try:
                tags = index.tags[index.starts[row] : index.starts[row + 1]][: self.first]
                return crop(square(read_image(BytesIO(data))), rng), tags
            except InputError as error:
                skipped.append(f"photo {row} of {place.shard}: {error}")
        raise InputError(f"{place.shard} has {TRIES} broken photos in a row: make the shards anew")


def square(image: np.ndarray, side: int = PADDED) -> Image.Image:
    """An (H, W, 3) uint8 photo padded to a square by mirroring, then resized to ``side`` (Sec. 4.3)."""
    height, width = image.shape[:2]
    longest = max(height, width)
    missing = [(longest - n) // 2 for n in (height, width)]
    pads = [(before, longest - n - before) for before, n in zip(missing, (height, width), strict=True)]
    padded = np.pad(image, (*pads, (0, 0)), mode="symmetric")
    return Image.fromarray(padded).resize((side, side), Image.Resampling.BILINEAR)


def crop(image: Image.Image, rng: random.Random | None) -> Tensor:
    """A 224 crop of a square photo as (3, 224, 224) uint8: at random and perhaps flipped, or the centre without rng."""
    spare = PADDED - CROP
    x, y, flip = (rng.randint(0, spare), rng.randint(0, spare), rng.random() < 0.5) if rng else (spare // 2,) * 2 + (0,)
    pixels = np.array(image)[y : y + CROP, x : x + CROP]
    return torch.from_numpy((pixels[:, ::-1] if flip else pixels).copy()).permute(2, 0, 1)

"""The order in which a training reads photos: it depends on the seed and the epoch only."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from training.shards import Shard

WINDOW = 1 << 16  # photos that are shuffled together


class PhotoPosition(NamedTuple):
    """Where a photo is, and how to crop it.

    Attributes:
        shard: name of the shard.
        row: row of the photo in its shard, from 0.
        crop_seed: seed of the random crop; None for the centre crop.
    """

    shard: str
    row: int
    crop_seed: str | None


def count_photos(shards: Sequence[Shard]) -> int:
    """The number of photos in some shards."""
    return sum(shard.photos for shard in shards)


def epoch_order(shards: Sequence[Shard], seed: int, epoch: int, skip: int = 0) -> Iterator[tuple[str, int]]:
    """All photos in the order of one epoch: a permutation, without replacement.

    First the shards are shuffled. Then consecutive shards with at least ``WINDOW`` photos form a window, and the photos
    of each window are shuffled. So a rank reads from few files at a time, and memory does not grow with the photos.

    Args:
        shards: the shards.
        seed: seed of the training.
        epoch: epoch, from 0.
        skip: number of photos to leave out at the beginning.

    Yields:
        Name of the shard and row of the photo in it.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(len(shards))
    for number, window in enumerate(_windows([shards[i] for i in shuffled])):
        total = count_photos(window)
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


def training_positions(
    shards: Sequence[Shard], seed: int, epoch: int, batch: int, start: int, rank: int, ranks: int, micro_batch: int
) -> Iterator[list[PhotoPosition]]:
    """What one rank reads in an epoch: its share of the photos of each step.

    The photos at the end that are too few for a step are left out.

    Args:
        shards: the training shards.
        seed: seed of the training.
        epoch: epoch, from 0.
        batch: photos per step, over all ranks; a multiple of ``ranks``.
        start: first step of the epoch to read, from 0.
        rank: this rank, from 0.
        ranks: number of ranks.
        micro_batch: longest list; a larger share is split into several lists.

    Yields:
        Positions of the photos of one micro batch.
    """
    photos = epoch_order(shards, seed, epoch, start * batch)
    for step in range(start, count_photos(shards) // batch):
        positions = [PhotoPosition(*at, f"{seed}/{epoch}/{step}/{i}") for i, at in enumerate(islice(photos, batch))]
        share = positions[rank * batch // ranks : (rank + 1) * batch // ranks]
        yield from (share[i : i + micro_batch] for i in range(0, len(share), micro_batch))


def validation_positions(
    shards: Sequence[Shard], rank: int, ranks: int, micro_batch: int
) -> Iterator[list[PhotoPosition]]:
    """What one rank reads for a validation: every ``ranks``-th photo, in the order of the shards, centre crops.

    Args:
        shards: the validation shards.
        rank: this rank, from 0.
        ranks: number of ranks.
        micro_batch: longest list.

    Yields:
        Positions of the photos of one micro batch.
    """
    every = (PhotoPosition(shard.name, row, None) for shard in shards for row in range(shard.photos))
    mine = islice(every, rank, None, ranks)
    while positions := list(islice(mine, micro_batch)):
        yield positions

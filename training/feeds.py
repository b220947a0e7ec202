"""Feeds: the photos of a training, epoch by epoch, from shards with an index or as a stream."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from grounding.images import read_image
from proposals.errors import InputError
from training.crops import PAPER, Cropping, crop
from training.dataset import ShardDataset, TrainingBatch, failed_batch, make_batch
from training.distributed import RankGroup
from training.loader import load_batches
from training.merged_shards import MergedShards
from training.order import count_photos, training_positions, validation_positions
from training.progress import Progress
from training.recipe import Recipe
from training.shards import Shards
from training.streaming import StreamedShards, StreamPhoto, StreamPlace, log, own_shards, validation_photos, windows


class PhotoFeed(ABC):
    """The photos that one rank gets.

    Args:
        recipe: the settings of the training.
        ranks: the ranks that train together.

    Attributes:
        steps: the number of steps of an epoch; None if it is not known.
        validation_cure: what to do if no photo for validation can be read, as an imperative.
    """

    steps: int | None = None
    validation_cure = "make the shards with a larger step.held_out="

    def __init__(self, recipe: Recipe, ranks: RankGroup):
        self.recipe, self.ranks = recipe, ranks
        self.share = recipe.share(ranks.size)
        self.micro_batch = min(recipe.micro_batch or self.share, self.share)

    @abstractmethod
    def frequencies(self) -> Tensor:
        """``(tags,)``, the share of the training photos that have each tag."""

    @abstractmethod
    def description(self) -> Sequence[object]:
        """JSON values that distinguish these photos from others."""

    @abstractmethod
    def first(self, count: int, validation: bool = False) -> TrainingBatch:
        """The first photos, not cropped at random.

        Args:
            count: how many.
            validation: whether photos for validation are wanted.
        """

    @abstractmethod
    def epoch(self, progress: Progress) -> Iterator[TrainingBatch]:
        """The rank's micro batches of the remaining steps of an epoch.

        Args:
            progress: how far the training has come.
        """

    @abstractmethod
    def validation(self) -> Iterator[TrainingBatch]:
        """The rank's photos for validation."""

    @abstractmethod
    def begins(self, progress: Progress) -> bool:
        """Whether the next step is the first one of an epoch."""

    @abstractmethod
    def epochs(self, progress: Progress) -> float:
        """The number of epochs that are complete, with the part of the present one if it is known."""

    def is_over(self, progress: Progress) -> bool:
        """Whether all epochs are complete."""
        return self.epochs(progress) >= self.recipe.epochs


class StoredPhotos(PhotoFeed):
    """Photos of shards with an index.

    Args:
        shards: the shards.
        recipe: see :class:`PhotoFeed`.
        ranks: see :class:`PhotoFeed`.
    """

    def __init__(self, shards: Shards | MergedShards, recipe: Recipe, ranks: RankGroup):
        super().__init__(recipe, ranks)
        self.shards, self._steps = shards, count_photos(shards.train) // recipe.batch
        self.steps = self._steps
        self.dataset = ShardDataset(shards, recipe.tags_per_image, recipe.count_unknown_tags, recipe.cropping)

    def frequencies(self) -> Tensor:
        """The share of the training photos that have each tag."""
        counts = self.shards.used_counts(self.recipe.tags_per_image, self.recipe.count_unknown_tags)
        return torch.from_numpy(counts) / count_photos(self.shards.train)

    def description(self) -> Sequence[object]:
        """JSON values that distinguish these photos from others."""
        return self.shards.train, self.shards.val

    def first(self, count: int, validation: bool = False) -> TrainingBatch:
        """The first photos, not cropped at random."""
        listed = self.shards.val if validation else self.shards.train
        return ShardDataset(self.shards, cropping=self.recipe.cropping)[next(validation_positions(listed, 0, 1, count))]

    def epoch(self, progress: Progress) -> Iterator[TrainingBatch]:
        """The rank's micro batches of the remaining steps of an epoch."""
        epoch, start = divmod(progress.step, self._steps)
        where = self.recipe.batch, start, self.ranks.rank, self.ranks.size, self.micro_batch
        positions = training_positions(self.shards.train, self.recipe.seed, epoch, *where)
        return load_batches(self.dataset, positions, self.recipe.workers, self.ranks.device)

    def validation(self) -> Iterator[TrainingBatch]:
        """The rank's photos for validation."""
        positions = validation_positions(self.shards.val, self.ranks.rank, self.ranks.size, self.micro_batch)
        return load_batches(self.dataset, positions, self.recipe.workers, self.ranks.device)

    def begins(self, progress: Progress) -> bool:
        """Whether the next step is the first one of an epoch."""
        return progress.step % self._steps == 0

    def epochs(self, progress: Progress) -> float:
        """The number of epochs that are complete."""
        return progress.step / self._steps


class _Request(NamedTuple):
    """A photo to decode.

    Attributes:
        photo: the photo.
        crop_seed: seed of the random crop; None for the centre crop.
        place: where the rank is after the photo.
    """

    photo: StreamPhoto
    crop_seed: str | None = None
    place: StreamPlace = StreamPlace()


class StreamDataset(Dataset[TrainingBatch]):
    """Decodes photos that were streamed. A broken photo is left out, so a batch may have fewer photos.

    Args:
        cropping: how the photos are cropped.
    """

    def __init__(self, cropping: Cropping = PAPER):
        self.cropping = cropping

    def __getitem__(self, requests: Sequence[_Request]) -> TrainingBatch:
        skipped, samples = list[str](), list[tuple[Tensor, np.ndarray]]()
        for photo, seed, _ in requests:
            try:
                image = read_image(BytesIO(photo.data))
            except InputError as error:
                skipped.append(f"{photo.name}: {error}")
                continue
            rng = Random(seed) if seed else None
            samples.append((crop(image, rng, self.cropping), np.array(photo.tags, np.int64)))
        if not samples:
            error = f"all {len(requests)} photos of a batch are broken, such as {skipped[0]}"
            return failed_batch(skipped, error, requests[-1].place)
        return make_batch(samples, skipped, requests[-1].place)


class StreamedPhotos(PhotoFeed):
    """Photos that are streamed.

    Args:
        shards: the tars.
        recipe: see :class:`PhotoFeed`.
        ranks: see :class:`PhotoFeed`.

    Raises:
        InputError: there are fewer tars than ranks.
    """

    def __init__(self, shards: StreamedShards, recipe: Recipe, ranks: RankGroup):
        super().__init__(recipe, ranks)
        self.shards, self.dataset = shards, StreamDataset(recipe.cropping)
        if len(shards.train) < ranks.size:
            raise InputError(f"{shards.root} has {len(shards.train)} tars for {ranks.size} ranks: use fewer ranks")
        if shards.options.validation:
            tars = "tars of photos that can be read and have a known tag"
            self.validation_cure = f"set step.stream.validation= (now {shards.options.validation}) to {tars}"

    def frequencies(self) -> Tensor:
        """The share of the training photos that have each tag."""
        return torch.from_numpy(self.shards.frequencies(self.recipe.tags_per_image, self.recipe.count_unknown_tags))

    def description(self) -> Sequence[object]:
        """JSON values that distinguish these photos from others."""
        return self.shards.train, self.shards.val, "streamed", self.shards.options.buffer

    def first(self, count: int, validation: bool = False) -> TrainingBatch:
        """The first photos, not cropped at random."""
        listed = self.shards.val if validation else self.shards.train
        photos = (_Request(photo) for shard in listed for photo in self.shards.photos(shard))
        batch = failed_batch([], f"{self.shards.root} has no photo with a known tag")
        for found in iter(lambda: list(islice(photos, count)), []):
            batch = self.dataset[found]
            if not batch.error:  # of these photos, at least one is not broken
                break
        return batch

    def epoch(self, progress: Progress) -> Iterator[TrainingBatch]:
        """The rank's micro batches of the remaining steps of an epoch."""
        start = StreamPlace(*progress.places[self.ranks.rank]) if progress.places else StreamPlace()
        requests = self._requests(progress.epoch, start, progress.epoch_steps)
        return load_batches(self.dataset, requests, self.recipe.workers, self.ranks.device)

    def _requests(self, epoch: int, start: StreamPlace, step: int) -> Iterator[list[_Request]]:
        """The rank's photos of each micro batch; the photos at the end that are too few for a step are left out."""
        recipe, rank, counts = self.recipe, self.ranks.rank, Counter[str]()
        own = own_shards(self.shards.train, recipe.seed, epoch, rank, self.ranks.size)[start.shard :]
        read = (self.shards.photos(s, recipe.tags_per_image, recipe.count_unknown_tags, counts) for s in own)
        photos = windows(read, (recipe.seed, epoch, rank), self.shards.options.buffer, start)
        while len(share := list(islice(photos, self.share))) == self.share:
            first = f"{recipe.seed}/{epoch}/{step}"
            seeds = [f"{first}/{rank * self.share + i}" for i in range(self.share)]
            requests = [_Request(photo, seed, at) for (at, photo), seed in zip(share, seeds, strict=True)]
            yield from (requests[i : i + self.micro_batch] for i in range(0, self.share, self.micro_batch))
            step += 1
        if counts:
            log.info("rank %d: photos left out in epoch %d: %s", rank, epoch + 1, json.dumps(counts))

    def validation(self) -> Iterator[TrainingBatch]:
        """The rank's photos for validation."""
        mine = (_Request(photo) for photo in validation_photos(self.shards, self.ranks.rank, self.ranks.size))
        batches = iter(lambda: list(islice(mine, self.micro_batch)), [])
        for batch in load_batches(self.dataset, batches, self.recipe.workers, self.ranks.device):
            if not batch.error:
                yield batch
                continue
            for photo in batch.skipped:  # all of its photos; the last batch may have only one
                log.warning("skipped validation %s", photo)

    def begins(self, progress: Progress) -> bool:
        """Whether the next step is the first one of an epoch."""
        return not progress.places

    def epochs(self, progress: Progress) -> float:
        """The number of epochs that are complete."""
        return progress.epoch


def feed_of(shards: Shards | MergedShards | StreamedShards, recipe: Recipe, ranks: RankGroup) -> PhotoFeed:
    """The feed of shards.

    Args:
        shards: the shards.
        recipe: the settings of the training.
        ranks: the ranks that train together.

    Returns:
        The feed.
    """
    if isinstance(shards, StreamedShards):
        return StreamedPhotos(shards, recipe, ranks)
    return StoredPhotos(shards, recipe, ranks)

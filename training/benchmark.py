"""Speed of a training: the loop, the same network on a batch in memory, the loader alone, and the loss of many tags.

grounding step=benchmark benchmark=training init=FILE
torchrun --nproc-per-node 2 -m grounding step=benchmark benchmark=training init=FILE    # with two ranks
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from grounding.runtime.timing import interleaved, peak_memory
from grounding.tagger.tagger import TagClassifier
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.dataset import ShardDataset, TrainingBatch
from training.distributed import RankGroup, joined_ranks
from training.initialization import initial_tagger
from training.loader import load_batches
from training.loss import tag_loss
from training.model import TrainableTagger
from training.order import count_photos, training_positions
from training.recipe import Recipe
from training.shards import Shards

Row = dict[str, str | float | None]
WARM_UP = 3  # steps before a measurement; by then the batches that were read ahead are used up


def measure(
    root: str,
    init: str,
    batch: int = 64,
    steps: int = 8,
    rounds: int = 3,
    workers: Sequence[int] = (0, 1, 2),
    precision: str = "float32",
    tags: int = 18157,
    dense_batch: int = 256,
) -> tuple[list[Row], dict[str, object]]:
    """Measures photos per second, and what a step costs with our loss and with dense targets.

    Args:
        root: folder of shards.
        init: the initial weights, see ``training.initialization.initial_tagger``.
        batch: photos per step, over all ranks.
        steps: steps per round.
        rounds: number of rounds; the medians over rounds are reported.
        workers: numbers of reading processes to measure.
        precision: ``"float32"`` or ``"bfloat16"``.
        tags: number of tags for the comparison with dense targets.
        dense_batch: photos per step for the comparison with dense targets.

    Returns:
        The rows of the table, and the settings that all rows share.

    Raises:
        InputError: there are no shards, or too few photos.
    """
    shards = Shards(root)
    with joined_ranks() as ranks:
        recipe = Recipe.of(batch=batch, precision=precision, trunk_lr=0.001)
        model = TrainableTagger(initial_tagger(init, shards.vocabulary), len(shards.vocabulary), recipe, ranks)
        timer = _StepTimer(shards, model, recipe, ranks, steps)
        rows = timer.loops(workers, rounds)
        if ranks.size == 1:
            rows += [timer.reading(count) for count in workers] + dense_rows(init, tags, dense_batch, precision)
        common = {"ranks": ranks.size, "batch": batch, "precision": precision, "photos": count_photos(shards.train)}
        return rows, common


class _StepTimer:
    """Times steps on a batch in memory and on photos as they are read."""

    def __init__(self, shards: Shards, model: TrainableTagger, recipe: Recipe, ranks: RankGroup, steps: int):
        self.shards, self.model, self.recipe, self.ranks, self.steps = shards, model, recipe, ranks, steps
        self.optimizer = model.optimizer()
        needed = steps + WARM_UP
        if count_photos(shards.train) < recipe.batch * needed:
            raise InputError(
                f"{shards.root} has too few photos for {needed} steps of {recipe.batch}: lower benchmark.steps="
            )

    def loops(self, workers: Sequence[int], rounds: int) -> list[Row]:
        """Photos per second on a batch in memory, and with each number of workers; all alternate within a round."""
        kept = next(self._batches(0))
        seconds: dict[str, list[float]] = {}
        for epoch in range(rounds):
            seconds.setdefault("in memory", []).append(self._time(lambda: (kept for _ in iter(int, 1)), 0))
            for count in workers:
                work = f"loop, {count} workers"
                seconds.setdefault(work, []).append(self._time(lambda c=count, e=epoch: self._batches(c, e), WARM_UP))
        ceiling = median(seconds["in memory"])
        return [
            {"work": work, "photos/s": self.recipe.batch / median(times), "of the ceiling": ceiling / median(times)}
            for work, times in seconds.items()
        ]

    def reading(self, workers: int) -> Row:
        """Photos per second of the loader alone."""
        batches = self._batches(workers)
        list(islice(batches, WARM_UP))
        start = time.perf_counter()
        read = sum(len(batch.images) for batch in batches)
        return {"work": f"loader alone, {workers} workers", "photos/s": read / (time.perf_counter() - start)}

    def _batches(self, workers: int, epoch: int = 0) -> Iterator[TrainingBatch]:
        share = self.recipe.share(self.ranks.size)
        where = self.recipe.batch, 0, self.ranks.rank, self.ranks.size, share
        positions = training_positions(self.shards.train, 0, epoch, *where)
        return load_batches(
            ShardDataset(self.shards), islice(positions, self.steps + WARM_UP), workers, self.ranks.device
        )

    def _time(self, batches: Callable[[], Iterator[TrainingBatch]], warm_up: int) -> float:
        """Seconds per step."""
        stream = batches()
        for batch in islice(stream, warm_up or 1):
            self._step(batch)
        start = time.perf_counter()
        for batch in islice(stream, self.steps):
            self._step(batch)
        return (time.perf_counter() - start) / self.steps

    def _step(self, batch: TrainingBatch) -> None:
        self.model.train()
        loss = self.model.loss(batch, 0, self.ranks.rank * self.model.share)
        loss.backward()
        self.ranks.sum([loss.item()])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def dense_rows(init: str, tags: int, batch: int, precision: str) -> list[Row]:
    """Compares our loss with a loss of dense targets: seconds and MB of a step, and the difference of the gradients.

    Both losses are measured on the tag layer alone (1024 features) and on the whole network. Each measurement runs in
    a new process, so that the memory of an earlier one does not count.

    Args:
        init: the initial weights, see ``training.initialization.initial_tagger``.
        tags: number of tags.
        batch: photos per step.
        precision: ``"float32"`` or ``"bfloat16"``.

    Returns:
        The rows of the table.
    """
    rows: list[Row] = []
    for part, start in (("tag layer", None), ("whole step", init)):
        for dense in (False, True):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                seconds, memory = process.submit(_cost, start, tags, batch, precision, dense).result()
            work = f"{part}, {'dense targets' if dense else 'ours'}, {tags} tags, batch {batch}"
            rows.append({"work": work, "seconds": seconds, "MB": memory})
    rows[0]["gradients differ"] = _gradient_difference(tags, batch)
    return rows


def _gradient_difference(tags: int, batch: int) -> float:
    """The largest difference between the tag layer's gradients with both losses."""
    targets, features = _targets(tags, batch), torch.rand(batch, 1024, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(1024, tags)
    ours, theirs = (_gradient(layer, features, partial(loss, *targets)) for loss in (_sparse, _dense))
    return (ours - theirs).abs().max().item()


def _cost(init: str | None, tags: int, batch: int, precision: str, dense: bool) -> tuple[float, float]:
    """The seconds of a step, and the MB by which the process grows in the first one."""
    torch.manual_seed(0)
    loss = partial(_dense if dense else _sparse, *_targets(tags, batch))
    if init is None:
        layer, features = torch.nn.Linear(1024, tags), torch.rand(batch, 1024)
        work = partial(_gradient, layer, features, loss)
    else:
        vocabulary = Vocabulary(tuple(f"tag {i}" for i in range(tags)))
        tagger = initial_tagger(init, vocabulary).to(memory_format=torch.channels_last).train()
        images = tagger.preprocessing(torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8))
        work = partial(_whole_step, tagger, images.contiguous(memory_format=torch.channels_last), loss, precision)
    memory = peak_memory(work)
    return interleaved({"step": work}, 1)["step"], memory


def _whole_step(tagger: TagClassifier, images: Tensor, loss: Callable[[Tensor], Tensor], precision: str) -> None:
    tagger.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = tagger(images).flatten(1).float()
    loss(logits).backward()


def _gradient(layer: torch.nn.Linear, features: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    layer.zero_grad(set_to_none=True)
    loss(layer(features)).backward()
    return layer.weight.grad


def _targets(tags: int, batch: int) -> tuple[Tensor, Tensor]:
    """The rows and columns of five positives per photo."""
    rng = torch.Generator().manual_seed(0)
    return torch.arange(batch).repeat_interleave(5), torch.cat(
        [torch.randperm(tags, generator=rng)[:5] for _ in range(batch)]
    )


def _sparse(rows: Tensor, columns: Tensor, logits: Tensor) -> Tensor:
    return tag_loss(logits, rows, columns)


def _dense(rows: Tensor, columns: Tensor, logits: Tensor) -> Tensor:
    targets = torch.zeros_like(logits)
    targets[rows, columns] = 1
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)

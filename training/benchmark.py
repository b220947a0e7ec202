"""What a training costs: the loop beside the same network on photos in memory, its loader, and the loss of many tags.

grounding step=benchmark benchmark=training init=FILE
torchrun --nproc-per-node 2 -m grounding step=benchmark benchmark=training init=FILE    # the same, of two ranks
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
from training.data import Batch, Photos, shares
from training.loss import tag_loss
from training.network import Network
from training.recipe import Recipe
from training.shards import Shards
from training.start import initial_tagger
from training.train import loader
from training.world import World, joined

Row = dict[str, str | float | None]
WARM = 3  # steps before a turn is timed: by then what was read ahead is used up


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
) -> tuple[list[Row], dict]:
    """Photos a second, and what the tag layer costs with our loss and with dense targets.

    Args:
        root: shards of step=shards; init: what the network starts from; batch: photos a step, of all ranks.
        steps: of a turn; rounds: turns, of which the medians are taken; workers: of the loader, each number a row.
        tags, dense_batch: of the comparison with dense targets.

    Returns:
        The rows, and what they have in common.

    Raises:
        InputError: no shards, or too few photos.
    """
    shards = Shards(root)
    with joined() as world:
        plan = Recipe.of(batch=batch, precision=precision, trunk_lr=0.001)
        network = Network(initial_tagger(init, shards.vocabulary), len(shards.vocabulary), plan, world)
        turns = _Turns(shards, network, plan, world, steps)
        rows = turns.loops(workers, rounds)
        if world.size == 1:
            rows += [turns.reading(count) for count in workers] + dense_rows(init, tags, dense_batch, precision)
        return rows, {"ranks": world.size, "batch": batch, "precision": precision, "photos": len(turns)}


class _Turns:
    """Turns of steps on photos in memory and on photos as they are read."""

    def __init__(self, shards: Shards, network: Network, plan: Recipe, world: World, steps: int):
        self.shards, self.network, self.plan, self.world, self.steps = shards, network, plan, world, steps
        self.optimizer = network.optimizer()
        if len(self) < plan.batch * (steps + WARM):
            raise InputError(f"{shards.root} has too few photos for {steps + WARM} steps of {plan.batch}: lower steps=")

    def __len__(self) -> int:
        return sum(shard.photos for shard in self.shards.train)

    def loops(self, workers: Sequence[int], rounds: int) -> list[Row]:
        """The ceiling, and the loop with so many workers; they take turns."""
        kept = next(self._batches(0))
        seconds: dict[str, list[float]] = {}
        for turn in range(rounds):
            seconds.setdefault("in memory", []).append(self._turn(lambda: (kept for _ in iter(int, 1)), 0))
            for count in workers:
                work = f"loop, {count} workers"
                seconds.setdefault(work, []).append(self._turn(lambda c=count, t=turn: self._batches(c, t), WARM))
        ceiling = median(seconds["in memory"])
        return [
            {"work": work, "photos/s": self.plan.batch / median(times), "of the ceiling": ceiling / median(times)}
            for work, times in seconds.items()
        ]

    def reading(self, workers: int) -> Row:
        """The loader alone."""
        batches = self._batches(workers)
        list(islice(batches, WARM))
        start = time.perf_counter()
        read = sum(len(batch.images) for batch in batches)
        return {"work": f"loader alone, {workers} workers", "photos/s": read / (time.perf_counter() - start)}

    def _batches(self, workers: int, epoch: int = 0) -> Iterator[Batch]:
        share = self.plan.share(self.world.size)
        ranks = self.world.rank, self.world.size
        places = shares(self.shards.train, 0, epoch, self.plan.batch, 0, *ranks, share)
        return loader(Photos(self.shards), islice(places, self.steps + WARM), workers, self.world)

    def _turn(self, batches: Callable[[], Iterator[Batch]], warm: int) -> float:
        """The seconds of a step."""
        stream = batches()
        for batch in islice(stream, warm or 1):
            self._step(batch)
        start = time.perf_counter()
        for batch in islice(stream, self.steps):
            self._step(batch)
        return (time.perf_counter() - start) / self.steps

    def _step(self, batch: Batch) -> None:
        self.network.train()
        loss = self.network.loss(batch, 0, self.world.rank * self.network.share)
        loss.backward()
        self.world.sum([loss.item()])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def dense_rows(init: str, tags: int, batch: int, precision: str) -> list[Row]:
    """A step with our loss and with dense targets, of the tag layer alone (1024 features) and of the whole network:
    seconds, MB, and how much the layer's gradients differ. Each in a process of its own, whose memory is its own."""
    rows = []
    for part, start in (("tag layer", None), ("whole step", init)):
        for dense in (False, True):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                seconds, memory = process.submit(_cost, start, tags, batch, precision, dense).result()
            work = f"{part}, {'dense targets' if dense else 'ours'}, {tags} tags, batch {batch}"
            rows.append({"work": work, "seconds": seconds, "MB": memory})
    targets, features = _targets(tags, batch), torch.rand(batch, 1024, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(1024, tags)
    ours, theirs = (_gradient(layer, features, partial(loss, *targets)) for loss in (_sparse, _dense))
    return [
        row | {"gradients differ": (ours - theirs).abs().max().item()} if i == 0 else row for i, row in enumerate(rows)
    ]


def _cost(init: str | None, tags: int, batch: int, precision: str, dense: bool) -> tuple[float, float]:
    """The seconds of a step, and by how many MB the process grows in the first one."""
    torch.manual_seed(0)
    loss = partial(_dense if dense else _sparse, *_targets(tags, batch))
    if init is None:
        layer, features = torch.nn.Linear(1024, tags), torch.rand(batch, 1024)
        work = partial(_gradient, layer, features, loss)
    else:
        vocabulary = Vocabulary([f"tag {i}" for i in range(tags)])
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
    """The rows and columns of five positives a photo."""
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

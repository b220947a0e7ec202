"""The step ``train``: shards of photos and their tags -> a tagger.

One process:

    grounding step=train data.root=SHARDS init=FILE
    grounding step=train data.root=SHARDS init=FILE experiment=stock6m     # the recipe of the paper

Several GPUs of one machine:

    torchrun --nproc-per-node 8 -m grounding step=train data.root=SHARDS init=FILE

Straight from tars behind HTTP or in object storage (docs/scale.md):

    grounding step=train 'data.root="s3://bucket/crawl/{00001..00127}.tar"' \
        step.stream.validation=s3://bucket/crawl/00000.tar

A Slurm cluster (hydra.launcher.nodes, hydra.launcher.tasks_per_node, ...: conf/cluster/slurm.yaml):

    grounding -m cluster=slurm step=train data.root=SHARDS init=FILE

All random numbers depend only on the seed and on where they are used. So a training that was stopped or killed
continues from its last checkpoint when the same command runs again, and ends with the same weights.
"""

import json
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from grounding.runtime.artefacts import write_json
from grounding.tagger.tensors import write_tensors
from proposals.errors import InputError
from training import checkpoint
from training.dataset import TrainingBatch
from training.distributed import RankGroup, joined_ranks
from training.feeds import PhotoFeed, feed_of
from training.interruption import Interruption
from training.merged_shards import MergedShards, open_shards
from training.monitoring import Monitor, write_report
from training.order import count_photos
from training.progress import Progress
from training.recipe import Recipe
from training.shards import Shards
from training.state import TrainingState, initial_state
from training.streaming import StreamedShards, StreamOptions, is_streamed
from training.validation import validate

log = logging.getLogger(__name__)

TAGGER = "tagger.safetensors"


def train(
    root: str | Sequence[str],
    output: str,
    init: str = "embedded",
    architecture: str = "googlenet",
    names: str | None = None,
    tensorboard: bool = False,
    repeat: Sequence[int] | None = None,
    teacher: str | None = None,
    stream: StreamOptions | None = None,
    **settings: Any,
) -> Path:
    """Trains a tagger, or continues from the last checkpoint in ``output``.

    The output folder gets ``checkpoints/``; at each validation ``tagger.safetensors``, ``metrics.json`` and a picture
    in ``maps/``; every few steps a line in ``metrics.jsonl``; at the end ``report.md``.

    Args:
        root: folder of the shards that ``step=shards`` wrote, or a list of folders; or tars or URLs, which are
            streamed, see :class:`training.streaming.StreamedShards`.
        output: folder to write to.
        init: what to start from, see ``training.initialization.initial_tagger``.
        architecture: see ``training.initialization.initial_tagger``.
        names: see ``training.initialization.initial_tagger``.
        tensorboard: whether to write TensorBoard files as well.
        repeat: how often the photos of each folder are seen in an epoch; None: once.
        teacher: another tagger, its file or its name, of any architecture. It teaches the tags that both have with the
            weight ``distillation_weight``: on photos without tags all of them, on all photos those that the photos'
            texts lack. None: the initial network teaches the latter.
        stream: how tars are streamed.
        **settings: fields of :class:`training.recipe.Recipe`.

    Returns:
        The path of the tagger.

    Raises:
        InputError: there are no shards, they are damaged or have too few photos for a step; the checkpoint belongs to
            another training; the loss is not finite (the batch is saved); or a file cannot be written.
    """
    recipe = Recipe.of(**settings)
    shards = _open(root, repeat, recipe, stream or StreamOptions(), init, teacher)
    start = time.perf_counter()
    with joined_ranks() as ranks, Interruption() as interruption:
        feed = feed_of(shards, recipe, ranks)
        state = initial_state(recipe, shards, ranks, init, architecture, names, teacher)
        tags = state.model.tagger.vocabulary
        log.info("%d tags, %d of them inherited", len(tags), len(tags) - state.model.known)
        total = None if feed.steps is None else feed.steps * recipe.epochs
        if last := checkpoint.last_checkpoint(Path(output, "checkpoints"), ranks):
            checkpoint.resume(last, state)
            _check_ranks(state.progress, ranks, last)
            log.info("resumed after step %d%s", state.progress.step, f" of {total}" if total else "")
        shown = tensorboard, ranks.rank == 0
        with Monitor(Path(output), state.progress, total, recipe.batch, *shown) as monitor:
            TrainingLoop(feed, state, monitor, interruption, Path(output)).run()
        if ranks.rank == 0:
            write_report(Path(output), state.progress, time.perf_counter() - start)
    return Path(output, TAGGER)


def _open(
    root: str | Sequence[str],
    repeat: Sequence[int] | None,
    recipe: Recipe,
    stream: StreamOptions,
    init: str,
    teacher: str | None,
) -> Shards | MergedShards | StreamedShards:
    """Opens the shards, and checks that there are photos for a step and for validation, if their number is known."""
    if is_streamed(root):
        if repeat is not None:
            raise InputError("step.repeat= is for folders of shards, not for tars that are streamed: leave it out")
        return StreamedShards(root, stream, init, untagged=teacher is not None)
    shards = open_shards(root, repeat)
    if count_photos(shards.train) < recipe.batch:
        few = f"{count_photos(shards.train)} photos for training, and step.batch={recipe.batch}"
        raise InputError(f"{root} has {few}: lower step.batch=, or make shards of more photos")
    if not count_photos(shards.val):
        made = f"made with held_out={shards.settings.get('held_out', 0)}"
        raise InputError(f"{root} has no photo for validation ({made}): make the shards with a larger step.held_out=")
    return shards


def _check_ranks(progress: Progress, ranks: RankGroup, path: Path) -> None:
    if progress.places and len(progress.places) != ranks.size:
        raise InputError(
            f"{path} was saved within an epoch of streamed photos by {len(progress.places)} ranks: use as many again"
        )


class TrainingLoop:
    """The steps of a training, from its present state to its end.

    Args:
        feed: the photos.
        state: the state to start from; it is changed.
        monitor: shows the progress.
        interruption: records signals.
        output: folder to write to.
    """

    def __init__(
        self,
        feed: PhotoFeed,
        state: TrainingState,
        monitor: Monitor,
        interruption: Interruption,
        output: Path,
    ):
        self.feed, self.recipe, self.state, self.ranks = feed, feed.recipe, state, feed.ranks
        self.monitor, self.interruption, self.output = monitor, interruption, output
        self.model, self.progress = state.model, state.progress
        self.share, self.micro_batch = feed.share, feed.micro_batch
        self.saved = time.monotonic()  # time of the last checkpoint

    def run(self) -> None:
        """Trains to the end of the last epoch, with validations on the way and one at the end."""
        batches: Iterator[TrainingBatch] | None = None
        while True:
            if self._validation_is_due():
                self._save()  # before a validation, because it takes long
                self._validate()
                self._save()
            if self.feed.is_over(self.progress):
                return
            if batches is None or self.feed.begins(self.progress):
                batches = self.feed.epoch(self.progress)
            self._step(batches)

    def _step(self, batches: Iterator[TrainingBatch]) -> None:
        parts, skipped = self._read(batches)
        if not parts:
            self._end_epoch()
            return
        self.model.train()
        loss, signals = self.ranks.sum([self._backward(parts) / self.ranks.size, self.interruption.signal])
        if not math.isfinite(loss):
            self._refuse(parts)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        self.model.after_step()
        self.progress.add(loss, skipped)
        self.monitor.step(self.progress, loss, [group["lr"] for group in self.state.optimizer.param_groups])
        if signals or time.monotonic() - self.saved > 60 * self.recipe.save_minutes:
            self._save()
        if signals:
            self._stop()

    def _backward(self, parts: list[TrainingBatch]) -> float:
        """Computes the gradients of the rank's share, averaged over ranks; returns the loss of the share."""
        total, first = 0.0, self.ranks.rank * self.share
        parts = [part for part in parts if len(part.images)]
        for i, part in enumerate(parts):
            with self.model.accumulate() if i + 1 < len(parts) else nullcontext():
                loss = self.model.loss(part, self.progress.step, first)
                loss.backward()
            total, first = total + loss.item(), first + len(part.images)
        return total

    def _read(self, batches: Iterator[TrainingBatch]) -> tuple[list[TrainingBatch], int]:
        """The parts of the rank's share of a step, and the number of broken photos of all ranks."""
        parts, error = self._try_to_read(batches)
        ended = sum(len(part.images) + len(part.skipped) for part in parts) < self.share
        places = [0] * (3 * self.ranks.size)
        places[3 * self.ranks.rank : 3 * self.ranks.rank + 3] = parts[-1].place if parts else (0, 0, 0)
        counts = [sum(len(part.skipped) for part in parts), bool(error), ended, *places]
        skipped, errors, short, *places = map(int, self.ranks.sum(counts))
        if errors:  # all ranks end, not only the one with the error
            self._save()
            raise InputError(error or "another rank cannot read its photos: see its message")
        if short and self.feed.steps is None:  # a rank has read all its shards
            return [], skipped
        if self.feed.steps is None:
            self.progress.epoch_steps += 1
            self.progress.places = [places[i : i + 3] for i in range(0, len(places), 3)]
        return parts, skipped

    def _try_to_read(self, batches: Iterator[TrainingBatch]) -> tuple[list[TrainingBatch], str]:
        """The parts, and why they cannot be read; "" if they can."""
        start = time.perf_counter()
        try:
            parts = list(islice(batches, -(-self.share // self.micro_batch)))
        except InputError as error:
            return [], str(error)
        self.monitor.waited(time.perf_counter() - start)
        for photo in (photo for part in parts for photo in part.skipped):
            log.warning("skipped %s", photo)
        if self.feed.steps is None and any(len(part.images) for part in parts):
            return parts, ""  # a part whose photos are all broken; micro batches may be small
        return parts, next((part.error for part in parts if part.error), "")

    def _end_epoch(self) -> None:
        """Begins the next epoch of photos that are streamed."""
        if not self.progress.epoch_steps:
            few = f"has fewer than step.batch={self.recipe.batch} photos with a known tag on a rank"
            raise InputError(f"data.root= {few}: lower step.batch=, use fewer ranks, or set step.stream.vocabulary=")
        self.progress.epoch += 1
        self.progress.epoch_steps, self.progress.places = 0, []

    def _refuse(self, parts: list[TrainingBatch]) -> None:
        path = self.output / f"not-finite-{self.ranks.rank}.safetensors"
        tensors = {f"{i}.{name}": getattr(part, name) for i, part in enumerate(parts) for name in part._fields[:3]}
        write_tensors(path, tensors, {"step": str(self.progress.step)})
        saved = checkpoint.checkpoints(self.output / "checkpoints")
        last = f"; {saved[-1]} is from before this step" if saved else "; there is no checkpoint yet"
        raise InputError(
            f"the loss of step {self.progress.step} is not finite (its photos are in {path}): "
            f"lower step.trunk_lr or step.tag_lr{last}"
        )

    def _stop(self) -> None:
        """Does what the signal asks for, after the step is saved."""
        log.warning("received a signal; step %d is saved", self.progress.step)
        self.ranks.sum([0])  # waits until rank 0 has saved
        self.interruption.follow(self.interruption.signal or signal.SIGTERM)

    def _validation_is_due(self) -> bool:
        return self.progress.steps > 0 and (self.feed.is_over(self.progress) or self._is_regular())

    def _is_regular(self) -> bool:
        """Whether this is a step of the regular validations, unlike the additional one after the last step."""
        if self.recipe.validate_every:
            return self.progress.step % self.recipe.validate_every == 0
        return self.feed.begins(self.progress)

    def _validate(self) -> None:
        """Measures the tagger, lowers the learning rates if the loss does not fall, and publishes the tagger."""
        train_loss, epoch = self.progress.loss / self.progress.steps, self.feed.epochs(self.progress)
        measured = {"epoch": epoch, "train_loss": train_loss}
        measured |= validate(self.model, self.feed.validation(), self.ranks, self.feed.validation_cure)
        if not math.isfinite(measured["loss"]):
            earlier = checkpoint.checkpoints(self.output / "checkpoints")[:-1]
            again = f"remove the checkpoints after {earlier[-1]}" if earlier else "remove the checkpoints"
            raise InputError(
                f"the validation loss is not finite: lower step.trunk_lr or step.tag_lr, {again}, and start again"
            )
        if self.recipe.lr_factor < 1 and self._is_regular():
            self.state.scheduler.step(measured["loss"])
        self.progress.validated(measured)
        self.monitor.validated(self.progress, measured)
        if self.ranks.rank == 0:
            self._publish()

    def _publish(self) -> None:
        """Writes the tagger, its measurements, and the maps of one validation photo."""
        tagger = self.model.published
        tagger.save(self.output / TAGGER, training=self.progress.identity)
        history = {"recipe": json.loads(self.progress.identity), "validations": self.progress.history}
        write_json(self.output / "metrics.json", history)
        self.monitor.draw_maps(self.progress, tagger, self.feed.first(1, validation=True))

    def _save(self) -> None:
        if self.ranks.rank == 0:
            checkpoint.save(self.output / "checkpoints", self.state, self.recipe.keep_checkpoints)
        self.saved = time.monotonic()

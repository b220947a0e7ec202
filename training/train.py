"""The step ``train``: a tagger out of shards of photos and their tags.

    grounding step=train data.root=SHARDS init=FILE                                      # what measured best here
    grounding step=train experiment=stock6m data.root=SHARDS init=FILE                   # the paper's recipe
    torchrun --nproc-per-node 8 -m grounding step=train data.root=SHARDS                 # many GPUs
    grounding -m cluster=slurm step=train data.root=SHARDS                               # a Slurm cluster

Every number that is drawn follows from the seed and from where it is used. So a run that is stopped, by a signal or by
force, goes on at its last checkpoint when it is started again, and ends with the same weights.
"""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from grounding.runtime.artefacts import write_json
from grounding.runtime.ranks import cores
from grounding.tagger.tagger import EMBEDDED
from grounding.tagger.tensors import write_tensors
from proposals.errors import InputError
from training import checkpoint
from training.checkpoint import Progress, Training
from training.data import Batch, Photos, Place, in_turn, photos_of, shares
from training.interruption import Interruption
from training.network import Network
from training.recipe import Recipe
from training.shards import Shards
from training.start import initial_tagger, set_frequencies
from training.teacher import calibrate
from training.validation import validate
from training.watch import Watch, write_report
from training.world import World, joined

log = logging.getLogger(__name__)

TAGGER = "tagger.safetensors"
CALIBRATED = 64  # photos


def train(
    root: str,
    output: str,
    init: str = "embedded",
    architecture: str = "googlenet",
    names: str | None = None,
    tensorboard: bool = False,
    **recipe: float,
) -> Path:
    """Trains a tagger, or goes on where the last checkpoint in ``output`` stopped.

    Args:
        root: a folder of shards that ``step=shards`` wrote.
        output: gets ``checkpoints/``, and at each validation ``tagger.safetensors``, ``metrics.json`` and a picture in
            ``maps/``; ``metrics.jsonl`` has a line for every few steps, ``report.md`` comes at the end.
        init, architecture, names: see ``initial_tagger``; tensorboard: whether to write for it, too.
        recipe: the fields of :class:`Recipe`.

    Returns:
        The path of the tagger.

    Raises:
        InputError: no shards, broken ones, too few for a step, a checkpoint of another training, a loss that is no
            longer finite (the batch is saved), or files that cannot be written.
    """
    plan, shards = Recipe.of(**recipe), Shards(root)
    steps = photos_of(shards.train) // plan.batch
    if not steps or not shards.val:
        few = f"{photos_of(shards.train)} photos for training and {photos_of(shards.val)} held out"
        raise InputError(f"{root} has {few}: lower step.batch={plan.batch}, or make shards of more photos")
    start = time.perf_counter()
    with joined() as world, Interruption() as interruption:
        training = _begun(plan, shards, world, init, architecture, names)
        last = _last_checkpoint(Path(output), world)
        if last:
            checkpoint.resume(last, training)
            log.info("resumed after step %d of %d", training.progress.step, steps * plan.epochs)
        watching = tensorboard, world.rank == 0
        with Watch(Path(output), training.progress, steps * plan.epochs, plan.batch, *watching) as watch:
            _Loop(plan, shards, training, world, watch, interruption, Path(output)).run()
        if world.rank == 0:
            write_report(Path(output), training.progress, time.perf_counter() - start)
    return Path(output, TAGGER)


def _begun(plan: Recipe, shards: Shards, world: World, init: str, architecture: str, names: str | None) -> Training:
    """The same on every rank."""
    torch.manual_seed(plan.seed)
    tagger = initial_tagger(init, shards.vocabulary, architecture, names, plan.distillation_weight > 0)
    known = len(shards.vocabulary)
    set_frequencies(tagger, torch.from_numpy(shards.counts) / photos_of(shards.train))
    if known < len(tagger.vocabulary):
        first = Photos(shards)[next(in_turn(shards.train, 0, 1, CALIBRATED))]
        if first.gone:
            raise InputError(first.gone)
        calibrate(tagger, tagger.preprocessing(first.images), known)
    network = Network(tagger, known, plan, world)
    optimizer = network.optimizer()
    made = json.dumps([list(tagger.vocabulary), shards.train, shards.val])
    identity = plan.identity() | {"init": _digest(init, architecture), "shards": sha256(made.encode()).hexdigest()[:12]}
    log.info("%d tags, %d of them inherited", len(tagger.vocabulary), len(tagger.vocabulary) - known)
    factor = plan.lr_factor if plan.lr_factor < 1 else 0.1  # which is then never used
    plateau = ReduceLROnPlateau(optimizer, factor=factor, patience=0)
    return Training(network, optimizer, plateau, Progress(json.dumps(identity)))


def _digest(init: str, architecture: str) -> str:
    if init == "torchvision":
        return f"torchvision {architecture}"
    path = EMBEDDED if init == "embedded" else Path(init)
    return f"{path.name} {sha256(path.read_bytes()).hexdigest()[:12]}"


def _last_checkpoint(output: Path, world: World) -> Path | None:
    """The last checkpoint that the first rank sees, for all ranks."""
    found = checkpoint.saved(output / "checkpoints") if world.rank == 0 else []
    step = world.most(int(found[-1].stem.removeprefix("step-")) if found else -1)
    return checkpoint.path_of(output / "checkpoints", int(step)) if step >= 0 else None


@dataclass
class _Loop:
    """The steps of a training, from where it stands to its end."""

    plan: Recipe
    shards: Shards
    training: Training
    world: World
    watch: Watch
    interruption: Interruption
    output: Path
    saved: float = field(default_factory=time.monotonic)  # when the last checkpoint was

    def __post_init__(self):
        self.network, self.progress = self.training.network, self.training.progress
        self.steps = photos_of(self.shards.train) // self.plan.batch
        self._photos = Photos(self.shards, self.plan.tags_per_image)
        self.share = self.plan.share(self.world.size)
        self.most = min(self.plan.micro_batch or self.share, self.share)

    def run(self) -> None:
        """Trains to the end of the last epoch, with a validation there or at every so many steps."""
        batches: Iterator[Batch] | None = None
        while True:
            if self._due():
                self._save()  # for a validation is long
                self._validate()
                self._save()
            if self.progress.step >= self.steps * self.plan.epochs:
                return
            if batches is None or self.progress.step % self.steps == 0:
                batches = self._epoch()
            self._step(batches)

    def _due(self) -> bool:
        end = self.progress.step >= self.steps * self.plan.epochs
        return self.progress.steps > 0 and (end or self._regular())

    def _regular(self) -> bool:
        """Whether a validation belongs here wherever the training ends."""
        return self.progress.step % (self.plan.validate_every or self.steps) == 0

    def _epoch(self) -> Iterator[Batch]:
        """The parts of the rank's shares of all steps that are left of the epoch."""
        epoch, start = divmod(self.progress.step, self.steps)
        ranks = self.world.rank, self.world.size
        places = shares(self.shards.train, self.plan.seed, epoch, self.plan.batch, start, *ranks, self.most)
        return loader(self._photos, places, self.plan.workers, self.world)

    def _step(self, batches: Iterator[Batch]) -> None:
        parts, gone = self._read(batches)
        skipped = sum(len(part.skipped) for part in parts)
        skipped, lost = self.world.sum([skipped, bool(gone)])
        if lost:
            self._save()
            raise InputError(gone or "another rank cannot read its photos; it says why")
        self.network.train()
        loss, signals = self.world.sum([self._backward(parts) / self.world.size, self.interruption.signal])
        if not math.isfinite(loss):
            self._refuse(parts)
        self.training.optimizer.step()
        self.training.optimizer.zero_grad(set_to_none=True)
        self.network.stepped()
        self.progress.add(loss, int(skipped))
        self.watch.step(self.progress, loss, [group["lr"] for group in self.training.optimizer.param_groups])
        if signals or time.monotonic() - self.saved > 60 * self.plan.save_minutes:
            self._save()
        if signals:
            log.warning("a signal came; step %d is saved", self.progress.step)
            self.world.sum([0])  # until the first rank has saved
            self.interruption.follow(self.interruption.signal or signal.SIGTERM)

    def _read(self, batches: Iterator[Batch]) -> tuple[list[Batch], str]:
        """The parts of the rank's share of a step, and why there is none: "" where there is."""
        asked = time.perf_counter()
        try:
            parts = list(islice(batches, -(-self.share // self.most)))
        except InputError as error:  # the other ranks are told before this one ends
            return [], str(error)
        self.watch.waited(time.perf_counter() - asked)
        for photo in (photo for part in parts for photo in part.skipped):
            log.warning("skipped %s", photo)
        return parts, next((part.gone for part in parts if part.gone), "")

    def _backward(self, parts: list[Batch]) -> float:
        """Leaves the gradients of the rank's share, averaged over the ranks; the share's loss."""
        total, first = 0.0, self.world.rank * self.share
        for i, part in enumerate(parts):
            with self.network.adding() if i + 1 < len(parts) else nullcontext():
                loss = self.network.loss(part, self.progress.step, first)
                loss.backward()
            total, first = total + loss.item(), first + len(part.images)
        return total

    def _refuse(self, parts: list[Batch]) -> None:
        path = self.output / f"not-finite-{self.world.rank}.safetensors"
        named = [(f"{i}.{name}", getattr(part, name)) for i, part in enumerate(parts) for name in part._fields[:3]]
        write_tensors(path, dict(named), {"step": str(self.progress.step)})
        raise InputError(
            f"the loss of step {self.progress.step} is no longer finite (its photos are in {path}): "
            "lower step.trunk_lr or step.tag_lr; the last checkpoint is from before"
        )

    def _validate(self) -> None:
        """Measures, steps the plateau, publishes."""
        places = in_turn(self.shards.val, self.world.rank, self.world.size, self.most)
        batches = loader(self._photos, places, self.plan.workers, self.world)
        train_loss, epoch = self.progress.loss / self.progress.steps, self.progress.step / self.steps
        measured = {"epoch": epoch, "train_loss": train_loss} | validate(self.network, batches, self.world)
        if not math.isfinite(measured["loss"]):
            raise InputError(
                "the validation's loss is not finite: lower the rates and start from an earlier checkpoint"
            )
        if self.plan.lr_factor < 1 and self._regular():
            self.training.plateau.step(measured["loss"])
        self.progress.validated(measured)
        self.watch.validated(self.progress, measured)
        if self.world.rank == 0:
            tagger = self.network.judged
            tagger.save(self.output / TAGGER, training=self.progress.identity)
            history = {"recipe": json.loads(self.progress.identity), "validations": self.progress.history}
            write_json(self.output / "metrics.json", history)
            first = Photos(self.shards)[next(in_turn(self.shards.val, 0, 1, 1))]
            self.watch.look(self.progress, tagger, first)

    def _save(self) -> None:
        if self.world.rank == 0:
            checkpoint.save(self.output / "checkpoints", self.training, self.plan.keep_checkpoints)
        self.saved = time.monotonic()


def loader(photos: Photos, places: Iterator[list[Place]], workers: int | None, world: World) -> Iterator[Batch]:
    """Batches of the photos at these places, read ahead by so many processes; None: as many as cores, but one.

    Raises:
        InputError: a process that reads has died; raised where its batch is asked for, never in the midst of a step.
    """
    batches = iter(
        DataLoader(
            photos,
            batch_size=None,  # the places come in lists
            sampler=places,
            num_workers=max(cores() - 1, 1) if workers is None else workers,
            collate_fn=_as_it_is,
            worker_init_fn=_begin_worker,
            pin_memory=world.device.type == "cuda",
        )
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises wherever the program happens to be
    return _told(batches)


def _told(batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:  # as the connection to a killed process breaks
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"a process that reads photos ended ({why}): set step.workers= to fewer") from error


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _begin_worker(_: int) -> None:
    torch.set_num_threads(1)
    # sent to all processes of a job, it would end this one, and by that the step that is to be saved
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

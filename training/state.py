"""The state of a training: everything that changes from step to step."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from grounding.tagger.packaged import tagger_path
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError
from training.distributed import RankGroup
from training.feeds import PhotoFeed, feed_of
from training.initialization import initial_tagger
from training.merged_shards import MergedShards
from training.model import TrainableTagger
from training.progress import Progress
from training.recipe import Recipe
from training.shards import Shards
from training.streaming import StreamedShards
from training.teacher import calibrate

CALIBRATION_PHOTOS = 64


@dataclass
class TrainingState:
    """What a checkpoint stores and restores.

    Attributes:
        model: the tagger, and the average of its weights.
        optimizer: SGD with its momentum.
        scheduler: lowers the learning rates when the validation loss does not fall.
        progress: how far the training has come.
    """

    model: TrainableTagger
    optimizer: SGD
    scheduler: ReduceLROnPlateau
    progress: Progress


def initial_state(
    recipe: Recipe,
    shards: Shards | MergedShards | StreamedShards,
    ranks: RankGroup,
    init: str,
    architecture: str,
    names: str | Path | None,
    teacher: str | None = None,
) -> TrainingState:
    """The state before the first step, equal on all ranks.

    Args:
        recipe: the settings of the training.
        shards: the photos and their tags.
        ranks: the ranks that train together.
        init: what to start from, see ``initial_tagger``.
        architecture: see ``initial_tagger``.
        names: see ``initial_tagger``.
        teacher: a tagger that teaches this one, its file or its name, see ``training.teacher.FileTeacher``; None for
            none.

    Returns:
        The state.

    Raises:
        InputError: the initial tagger, the teacher or the shards cannot be read, or the teacher has no weight.
    """
    if teacher and not recipe.distillation_weight:
        raise InputError("step.teacher= teaches nothing with step.distillation_weight=0: set it, for example to 1")
    torch.manual_seed(recipe.seed)
    known, feed = len(shards.vocabulary), feed_of(shards, recipe, ranks)
    inherit = recipe.distillation_weight > 0
    tagger = initial_tagger(init, shards.vocabulary, architecture, names, inherit, feed.frequencies())
    if known < len(tagger.vocabulary):
        _calibrate(tagger, feed, known)
    guide = TagClassifier.load(teacher, presence=False, lexicon=False) if teacher else None
    model = TrainableTagger(tagger, known, recipe, ranks, guide)
    optimizer = model.optimizer()
    content = json.dumps([list(tagger.vocabulary), *feed.description()])
    identity = recipe.identity() | {
        "init": _describe(init, architecture),
        "shards": sha256(content.encode()).hexdigest()[:12],
    }
    identity |= {"teacher": _describe(teacher, architecture)} if teacher else {}
    factor = recipe.lr_factor if recipe.lr_factor < 1 else 0.1  # torch refuses 1; the loop then never uses it
    scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=0)
    return TrainingState(model, optimizer, scheduler, Progress(json.dumps(identity)))


def _calibrate(tagger: TagClassifier, feed: PhotoFeed, known: int) -> None:
    batch = feed.first(CALIBRATION_PHOTOS)
    if batch.error:
        raise InputError(batch.error)
    calibrate(tagger, tagger.preprocessing(batch.images), known, feed.recipe.pooling)


def _describe(init: str, architecture: str) -> str:
    """The initial weights in words, with a digest of their file."""
    if init == "torchvision":
        return f"torchvision {architecture}"
    path = tagger_path(init)
    return f"{path.name} {sha256(path.read_bytes()).hexdigest()[:12]}"

"""The step ``train``: a tagger out of photos and their captions.

grounding step=train data.root=flickr8k init=bvlc_googlenet.fp16.safetensors          # the paper's recipe
grounding step=train experiment=embedded data.root=flickr8k init=bvlc_googlenet...    # the shipped tagger's
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from tqdm import tqdm

from grounding.artefacts import written_aside
from grounding.tagger import TagClassifier
from grounding.vocabulary import Vocabulary
from proposals.errors import InputError
from training import checkpoint
from training.data import Batch, Photos, collate, find_shards, positives, shard_captions
from training.loss import tag_loss
from training.start import initial_tagger, set_frequencies

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """The paper's recipe by default (Sec. 4.3), as far as it is told.

    Attributes:
        epochs: passes over the photos.
        batch: photos a step.
        trunk_rate: learning rate of everything below the tag layer; 0 freezes it.
        tag_rate: learning rate of the tag layer.
        momentum, decay: of SGD; Caffe's GoogLeNet has 0.9 and 0.0002.
        plateau: what the rates are multiplied by when an epoch does not lower the validation loss.
        minimum: a word must occur in so many photos to be a tag.
        held_out: so many shards, the last ones, are for validation.
        workers: 1 reads photos beside the training, 0 within it.
        seed: of order, crops, flips, dropout and the tag layer.
    """

    epochs: int = 3
    batch: int = 64
    trunk_rate: float = 0.01
    tag_rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0002
    plateau: float = 0.1
    minimum: int = 10
    held_out: int = 1
    workers: int = 1
    seed: int = 0

    def __post_init__(self):
        if self.workers not in (0, 1):
            raise InputError(f"workers={self.workers}: one process reads the photos, or none (0)")


def train(root: str, output: str, init: str = "embedded", architecture: str = "googlenet", **recipe: float) -> Path:
    """Trains a tagger, or goes on where ``last.safetensors`` in ``output`` stopped.

    Args:
        root: a folder of WebDataset shards, ``ID.jpg`` and ``ID.json`` with captions, whose words are the tags.
        output: gets ``last.safetensors`` (the checkpoint), ``tagger.safetensors`` and ``metrics.json`` every epoch.
        init, architecture: see ``initial_tagger``.
        recipe: the fields of :class:`Recipe`.

    Returns:
        The path of the tagger.

    Raises:
        InputError: no shards, broken ones, too few for a held-out part, or a checkpoint of another recipe.
    """
    plan = Recipe(**recipe)
    shards = find_shards(root)
    if not 0 < plan.held_out < len(shards):
        raise InputError(f"held_out={plan.held_out} of {len(shards)} shards: leave some for training and one to judge")
    training, held_out = shards[: -plan.held_out], shards[-plan.held_out :]
    torch.manual_seed(plan.seed)
    tagger = _start(training, init, architecture, plan)
    optimizer, plateau = _optimizer(tagger, plan)
    progress = checkpoint.Progress(_identity(plan, init, tagger.vocabulary))
    last = Path(output, "last.safetensors")
    if last.exists():
        checkpoint.resume(last, tagger, optimizer, plateau, progress)
        log.info("resumed after epoch %d of %d", progress.epoch, plan.epochs)
    while progress.epoch < plan.epochs:
        epoch = Photos(training, tagger.vocabulary, plan.seed, progress.epoch)
        measured = {"train_loss": _learn(tagger, optimizer, _batches(epoch, plan), plan, progress.epoch)}
        measured |= validate(tagger, _batches(Photos(held_out, tagger.vocabulary), plan))
        plateau.step(measured["loss"])
        progress.history.append(measured)
        log.info("epoch %d of %d: %s", progress.epoch, plan.epochs, json.dumps(measured))
        checkpoint.save(last, tagger, optimizer, plateau, progress)
        _publish(tagger, progress, Path(output))
    return Path(output, "tagger.safetensors")


def _identity(plan: Recipe, init: str, vocabulary: Vocabulary) -> str:
    """What two runs must share for one to go on where the other stopped: all but how long and in how many processes."""
    recipe = asdict(plan) | {"init": Path(init).name, "tags": len(vocabulary)}
    del recipe["epochs"], recipe["workers"]
    return json.dumps(recipe)


def _start(shards: list[str], init: str, architecture: str, plan: Recipe) -> TagClassifier:
    captions = list(shard_captions(shards))
    vocabulary = Vocabulary.of_captions(captions, plan.minimum)
    tagger = initial_tagger(init, vocabulary, architecture)
    counts = torch.zeros(len(vocabulary))
    for photo in captions:
        counts[positives(photo, vocabulary)] += 1
    set_frequencies(tagger, counts / len(captions))
    log.info("%d photos, %d tags", len(captions), len(vocabulary))
    return tagger.to(memory_format=torch.channels_last)


def _optimizer(tagger: TagClassifier, plan: Recipe) -> tuple[SGD, ReduceLROnPlateau]:
    tagger.trunk.requires_grad_(plan.trunk_rate > 0)
    groups = [
        {"params": list(tagger.trunk.parameters()), "lr": plan.trunk_rate},
        {"params": list(tagger.classifier.parameters()), "lr": plan.tag_rate},
    ]
    optimizer = SGD(groups, momentum=plan.momentum, weight_decay=plan.decay)
    return optimizer, ReduceLROnPlateau(optimizer, factor=plan.plateau, patience=0)


def _batches(photos: Photos, plan: Recipe) -> DataLoader:
    return DataLoader(photos, plan.batch, num_workers=plan.workers, collate_fn=collate, worker_init_fn=_one_thread)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _learn(tagger: TagClassifier, optimizer: SGD, batches: Iterable[Batch], plan: Recipe, epoch: int) -> float:
    """One epoch; the mean of its losses. Dropout is a function of seed and epoch, so that a resumed run repeats it."""
    torch.manual_seed(1000 * plan.seed + epoch)
    tagger.train()
    tagger.trunk.train(plan.trunk_rate > 0)
    losses = []
    with tqdm(batches, f"epoch {epoch + 1}", unit="batch", disable=None) as bar:
        for images, rows, columns in bar:
            loss = tag_loss(_logits(tagger, images), rows, columns)
            if not loss.isfinite():
                raise InputError("the loss is no longer finite: lower step.trunk_rate or step.tag_rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.2f}")
    if not losses:
        raise InputError("no photo of the training shards could be read")
    return sum(losses) / len(losses)


def _logits(tagger: TagClassifier, images: Tensor) -> Tensor:
    """(B, tags) of uint8 crops."""
    images = tagger.preprocessing(images).contiguous(memory_format=torch.channels_last)
    return tagger(images).flatten(1)


@torch.no_grad()
def validate(tagger: TagClassifier, batches: Iterable[Batch]) -> dict[str, float]:
    """The loss a photo, and the share (percent) of each photo's five most probable tags that it carries."""
    tagger.eval()
    photos, loss, hits = 0, 0.0, 0.0
    for images, rows, columns in batches:
        logits = _logits(tagger, images)
        targets = torch.zeros_like(logits)
        targets[rows, columns] = 1
        photos += len(images)
        loss += tag_loss(logits, rows, columns).item() * len(images)
        hits += targets.gather(1, logits.topk(5).indices).mean(1).sum().item()
    if not photos:
        raise InputError("no photo of the held-out shards could be read")
    return {"loss": loss / photos, "precision_at_5": 100 * hits / photos}


def _publish(tagger: TagClassifier, progress: checkpoint.Progress, output: Path) -> None:
    tagger.save(output / "tagger.safetensors", training=progress.recipe)
    with written_aside(output / "metrics.json") as aside:
        aside.write_text(json.dumps({"recipe": json.loads(progress.recipe), "epochs": progress.history}, indent=1))

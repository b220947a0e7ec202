"""The model in training: a tagger with its teacher, its precision, its dropout and its averaged weights."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError
from training.dataset import TrainingBatch
from training.distributed import RankGroup
from training.dropout import KeyedDropout
from training.loss import distillation_loss, soft_tag_loss, tag_loss, tagged_loss
from training.pooling import pool_scores
from training.recipe import Recipe
from training.teacher import FileTeacher, Teacher


class TrainableTagger:
    """A tagger on one rank, with everything that its losses need.

    Args:
        tagger: the tagger to train; it is moved to the rank's device and changed.
        known: number of its tags that the training photos have. These come first; the others are inherited.
        recipe: the settings of the training.
        ranks: the ranks that train together.
        guide: another tagger that teaches this one (``step.teacher``); None: the initial network teaches the inherited
            tags.

    Attributes:
        tagger: the tagger that learns.
        known: see above.
        share: photos per step on this rank.
        teacher: predicts the inherited tags; None if there are none, or if the trunk is frozen, because then their
            weights do not change, or with a guide.
        guide: predicts the tags that it shares with the tagger; None without one.
        average: exponential moving average of the weights, or None.
    """

    def __init__(
        self, tagger: TagClassifier, known: int, recipe: Recipe, ranks: RankGroup, guide: TagClassifier | None = None
    ):
        self.recipe, self.ranks, self.known = recipe, ranks, known
        self.share = recipe.share(ranks.size)
        tagger.trunk.requires_grad_(recipe.trunk_lr > 0)
        self._frozen = frozen_layers(tagger.trunk, recipe.frozen)
        for layer in self._frozen:
            layer.requires_grad_(False)
        tagger.dropout = self.dropout = KeyedDropout(tagger.dropout.p, recipe.seed)
        self.tagger = tagger.to(ranks.device, memory_format=torch.channels_last)
        self.guide = None if guide is None else FileTeacher(tagger, guide, known, recipe.pooling).to(ranks.device)
        distilled = known < len(tagger.vocabulary) and recipe.trunk_lr > 0 and guide is None
        self.teacher = Teacher(tagger, known).to(ranks.device) if distilled else None
        self.average = None
        if recipe.ema_decay:
            self.average = AveragedModel(tagger, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
        self._inherited = [part.detach()[known:].clone() for part in tagger.classifier.parameters()]
        self._parallel = ranks.data_parallel(self.tagger)
        self._model: nn.Module = torch.compile(self._parallel) if recipe.compile else self._parallel

    @property
    def published(self) -> TagClassifier:
        """The tagger that is validated and saved: with the averaged weights if there are any."""
        return self.tagger if self.average is None else self.average.module

    def train(self) -> None:
        """Sets training mode, to be called before each step; what is frozen stays in evaluation mode."""
        self.tagger.train()
        self.tagger.trunk.train(self.recipe.trunk_lr > 0)
        for layer in self._frozen:
            layer.eval()

    def optimizer(self) -> SGD:
        """SGD with one learning rate for the trunk and one for the tag layer."""
        groups = [
            {"params": list(self.tagger.trunk.parameters()), "lr": self.recipe.trunk_lr},
            {"params": list(self.tagger.classifier.parameters()), "lr": self.recipe.tag_lr},
        ]
        return SGD(groups, momentum=self.recipe.momentum, weight_decay=self.recipe.weight_decay)

    def loss(self, batch: TrainingBatch, step: int, first: int) -> Tensor:
        """The loss of a part of the rank's share, divided by the size of the whole share.

        So the gradients of all parts add up to the gradient of the mean over the share.

        Args:
            batch: the photos of this part.
            step: step of the training, from 0.
            first: place of the batch's first photo among the step's photos of all ranks.

        Returns:
            A float32 scalar.
        """
        self.dropout.at(step, self.recipe.batch, first)
        images, rows, columns = self.preprocess(batch.images), *self.positives(batch)
        logits = self._logits(self._model, images)
        own = tag_loss if self.recipe.count_unknown_tags else tagged_loss
        loss = own(logits[:, : self.known], rows, columns, self.share)
        if self.guide is not None:
            loss = loss + self.recipe.distillation_weight * self._guided(self.guide, batch.images, logits, rows)
        if self.teacher is not None:
            taught = self._logits(self.teacher, images)
            distilled = distillation_loss(logits[:, self.known :], taught, self.share)
            loss = loss + self.recipe.distillation_weight * distilled
        return loss

    def _guided(self, guide: FileTeacher, images: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """What the guide teaches: its tags on photos without tags, and the inherited tags on all photos."""
        with self._autocast():
            tags, inherited = guide(images.to(self.ranks.device, non_blocking=True))
        untagged = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        untagged[rows] = False
        loss = soft_tag_loss(logits[untagged][:, guide.columns], tags[untagged], self.share)
        if len(guide.inherited):
            loss = loss + distillation_loss(logits[:, guide.inherited], inherited, self.share)
        return loss

    def predict(self, batch: TrainingBatch) -> tuple[Tensor, Tensor | None]:
        """The logits of the published tagger and of the teacher.

        Args:
            batch: n photos.

        Returns:
            ``(n, tags)`` float32, and ``(n, inherited)`` float32 or None without a teacher.
        """
        images = self.preprocess(batch.images)
        taught = None if self.teacher is None else self._logits(self.teacher, images)
        return self._logits(self.published.eval(), images), taught

    def accumulate(self) -> AbstractContextManager[None]:
        """A context for all parts of a share but the last: gradients are added, and not yet averaged over ranks."""
        return self._parallel.no_sync() if isinstance(self._parallel, DistributedDataParallel) else nullcontext()

    def after_step(self) -> None:
        """To be called after each optimizer step: restores inherited tags that have no teacher, updates the average."""
        if self.teacher is None and self.guide is None:
            with torch.no_grad():
                for part, start in zip(self.tagger.classifier.parameters(), self._inherited, strict=True):
                    part[self.known :] = start
        if self.average is not None:
            self.average.update_parameters(self.tagger)

    def preprocess(self, images: Tensor) -> Tensor:
        """Moves crops to the rank's device and normalises them.

        Args:
            images: ``(n, 3, side, side)`` uint8 RGB.

        Returns:
            ``(n, 3, side, side)`` float32 in channels-last memory format.
        """
        images = self.tagger.preprocessing(images.to(self.ranks.device, non_blocking=True))
        return images.contiguous(memory_format=torch.channels_last)

    def positives(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """The rows and columns of a batch, ``(P,)`` each, on the rank's device."""
        return batch.rows.to(self.ranks.device), batch.columns.to(self.ranks.device)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        with self._autocast():
            scores = model(images)
        return pool_scores(scores, self.recipe.pooling)

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision == "bfloat16"
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=enabled)


def frozen_layers(trunk: nn.Module, last: str | None) -> list[nn.Module]:
    """The layers of a trunk that do not learn.

    Args:
        trunk: a network of layers in order.
        last: name of the last layer that does not learn; None: all layers learn.

    Returns:
        The layers from the first one to ``last``.

    Raises:
        InputError: the trunk has no such layer.
    """
    layers = dict(trunk.named_children())
    if last is None:
        return []
    if last not in layers:
        raise InputError(f"step.frozen={last} is no layer of the trunk: use one of {', '.join(layers)}, or null")
    return list(layers.values())[: list(layers).index(last) + 1]

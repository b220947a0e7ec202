"""Network: a tagger as it is trained, with its teacher, its precision, its dropout and its average."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from grounding.tagger.tagger import TagClassifier
from training.data import Batch
from training.dropout import KeyedDropout
from training.loss import distillation_loss, tag_loss
from training.recipe import Recipe
from training.teacher import Teacher
from training.world import World


class Network:
    """What turns batches into losses on one rank.

    Attributes:
        tagger: that learns; known: how many of its tags are the photos' own, the first ones; teacher: for the inherited
            ones, None where nothing is inherited or where a frozen trunk leaves them as they are; average: of the
            tagger's weights, or None.
    """

    def __init__(self, tagger: TagClassifier, known: int, plan: Recipe, world: World):
        self.plan, self.world, self.known = plan, world, known
        self.share = plan.share(world.size)
        tagger.trunk.requires_grad_(plan.trunk_lr > 0)
        tagger.dropout = self.dropout = KeyedDropout(tagger.dropout.p, plan.seed)
        self.tagger = tagger.to(world.device, memory_format=torch.channels_last)
        taught = known < len(tagger.vocabulary) and plan.trunk_lr > 0
        self.teacher = Teacher(tagger, known).to(world.device) if taught else None
        self.average = None
        if plan.ema_decay:
            self.average = AveragedModel(tagger, multi_avg_fn=get_ema_multi_avg_fn(plan.ema_decay), use_buffers=True)
        self._start = [part.detach()[known:].clone() for part in tagger.classifier.parameters()]
        self._shared = world.shared(self.tagger)
        self._model: nn.Module = torch.compile(self._shared) if plan.compile else self._shared

    @property
    def judged(self) -> TagClassifier:
        """What is validated and published: the average where there is one."""
        return self.tagger if self.average is None else self.average.module

    def train(self) -> None:
        """To be called before steps; a frozen trunk stays as it is."""
        self.tagger.train()
        self.tagger.trunk.train(self.plan.trunk_lr > 0)

    def optimizer(self) -> SGD:
        """SGD with a rate for the trunk and one for the tag layer."""
        groups = [
            {"params": list(self.tagger.trunk.parameters()), "lr": self.plan.trunk_lr},
            {"params": list(self.tagger.classifier.parameters()), "lr": self.plan.tag_lr},
        ]
        return SGD(groups, momentum=self.plan.momentum, weight_decay=self.plan.weight_decay)

    def loss(self, batch: Batch, step: int, first: int) -> Tensor:
        """A part of a step's loss, whose gradients add up to those of the mean over the rank's share.

        Args:
            first: which of the step's photos, of all ranks, is the batch's first one.
        """
        self.dropout.at(step, self.plan.batch, first)
        images, rows, columns = self.prepared(batch.images), *self.placed(batch)
        logits = self._logits(self._model, images)
        loss = tag_loss(logits[:, : self.known], rows, columns, self.share)
        if self.teacher is not None:
            taught = self._logits(self.teacher, images)
            loss = loss + self.plan.distillation_weight * distillation_loss(logits[:, self.known :], taught, self.share)
        return loss

    def answers(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What is judged, (n, tags) float32 logits, and the teacher's (n, inherited) or None."""
        images = self.prepared(batch.images)
        taught = None if self.teacher is None else self._logits(self.teacher, images)
        return self._logits(self.judged.eval(), images), taught

    def adding(self) -> AbstractContextManager:
        """A context for all parts of a step but the last: their gradients are added up before the ranks share them."""
        return self._shared.no_sync() if isinstance(self._shared, DistributedDataParallel) else nullcontext()

    def stepped(self) -> None:
        """To be called after each step: inherited tags of a frozen trunk stay as they were, the average moves."""
        if self.teacher is None:
            with torch.no_grad():
                for part, start in zip(self.tagger.classifier.parameters(), self._start, strict=True):
                    part[self.known :] = start
        if self.average is not None:
            self.average.update_parameters(self.tagger)

    def prepared(self, images: Tensor) -> Tensor:
        """uint8 crops (n, 3, 224, 224) as the network wants them, on its device."""
        images = self.tagger.preprocessing(images.to(self.world.device, non_blocking=True))
        return images.contiguous(memory_format=torch.channels_last)

    def placed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rows and columns of the positives (P,), on the network's device."""
        return batch.rows.to(self.world.device), batch.columns.to(self.world.device)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16"):
            return model(images).flatten(1).float()

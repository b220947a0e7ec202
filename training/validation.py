"""Validation: how well the tagger predicts the tags of photos that it was not trained on."""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor

from proposals.errors import InputError
from training.dataset import TrainingBatch
from training.distributed import RankGroup
from training.loss import tag_loss
from training.model import TrainableTagger

log = logging.getLogger(__name__)

MIN_POSITIVES = 10  # photos that must have a tag for its average precision to count
MAX_TAGS, MAX_PHOTOS = 1000, 50_000  # for the average precision, so that the scores fit into memory
BLOCK = 50  # tags that are ranked at a time


class _Sums:
    """Sums over the validation photos of one rank, and the scores for the average precision."""

    def __init__(self, model: TrainableTagger, max_photos: float):
        self.model, self.max_photos = model, max_photos
        self.values = torch.zeros(4, dtype=torch.float64)  # photos, loss, precision at 5, names kept
        columns = min(model.known, MAX_TAGS)
        self.scores = [torch.zeros(0, columns).half()]
        self.truths = [torch.zeros(0, columns, dtype=torch.bool)]

    def add(self, batch: TrainingBatch) -> None:
        logits, taught = self.model.predict(batch)
        known, (rows, columns) = logits[:, : self.model.known], self.model.positives(batch)
        truth = torch.zeros_like(known, dtype=torch.bool)
        truth[rows, columns] = True
        hits = truth.gather(1, known.topk(min(5, known.shape[1])).indices).float().mean(1).sum()
        kept = 0 if taught is None else (logits[:, self.model.known :].argmax(1) == taught.argmax(1)).sum()
        self.values += torch.tensor([len(known), tag_loss(known, rows, columns, 1), hits, kept], dtype=torch.float64)
        if self.values[0] <= self.max_photos:
            self.scores.append(known[:, :MAX_TAGS].half().cpu())
            self.truths.append(truth[:, :MAX_TAGS].cpu())


@torch.no_grad()
def validate(model: TrainableTagger, batches: Iterable[TrainingBatch], ranks: RankGroup, cure: str) -> dict[str, float]:
    """Measures the published tagger on the validation photos.

    Args:
        model: the model in training.
        batches: this rank's validation photos.
        ranks: the ranks that train together.
        cure: what to do if no photo can be read, as an imperative.

    Returns:
        Measurements by name, equal on all ranks: ``loss``, mean loss of a photo; ``precision_at_5``, in percent, the
        share of each photo's five most probable tags that it has; ``tag_map``, in percent, the mean average precision
        over tags with at least ``MIN_POSITIVES`` photos, among the ``MAX_TAGS`` most frequent tags and the first
        ``MAX_PHOTOS`` photos, missing if there is no such tag; ``names_kept``, in percent, with a teacher only, photos
        whose most probable inherited tag is that of the teacher.

    Raises:
        InputError: no photo could be read, or the shards cannot be read any more.
    """
    sums = _Sums(model, MAX_PHOTOS / ranks.size)
    ranks.broadcast_buffers(model.published)
    for batch in batches:
        if batch.error:
            raise InputError(batch.error)
        for photo in batch.skipped:
            log.warning("skipped validation %s", photo)
        sums.add(batch)
    photos, loss, hits, kept = ranks.sum(sums.values.tolist())
    if not photos:
        raise InputError(f"no validation photo could be read: {cure}")
    measured = {"loss": loss / photos, "precision_at_5": 100 * hits / photos}
    precisions = average_precisions(ranks.gather(torch.cat(sums.scores)), ranks.gather(torch.cat(sums.truths)))
    if len(precisions):
        measured["tag_map"] = 100 * precisions.mean().item()
    return measured | ({"names_kept": 100 * kept / photos} if model.teacher is not None else {})


def average_precisions(scores: Tensor, truths: Tensor) -> Tensor:
    """The average precision of each tag with at least ``MIN_POSITIVES`` photos.

    Photos are ranked by score; of equal scores the earlier photo comes first. The average precision is the mean, over
    the photos that have the tag, of the precision among the photos down to that rank.

    Args:
        scores: ``(photos, tags)`` float.
        truths: ``(photos, tags)`` bool, whether a photo has a tag.

    Returns:
        ``(tags with enough photos,)`` float64 in [0, 1].
    """
    enough = (truths.sum(0) >= MIN_POSITIVES).nonzero()[:, 0]
    blocks = [_precisions(scores[:, tags], truths[:, tags]) for tags in enough.split(BLOCK)]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *blocks])


def _precisions(scores: Tensor, truths: Tensor) -> Tensor:
    ranking = scores.sort(dim=0, descending=True, stable=True).indices
    hits = truths.gather(0, ranking).double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)[:, None]
    return (precision * hits).sum(0) / hits.sum(0)

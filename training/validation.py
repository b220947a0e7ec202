"""Validation: how well a tagger knows the tags of photos that it did not learn from."""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor

from proposals.errors import InputError
from training.data import Batch
from training.loss import tag_loss
from training.network import Network
from training.world import World

log = logging.getLogger(__name__)

# of the average precision: positives that a tag must have, and what fits into memory
ENOUGH, MOST_TAGS, MOST_PHOTOS = 10, 1000, 50_000
BLOCK = 50  # tags that are ranked at a time


@torch.no_grad()
def validate(network: Network, batches: Iterable[Batch], world: World) -> dict[str, float]:
    """What the held-out photos show, the same on every rank.

    Returns:
        ``loss`` a photo; percent: ``precision_at_5``, the share of each photo's five most probable tags that it
        carries; ``tag_map``, the mean average precision of the tags that at least ``ENOUGH`` photos carry, among the
        ``MOST_TAGS`` most frequent and on ``MOST_PHOTOS`` (none where there is no such tag); ``names_kept``, where tags
        are inherited, on how many photos the likeliest of them is the teacher's.

    Raises:
        InputError: no photo could be read, or the shards are gone.
    """
    sums, scores, truths = torch.zeros(4, dtype=torch.float64), [], []
    world.agree(network.judged)
    for batch in batches:
        if batch.gone:
            raise InputError(batch.gone)
        for photo in batch.skipped:
            log.warning("skipped %s, held out", photo)
        logits, taught = network.answers(batch)
        ours, (rows, columns) = logits[:, : network.known], network.placed(batch)
        truth = torch.zeros_like(ours, dtype=torch.bool)
        truth[rows, columns] = True
        hits = truth.gather(1, ours.topk(min(5, ours.shape[1])).indices).float().mean(1).sum()
        kept = 0 if taught is None else (logits[:, network.known :].argmax(1) == taught.argmax(1)).sum()
        sums += torch.tensor([len(ours), tag_loss(ours, rows, columns, 1), hits, kept], dtype=torch.float64)
        if sums[0] <= MOST_PHOTOS / world.size:
            scores.append(ours[:, :MOST_TAGS].half().cpu())
            truths.append(truth[:, :MOST_TAGS].cpu())
    photos, loss, hits, kept = world.sum(sums.tolist())
    if not photos:
        raise InputError("no held-out photo could be read: make the shards with a larger held_out=")
    measured = {"loss": loss / photos, "precision_at_5": 100 * hits / photos}
    columns = min(network.known, MOST_TAGS)
    all_scores = world.gather(torch.cat([torch.zeros(0, columns).half(), *scores]))
    all_truths = world.gather(torch.cat([torch.zeros(0, columns, dtype=torch.bool), *truths]))
    precisions = average_precisions(all_scores, all_truths)
    if len(precisions):
        measured["tag_map"] = 100 * precisions.mean().item()
    return measured | ({"names_kept": 100 * kept / photos} if network.teacher is not None else {})


def average_precisions(scores: Tensor, truths: Tensor) -> Tensor:
    """The average precision of each tag that at least ``ENOUGH`` photos carry: the mean, over these photos, of the
    precision down to where they stand. Of equal scores the earlier photo's stands first.

    Args:
        scores: (photos, tags); truths: (photos, tags) bool.

    Returns:
        (tags with enough positives,) in 0..1.
    """
    enough = (truths.sum(0) >= ENOUGH).nonzero()[:, 0]
    found = [_precisions(scores[:, tags], truths[:, tags]) for tags in enough.split(BLOCK)]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *found])


def _precisions(scores: Tensor, truths: Tensor) -> Tensor:
    ranking = scores.sort(dim=0, descending=True, stable=True).indices
    hits = truths.gather(0, ranking).double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)[:, None]
    return (precision * hits).sum(0) / hits.sum(0)

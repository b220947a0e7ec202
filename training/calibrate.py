"""The step ``calibrate``: photos with captions, and a tagger -> the probability that a photo shows what a word names.

    grounding step=calibrate data.root=SHARDS tagger.path=tagger.safetensors
    grounding step=calibrate 'data.root=[SHARDS,TARS]' tagger.path=tagger.safetensors

It writes ``tagger.presence.safetensors`` beside the tagger. Only photos that the tagger was not trained on may be used:
of a folder that ``step=shards`` wrote these are the photos for validation; of any other source, all photos. With
``step.untagged=true``, photos without captions correct the frequencies of the tags.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from grounding.images import read_image
from grounding.runtime.device import checked_device
from grounding.runtime.ledger import Ledger
from grounding.tagger.packaged import tagger_path
from grounding.tagger.presence import PresenceModel, pool, presence_path
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError
from training.presence_fit import CaptionCounts, fit_platt, frequency_shift, recall_shift
from training.presence_labels import CaptionLabels
from training.presence_measures import measure
from training.sample_text import SampleText
from training.samples import MISSING_TEXT, SourceSample, read_photo
from training.shard_maker import holds_out
from training.shards import SHARDS, Shards
from training.sources import Source, WorkUnit, find_source

log = logging.getLogger(__name__)


class ScoredPhotos(NamedTuple):
    """Photos with their scores and captions.

    Attributes:
        scores: ``(photos, tags)`` float32.
        captions: what their captions name.
    """

    scores: np.ndarray
    captions: CaptionCounts

    def subset(self, chosen: np.ndarray) -> "ScoredPhotos":
        """Some of the photos, given as ``(photos,)`` bool."""
        return ScoredPhotos(self.scores[chosen], CaptionCounts(*(counts[chosen] for counts in self.captions)))


def calibrate(
    roots: str | Sequence[str],
    output: str,
    tagger: str | None = None,
    side: int = 512,
    held_out: float | Sequence[float] = 1.0,
    folds: int = 3,
    precision: str = "float32",
    device: str = "cpu",
    untagged: bool = False,
) -> Path:
    """Fits the presence model of a tagger.

    Prints how well the fit, before the two corrections of its offsets, predicts what captions of other photos name.

    Args:
        roots: a source of photos with captions or tags, or several, see ``training.sources.find_source``; of a folder
            that ``step=shards`` wrote, the photos for validation are used.
        output: folder of ``skipped.jsonl``.
        tagger: file of the tagger, or the name of one of the package; None for its default one.
        side: pixels of the shorter side of a photo, as ``Settings.side`` of the grounder.
        held_out: fraction of the photos that ``step=shards`` held out of the training: one number, or one for each
            root; 1 uses all photos.
        folds: number of parts for the cross validation, at least 2.
        precision: "float32" or "bfloat16" for the trunk.
        device: device of the network.
        untagged: whether photos without a text correct the frequencies of the tags (see
            ``training.presence_fit.frequency_shift``); otherwise they are skipped. A folder that ``step=shards`` wrote
            has none for validation, so give their source.

    Returns:
        The path of the presence model.

    Raises:
        InputError: a source or the tagger cannot be read, no photo can be used, no caption has a tag, a setting is
            out of range, or a file cannot be written.
    """
    paths = [roots] if isinstance(roots, str) else list(roots)
    shares = [float(held_out)] * len(paths) if isinstance(held_out, int | float) else list(held_out)
    _check(paths, shares, folds, side, precision)
    file = tagger_path(tagger)
    # a presence model of other weights beside the tagger does not matter, because it will be replaced
    network = TagClassifier.load(file, presence=False).to(checked_device(device))
    ledger = Ledger("photos", paths[0], "give photos with captions that the tagger was not trained on")
    samples = (
        sample for root, share in zip(paths, shares, strict=True) for sample in _samples(root, share, ledger, untagged)
    )
    photos = Scorer(network, side, precision).score(samples, ledger)
    ledger.finish(output)
    if not photos.captions.named.any():
        raise InputError(f"no caption names a tag of {file}: give photos whose captions are in the tagger's language")
    has_caption = photos.captions.has_caption
    captioned = photos.subset(has_caption)
    print(json.dumps({name: round(value, 4) for name, value in cross_validate(captioned, folds).items()}))
    fit = fit_platt(*captioned)
    offsets = fit.offsets + frequency_shift(fit, photos.scores, has_caption) + recall_shift(fit)
    implied = CaptionLabels(network.vocabulary).implied_tags()
    presence = PresenceModel(fit.slopes, offsets, fit.directions, fit.context, implied, network.digest())
    counts = {"photos": str(has_caption.sum()), "untagged": str((~has_caption).sum())}
    presence.save(presence_path(file), **counts, side=str(side), precision=precision)
    return presence_path(file)


def _check(paths: Sequence[str], shares: Sequence[float], folds: int, side: int, precision: str) -> None:
    if not paths or len(shares) != len(paths) or not all(0 < share <= 1 for share in shares):
        raise InputError(f"step.held_out={list(shares)} must be one number in (0, 1] for each of {len(paths)} roots")
    if folds < 2 or side < 224:
        raise InputError(f"step.folds={folds} must be at least 2, and step.side={side} at least 224")
    if precision not in ("float32", "bfloat16"):
        raise InputError(f"step.precision={precision} is unknown: use float32 or bfloat16")


def _samples(root: str, share: float, ledger: Ledger, untagged: bool) -> Iterator[SourceSample]:
    """The samples of a root that were held out of the training; those that cannot be used are listed."""
    for unit in _units(root):
        for sample in unit.samples():
            usable = not sample.reason or (untagged and sample.reason == MISSING_TEXT)
            if usable and not holds_out(sample.key, share):
                continue
            ledger.came_in(sample.key)
            if not usable:
                kind, _, detail = sample.reason.partition(": ")
                ledger.skip(sample.key, kind, detail, unit.source)
            else:
                yield sample


def _units(root: str) -> Iterator[WorkUnit]:
    if not Path(root, SHARDS).exists():
        return find_source(root).units()
    shards = Shards(root)
    return Source(tuple(shards.root / shard.name for shard in shards.val), 1).units()


class Scorer:
    """Computes the scores of photos.

    Args:
        tagger: the network.
        side: pixels of the shorter side.
        precision: see :func:`calibrate`.
    """

    def __init__(self, tagger: TagClassifier, side: int, precision: str):
        self.tagger, self.side, self.precision = tagger, side, precision
        self.labels = CaptionLabels(tagger.vocabulary)

    def score(self, samples: Iterator[SourceSample], ledger: Ledger) -> ScoredPhotos:
        """Scores photos and counts their captions.

        Args:
            samples: the photos, which have come into the ledger.
            ledger: counts the photos that are kept and skipped.

        Returns:
            The photos that can be read.
        """
        rows = []
        for sample in tqdm(samples, unit="photo", desc="scoring", disable=None):
            try:
                assert sample.photo is not None  # a sample without a photo has a reason
                row = self._scores(read_photo(sample.photo)), *self._count(sample.text)
            except InputError as error:
                ledger.skip(sample.key, "unreadable", str(error))
            else:
                ledger.keep()
                rows.append(row)
        if not rows:
            return ScoredPhotos(np.zeros((0, 0)), CaptionCounts(np.zeros((0, 0)), np.zeros((0, 0))))
        scores, named, unnamed = (np.stack(column) for column in zip(*rows, strict=True))
        return ScoredPhotos(scores, CaptionCounts(named, unnamed))

    @torch.inference_mode()
    def _scores(self, data: bytes) -> np.ndarray:
        image = self.tagger.prepare(read_image(BytesIO(data)), [self.side])
        image = image.to(memory_format=torch.channels_last)  # half the time on a CPU
        low = self.precision == "bfloat16"
        with torch.autocast(image.device.type, torch.bfloat16) if low else nullcontext():
            features = self.tagger.trunk(image)
        return pool(self.tagger.classifier(features.float())[0]).astype(np.float32)

    def _count(self, text: SampleText) -> tuple[np.ndarray, np.ndarray]:
        """The number of captions that name each tag, and that do not; a list of tags counts as one caption."""
        texts = [SampleText(tags=text.tags)] if text.tags else [SampleText(captions=(one,)) for one in text.captions]
        named = np.zeros(len(self.tagger.vocabulary), np.float32)
        unnamed = np.full_like(named, len(texts))
        for found in map(self.labels.of, texts):
            named[list(found.named)] += 1
            unnamed[[*found.named, *found.unknown]] -= 1
        return named, unnamed


def cross_validate(photos: ScoredPhotos, folds: int) -> dict[str, float]:
    """Measures how well P(a caption names a tag) is predicted for photos that the fit did not use.

    Args:
        photos: the photos; photo i is in part i modulo ``folds``.
        folds: number of parts.

    Returns:
        See ``training.presence_measures.measure``, over all pairs of a caption and a tag that is named or not.
    """
    truths, chances = [], []
    part = np.arange(len(photos.scores)) % folds
    for fold in range(min(folds, len(photos.scores))):
        others, own = part != fold, part == fold
        fit = fit_platt(*photos.subset(others))
        named = fit.recall * fit.shown(photos.scores[own])
        for counts, truth in zip(photos.captions, (True, False), strict=True):
            repeats = counts[own].astype(int)
            chances.append(np.repeat(named.ravel(), repeats.ravel()))
            truths.append(np.full(len(chances[-1]), truth))
    return measure(np.concatenate(truths), np.concatenate(chances))

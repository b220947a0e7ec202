"""PresenceModel: how probable it is that a photo shows what a tag, a word or a phrase names.

The scores of a tagger rank the photos of one tag. They are no probabilities: a score of 2 means something else for
``man`` than for ``espresso``. The step ``calibrate`` fits one slope and one offset for each tag on photos with captions
(Platt scaling, Platt 1999), so that among all answers of 0.7, about 70 % are right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grounding.tagger.tensors import read_tensors, write_tensors
from proposals.errors import InputError

PRESENCE_FORMAT = "grounding-presence-1"
FIELDS = ("slopes", "offsets")
LARGEST = 1e4  # of a slope or an offset; larger ones cannot come from a fit


@dataclass(frozen=True, eq=False)
class PresenceModel:
    """Turns the scores of a tagger into probabilities: p = sigmoid(slope * score + offset), for each tag.

    A tag is at least as probable as the tags beneath it: a photo that shows a man shows a person.

    The score of a photo is pooled over the positions of the classifier: log(mean(exp(s * x))) / s, where s is
    ``sharpness``. This is between the mean (s near 0) and the maximum (s large).

    Attributes:
        slopes: ``(tags,)`` float64, > 0, so that a probability grows with its score.
        offsets: ``(tags,)`` float64.
        implied: ``(pairs, 2)`` int64, a tag and a tag above it (``man``, ``person``), of any distance.
        sharpness: s above, > 0.
        tagger: digest of the tagger that it was fitted for, see ``TagClassifier.digest``.

    Raises:
        InputError: the numbers are not finite or out of range, or the shapes differ.
    """

    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    implied: NDArray[np.int64]
    sharpness: float
    tagger: str

    def __post_init__(self) -> None:
        if self.slopes.ndim != 1 or self.slopes.shape != self.offsets.shape or not len(self.slopes):
            raise InputError(f"slopes {self.slopes.shape} and offsets {self.offsets.shape} must be one for each tag")
        if not (self.slopes.min() > 0 and self.slopes.max() <= LARGEST and abs(self.offsets).max() <= LARGEST):
            raise InputError(f"slopes must be in 0..{LARGEST:g}, above 0, and offsets within +-{LARGEST:g}")
        pairs = self.implied
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not ((pairs >= 0) & (pairs < len(self.slopes))).all():
            raise InputError(f"implied {pairs.shape} must be pairs of tags in 0..{len(self.slopes) - 1}")
        if not 0 < self.sharpness <= LARGEST:
            raise InputError(f"sharpness={self.sharpness} must be in 0..{LARGEST:g}, above 0")

    def probabilities(self, score_maps: Tensor) -> NDArray[np.float64]:
        """The probability of each tag in one photo.

        Args:
            score_maps: ``(tags, h', w')``, the tagger's scores at each of its positions, at the size of the fit.

        Returns:
            ``(tags,)`` float64 in 0..1.

        Raises:
            InputError: the number of tags differs.
        """
        if len(score_maps) != len(self.slopes):
            raise InputError(f"{len(score_maps)} scores for {len(self.slopes)} tags: use the tagger of this fit")
        logits = self.slopes * pool(score_maps, self.sharpness) + self.offsets
        own = torch.sigmoid(torch.from_numpy(logits)).numpy()  # exp would overflow for large logits
        found: NDArray[np.float64] = own.copy()
        np.maximum.at(found, self.implied[:, 1], own[self.implied[:, 0]])
        return found

    def save(self, path: str | Path, **notes: str) -> None:
        """Writes a safetensors file: slopes and offsets as float32, pairs as int32, everything else as metadata.

        Args:
            path: the file to write; a tagger finds it at :func:`presence_path`.
            **notes: further metadata, for example about the photos of the fit.

        Raises:
            InputError: the file cannot be written.
        """
        tensors = {name: torch.from_numpy(getattr(self, name)).float() for name in FIELDS}
        tensors |= {"implied": torch.from_numpy(self.implied).int()}
        metadata = {"format": PRESENCE_FORMAT, "tagger": self.tagger, "sharpness": repr(float(self.sharpness))}
        write_tensors(path, tensors, notes | metadata)

    @classmethod
    def load(cls, path: str | Path) -> "PresenceModel":
        """Reads a file that :meth:`save` wrote.

        Args:
            path: the file.

        Returns:
            The model.

        Raises:
            InputError: the file does not exist, is truncated, or is not a presence model.
        """
        metadata, tensors = read_tensors(path)
        try:
            if metadata.get("format") != PRESENCE_FORMAT:
                raise InputError(f"its metadata does not say format={PRESENCE_FORMAT}")
            types = {name: tensors[name].dtype for name in (*FIELDS, "implied")}
            if types != dict.fromkeys(FIELDS, torch.float32) | {"implied": torch.int32}:
                raise InputError("its slopes and offsets are not float32, or its pairs not int32")
            slopes, offsets = (tensors[name].double().numpy() for name in FIELDS)
            return cls(
                slopes, offsets, tensors["implied"].long().numpy(), float(metadata["sharpness"]), metadata["tagger"]
            )
        except (KeyError, TypeError, ValueError) as error:
            cure = "run step=calibrate again, or remove the file"
            raise InputError(f"{path} is not a presence model ({error}): {cure}") from error


def presence_path(tagger: str | Path) -> Path:
    """Where the presence model of a tagger is: ``tagger.presence.safetensors`` beside ``tagger.safetensors``.

    Args:
        tagger: the file of the tagger.

    Returns:
        The path; the file need not exist.
    """
    return Path(tagger).with_suffix(".presence.safetensors")


def pool(score_maps: Tensor, sharpness: float) -> NDArray[np.float64]:
    """The score of each tag in a photo: log(mean(exp(s * x))) / s over the positions x.

    Args:
        score_maps: ``(tags, h', w')``.
        sharpness: s, > 0.

    Returns:
        ``(tags,)`` float64, between the mean and the maximum of the positions.
    """
    scores = score_maps.detach().double().cpu().flatten(1)
    return np.asarray(((sharpness * scores).logsumexp(1) - np.log(scores.shape[1])).numpy() / sharpness)


def word_presence(weights: Sequence[float], probabilities: Sequence[float]) -> float:
    """The probability that a photo shows what a word names: the probability of its most probable tag.

    Args:
        weights: the prior weights of the word's tags, > 0; a tag with weight 0 does not count.
        probabilities: the probability of each of these tags in the photo, in 0..1.

    Returns:
        A probability, in 0..1.

    Raises:
        InputError: there is no tag with a weight, or the lengths differ.
    """
    used = [p for weight, p in zip(weights, probabilities, strict=True) if weight > 0]
    if not used:
        raise InputError("a word without a tag has no presence: give at least one weight above 0")
    return float(max(used))


def phrase_presence(words: Sequence[float]) -> float:
    """The probability that a photo shows what a phrase names: that of its least probable word.

    This would be exact if a photo that shows the rarer thing always showed the others as well.

    Args:
        words: the probability of each word, in 0..1.

    Returns:
        A probability, in 0..1.

    Raises:
        InputError: there is no word.
    """
    if not len(words):
        raise InputError("a phrase without a known word has no presence: give at least one probability")
    return float(min(words))

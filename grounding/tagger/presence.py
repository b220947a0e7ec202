"""PresenceModel: how probable it is that a photo shows what a tag, a word or a phrase names.

The scores of a tagger rank the photos of one tag. They are no probabilities: a score of 2 means something else for
``man`` than for ``espresso``. The step ``calibrate`` fits one slope and one offset for each tag on photos with captions
(Platt scaling, Platt 1999). The scores of all other tags count a little: a kitchen makes a small spoon more probable.
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

PRESENCE_FORMAT = "grounding-presence-2"
TYPES = {
    "slopes": torch.float32,
    "offsets": torch.float32,
    "directions": torch.float16,
    "context": torch.float16,
    "implied": torch.int32,
}
LARGEST = 1e4  # of a number of the model; larger ones cannot come from a fit
SMALLEST = 1e-6  # of a probability, so that its log-odds are finite


@dataclass(frozen=True, eq=False)
class PresenceModel:
    """Turns the scores of a tagger into probabilities, for each tag t:

        p_t = sigmoid(slopes_t * x_t + offsets_t + sum_k (x @ directions)_k * context_kt)

    x_t is the largest score of a tag over the positions of the classifier. The last term is the context: a few
    directions in which the scores of all tags vary together. A tag is at least as probable as the tags beneath it: a
    photo that shows a man shows a person.

    Attributes:
        slopes: ``(tags,)`` float64, > 0.
        offsets: ``(tags,)`` float64.
        directions: ``(tags, K)`` float64, K >= 0.
        context: ``(K, tags)`` float64.
        implied: ``(pairs, 2)`` int64, a tag and a tag above it (``man``, ``person``), of any distance.
        tagger: digest of the tagger that it was fitted for, see ``TagClassifier.digest``.

    Raises:
        InputError: the numbers are not finite or out of range, or the shapes differ.
    """

    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    directions: NDArray[np.float64]
    context: NDArray[np.float64]
    implied: NDArray[np.int64]
    tagger: str

    def __post_init__(self) -> None:
        if self.slopes.ndim != 1 or self.slopes.shape != self.offsets.shape or not len(self.slopes):
            raise InputError(f"slopes {self.slopes.shape} and offsets {self.offsets.shape} must be one for each tag")
        if self.directions.ndim != 2 or self.context.T.shape != self.directions.shape:
            raise InputError(f"directions {self.directions.shape} and context {self.context.shape} must fit")
        if len(self.directions) != len(self.slopes):
            raise InputError(f"directions {self.directions.shape} must be one row for each of {len(self.slopes)} tags")
        if not self.slopes.min() > 0:
            raise InputError("slopes must be above 0")
        for name in ("slopes", "offsets", "directions", "context"):
            if not (abs(getattr(self, name)) <= LARGEST).all():  # false for NaN, too
                raise InputError(f"{name} must be within +-{LARGEST:g}")
        pairs = self.implied
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not ((pairs >= 0) & (pairs < len(self.slopes))).all():
            raise InputError(f"implied {pairs.shape} must be pairs of tags in 0..{len(self.slopes) - 1}")

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
        scores = pool(score_maps)
        logits = self.slopes * scores + self.offsets + scores @ self.directions @ self.context
        own = torch.sigmoid(torch.from_numpy(logits)).numpy()  # exp would overflow for large logits
        found: NDArray[np.float64] = own.copy()
        np.maximum.at(found, self.implied[:, 1], own[self.implied[:, 0]])
        return found

    def save(self, path: str | Path, **notes: str) -> None:
        """Writes a safetensors file, its numbers with the types of ``TYPES``, everything else as metadata.

        Args:
            path: the file to write; a tagger finds it at :func:`presence_path`.
            **notes: further metadata, for example about the photos of the fit.

        Raises:
            InputError: the file cannot be written.
        """
        tensors = {name: torch.from_numpy(getattr(self, name)).to(dtype) for name, dtype in TYPES.items()}
        write_tensors(path, tensors, notes | {"format": PRESENCE_FORMAT, "tagger": self.tagger})

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
            if {name: tensors[name].dtype for name in TYPES} != TYPES:
                raise InputError(f"its tensors are not of the types {TYPES}")
            numbers = {name: tensors[name].double().numpy() for name in TYPES if name != "implied"}
            return cls(**numbers, implied=tensors["implied"].long().numpy(), tagger=metadata["tagger"])
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


def pool(score_maps: Tensor) -> NDArray[np.float64]:
    """The score of each tag in a photo: its largest over the positions.

    Args:
        score_maps: ``(tags, h', w')``.

    Returns:
        ``(tags,)`` float64.
    """
    return np.asarray(score_maps.detach().double().cpu().flatten(1).amax(1).numpy())


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
    """The probability that a photo shows what a phrase names: the mean of its words in log-odds.

    Of held-out captions, this separates the phrases of a photo from those of others better than the least or the most
    probable word, or the noun alone. A word that the tagger does not find, such as an adjective, lowers it but does not
    decide it.

    Args:
        words: the probability of each word, in 0..1.

    Returns:
        A probability, in 0..1.

    Raises:
        InputError: there is no word.
    """
    if not len(words):
        raise InputError("a phrase without a known word has no presence: give at least one probability")
    chances = np.clip(words, SMALLEST, 1 - SMALLEST)
    return float(1 / (1 + np.exp(-np.log(chances / (1 - chances)).mean())))

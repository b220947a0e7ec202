"""TagClassifier: a convolutional network that predicts the tags of a photo, and the file that stores it."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from grounding.tagger.architectures import ARCHITECTURES
from grounding.tagger.packaged import tagger_path
from grounding.tagger.preprocessing import Preprocessing, network_size, resize
from grounding.tagger.presence import PresenceModel, presence_path
from grounding.tagger.tensors import read_tensors, write_tensors
from grounding.text.lexicon import lexicon_path, load_lexicon
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

FORMAT = "grounding-tagger-1"


class TagClassifier(nn.Module):
    """Predicts one logit for each tag at each position of an image. Fully convolutional.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        vocabulary: the tags, in the order of the outputs.
        preprocessing: the input that the weights expect; by default the architecture's own.
        dropout: probability in 0..1 of dropping a feature before the tag layer in training.

    Attributes:
        architecture: the name of the architecture.
        vocabulary: the tags, in the order of the outputs.
        preprocessing: the input that the weights expect.
        target: name of the trunk's layer whose maps are read by default.
        coarse_target: name of the layer whose maps a grounder with the default settings reads.
        trunk: the layers from the image to the features.
        classifier: the tag layer, a 1x1 convolution.
        presence: turns the logits into probabilities; None without a fit for these weights.

    Raises:
        InputError: the architecture is unknown.
    """

    def __init__(
        self,
        architecture: str,
        vocabulary: Vocabulary,
        preprocessing: Preprocessing | None = None,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise InputError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
        blueprint = ARCHITECTURES[architecture]
        self.architecture, self.vocabulary, self.target = architecture, vocabulary, blueprint.target
        self.coarse_target = blueprint.coarse_target or blueprint.target
        self.preprocessing = preprocessing or blueprint.preprocessing
        self.presence: PresenceModel | None = None
        self.trunk = blueprint.trunk()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(blueprint.channels, len(vocabulary), 1)
        if not self.classifier.weight.is_meta:  # see googlenet()
            nn.init.normal_(self.classifier.weight, std=0.01)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    @property
    def averages(self) -> bool:
        """Whether the tag layer reads an average over positions, as CAM requires."""
        return isinstance(self.trunk[-1], nn.AvgPool2d)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits.

        Args:
            images: ``(N, 3, h, w)`` float32, preprocessed, h and w at least 224.

        Returns:
            ``(N, tags, h', w')`` logits, one position for 224 pixels and one more for every further 32 pixels
            (36 for CNN-S).
        """
        logits: Tensor = self.classifier(self.dropout(self.trunk(images)))
        return logits

    def prepare(self, pixels: np.ndarray, size: list[int]) -> Tensor:
        """Resizes and preprocesses a photo, and moves it to the device of the network.

        Args:
            pixels: ``(H, W, 3)`` uint8 RGB.
            size: ``[shorter side]`` or ``[height, width]`` of the result, in pixels. The shorter side is less for a
                panorama, see :func:`grounding.tagger.preprocessing.network_size`.

        Returns:
            ``(1, 3, h, w)`` float32, preprocessed.
        """
        if len(size) == 1:
            size = network_size(pixels.shape[:2], size[0])
        # resized on the CPU, so that the input is the same on every device
        return self.preprocessing(resize(pixels, size)).to(self.classifier.weight.device)

    def save(self, path: str | Path, **notes: str) -> None:
        """Writes one safetensors file: the weights in half precision, everything else as metadata.

        Args:
            path: the file to write.
            **notes: further metadata, for example about the training.

        Raises:
            InputError: the file cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "architecture": self.architecture,
            "preprocessing": json.dumps(asdict(self.preprocessing)),
            "vocabulary": json.dumps(list(self.vocabulary), ensure_ascii=False),
        }
        # the counters of batch normalisation are integers and stay so
        state = {name: t.half() if t.is_floating_point() else t for name, t in self.state_dict().items()}
        write_tensors(path, state, notes | metadata)

    @classmethod
    def load(
        cls, path: str | Path | None = None, presence: bool = True, lexicon: bool = True, plain_words: bool = False
    ) -> "TagClassifier":
        """Reads a file that :meth:`save` wrote, and the presence model and the lexicon beside it if there are any.

        Args:
            path: see :func:`grounding.tagger.packaged.tagger_path`.
            presence: whether to read the presence model.
            lexicon: whether the vocabulary gets the lexicon (``grounding.text.lexicon``).
            plain_words: see ``grounding.text.vocabulary.Vocabulary``.

        Returns:
            The tagger in float32 and in evaluation mode.

        Raises:
            InputError: the file does not exist, is truncated or is not a tagger, or its weights do not match its
                metadata; or the presence model or the lexicon is not one, or was made for another tagger.
        """
        path = tagger_path(path)
        metadata, tensors = read_tensors(path)
        try:
            if metadata.get("format") != FORMAT:
                raise InputError(f"its metadata does not say format={FORMAT}")
            preprocessing = Preprocessing(**json.loads(metadata["preprocessing"]))
            with torch.device("meta"):
                tagger = cls(metadata["architecture"], Vocabulary(json.loads(metadata["vocabulary"])), preprocessing)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a tagger ({error}): give a file that step=train wrote") from error
        tagger.set_weights(tensors, path)
        tagger.presence = tagger.read_presence(presence_path(path)) if presence else None
        beside = lexicon_path(path)
        known = load_lexicon(beside) if lexicon and beside.exists() else None
        tagger.vocabulary = replace(tagger.vocabulary, lexicon=known, plain_words=plain_words)
        return tagger.eval()

    def read_presence(self, path: str | Path) -> PresenceModel | None:
        """Reads the presence model of this tagger.

        Args:
            path: the file.

        Returns:
            The model; None if the file does not exist.

        Raises:
            InputError: the file is not a presence model, or it was fitted for another vocabulary or other weights.
        """
        if not Path(path).exists():
            return None
        presence = PresenceModel.load(path)
        if presence.tagger != self.digest() or len(presence.slopes) != len(self.vocabulary):
            cure = "run step=calibrate with this tagger, or remove the file"
            raise InputError(f"{path} was fitted for another tagger (other tags or weights): {cure}")
        return presence

    def digest(self) -> str:
        """A digest of the tags and of the weights of the tag layer in half precision, as the file has them."""
        digest = sha256("\n".join(self.vocabulary).encode())
        for parameter in self.classifier.parameters():
            digest.update(parameter.detach().cpu().half().numpy().tobytes())
        return digest.hexdigest()

    def set_weights(self, tensors: dict[str, Tensor], path: str | Path) -> None:
        """Replaces all weights by tensors of the same names and shapes.

        Args:
            tensors: the weights by name; they are converted to float32.
            path: the file that they come from, for error messages.

        Raises:
            InputError: a tensor is missing, unknown, of another shape, or not finite.
        """
        own = self.state_dict()
        odd = own.keys() ^ tensors.keys() or {n for n in own if own[n].shape != tensors[n].shape}
        if odd:
            name = min(odd)
            given, expected = (tuple(t[name].shape) if name in t else "missing" for t in (tensors, own))
            raise InputError(f"{path}: the weights do not match the metadata: {name} is {given}, expected {expected}")
        bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if bad:
            raise InputError(f"{path}: {bad[0]} has NaN or infinite weights: use an earlier checkpoint")
        self.presence = None  # it was fitted for the old weights
        floats = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
        # The values are copied into the parameters, because an optimizer may hold these. Only parameters that have no
        # storage yet (on the meta device) are replaced.
        self.load_state_dict(floats, assign=next(self.parameters()).is_meta)


def load_vocabulary(path: str | Path | None = None, lexicon: bool = True) -> Vocabulary:
    """The vocabulary of a tagger.

    Args:
        path: see :func:`grounding.tagger.packaged.tagger_path`.
        lexicon: whether the vocabulary gets the lexicon beside the tagger.

    Returns:
        The tags, in the order of the tagger's outputs.

    Raises:
        InputError: the file does not exist or is not a tagger.
    """
    return TagClassifier.load(path, lexicon=lexicon).vocabulary

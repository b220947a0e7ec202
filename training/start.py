"""What a training starts from."""

import re
from pathlib import Path

import torch
from torch import Tensor

from grounding.tagger.architectures import ARCHITECTURES
from grounding.tagger.googlenet import from_caffe
from grounding.tagger.tagger import FORMAT, TagClassifier
from grounding.tagger.tensors import read_tensors
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import normalize, words
from proposals.errors import InputError

CLASSES = "loss3/classifier"  # the output layer of the BVLC GoogLeNet


def initial_tagger(
    init: str,
    vocabulary: Vocabulary,
    architecture: str = "googlenet",
    names: str | Path | None = None,
    inherit: bool = False,
) -> TagClassifier:
    """A tagger for a vocabulary, its trunk (and the tags known there) taken from elsewhere.

    Args:
        init: "embedded", the tagger that the package carries; "torchvision", the ImageNet weights that torchvision
            downloads for ``architecture``; or a file: a tagger of ours, or the BVLC GoogLeNet as safetensors under
            Caffe's names.
        names: of the classes of the BVLC GoogLeNet, a line each (synset_words.txt).
        inherit: what ``init`` knows by name and the vocabulary lacks is added to it, with its weights.

    Returns:
        The tagger, its tags those of the vocabulary and then the inherited ones.

    Raises:
        InputError: a file that is neither, a download that fails, or nothing that could be inherited.
    """
    if init == "torchvision":
        _refuse(inherit, "torchvision's classes have no names here")
        tagger = TagClassifier(architecture, vocabulary)
        tagger.trunk = ARCHITECTURES[architecture].trunk(pretrained=True)
        return tagger
    if init != "embedded" and read_tensors(init)[0].get("format") != FORMAT:
        return _from_caffe(init, vocabulary, names, inherit)
    known = TagClassifier.load(None if init == "embedded" else init)
    spare = [tag for tag in known.vocabulary if tag not in vocabulary] if inherit else []
    tagger = TagClassifier(known.architecture, Vocabulary((*vocabulary, *spare)), known.preprocessing)
    tagger.trunk.load_state_dict(known.trunk.state_dict())
    shared = [tag for tag in tagger.vocabulary if tag in known.vocabulary]
    theirs = [known.vocabulary.index(tag) for tag in shared]
    _put(tagger, shared, known.classifier.weight[theirs], known.classifier.bias[theirs])
    return tagger


def _from_caffe(path: str, vocabulary: Vocabulary, names: str | Path | None, inherit: bool) -> TagClassifier:
    _refuse(inherit and names is None, "give the names of its classes: names=synset_words.txt")
    _, tensors = read_tensors(path)
    state = {name: tensor.float() for name, tensor in from_caffe(tensors).items()}
    classes = _class_tags(names, vocabulary) if inherit else {}
    tagger = TagClassifier("bvlc_googlenet", Vocabulary((*vocabulary, *classes)))
    own = tagger.trunk.state_dict()
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise InputError(f"{path}: {name} is {tuple(tensor.shape)}, should be {tuple(own[name].shape)}")
    tagger.trunk.load_state_dict(state)
    if classes:
        weight, bias = (tensors.get(f"{CLASSES}.{kind}", torch.empty(0)).float() for kind in ("weight", "bias"))
        if weight.ndim != 2 or len(weight) <= max(classes.values()) or weight.shape[:1] != bias.shape:
            raise InputError(f"{path}: {CLASSES} is {tuple(weight.shape)}, too few for the classes in {names}")
        rows = list(classes.values())
        _put(tagger, list(classes), weight[rows, :, None, None], bias[rows])
    return tagger


def _refuse(when: bool, reason: str) -> None:
    if when:
        raise InputError(f"nothing can be inherited: {reason}, or set step.distillation_weight=0")


def _class_tags(names: str | Path, vocabulary: Vocabulary) -> dict[str, int]:
    """Tags for the classes that the vocabulary lacks, and their rows: of each class the first name that is still free.

    A class all of whose names are taken (there are two cranes) is left out.
    """
    found: dict[str, int] = {}
    for row, line in enumerate(_lines(names)):
        synonyms = [normalize(name) for name in re.sub(r"^n\d{8}\s", "", line).split(",")]
        free = [name for name in synonyms if words(name) and name not in vocabulary and name not in found]
        if free:
            found[free[0]] = row
    return found


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no list of names that can be read ({error}): give a text file, a class a line"
        ) from error


def _put(tagger: TagClassifier, tags: list[str], weight: Tensor, bias: Tensor) -> None:
    rows = [tagger.vocabulary.index(tag) for tag in tags]
    with torch.no_grad():
        tagger.classifier.weight[rows] = weight
        tagger.classifier.bias[rows] = bias


def set_frequencies(tagger: TagClassifier, frequencies: Tensor) -> None:
    """Sets the biases of the first tags to the log odds of their frequencies (tags,), so that a training does not begin
    by learning how rare each tag is."""
    p = frequencies.clamp(1e-6, 1 - 1e-6)
    with torch.no_grad():
        tagger.classifier.bias[: len(p)] = (p / (1 - p)).log()

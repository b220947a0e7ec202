"""What a training starts from."""

from pathlib import Path

import torch
from torch import Tensor

from grounding.googlenet import from_caffe
from grounding.tagger import ARCHITECTURES, FORMAT, TagClassifier, read_tensors
from grounding.vocabulary import Vocabulary
from proposals.errors import InputError


def initial_tagger(init: str, vocabulary: Vocabulary, architecture: str = "googlenet") -> TagClassifier:
    """A tagger for a vocabulary, its trunk (and the tags known there) taken from elsewhere.

    Args:
        init: "embedded", the tagger that the package carries; "torchvision", the ImageNet weights that torchvision
            downloads for ``architecture``; or a file: a tagger of ours, or the BVLC GoogLeNet as safetensors under
            Caffe's names.

    Raises:
        InputError: a file that is neither, or a download that fails.
    """
    if init == "torchvision":
        tagger = TagClassifier(architecture, vocabulary)
        tagger.trunk = ARCHITECTURES[architecture].trunk(pretrained=True)
        return tagger
    if init != "embedded" and read_tensors(init)[0].get("format") != FORMAT:
        return _from_caffe(init, vocabulary)
    known = TagClassifier.load(None if init == "embedded" else init)
    tagger = TagClassifier(known.architecture, vocabulary, known.preprocessing)
    tagger.trunk.load_state_dict(known.trunk.state_dict())
    _copy_tags(known, tagger)
    return tagger


def _from_caffe(path: str | Path, vocabulary: Vocabulary) -> TagClassifier:
    _, tensors = read_tensors(path)
    tagger = TagClassifier("bvlc_googlenet", vocabulary)
    state = {name: tensor.float() for name, tensor in from_caffe(tensors).items()}
    own = tagger.trunk.state_dict()
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise InputError(f"{path}: {name} is {tuple(tensor.shape)}, should be {tuple(own[name].shape)}")
    tagger.trunk.load_state_dict(state)
    return tagger


def _copy_tags(known: TagClassifier, tagger: TagClassifier) -> None:
    shared = [tag for tag in tagger.vocabulary if tag in known.vocabulary]
    theirs = [known.vocabulary.index(tag) for tag in shared]
    ours = [tagger.vocabulary.index(tag) for tag in shared]
    with torch.no_grad():
        tagger.classifier.weight[ours] = known.classifier.weight[theirs]
        tagger.classifier.bias[ours] = known.classifier.bias[theirs]


def set_frequencies(tagger: TagClassifier, frequencies: Tensor) -> None:
    """Sets the biases to the log odds of the tags' frequencies (tags,), so that a training does not begin by learning
    how rare each tag is."""
    p = frequencies.clamp(1e-6, 1 - 1e-6)
    with torch.no_grad():
        tagger.classifier.bias.copy_((p / (1 - p)).log())

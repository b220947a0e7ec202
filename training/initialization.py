"""Initialization: the weights that a training starts from."""

import re
from pathlib import Path

import torch
from torch import Tensor

from grounding.tagger import efficientnet
from grounding.tagger.architectures import ARCHITECTURES
from grounding.tagger.googlenet import from_caffe
from grounding.tagger.packaged import tagger_path
from grounding.tagger.tagger import FORMAT, TagClassifier
from grounding.tagger.tensors import read_tensors
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import normalize, words
from proposals.errors import InputError

CLASSES = "loss3/classifier"  # the output layer of the BVLC GoogLeNet
_CLASS = re.compile(r"(n\d{8}|0|[1-9]\d{0,8})(?:[ \t]+|[:,][ \t]*)(\S.*)")  # WordNet id or row, and the names


def initial_tagger(
    init: str,
    vocabulary: Vocabulary,
    architecture: str = "googlenet",
    names: str | Path | None = None,
    inherit: bool = False,
    frequencies: Tensor | None = None,
) -> TagClassifier:
    """A tagger for a vocabulary, with the trunk of an existing network, and its weights and biases of known tags.

    Args:
        init: the name of a tagger of the package (``grounding.tagger.packaged``), or ``"embedded"`` for its default
            one. ``"torchvision"``: ImageNet weights that torchvision downloads. Otherwise a file: one that
            ``step=train`` wrote, the BVLC GoogLeNet as safetensors with Caffe's names, or EfficientNet-Lite 0, 1 or 2
            as safetensors with its published PyTorch names.
        vocabulary: the tags of the training photos.
        architecture: for ``init="torchvision"``: ``"googlenet"``, ``"vgg16"`` or ``"resnet50"``.
        names: for a network of ImageNet's classes: a file with their names, one class per line in the order of its
            outputs. Each line begins with the WordNet id (synset_words.txt) or with the number of the class from 0.
        inherit: whether to add the tags that ``init`` knows and the vocabulary lacks, with their weights.
        frequencies: ``(tags,)`` in [0, 1], the share of photos that have each tag, see :func:`set_frequencies`. None:
            the biases of tags that ``init`` does not know are 0.

    Returns:
        The tagger. Its tags are those of the vocabulary, then the inherited ones.

    Raises:
        InputError: the file is neither kind of network, the download fails, there is nothing to inherit, or the names
            cannot be matched with the classes row for row.
    """
    if init == "torchvision":
        if inherit:
            raise _nothing_to_inherit("the classes of init=torchvision have no names: use another init=")
        tagger = TagClassifier(architecture, vocabulary)
        tagger.trunk = ARCHITECTURES[architecture].trunk(pretrained=True)
        return _with_frequencies(tagger, frequencies)
    path = tagger_path(init)
    if read_tensors(path)[0].get("format") != FORMAT:
        return _with_frequencies(_from_classifier(init, vocabulary, names, inherit), frequencies)
    known = TagClassifier.load(path, presence=False, lexicon=False)
    inherited = [tag for tag in known.vocabulary if tag not in vocabulary] if inherit else []
    tagger = TagClassifier(known.architecture, Vocabulary((*vocabulary, *inherited)), known.preprocessing)
    tagger.trunk.load_state_dict(known.trunk.state_dict())
    _with_frequencies(tagger, frequencies)
    shared = [tag for tag in tagger.vocabulary if tag in known.vocabulary]
    rows = [known.vocabulary.index(tag) for tag in shared]
    _set_tags(tagger, shared, known.classifier.weight[rows], known.classifier.bias[rows])
    return tagger


def _from_classifier(path: str, vocabulary: Vocabulary, names: str | Path | None, inherit: bool) -> TagClassifier:
    """A tagger from a classifier of ImageNet: the BVLC GoogLeNet or EfficientNet-Lite."""
    if inherit and names is None:
        raise _nothing_to_inherit("the names of the classes are missing: set names=synset_words.txt")
    _, tensors = read_tensors(path)
    architecture, state, layer = _known_network(path, tensors)
    weight, bias = (
        _output_layer(path, tensors, layer, ARCHITECTURES[architecture].channels) if inherit else (torch.empty(0),) * 2
    )
    classes = _class_tags(_class_names(Path(names), len(weight)), vocabulary) if inherit and names else {}
    tagger = TagClassifier(architecture, Vocabulary((*vocabulary, *classes)))
    own = tagger.trunk.state_dict()
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise InputError(f"{path}: {name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
    tagger.trunk.load_state_dict(state)
    if classes:
        rows = list(classes.values())
        _set_tags(tagger, list(classes), weight[rows, :, None, None], bias[rows])
    return tagger


def _known_network(path: str, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], str]:
    """The architecture that tensors belong to, the state of its trunk, and the name of the output layer."""
    size = efficientnet.size_of(tensors)
    if size is None:
        return "bvlc_googlenet", {name: tensor.float() for name, tensor in from_caffe(tensors).items()}, CLASSES
    try:
        return f"efficientnet_lite{size}", efficientnet.from_published(tensors, size), "_fc"
    except KeyError as error:
        raise InputError(
            f"{path}: the tensor {error} of EfficientNet-Lite{size} is missing: convert its file again"
        ) from error


def _output_layer(path: str, tensors: dict[str, Tensor], layer: str, channels: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the output layer."""
    weight, bias = (tensors.get(f"{layer}.{kind}", torch.empty(0)).float() for kind in ("weight", "bias"))
    if weight.shape != (len(bias), channels) or not len(bias):
        shapes = f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)}"
        raise _nothing_to_inherit(f"{layer} of {path} has {shapes}, not (classes, {channels}) and (classes,)")
    return weight, bias


def _nothing_to_inherit(reason: str) -> InputError:
    return InputError(f"no tags can be inherited: {reason}, or set step.distillation_weight=0")


def _class_tags(names: list[str], vocabulary: Vocabulary) -> dict[str, int]:
    """A tag for each class that the vocabulary lacks, and the class's row.

    The tag is the first name of the class that is not a tag yet. A class without such a name is left out: ImageNet has
    two classes "crane", a bird and a machine.
    """
    tags: dict[str, int] = {}
    for row, line in enumerate(names):
        synonyms = [normalize(name) for name in line.split(",")]
        free = [name for name in synonyms if words(name) and name not in vocabulary and name not in tags]
        if free:
            tags[free[0]] = row
    return tags


def _class_names(path: Path, classes: int) -> list[str]:
    """The names of each class, in the order of the rows.

    A file of bare names cannot be checked: if one line is missing and another is there twice, each class between them
    would get its neighbour's weights.
    """
    lines = _lines(path)
    if len(lines) != classes:
        raise InputError(
            f"names={path} has {len(lines):,} lines, but the network has {classes:,} classes: give the file that "
            "belongs to the network, with one class per line"
        )
    found = [_CLASS.fullmatch(line) for line in lines]
    odd = next((number for number, match in enumerate(found) if match is None), None)
    if odd is not None:
        raise InputError(
            f"names={path}: line {odd + 1} {lines[odd][:40]!r} cannot be matched with a class: begin each line with "
            "its WordNet id, as in synset_words.txt (n01440764 tench), or with the number of its class from 0 (0 tench)"
        )
    _check_order(path, [match[1] for match in found if match])
    return [match[2] for match in found if match]


def _check_order(path: Path, ids: list[str]) -> None:
    numbered = not ids[0].startswith("n")
    for row, own in enumerate(ids):
        if numbered and own != str(row):
            raise InputError(f"names={path}: line {row + 1} begins with {own}, not {row}: number the classes from 0")
        if not numbered and row and own <= ids[row - 1]:
            raise InputError(
                f"names={path}: line {row + 1} {own} comes after {ids[row - 1]}: the WordNet ids must ascend, as the "
                "classes of the network and the lines of synset_words.txt do"
            )


def _lines(path: Path) -> list[str]:
    """The lines without blank ones at the end."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"names={path} cannot be read ({error}): use a text file with one class per line") from error
    return [line.strip() for line in text.rstrip().split("\n")]


def _set_tags(tagger: TagClassifier, tags: list[str], weight: Tensor, bias: Tensor) -> None:
    rows = [tagger.vocabulary.index(tag) for tag in tags]
    with torch.no_grad():
        tagger.classifier.weight[rows] = weight
        tagger.classifier.bias[rows] = bias


def _with_frequencies(tagger: TagClassifier, frequencies: Tensor | None) -> TagClassifier:
    if frequencies is not None:
        set_frequencies(tagger, frequencies)
    return tagger


def set_frequencies(tagger: TagClassifier, frequencies: Tensor) -> None:
    """Sets the biases of the first tags to the log odds of their frequencies.

    Otherwise a training would begin by learning how rare each tag is.

    Args:
        tagger: the tagger to change.
        frequencies: ``(tags,)`` in [0, 1], the share of photos that have each tag.
    """
    p = frequencies.clamp(1e-6, 1 - 1e-6)
    with torch.no_grad():
        tagger.classifier.bias[: len(p)] = (p / (1 - p)).log()

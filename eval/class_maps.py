"""Attention maps of the classes of a data set: each is the average of the maps of the class's tags."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from eval.annotated_photos import AnnotatedPhotos
from grounding import Grounder
from grounding.attention.methods import METHODS
from grounding.maps import blur
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError


def describe_maps(grounder: Grounder, photos: AnnotatedPhotos) -> dict:
    """What the maps are of, for ``metrics.json``.

    Args:
        grounder: computes the maps.
        photos: the data set; its ``root`` and ``split`` are used if it has them.

    Returns:
        ``method``, ``target`` (the layer of the maps) and ``data`` (its ``root`` and ``split``).
    """
    data = {"root": str(getattr(photos, "root", "")), "split": getattr(photos, "split", "")}
    return {"method": grounder.settings.method, "target": grounder.target, "data": data}


def known_tags(
    classes: Mapping[str, Sequence[str]], names: Iterable[str], vocabulary: Vocabulary
) -> dict[str, list[str]]:
    """The tags of each class that the vocabulary has.

    Args:
        classes: the tags of each class; a class that is not listed has its own name as its only tag.
        names: the classes in question.
        vocabulary: the tagger's tags.

    Returns:
        The known tags of each class, without repetitions. Classes without a known tag are left out.

    Raises:
        InputError: the tags of a class are not a list.
    """
    tags = {name: classes.get(name, [name]) for name in names}
    for name, listed in tags.items():
        if not isinstance(listed, list | tuple):
            raise InputError(f"the tags of class {name!r} must be a list, not {listed!r}: write {name}: [{listed}]")
    known = {name: [tag for tag in dict.fromkeys(listed) if tag in vocabulary] for name, listed in tags.items()}
    return {name: listed for name, listed in known.items() if listed}


def class_maps(grounder: Grounder, pixels: np.ndarray, tags: Sequence[Sequence[str]], size: list[int]) -> Tensor:
    """The maps of W classes, from one forward and one top-down pass.

    Args:
        grounder: its tagger, method and layer are used.
        pixels: ``(H, W, 3)`` uint8, RGB.
        tags: for each class its tags, at least one.
        size: the photo's size for the network: ``[shorter side]`` or ``[height, width]``, in pixels.

    Returns:
        ``(W, h, w)`` float64 on the grid of the method's layer. Blurred if the paper blurs the method's maps, and
        signed if the method's maps are.
    """
    if not tags:
        return torch.zeros(0, 1, 1, dtype=torch.float64)
    method, vocabulary = grounder.settings.method, grounder.tagger.vocabulary
    every = sorted({tag for listed in tags for tag in listed})
    scene = grounder.topdown.look(grounder.tagger.prepare(pixels, size), method)
    maps = scene.attend([vocabulary.index(tag) for tag in every], method)
    maps = (blur(maps) if METHODS[method].blurred else maps)[0].double()
    rows = {tag: row for row, tag in enumerate(every)}
    return torch.stack([maps[[rows[tag] for tag in listed]].mean(0) for listed in tags])

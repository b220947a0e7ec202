"""The step ``methods``: the maps of phrases by several attention methods, as one picture (Fig. 5; one method: Fig. 7).

grounding methods photo.jpg "a cat" "the red mug"
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from grounding.attention.methods import METHODS
from grounding.draw import captioned, heated, scaled_size
from grounding.images import read_image
from grounding.maps import blur
from grounding.pictures.board import grid
from grounding.runtime.artefacts import atomic_path
from grounding.settings import Settings
from grounding.steps.layers import parse, tag_shares
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase
from proposals.errors import InputError

CELL = 260  # pixels of a photo's longer side in the picture


def methods(
    tagger: TagClassifier,
    image: str | Sequence[str] | None,
    phrases: Sequence[str],
    output: str,
    methods: Sequence[str],
    side: int = 300,
) -> Path:
    """Draws ``methods.png``: for each photo and phrase a line with the photo and the phrase's map by each method.

    With one method, each photo has one line with the maps of all phrases. Maps are blurred if the paper blurs the
    method's maps, and drawn where they are positive.

    Args:
        tagger: the network.
        image: a path, or several.
        phrases: what to find, at most ``grounding.steps.layers.MAX_PHRASES``; the map of a phrase is the average of
            its words' maps.
        output: the folder to write to.
        methods: names in ``grounding.attention.methods.METHODS``, in the order of the columns.
        side: pixels of the shorter side of a photo as the network receives it.

    Returns:
        The path of the picture.

    Raises:
        InputError: there is no image or it cannot be read; there is no phrase or too many; a phrase is empty or has no
            word that the tagger knows; a method is unknown or there is none; a setting is out of range.
    """
    if isinstance(methods, str) or not methods:
        raise InputError("step=methods needs attention methods: set step.methods=[grad,c-mwp]")
    for method in methods:
        Settings(method=method, side=side)
    photos = [image] if isinstance(image, str) else list(image or ())
    if not photos:
        raise InputError("no image: set image=PHOTO")
    parsed = parse(phrases, tagger.vocabulary)
    panels: list[Image.Image] = []
    for photo in photos:
        pixels = read_image(photo)
        maps = {method: phrase_maps(tagger, pixels, parsed, method, side) for method in methods}
        panels += _panels(pixels, parsed, maps)
    path = Path(output, "methods.png")
    with atomic_path(path) as aside:
        grid(panels, 1 + (len(parsed) if len(methods) == 1 else len(methods))).save(aside, "PNG")
    print(path)
    return path


def phrase_maps(
    tagger: TagClassifier, pixels: NDArray[np.uint8], phrases: Sequence[Phrase], method: str, side: int
) -> NDArray[np.float64]:
    """The map of each phrase by one method, at the layer at which a grounder with this method reads it.

    Args:
        tagger: the network.
        pixels: ``(H, W, 3)`` uint8 RGB.
        phrases: the phrases, each with at least one tag.
        method: a name in ``grounding.attention.methods.METHODS``.
        side: pixels of the shorter side of the photo as the network receives it.

    Returns:
        ``(P, h, w)``; signed if the method's maps are.
    """
    tags, shares = tag_shares(phrases)
    scene = Settings(method=method, side=side).top_down(tagger).look(tagger.prepare(pixels, [side]), method)
    maps = scene.attend([tagger.vocabulary.index(tag) for tag in tags], method)
    assert isinstance(maps, Tensor)  # of one layer
    if METHODS[method].blurred:
        maps = blur(maps)
    return np.tensordot(shares, maps[0].double().numpy(), 1)


def _panels(
    pixels: NDArray[np.uint8], phrases: Sequence[Phrase], maps: dict[str, NDArray[np.float64]]
) -> list[Image.Image]:
    """The panels of a photo, line by line."""
    scale = min(1.0, CELL / max(pixels.shape[:2]))
    plain = Image.fromarray(pixels).resize(scaled_size(pixels, scale))

    def panel(method: str, number: int, title: str) -> Image.Image:
        return captioned(heated(pixels, maps[method][number], scale), [(title, "white")])

    if len(maps) == 1:
        (method,) = maps
        return [plain, *(panel(method, number, phrase.text) for number, phrase in enumerate(phrases))]
    panels = []
    for number, phrase in enumerate(phrases):
        panels += [captioned(plain, [(phrase.text, "white")]), *(panel(method, number, method) for method in maps)]
    return panels

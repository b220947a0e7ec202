"""The step ``layers``: the layers at which a tagger's maps can be read, and one photo's maps at each of them.

The lower the layer the finer its map and the less its neurons mean (Zhang et al. 2016, Sec. 3.2 and Fig. 3).
"""

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from grounding.attention.methods import AVERAGED, METHODS
from grounding.attention.network import Network
from grounding.attention.targets import TargetLayer, find_targets
from grounding.attention.topdown import TopDown
from grounding.images import read_image
from grounding.runtime.artefacts import atomic_path, write_json
from grounding.scene import Settings
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

MOST_PHRASES = 8
PANELS = 6  # in a line of the picture, the photo's own included


def layers(
    tagger: TagClassifier,
    image: str | None,
    phrases: Sequence[str],
    output: str,
    side: int = 300,
    method: str = "mwp",
) -> list[TargetLayer]:
    """Prints a table of the layers that can be a target, and writes it and the phrases' maps at each of them.

    ``layers.json`` gets the table, ``layers.png`` for each phrase the photo and then its maps, the first layer first,
    all of them out of one top-down pass; a layer of a single cell has none. Each map is laid where its cells' receptive
    fields have their centres; the root of its values is shown, each against its own maximum.

    Args:
        tagger: the network; image: a path; phrases: what to find, at most ``MOST_PHRASES``; a phrase's map is the
            average of its tags'. output: the folder that is written to.
        side: pixels of the photo's shorter side as the network sees it.
        method: a name of ``grounding.attention.methods.METHODS`` whose maps may be read at any layer.

    Returns:
        The layers, in the order of the forward pass.

    Raises:
        InputError: no image or one that cannot be read, no phrase, an empty one, too many, one of which the tagger
            knows no word (the nearest tags are offered), or a setting that is out of range.
    """
    Settings(method=method, side=side)
    if METHODS[method].target == AVERAGED:
        raise InputError(f"method={method} reads one layer only; choose one that reads any, such as mwp or c-mwp")
    if not image:
        raise InputError("no image: say image=PHOTO")
    parsed = parse(phrases, tagger.vocabulary)
    photo = _resized(read_image(image), side)
    pixels = tagger.preprocessing(photo)
    found = find_targets(Network(tagger), pixels)
    print(table(found))
    drawn = [layer for layer in found if layer.drawable]
    maps = phrase_maps(tagger, pixels, parsed, [layer.name for layer in drawn], method)
    about = {
        "image": str(image),
        "pixels": list(photo.shape[2:]),
        "method": method,
        "phrases": list(map(asdict, parsed)),
    }
    _write(Path(output), about, found, draw(photo[0].permute(1, 2, 0).numpy(), parsed, drawn, maps))
    return found


def parse(phrases: Sequence[str], vocabulary: Vocabulary) -> list[Phrase]:
    """The phrases with their tags, each with at least one.

    Raises:
        InputError: no phrase, too many, an empty one, or one without a tag.
    """
    if isinstance(phrases, str) or not len(phrases):
        raise InputError("no phrase to map: say 'phrases=[a dog]'")
    if len(phrases) > MOST_PHRASES:
        raise InputError(f"{len(phrases)} phrases are too many for one picture: give {MOST_PHRASES} at most")
    parsed = [Phrase.parse(text, vocabulary) for text in phrases]
    for phrase in parsed:
        if not phrase.tags:
            near = [tag for word in phrase.skipped for tag in difflib.get_close_matches(word, vocabulary, 3)]
            offer = f"near it: {', '.join(dict.fromkeys(near))}" if near else "say it in other words"
            raise InputError(f"the tagger knows no word of {phrase.text!r}; {offer}")
    return parsed


def phrase_maps(
    tagger: nn.Module, images: Tensor, phrases: Sequence[Phrase], names: Sequence[str], method: str
) -> list[list[np.ndarray]]:
    """One (h, w) map for each phrase and layer, all out of one pass: the average of its tags' maps (Sec. 4.3).

    Args:
        tagger: with a vocabulary; images: (1, 3, h, w), preprocessed; names: the layers; method: the method's name.
    """
    tags = list(dict.fromkeys(tag for phrase in phrases for tag in phrase.tags))
    scene = TopDown(tagger, names).look(images, method)
    maps = [m[0].double().numpy() for m in scene.attend([tagger.vocabulary.index(tag) for tag in tags], method)]
    rows = [[tags.index(tag) for tag in phrase.tags] for phrase in phrases]
    return [[layer[row].mean(0) for layer in maps] for row in rows]


def table(found: Sequence[TargetLayer]) -> str:
    """One line a layer; lengths in pixels of the photo as the network sees it."""
    rows = [("layer", "kind", "channels", "h x w", "stride", "field", "")]
    for layer in found:
        stride, field = (_both(*(getattr(c, n) for c in (layer.rows, layer.columns))) for n in ("stride", "field"))
        size = f"{layer.height} x {layer.width}"
        rows.append((layer.name, layer.kind, str(layer.channels), size, stride, field, "default" * layer.default))
    widths = [max(len(row[i]) for row in rows) for i in range(7)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def draw(
    photo: np.ndarray, phrases: Sequence[Phrase], found: Sequence[TargetLayer], maps: list[list[np.ndarray]]
) -> Figure:
    """A block of panels for each phrase: the photo with the phrase below, then each layer's map with its name below.

    Args:
        photo: (H, W, 3) uint8, as the network sees it; found: layers of more than one cell; maps: (h, w) for each
            phrase and layer.
    """
    lines = -(-(len(found) + 1) // PANELS)
    figure, grid = _grid(len(phrases) * lines, photo.shape[0] / photo.shape[1])
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    for block, (phrase, row) in enumerate(zip(phrases, maps, strict=True)):
        panels = grid[block * lines : (block + 1) * lines].flat
        skipped = f" (not known: {', '.join(phrase.skipped)})" if phrase.skipped else ""
        _panel(panels[0], photo, textwrap.wrap(f"“{phrase.text}”{skipped}", 30, max_lines=3, placeholder=" …"))
        for axes, layer, values in zip(panels[1:], found, row, strict=False):
            _panel(axes, grey, [layer.name, f"{layer.height} × {layer.width}" + ", default" * layer.default])
            _heat(axes, layer, values, grey.shape)
    return figure


def _grid(lines: int, proportion: float) -> tuple[Figure, np.ndarray]:
    """A figure of lines x ``PANELS`` empty panels for photos of height / width = ``proportion``."""
    width, gap, label = 2.2, 0.06, 0.62
    height = width * min(proportion, 1.5)
    inches = (PANELS * (width + gap) + gap, lines * (height + label) + gap)
    figure = Figure(inches, dpi=110)
    edges = {"left": gap / inches[0], "right": 1 - gap / inches[0], "top": 1 - gap / inches[1]}
    figure.subplots_adjust(**edges, bottom=label / inches[1], wspace=gap / width, hspace=label / height)
    grid = figure.subplots(lines, PANELS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def _panel(axes: Axes, photo: np.ndarray, label: Sequence[str]) -> None:
    """The photo, in colours or in grey, with a few lines below it."""
    axes.set_axis_on()
    axes.imshow(photo, "gray", extent=(0, photo.shape[1], photo.shape[0], 0), vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    # a phrase may hold a dollar sign
    axes.set_xlabel("\n".join(label), fontsize=9, parse_math=False)


def _heat(axes: Axes, layer: TargetLayer, values: np.ndarray, size: tuple[int, int]) -> None:
    """A map (h, w) over the photo of this size, each cell around the centre of what it sees."""
    (top, bottom), (left, right) = (
        (0, pixels) if cell.whole else cell.span(count)
        for cell, count, pixels in zip((layer.rows, layer.columns), values.shape, size, strict=True)
    )
    strength = np.linspace(0, 1, 256)
    colours = mpl.colormaps["inferno"](strength)
    colours[:, 3] = 0.25 + 0.6 * strength
    norm = PowerNorm(0.5, 0, max(values.max(), np.finfo(np.float64).tiny), clip=True)
    place = {"extent": (left, right, bottom, top), "interpolation": "bicubic", "interpolation_stage": "data"}
    axes.imshow(values, ListedColormap(colours), norm, **place)
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0))
    if layer.default:
        for spine in axes.spines.values():
            spine.set(color="tab:orange", linewidth=3)


def _write(output: Path, about: dict, found: Sequence[TargetLayer], figure: Figure) -> None:
    with atomic_path(output / "layers.png") as aside:
        figure.savefig(aside, format="png")
    write_json(output / "layers.json", about | {"layers": [as_record(layer) for layer in found]})
    print(f"\nstride and field in pixels of the photo at {about['pixels'][1]} x {about['pixels'][0]}, as the network "
          f"sees it\ntable and maps: {output}")  # fmt: skip


def as_record(layer: TargetLayer) -> dict:
    """A layer as plain values, its geometry as (along rows, along columns); None is the whole image."""
    record = asdict(layer)
    rows, columns = record.pop("rows"), record.pop("columns")
    for name in rows:
        record[name] = [None if cell.whole else axis[name]
                        for cell, axis in ((layer.rows, rows), (layer.columns, columns))]  # fmt: skip
    return record


def _both(rows: float, columns: float) -> str:
    """A length along both axes, once where they agree."""
    told = ["whole" if np.isinf(length) else f"{length:g}" for length in (rows, columns)]
    return told[0] if rows == columns else " x ".join(told)


def _resized(image: np.ndarray, side: int) -> Tensor:
    """(1, 3, h, w) uint8, the shorter side as the network sees it."""
    return transforms.resize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], [side], antialias=True)

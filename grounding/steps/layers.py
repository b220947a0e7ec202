"""The step ``layers``: lists the layers at which maps can be read, and draws the maps of one photo at each of them.

The lower the layer, the finer its map and the less specific its neurons (Zhang et al. 2016, Sec. 3.2 and Fig. 3).
"""

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from grounding.attention.methods import AVERAGED, METHODS
from grounding.attention.targets import TargetLayer, find_targets
from grounding.attention.topdown import TopDown
from grounding.images import read_image
from grounding.runtime.artefacts import atomic_path, write_json
from grounding.settings import Settings
from grounding.tagger.preprocessing import resize
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

MAX_PHRASES = 8
PANELS = 6  # in a line of the picture, including the panel of the photo


def layers(
    tagger: TagClassifier,
    image: str | None,
    phrases: Sequence[str],
    output: str,
    side: int = 300,
    method: str = "mwp",
) -> list[TargetLayer]:
    """Prints a table of the layers that can be a target, and draws the maps of phrases at each of them.

    ``layers.json`` gets the table. ``layers.png`` gets the photo and its maps for each phrase, from the first layer to
    the last, all from one top-down pass. Layers of a single cell are not drawn. A map is drawn so that each cell lies
    at the centre of its receptive field; the square root of its values relative to its maximum is shown.

    Args:
        tagger: the network.
        image: a path.
        phrases: what to find, at most ``MAX_PHRASES``; the map of a phrase is the average of its words' maps.
        output: the folder to write to.
        side: pixels of the shorter side of the photo as the network receives it.
        method: a name in ``grounding.attention.methods.METHODS`` whose maps can be read at any layer.

    Returns:
        The layers, in the order of the forward pass.

    Raises:
        InputError: there is no image or it cannot be read; there is no phrase or too many; a phrase is empty or has no
            word that the tagger knows (the message names similar tags); a setting is out of range.
    """
    settings = Settings(method=method, side=side)
    if METHODS[method].target == AVERAGED:
        raise InputError(
            f"method={method} reads one layer only: use a method that reads any layer, such as mwp or c-mwp"
        )
    if not image:
        raise InputError("no image: set image=PHOTO")
    parsed = parse(phrases, tagger.vocabulary)
    photo = resize(read_image(image), [side])
    pixels = tagger.preprocessing(photo)
    targets = find_targets(settings.top_down(tagger).networks(pixels), pixels)
    print(table(targets))
    drawn = [layer for layer in targets if layer.drawable]
    maps = phrase_maps(tagger, pixels, parsed, [layer.name for layer in drawn], method)
    about = {
        "image": str(image),
        "pixels": list(photo.shape[2:]),
        "method": method,
        "phrases": list(map(asdict, parsed)),
    }
    _write(Path(output), about, targets, draw(photo[0].permute(1, 2, 0).numpy(), parsed, drawn, maps))
    return targets


def parse(phrases: Sequence[str], vocabulary: Vocabulary) -> list[Phrase]:
    """Finds the tags of phrases; each phrase needs at least one.

    Args:
        phrases: what to find.
        vocabulary: the tagger's vocabulary.

    Returns:
        The phrases with their tags.

    Raises:
        InputError: there is no phrase or too many, or a phrase is empty or has no tag.
    """
    if isinstance(phrases, str) or not len(phrases):
        raise InputError("no phrase to map: set 'phrases=[a dog]'")
    if len(phrases) > MAX_PHRASES:
        raise InputError(f"{len(phrases)} phrases are too many for one picture: give {MAX_PHRASES} at most")
    parsed = [Phrase.parse(text, vocabulary) for text in phrases]
    for phrase in parsed:
        if not phrase.tags:
            near = [tag for word in phrase.skipped for tag in difflib.get_close_matches(word, vocabulary, 3)]
            advice = f"similar tags: {', '.join(dict.fromkeys(near))}" if near else "use other words"
            raise InputError(f"the tagger knows no word of {phrase.text!r}; {advice}")
    return parsed


def phrase_maps(
    tagger: TagClassifier, images: Tensor, phrases: Sequence[Phrase], names: Sequence[str], method: str
) -> list[list[np.ndarray]]:
    """Computes the map of each phrase at each layer, the average of its words' maps, in one pass.

    The map of a word with several tags is their average by prior weight. A scene also weights tags by probability.

    Args:
        tagger: the network.
        images: ``(1, 3, h, w)``, preprocessed.
        phrases: the phrases, each with at least one tag.
        names: the names of the layers.
        method: a name in ``grounding.attention.methods.METHODS``.

    Returns:
        For each phrase a list of maps ``(h, w)``, one for each layer.
    """
    tags, shares = tag_shares(phrases)
    scene = TopDown(tagger, names).look(images, method)
    maps = [m[0].double().numpy() for m in scene.attend([tagger.vocabulary.index(tag) for tag in tags], method)]
    return [[np.tensordot(row, layer, 1) for layer in maps] for row in shares]


def tag_shares(phrases: Sequence[Phrase]) -> tuple[list[str], np.ndarray]:
    """The tags of phrases, and the share of each in the map of each phrase, before a photo is seen.

    Args:
        phrases: the phrases, each with at least one tag.

    Returns:
        T tags without repetitions, and ``(P, T)`` in 0..1; each row sums to 1.
    """
    tags = list(dict.fromkeys(tag for phrase in phrases for tag in phrase.tags))
    shares = np.zeros((len(phrases), len(tags)))
    for row, phrase in zip(shares, phrases, strict=True):
        for reading in phrase.readings:
            row[[tags.index(tag) for tag in reading.tags]] += np.array(reading.weights) / len(phrase.readings)
    return tags, shares


def table(targets: Sequence[TargetLayer]) -> str:
    """Formats layers as a table, with lengths in pixels of the network's input.

    Args:
        targets: the layers.

    Returns:
        A heading, then one line for each layer.
    """
    rows = [("layer", "kind", "channels", "h x w", "stride", "field", "")]
    for layer in targets:
        stride, field = (_both(*(getattr(c, n) for c in (layer.rows, layer.columns))) for n in ("stride", "field"))
        size = f"{layer.height} x {layer.width}"
        rows.append((layer.name, layer.kind, str(layer.channels), size, stride, field, "default" * layer.default))
    widths = [max(len(row[i]) for row in rows) for i in range(7)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def draw(
    photo: np.ndarray, phrases: Sequence[Phrase], targets: Sequence[TargetLayer], maps: list[list[np.ndarray]]
) -> Figure:
    """Draws a block of panels for each phrase: the photo with the phrase below it, then each layer's map with its name.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB, the network's input.
        phrases: one for each block.
        targets: layers of more than one cell.
        maps: ``(h, w)`` for each phrase and layer.

    Returns:
        The figure.
    """
    lines = -(-(len(targets) + 1) // PANELS)
    figure, grid = _grid(len(phrases) * lines, photo.shape[0] / photo.shape[1])
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    for block, (phrase, row) in enumerate(zip(phrases, maps, strict=True)):
        panels = grid[block * lines : (block + 1) * lines].flat
        skipped = f" (not known: {', '.join(phrase.skipped)})" if phrase.skipped else ""
        _panel(panels[0], photo, textwrap.wrap(f"“{phrase.text}”{skipped}", 30, max_lines=3, placeholder=" …"))
        for axes, layer, values in zip(panels[1:], targets, row, strict=False):
            _panel(axes, grey, [layer.name, f"{layer.height} × {layer.width}" + ", default" * layer.default])
            _heat(axes, layer, values, grey.shape)
    return figure


def _grid(lines: int, proportion: float) -> tuple[Figure, np.ndarray]:
    """Makes a figure of lines x ``PANELS`` empty panels for a photo of height / width = ``proportion``."""
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
    """Draws a photo, in colour or grey, with lines of text below it."""
    axes.set_axis_on()
    axes.imshow(photo, "gray", extent=(0, photo.shape[1], photo.shape[0], 0), vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    # parse_math=False, because a phrase may contain a dollar sign
    axes.set_xlabel("\n".join(label), fontsize=9, parse_math=False)


def _heat(axes: Axes, layer: TargetLayer, values: np.ndarray, size: tuple[int, int]) -> None:
    """Draws a map ``(h, w)`` over a photo of this size, each cell at the centre of its receptive field."""
    (top, bottom), (left, right) = (
        (0, pixels) if cell.whole else cell.span(count)
        for cell, count, pixels in zip((layer.rows, layer.columns), values.shape, size, strict=True)
    )
    strength = np.linspace(0, 1, 256)
    colours = mpl.colormaps["inferno"](strength)
    colours[:, 3] = 0.25 + 0.6 * strength
    norm = PowerNorm(0.5, 0, max(values.max(), np.finfo(np.float64).tiny), clip=True)
    axes.imshow(
        values,
        ListedColormap(colours),
        norm,
        extent=(left, right, bottom, top),
        interpolation="bicubic",
        interpolation_stage="data",
    )
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0))
    if layer.default:
        for spine in axes.spines.values():
            spine.set(color="tab:orange", linewidth=3)


def _write(output: Path, about: dict[str, Any], targets: Sequence[TargetLayer], figure: Figure) -> None:
    with atomic_path(output / "layers.png") as temporary:
        figure.savefig(temporary, format="png")
    write_json(output / "layers.json", about | {"layers": [as_record(layer) for layer in targets]})
    height, width = about["pixels"]
    print(f"\nstride and field in pixels of the network's input ({width} x {height})\ntable and maps: {output}")


def as_record(layer: TargetLayer) -> dict[str, Any]:
    """Converts a layer to values that ``json`` can encode.

    Args:
        layer: the layer.

    Returns:
        Its fields; ``stride``, ``field`` and ``offset`` as [along the height, along the width], None for the whole
        image.
    """
    record = asdict(layer)
    rows, columns = record.pop("rows"), record.pop("columns")
    for name in rows:
        record[name] = [None if cell.whole else axis[name]
                        for cell, axis in ((layer.rows, rows), (layer.columns, columns))]  # fmt: skip
    return record


def _both(rows: float, columns: float) -> str:
    """Formats a length along both axes as one number if they are equal."""
    lengths = ["whole" if np.isinf(length) else f"{length:g}" for length in (rows, columns)]
    return lengths[0] if rows == columns else " x ".join(lengths)

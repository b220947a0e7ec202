"""The step ``layers``: the layers at which a tagger's maps can be read, and one photo's maps at each of them.

The lower the layer the finer its map and the less its neurons mean (Zhang et al. 2016, Sec. 3.2 and Fig. 3).
"""

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.fx
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from grounding.attention.geometry import Cell, cells
from grounding.attention.layers import (
    RECTIFIERS,
    RULES,
    SHAPE_METHODS,
    SHAPES,
    SIGNED,
    SQUASHERS,
    identity,
    local_response_norm,
    response_norm,
)
from grounding.attention.methods import AVERAGED, METHODS
from grounding.attention.network import Network, is_item
from grounding.attention.topdown import TopDown
from grounding.images import read_image
from grounding.runtime.artefacts import write_json, written_aside
from grounding.scene import Settings
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

Node = torch.fx.Node

MOST_PHRASES = 8
PANELS = 6  # in a line of the picture, the photo's own included
# below them stands the same mass as above
UNCHANGED = (identity, local_response_norm, response_norm)


@dataclass(frozen=True)
class Layer:
    """A layer whose neurons all of the mass passes.

    Attributes:
        name: a short one that ``target`` takes for it; kind: what it is.
        channels, height, width: of its activation for one photo.
        rows, columns: its cells along the two axes of the image, in pixels of the photo as the network sees it.
        default: whether the tagger's maps are read here.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    rows: Cell
    columns: Cell
    default: bool = False

    @property
    def drawable(self) -> bool:
        """Whether its map has more than one cell."""
        return self.height * self.width > 1


def layers(
    tagger: TagClassifier,
    image: str | None,
    phrases: Sequence[str],
    output: str,
    side: int = 300,
    method: str = "mwp",
) -> list[Layer]:
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
    found = find_layers(Network(tagger), pixels)
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


def find_layers(network: Network, images: Tensor) -> list[Layer]:
    """The layers that can be a target, in the order of the forward pass.

    A layer counts if all of the mass passes its neurons (no branch leads around it), if every layer above it has a
    rule, if its activation has places, and if its map is not that of the layer before: a convolution is left to its
    ReLU, a response norm and a dropout to what they read.

    Args:
        network: the network; images: (1, 3, h, w), preprocessed: what the sizes are for.
    """
    default = network.find(network.default_target) if network.default_target else None
    shapes, axes = _shapes(network, images), [cells(network, axis) for axis in (0, 1)]
    found = []
    for node in main_line(network):
        name = _name(network, node)
        if name and len(shapes[node]) == 4 and _settled(network, node) and _walkable(network, node):
            geometry = [axis[node] for axis in axes]
            found.append(Layer(name, _kind(network, node, name), *shapes[node][1:], *geometry, node is default))
    return found


def main_line(network: Network) -> list[Node]:
    """The nodes that every path from the image to the classifier's input passes, in the order of the forward pass.

    The nodes between the two stand in an order in which all edges lead onwards; no path avoids a node if and only if
    no edge leads over it.
    """
    between = {network.features}
    for node in reversed(network.nodes):
        if node in between:
            between.update(node.all_input_nodes)
    places = {node: position for position, node in enumerate(network.nodes)}
    reached, furthest, found = set(), 0, []
    for node, position in places.items():
        if node.op != "placeholder" and not (node in between and reached & set(node.all_input_nodes)):
            continue
        reached.add(node)
        if furthest <= position and node.op != "placeholder":
            found.append(node)
        furthest = max([furthest, *(places[user] for user in node.users if user in between)])
    return found


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


def table(found: Sequence[Layer]) -> str:
    """One line a layer; lengths in pixels of the photo as the network sees it."""
    rows = [("layer", "kind", "channels", "h x w", "stride", "field", "")]
    for layer in found:
        stride, field = (_both(*(getattr(c, n) for c in (layer.rows, layer.columns))) for n in ("stride", "field"))
        size = f"{layer.height} x {layer.width}"
        rows.append((layer.name, layer.kind, str(layer.channels), size, stride, field, "default" * layer.default))
    widths = [max(len(row[i]) for row in rows) for i in range(7)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def draw(photo: np.ndarray, phrases: Sequence[Phrase], found: Sequence[Layer], maps: list[list[np.ndarray]]) -> Figure:
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


def _heat(axes: Axes, layer: Layer, values: np.ndarray, size: tuple[int, int]) -> None:
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


def _write(output: Path, about: dict, found: Sequence[Layer], figure: Figure) -> None:
    with written_aside(output / "layers.png") as aside:
        figure.savefig(aside, format="png")
    write_json(output / "layers.json", about | {"layers": [as_record(layer) for layer in found]})
    print(f"\nstride and field in pixels of the photo at {about['pixels'][1]} x {about['pixels'][0]}, as the network "
          f"sees it\ntable and maps: {output}")  # fmt: skip


def as_record(layer: Layer) -> dict:
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


class _Shapes(torch.fx.Interpreter):
    """Runs a network and notes the shape of every tensor."""

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, Tensor) else ()
        return value


@torch.no_grad()
def _shapes(network: Network, images: Tensor) -> dict[Node, tuple[int, ...]]:
    """The shapes of all tensors in one forward pass."""
    run = _Shapes(network.module)
    run.found = {}
    run.run(images)
    return run.found


def _settled(network: Network, node: Node) -> bool:
    """Whether a value is an activation of its own: no function of each element follows, and none of the same mass."""
    kind = network.kind(node)
    if RULES.get(kind) in UNCHANGED or kind in SHAPES or kind in SHAPE_METHODS:
        return False
    readers = [network.kind(user) for user in node.users if user in network.nodes]
    return not (len(readers) == 1 and readers[0] in (*RECTIFIERS, *SQUASHERS, *SIGNED, nn.BatchNorm2d))


def _walkable(network: Network, node: Node) -> bool:
    """Whether every layer above has a rule."""
    above = network.above((node,))
    return all(network.scalar(n) or is_item(n) or network.kind(n) in RULES for n in above)


def _name(network: Network, node: Node) -> str | None:
    """A short name that finds a node: a module's or its end, else the node's own; None where there is none.

    Names that begin with a letter come first, then short ones, then those of modules that hold nothing else.
    """
    paths = [path for path in node.meta.get("nn_module_stack", {}) if path]
    ends = [(path.split(".", start)[-1], path) for path in paths for start in range(path.count(".") + 1)]
    ends.sort(key=lambda end: (end[0][0].isdigit(), end[0].count("."), -end[1].count("."), end[0]))
    for name in [*(end for end, _ in ends), node.name]:
        try:
            if network.find(name) is node:
                return name
        except InputError:
            continue
    return None


def _kind(network: Network, node: Node, name: str) -> str:
    """What a layer is: its module's class, or of a mere sequence what it ends with."""
    stack = {path: kind for path, kind in node.meta.get("nn_module_stack", {}).values() if path}
    named = [path for path in stack if path == name or path.endswith(f".{name}")]
    inside = [kind for path, kind in stack.items() if named and path.startswith(named[0])]
    kinds = [kind for kind in inside if kind is not nn.Sequential] or [network.kind(node)]
    told = getattr(kinds[0], "__name__", str(kinds[0]))
    before = network.kind(node.all_input_nodes[0])
    return f"Conv2d, {told}" if before is nn.Conv2d and kinds[0] in RECTIFIERS else told

"""The layers of a network at which attention maps can be read.

The lower the layer, the finer its map and the less specific its neurons (Zhang et al. 2016, Sec. 3.2 and Fig. 3).

    find_targets(topdown.networks(images), images)    # [TargetLayer(name="conv1", ...), ...]
"""

from dataclasses import dataclass

import torch
import torch.fx
from torch import Tensor, nn

from grounding.attention import layers
from grounding.attention.capture.graph import title
from grounding.attention.geometry import Cell, cells
from grounding.attention.layers import RULES, SHAPES
from grounding.attention.network import Network
from proposals.errors import InputError

Node = torch.fx.Node


@dataclass(frozen=True)
class TargetLayer:
    """A layer that all of the mass passes, so that a map at it is complete.

    Attributes:
        name: a short name that ``target`` accepts for it.
        kind: its module's class, for example ``"MaxPool2d"``.
        channels: the number of channels of its activation.
        height: the rows of its activation for this photo.
        width: the columns of its activation for this photo.
        rows: the receptive fields of its cells along the height, in pixels of the network's input.
        columns: the same along the width.
        default: whether the tagger's maps are read at this layer by default.
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


def find_targets(network: Network, images: Tensor) -> list[TargetLayer]:
    """Lists the layers that can be a target, in the order of the forward pass.

    A layer is listed if no branch bypasses it, every layer above it has a rule, its activation is a grid, and its map
    differs from the map of the layer before it. So a convolution is represented by the ReLU after it; a response norm
    or a dropout is represented by its input.

    Args:
        network: the captured network.
        images: ``(1, C, h, w)``, preprocessed; the sizes of the layers depend on it.

    Returns:
        One entry a layer.
    """
    default = network.find(network.default_target) if network.default_target else None
    shapes, axes = _shapes(network, images), [cells(network, axis) for axis in (0, 1)]
    found = []
    for node in main_line(network):
        name = _name(network, node)
        if name and len(shapes[node]) == 4 and _settled(network, node) and _walkable(network, node):
            (rows, columns), (_, channels, height, width) = (axis[node] for axis in axes), shapes[node]
            kind = _kind(network, node, name)
            found.append(TargetLayer(name, kind, channels, height, width, rows, columns, node is default))
    return found


def main_line(network: Network) -> list[Node]:
    """Lists the nodes on every path from the image to the classifier's input, in the order of the forward pass.

    The nodes are in topological order: every edge leads from an earlier node to a later one. So a node lies on every
    path exactly if no edge leads from a node before it to a node after it.
    """
    between = {network.features}
    for node in reversed(network.nodes):
        if node in between:
            between.update(network.sources(node))
    places = {node: position for position, node in enumerate(network.nodes)}
    reached: set[Node] = set()
    furthest, found = 0, []
    for node, position in places.items():
        if node.op != "placeholder" and not (node in between and reached & set(network.sources(node))):
            continue
        reached.add(node)
        if furthest <= position and node.op != "placeholder":
            found.append(node)
        furthest = max([furthest, *(places[user] for user in node.users if user in between)])
    return found


class _Shapes(torch.fx.Interpreter):
    """Runs a network and records the shape of every tensor in ``found``."""

    def __init__(self, module: torch.fx.GraphModule):
        super().__init__(module)
        self.found: dict[Node, tuple[int, ...]] = {}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, Tensor) else ()
        return value


@torch.no_grad()
def _shapes(network: Network, images: Tensor) -> dict[Node, tuple[int, ...]]:
    """Returns the shapes of all tensors in one forward pass."""
    run = _Shapes(network.module)
    run.run(images)
    return run.found


def _settled(network: Network, node: Node) -> bool:
    """Whether a node changes the mass, and is not followed by an element-wise operation only."""
    rule, kind = network.rule(node), network.kind(node)
    # a scaling passes the mass through unchanged: its map equals the map of its input
    scales = isinstance(network.operation(node), nn.LocalResponseNorm) or rule in (layers.gated, layers.pad)
    if scales or kind in SHAPES:
        return False
    readers = [network.rule(user) for user in node.users if node in network.sources(user)]
    return not (len(readers) == 1 and readers[0] in (layers.rectifier, layers.nonlinearity, layers.affine))


def _walkable(network: Network, node: Node) -> bool:
    """Whether every layer above has a rule."""
    return all(network.kind(n) in RULES for n in network.above((node,)))


def _name(network: Network, node: Node) -> str | None:
    """Returns a short name by which ``Network.find`` finds a node, or None.

    Candidates are the names of the modules that return the node's value, the ends of those names, and the node's own
    name. Names that begin with a letter come first, then names with fewer parts, then those of the innermost modules.
    """
    paths = [path for path, named in network.names.items() if named is node and path in network.kinds]
    ends = [(path.split(".", start)[-1], path) for path in paths for start in range(path.count(".") + 1)]
    ends.sort(key=lambda end: (end[0][0].isdigit(), end[0].count("."), -end[1].count("."), end[0]))
    names: list[str] = [*(end for end, _ in ends), node.name]
    for name in names:
        try:
            if network.find(name) is node:
                return name
        except InputError:
            continue
    return None


def _kind(network: Network, node: Node, name: str) -> str:
    """Returns the class of a node's module; for an ``nn.Sequential``, the class of the module that it ends with."""
    paths = [path for path, named in network.names.items() if named is node and path in network.kinds]
    named = [path for path in paths if path == name or path.endswith(f".{name}")]
    inside = [network.kinds[path] for path in paths if named and path.startswith(named[0])]
    kinds = [kind for kind in inside if kind is not nn.Sequential]
    kind = kinds[0].__name__ if kinds else title(node.target)
    before = network.kind(node.all_input_nodes[0])
    closes = network.rule(node) in (layers.rectifier, layers.nonlinearity)
    return f"Conv2d, {kind}" if before is torch.ops.aten.convolution and closes else kind

"""A captured network, in which layers are found by name."""

import difflib
import functools
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from grounding.attention import layers
from grounding.attention.capture import operations
from grounding.attention.capture.capture import Captured
from grounding.attention.capture.constants import Constants
from grounding.attention.capture.graph import title
from grounding.attention.capture.preparing import prepare
from grounding.attention.layers import AVERAGES, RULES, SHAPES
from grounding.attention.split import Split, last_uses
from grounding.attention.weights import weights_of
from proposals.errors import InputError

Node = torch.fx.Node
aten = torch.ops.aten

# Classifier and target by the class of the model. Targets are the paper's where it uses the network, otherwise the last
# layer of stride 8.
DEFAULTS: dict[str, tuple[str, str | None]] = {
    "AlexNet": ("classifier.6", "conv5"),
    "CNNS": ("fc8", "conv5"),
    "ConvNeXt": ("classifier.2", "features.3"),
    "DenseNet": ("classifier", "denseblock2"),
    "EfficientNet": ("classifier.1", "features.3"),
    "GoogLeNet": ("fc", "pool2"),
    "Inception3": ("fc", "maxpool2"),
    "MNASNet": ("classifier.1", "layers.9"),
    "MobileNetV2": ("classifier.1", "features.6"),
    "MobileNetV3": ("classifier.3", "features.6"),
    "RegNet": ("fc", "block2"),
    "ResNet": ("fc", "layer2"),
    "ShuffleNetV2": ("fc", "stage2"),
    "SqueezeNet": ("classifier.1", "pool3"),
    "TagClassifier": ("classifier", None),
    "VGG": ("classifier.6", "pool4"),
}

# layers whose output is a pre-activation if an input is one
PASSING = (layers.route, layers.max_pool, layers.maximum, layers.adaptive_maximum, layers.concatenate, layers.pad,
           layers.gated, layers.choose,
           layers.scatter)  # fmt: skip


class Network:
    """A captured network.

    Args:
        captured: what the model did (see ``capture.py``).
        constants: what captures of several sizes share.
        classifier: the name of the layer whose outputs are the tags.
        default_target: the architecture's target, or None if the architecture is not known.
        compiled: whether to apply torch.compile to the part below the targets.

    Attributes:
        module: the folded network as a module; it returns the tensors that the model returns.
        nodes: its operations, in the order of the forward pass.
        head: the classifier's node.
        features: the node of the classifier's input.
        outputs: the nodes of the tensors that ``module`` returns.
        output: the node of the logits.
        expected: ``(1, tags)``, the logits that the model itself returned for the captured image.
        weight: ``(tags, C)``, of the classifier.
        bias: ``(tags,)``, of the classifier, or None.
        default_target: as given.
        sized: whether it fits images of one size only.
        size: ``(C, h, w)``, the size of the images for which it was captured.

    Raises:
        InputError: see ``TopDown``.
    """

    def __init__(
        self,
        captured: Captured,
        constants: Constants,
        classifier: str,
        default_target: str | None = None,
        compiled: bool = False,
    ):
        self.module = prepare(captured, constants)
        self.names, self.kinds = captured.names, captured.kinds
        self.default_target, self.sized, self._compiled = default_target, captured.sized, compiled
        self.size = captured.size
        self.nodes = [
            node for node in captured.graph.nodes if node.op in ("placeholder", "call_function", "call_module")
        ]
        self._places = {node: place for place, node in enumerate(self.nodes)}
        self.names = {**captured.names, "image": self.nodes[0]}
        self.names |= {node.name: node for node in self._functions() if node.name not in self.names}
        self.names.pop("", None)
        self.head = self._classifier(classifier)
        weights = weights_of(self.head.target, *map(self.constant, self.head.args[1:]))
        self.weight: Tensor = weights.weight.flatten(1)
        self.bias: Tensor | None = weights.bias
        self.features = self.head.all_input_nodes[0]
        self.outputs = [node for node, _ in captured.outputs]
        self.output, self.expected = self._output(captured.outputs)
        self.above = functools.cache(self._above)
        self.split = functools.cache(self._split)

    def _functions(self) -> list[Node]:
        """The operations that are not the output of a module without children."""
        inner = {path.rpartition(".")[0] for path in self.kinds}
        made = {node for path, node in self.names.items() if path not in inner}
        return [node for node in self.nodes if node not in made and not node.meta.get("negated")]

    def _classifier(self, name: str) -> Node:
        """The node of the linear layer or 1x1 convolution whose outputs are the tags."""
        node = self.find(name)
        while node.target in (operations.reshape, aten.permute.default, aten.mean.dim):
            node = node.all_input_nodes[0]
        pointwise = node.target is aten.convolution.default and self._is_pointwise(node)
        if not pointwise and not (node.target is aten.linear.default and len(node.meta["shape"]) == 2):
            raise InputError(
                f"classifier={name} is neither a linear layer nor a 1x1 convolution, but {title(node.target)}"
            )
        return node

    def _is_pointwise(self, node: Node) -> bool:
        weight: Tensor = self.constant(node.args[1])
        stride, transposed, groups = (node.args[i] for i in (3, 6, 8))
        return bool(weight[0, 0].numel() == 1 and set(stride) == {1} and not transposed and groups == 1)  # type: ignore[arg-type]

    def _output(self, outputs: list[tuple[Node, Tensor]]) -> tuple[Node, Tensor | None]:
        """The tensor among the model's outputs that is the logits, and its value."""
        later = {self.head}
        for node in self.nodes[self._places[self.head] + 1 :]:
            if later & set(node.all_input_nodes):
                later.add(node)
        # the classifier's own output comes first
        for node, value in sorted(outputs, key=lambda output: output[0] is not self.head):
            if node in later and value.ndim in (2, 4) and value.shape[1] == len(self.weight):
                return node, value
        return self.head, None

    def constant(self, argument: Any) -> Any:
        """The value of an argument that is a constant."""
        return getattr(self.module, str(argument.target)) if isinstance(argument, Node) else argument

    def operation(self, node: Node) -> Any:
        """The module or the function that a node calls."""
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target

    def run(self, node: Node, arguments: Any) -> object:
        """A node's value, as the network computes it.

        Args:
            node: the node.
            arguments: its positional and its keyword arguments.
        """
        return self.operation(node)(*arguments[0], **arguments[1])

    def kind(self, node: Node) -> object:
        """The key under which its rule is registered: a module's class, an ATen operation or one of ``operations``."""
        if node.op == "call_module":
            return type(self.operation(node))
        return getattr(node.target, "overloadpacket", node.target)

    def rule(self, node: Node) -> layers.Rule | None:
        """The function of ``layers`` for a node, or None."""
        return RULES.get(self.kind(node))

    def place(self, node: Node) -> str:
        """Where a node is, for messages: its module's path, and its operation."""
        path = node.meta["module"]
        return f"{path} ({title(node.target)})" if path else title(node.target)

    def find(self, name: str) -> Node:
        """The node of the layer with this name.

        Args:
            name: a module's name, its end where that is unique, or a name of the paper ("pool4").

        Raises:
            InputError: no such layer, or more than one.
        """
        names = self.names
        for wrapper in ("module.", "_orig_mod."):
            name = name if name in names else name.removeprefix(wrapper)
        found = [name] if name in names else [known for known in names if known.endswith(f".{name}")]
        if not found and (alias := self._alias(name)):
            return alias
        if len(found) != 1:
            if name in self.kinds:
                raise InputError(f"the model does not call {name!r} as a module, or its output does not depend on the "
                                 "image: name the layer after it")  # fmt: skip
            near = difflib.get_close_matches(name, names, 5, 0.3) or list(names)[:20]
            raise InputError(f"the model has {'more than one' if found else 'no'} layer {name!r}; similar names: "
                             f"{', '.join(found or near)}")  # fmt: skip
        return names[found[0]]

    def _alias(self, name: str) -> Node | None:
        """A layer by the paper's name: poolK is the K-th max pool with a stride, convK the K-th convolution.

        If a ReLU follows the convolution, convK is the ReLU.
        """
        kind = {"pool": aten.max_pool2d, "conv": aten.convolution}.get(name.rstrip("0123456789"))
        number = name.lstrip("polcnv")
        if kind is None or not number.isdigit():
            return None
        found = [n for n in self.nodes if self.kind(n) is kind and (kind is aten.convolution or _halves(n))]
        if not 1 <= int(number) <= len(found):
            return None
        node: Node = found[int(number) - 1]
        users: list[Node]
        users = [user for user in node.users if kind is aten.convolution and self.kind(user) is aten.relu]
        return users[0] if len(users) == len(node.users) == 1 else node

    def _above(self, targets: tuple[Node, ...], gates: bool = False) -> frozenset[Node]:
        """The nodes that signals pass between the classifier's input and the targets, without the lowest targets.

        Args:
            targets: the targets.
            gates: whether signals pass into gates, too, as gradients do.
        """
        below = {self.features}
        for node in reversed(self.nodes):
            if node in below:
                below.update(self.sources(node, gates))
        reached: set[Node] = set()
        for target in targets:
            above = {target}
            for node in self.nodes[self._places[target] + 1 :]:
                if above & set(self.sources(node, gates)):
                    above.add(node)
            if self.features not in above:
                raise InputError(f"target {self.place(target)} is not below the classifier, or no signal can reach it")
            reached |= (above & below) - {target}
        return frozenset(reached | self._pre_activations(reached, targets))

    def sources(self, node: Node, gates: bool = False) -> list[Node]:
        """The inputs of a node that a signal can reach.

        Args:
            node: the node.
            gates: whether gates are among them.
        """
        if node.target is operations.rows_like:
            return []
        inputs = [n for n in node.all_input_nodes if n.op != "get_attr" and n.meta.get("floats", True)]
        if node.target is operations.signed_affine and gates:
            return inputs[:1]
        if node.target is operations.pointwise:
            return inputs[1:] if gates else inputs[:1]
        if node.target in (operations.product, operations.expand_like) and not gates:
            return inputs[:1]
        return inputs

    def _pre_activations(self, reached: set[Node], targets: tuple[Node, ...]) -> set[Node]:
        """The nodes below that are needed for the excitation of a neuron whose nonlinearity is above the target."""
        found: set[Node] = set()
        waiting = [n for node in reached for n in self.sources(node) if n not in reached] + list(targets)
        while waiting:
            node = waiting.pop()
            if node not in found and node not in reached and self._is_pre_activation(node):
                found.add(node)
                waiting += self.sources(node)
        return found

    def _is_pre_activation(self, node: Node) -> bool:
        """Whether a node's value is a weighted sum before its nonlinearity."""
        rule = self.rule(node)
        if rule in (layers.weighted, layers.add, layers.affine, layers.signed_affine):
            return True
        return rule in PASSING and any(map(self._is_pre_activation, self.sources(node)))

    def check_grid(self, node: Node) -> None:
        """Checks that a layer has channels in its second dimension, and then rows and columns.

        Raises:
            InputError: it has no rows and columns, or its channels are last.
        """
        if len(node.meta["shape"]) != 4:
            raise InputError(f"target {self.place(node)} has no rows and columns: choose a layer before it")
        below = node
        while below.target is not aten.convolution.default:
            moved = below.target is aten.permute.default and below.args[1] == [0, 2, 3, 1]
            if moved or (below.target is aten.linear.default and len(below.meta["shape"]) == 4):
                raise InputError(f"target {self.place(node)} has its channels last: choose a layer after they are "
                                 "moved to the second dimension")  # fmt: skip
            sources = self.sources(below)
            if not sources or below.target is aten.permute.default:
                return
            below = sources[0]

    def averaged(self) -> Node:
        """The layer whose average over positions is the classifier's input. CAM reads its maps there.

        Raises:
            InputError: the classifier's input is not an average over positions.
        """
        node = self.average
        if node is None:
            raise InputError(
                f"CAM needs a classifier over averaged features; {self.head.name} reads {self.features.name}"
            )
        return node

    @functools.cached_property
    def average(self) -> Node | None:
        """See :meth:`averaged`; None if the classifier's input is not an average over positions."""
        node, averages = self.features, False
        while self.kind(node) in (*AVERAGES, *SHAPES):
            averages |= self.kind(node) in AVERAGES
            node = node.all_input_nodes[0]
        later = self.nodes[self._places[self.head] :]
        return node if averages or any(self.kind(n) in AVERAGES for n in later) else None

    def _split(self, targets: tuple[Node, ...], gates: bool = False) -> Split:
        """The network in two parts: the stem, which no signal passes, and the rest."""
        later = set(self.above(targets, gates))
        for node in self.nodes:
            if later & set(node.all_input_nodes):
                later.add(node)
        kept = {*targets, self.features, self.head, self.output}
        needed = set(kept)
        for node in reversed(self.nodes):
            if node in needed:
                # only the rules of Excitation Backprop read the negation of a sum
                signed = node in later and not gates
                needed.update(node.all_input_nodes if signed else self._inputs(node))
        stem = [node for node in self.nodes if node in needed and node not in later]
        outputs = [node for node in stem if node in kept or later & set(node.users)]
        module: Any = self._part(stem, outputs)
        rest = [node for node in self.nodes if node in needed and node in later]
        last = last_uses([*outputs, *rest], rest, {self.head, self.output})
        return Split(torch.compile(module) if self._compiled else module, outputs, rest, last)

    @staticmethod
    def _inputs(node: Node) -> list[Node]:
        """The nodes from which a value is computed."""
        negated = node.args[1] if node.target is operations.signed_affine else None
        return [source for source in node.all_input_nodes if source is not negated]

    def _part(self, nodes: list[Node], outputs: list[Node]) -> torch.fx.GraphModule:
        """Some nodes as a module, which takes the images.

        Args:
            nodes: in the order of the forward pass; all nodes that they read are among them.
            outputs: the nodes whose values it returns.
        """
        graph = torch.fx.Graph()
        copies: dict[Node, Node] = {}

        def copied(node: Node) -> Node:
            if node not in copies and node.target is operations.signed_affine:
                x, _, *constants = node.args
                arguments = torch.fx.node.map_arg((x, *constants), copied)
                copies[node] = graph.call_function(operations.affine, arguments)
            elif node not in copies:
                copies[node] = graph.node_copy(node, copied)
            return copies[node]

        for node in nodes:
            copied(node)
        graph.output(tuple(copies[node] for node in outputs))
        return torch.fx.GraphModule(self.module, graph)


def _halves(pool: Node) -> bool:
    """Whether a pool makes the image smaller."""
    size, stride = (*pool.args[1:3], ())[:2]
    return set(stride or size) != {1}  # type: ignore[arg-type]


def defaults(model: nn.Module) -> tuple[str | None, str | None]:
    """Classifier and target of a known model: torchvision's, timm's by their own description, or ours.

    Args:
        model: the model.
    """
    features, configuration = getattr(model, "feature_info", None), getattr(model, "default_cfg", None)
    if features is not None and configuration is not None:
        stages = [stage["module"] for stage in features if stage["reduction"] == 8]
        return configuration.get("classifier"), stages[-1] if stages else None
    classifier, target = DEFAULTS.get(type(model).__name__, (None, None))
    return classifier, target or getattr(model, "target", None)

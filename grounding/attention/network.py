"""A traced private copy of a network, in which layers are found by name."""

import difflib
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from grounding.attention import layers
from grounding.attention.layers import AVERAGES, RULES, SHAPE_METHODS, SHAPES
from grounding.attention.tracing import check_weights, trace
from proposals.errors import InputError

Node = torch.fx.Node

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
PASSING = (layers.average, layers.max_pool, layers.max_pool_function, layers.concatenate, layers.identity, layers.chunk)


class Network:
    """A traced copy of a model.

    Args:
        model: the model, which is not modified.
        classifier: the name of the layer whose outputs are the tags; by default the architecture's.
        compiled: whether to apply torch.compile to the part below the targets.

    Attributes:
        module: the traced copy.
        nodes: all nodes, in the order of the forward pass.
        head: the classifier's node.
        features: the node of the classifier's input.
        output: the node of the model's output.
        weight: ``(tags, C)``, of the classifier.
        bias: ``(tags,)``, of the classifier, or None.
        default_target: the architecture's target, or None if the architecture is not known.

    Raises:
        InputError: see ``TopDown``.
    """

    def __init__(self, model: nn.Module, classifier: str | None = None, compiled: bool = False):
        # torch.compile wraps the original model
        model = getattr(model, "_orig_mod", model)
        default_classifier, self.default_target = _defaults(model)
        self.module = trace(model)
        self.operation: Callable[[Node], Any] = functools.cache(self._operation)
        self.nodes = [node for node in self.module.graph.nodes if node.op != "output"]
        check_weights(self.module)
        self._names = self._name_layers()
        name = classifier or default_classifier or "classifier"
        if name == "classifier" != classifier and name not in self._names:
            last = ", ".join(list(self._names)[-4:])
            raise InputError(f"use classifier=LAYER, the layer whose outputs are the tags: {type(model).__name__} has "
                             f"no default; its last layers are {last}")  # fmt: skip
        self.head = self.find(name)
        layer = self.operation(self.head)
        if not isinstance(layer, nn.Linear) and not _is_pointwise(layer):
            raise InputError(f"classifier={name} is neither a linear layer nor a 1x1 convolution")
        self.weight: Tensor = layer.weight.flatten(1)
        self.bias: Tensor | None = layer.bias
        self.features = self.head.all_input_nodes[0]
        (output,) = (node.args[0] for node in self.module.graph.nodes if node.op == "output")
        self.output = output if isinstance(output, Node) else self.head
        self._compiled = compiled
        self.above = functools.cache(self._above)
        self.split = functools.cache(self._split)

    def _operation(self, node: Node) -> Any:
        """The module or the function that a node calls."""
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))
        if node.op == "call_method":
            # a view may need a copy, because the memory format differs; and no operation may work in place
            method = "reshape" if node.target == "view" else str(node.target).rstrip("_")
            return lambda x, *a, **k: getattr(x, method)(*a, **k)
        if node.op == "get_attr":
            return lambda: functools.reduce(getattr, str(node.target).split("."), self.module)
        return node.target

    def run(self, node: Node, arguments: Any) -> object:
        """A node's value, as the network computes it.

        Args:
            node: the node.
            arguments: its positional and its keyword arguments.
        """
        return self.operation(node)(*arguments[0], **arguments[1])

    def kind(self, node: Node) -> object:
        """The key under which its rule is registered: a module's class, a function, or a method's name."""
        if node.op != "call_module":
            return node.target
        operation = self.operation(node)
        return nn.Linear if isinstance(operation, nn.Linear) else type(operation)

    def find(self, name: str) -> Node:
        """The node of the layer with this name.

        Args:
            name: a module's name, its end where that is unique, or a name of the paper ("pool4").

        Raises:
            InputError: no such layer, or more than one.
        """
        names = self._names
        found = [name] if name in names else [known for known in names if known.endswith(f".{name}")]
        if not found and (alias := self._alias(name)):
            return alias
        if len(found) != 1:
            near = difflib.get_close_matches(name, names, 5, 0.3) or list(names)[:20]
            raise InputError(f"the model has {'more than one' if found else 'no'} layer {name!r}; similar names: "
                             f"{', '.join(found or near)}")  # fmt: skip
        return names[found[0]]

    def _name_layers(self) -> dict[str, Node]:
        names: dict[str, Node] = {}
        for node in self.nodes:
            names.update(dict.fromkeys(node.meta.get("nn_module_stack", {}), node))
            if node.op == "call_function":
                names[node.name] = node
            elif node.op == "placeholder":
                names["image"] = node
        return {name: node for name, node in names.items() if name}

    def _alias(self, name: str) -> Node | None:
        """A layer by the paper's name: poolK is the K-th max pool with a stride, convK the K-th convolution.

        If a ReLU follows the convolution, convK is the ReLU.
        """
        kind = {"pool": nn.MaxPool2d, "conv": nn.Conv2d}.get(name.rstrip("0123456789"))
        number = name.lstrip("polcnv")
        if kind is None or not number.isdigit():
            return None
        found = [n for n in self.nodes if self.kind(n) is kind and self._halves(n)]
        if not 1 <= int(number) <= len(found):
            return None
        node = found[int(number) - 1]
        after = next(iter(node.users), None)
        closes = kind is nn.Conv2d and after is not None and self.kind(after) in (nn.ReLU, torch.relu, "relu", "relu_")
        return after if closes else node

    def _halves(self, node: Node) -> bool:
        """Whether a layer counts for its paper's name: a convolution, or a pool that makes the image smaller."""
        operation = self.operation(node)
        return isinstance(operation, nn.Conv2d) or operation.stride not in (1, (1, 1))

    def _above(self, targets: tuple[Node, ...]) -> frozenset[Node]:
        """The nodes that signals pass between the classifier's input and the targets, without the lowest targets."""
        below = {self.features}
        for node in reversed(self.nodes):
            if node in below:
                below.update(node.all_input_nodes)
        reached: set[Node] = set()
        for target in targets:
            above = {target}
            for node in self.nodes[self.nodes.index(target) + 1 :]:
                if above & set(node.all_input_nodes):
                    above.add(node)
            if self.features not in above:
                raise InputError(f"target {target.name} is not below the classifier")
            reached |= (above & below) - {target}
        return frozenset(reached | self._pre_activations(reached, targets))

    def _pre_activations(self, reached: set[Node], targets: tuple[Node, ...]) -> set[Node]:
        """The nodes below that are needed for the excitation of a neuron whose nonlinearity is above the target."""
        found: set[Node] = set()
        waiting = [n for node in reached for n in node.all_input_nodes if n not in reached] + list(targets)
        while waiting:
            node = waiting.pop()
            if node not in found and node not in reached and self._is_pre_activation(node):
                found.add(node)
                waiting += node.all_input_nodes
        return found

    def _is_pre_activation(self, node: Node) -> bool:
        """Whether a node's value is a weighted sum before its nonlinearity."""
        rule = RULES.get(self.kind(node))
        if rule in (layers.weighted, layers.add):
            return True
        return rule in PASSING and any(map(self._is_pre_activation, node.all_input_nodes))

    def averaged(self) -> Node:
        """The layer whose average over positions is the classifier's input. CAM reads its maps there.

        Raises:
            InputError: the classifier's input is not an average over positions.
        """
        node, averages = self.features, False
        while self.kind(node) in (*AVERAGES, *SHAPES, *SHAPE_METHODS, nn.Dropout, nn.Identity):
            averages |= self.kind(node) in AVERAGES
            node = node.all_input_nodes[0]
        if not averages and not any(self.kind(n) in AVERAGES for n in self.nodes[self.nodes.index(self.head) :]):
            raise InputError(f"CAM needs a classifier over averaged features; {self.head.name} reads {node.name}")
        return node

    def scalar(self, node: Node) -> bool:
        """Whether a node computes sizes, and no values that a signal could pass."""
        inputs = node.all_input_nodes
        return measures(node) or bool(node.op == "call_function" and inputs and all(map(self.scalar, inputs)))

    def _split(self, targets: tuple[Node, ...]) -> "Split":
        """The network in two parts: the stem, which no signal passes, and the rest."""
        later = set(self.above(targets))
        for node in self.nodes:
            if later & set(node.all_input_nodes):
                later.add(node)
        stem = [node for node in self.nodes if node not in later]
        kept = {*targets, self.features, self.head, self.output}
        outputs = [node for node in stem if node in kept or later & set(node.users)]
        module: Any = self._part(stem, outputs)
        rest = [node for node in self.nodes if node in later]
        return Split(torch.compile(module) if self._compiled else module, outputs, rest)

    def _part(self, nodes: list[Node], outputs: list[Node]) -> torch.fx.GraphModule:
        graph = torch.fx.Graph()
        copies: dict[Node, Node] = {}
        for node in nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in outputs))
        return torch.fx.GraphModule(self.module, graph)


@dataclass(frozen=True)
class Split:
    """A network in two parts.

    Attributes:
        stem: computes, from the images, the values of ``outputs``.
        outputs: the nodes of the stem that the rest needs, and the targets among them.
        rest: the other nodes, in the order of the forward pass.
    """

    stem: Callable[[Tensor], tuple[object, ...]]
    outputs: list[Node]
    rest: list[Node]


def _is_pointwise(layer: object) -> bool:
    """Whether a layer is a 1x1 convolution."""
    if not isinstance(layer, nn.Conv2d):
        return False
    return (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)


def _defaults(model: nn.Module) -> tuple[str | None, str | None]:
    """Classifier and target of a known model: torchvision's, timm's by their own description, or ours."""
    features, configuration = getattr(model, "feature_info", None), getattr(model, "default_cfg", None)
    if features is not None and configuration is not None:
        stages = [stage["module"] for stage in features if stage["reduction"] == 8]
        return configuration.get("classifier"), stages[-1] if stages else None
    classifier, target = DEFAULTS.get(type(model).__name__, (None, None))
    return classifier, target or getattr(model, "target", None)


def is_item(node: Node) -> bool:
    """Whether a node picks one of several values."""
    return node.op == "call_function" and node.target is operator.getitem


def measures(node: Node) -> bool:
    """Whether a node asks a tensor for its size."""
    return (node.op == "call_method" and node.target in ("size", "dim")) or node.target is getattr

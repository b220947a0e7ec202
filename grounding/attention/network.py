"""A network as the walk needs it: a private copy, traced, its batch norms folded, its layers known by name."""

import copy
import difflib
import functools
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from grounding.attention import layers as rules
from grounding.attention.layers import AVERAGES, RULES, SHAPE_METHODS, SHAPES
from proposals.errors import InputError

Node = torch.fx.Node

# torch.fx patches module calls of the whole process while it traces
_TRACING = threading.Lock()

# classifier and target by the class of the model; the targets of the paper where it has one, else the last layer of
# stride 8
DEFAULTS = {
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

# their output is open where an input is
PASSING = (rules.average, rules.max_pool, rules.max_pool_function, rules.concatenate, rules.identity, rules.chunk)

REFUSED = {
    nn.LayerNorm: "a layer norm subtracts the mean of all channels, so that no input's share in an output is its own",
    nn.GroupNorm: "a group norm subtracts means of the image, so that no input's share in an output is its own",
    nn.InstanceNorm2d: "an instance norm subtracts means of the image, so no input's share in an output is its own",
    nn.MultiheadAttention: "attention multiplies activations with one another",
}


class Network:
    """A traced copy of a model.

    Args:
        model: the model; it is not modified. classifier: the layer whose outputs are the tags, by name.
        compiled: whether torch.compile takes the part below the targets.

    Attributes:
        nodes: all nodes in their order; head: the classifier's; features: its input's; output: the model's own.
        weight, bias: (tags, C) and (tags,) of the classifier.
        default_target: the architecture's, None if it is not known.

    Raises:
        InputError: see ``TopDown``.
    """

    def __init__(self, model: nn.Module, classifier: str | None = None, compiled: bool = False):
        # torch.compile wraps the model that it was given
        model = getattr(model, "_orig_mod", model)
        default_classifier, self.default_target = _defaults(model)
        self.module = _trace(model)
        self.operation = functools.cache(self._operation)
        self.nodes = [node for node in self.module.graph.nodes if node.op != "output"]
        _check_weights(self.module)
        self._names = self._name_layers()
        name = classifier or default_classifier or "classifier"
        if name == "classifier" != classifier and name not in self._names:
            raise InputError(f"say classifier=LAYER, the layer whose outputs are the tags: {type(model).__name__} is "
                             f"not known here; its last layers are {', '.join(list(self._names)[-4:])}")  # fmt: skip
        self.head = self.find(name)
        layer = self.operation(self.head)
        pointwise = isinstance(layer, nn.Conv2d) and (layer.kernel_size, layer.stride, layer.groups) == (
            (1, 1),
            (1, 1),
            1,
        )
        if not isinstance(layer, nn.Linear) and not pointwise:
            raise InputError(f"classifier={name} is neither a linear layer nor a 1x1 convolution")
        self.weight, self.bias = layer.weight.flatten(1), layer.bias
        self.features = self.head.all_input_nodes[0]
        (output,) = (node for node in self.module.graph.nodes if node.op == "output")
        self.output = output.args[0] if isinstance(output.args[0], Node) else self.head
        self._compiled = compiled
        self.above = functools.cache(self._above)
        self.split = functools.cache(self._split)

    def _operation(self, node: Node):
        """What a node computes: its module, or a function."""
        if node.op == "call_module":
            return self.module.get_submodule(node.target)
        if node.op == "call_method":
            # what views in one memory format may have to be copied in another; and nothing works in place
            method = "reshape" if node.target == "view" else node.target.rstrip("_")
            return lambda x, *a, **k: getattr(x, method)(*a, **k)
        if node.op == "get_attr":
            return lambda: functools.reduce(getattr, node.target.split("."), self.module)
        return node.target

    def run(self, node: Node, arguments: tuple) -> object:
        """A node's value, as the network computes it."""
        return self.operation(node)(*arguments[0], **arguments[1])

    def kind(self, node: Node) -> object:
        """What its rule is registered for."""
        if node.op != "call_module":
            return node.target
        operation = self.operation(node)
        return nn.Linear if isinstance(operation, nn.Linear) else type(operation)

    def find(self, name: str) -> Node:
        """The node whose output is that of the layer with this name, or with the one name that ends in it.

        Raises:
            InputError: no layer, or more than one.
        """
        names = self._names
        found = [name] if name in names else [known for known in names if known.endswith(f".{name}")]
        if not found and (alias := self._alias(name)):
            return alias
        if len(found) != 1:
            near = difflib.get_close_matches(name, names, 5, 0.3) or list(names)[:20]
            raise InputError(f"the model has {'more than one' if found else 'no'} layer {name!r}; near it: "
                             f"{', '.join(found or near)}")  # fmt: skip
        return names[found[0]]

    def _name_layers(self) -> dict[str, Node]:
        names: dict[str, Node] = {}
        for node in self.nodes:
            names |= dict.fromkeys(node.meta.get("nn_module_stack", {}), node)
            if node.op == "call_function":
                names[node.name] = node
            elif node.op == "placeholder":
                names["image"] = node
        return {name: node for name, node in names.items() if name}

    def _alias(self, name: str) -> Node | None:
        """The paper's names: poolK is the K-th max pool that halves, convK the K-th convolution with its ReLU."""
        kind = {"pool": nn.MaxPool2d, "conv": nn.Conv2d}.get(name.rstrip("0123456789"))
        number = name.lstrip("polcnv")
        if kind is None or not number.isdigit():
            return None
        layers = [n for n in self.nodes if self.kind(n) is kind and self._halves(n)]
        if not 1 <= int(number) <= len(layers):
            return None
        node = layers[int(number) - 1]
        after = next(iter(node.users), None)
        closes = kind is nn.Conv2d and after is not None and self.kind(after) in (nn.ReLU, torch.relu, "relu", "relu_")
        return after if closes else node

    def _halves(self, node: Node) -> bool:
        operation = self.operation(node)
        return isinstance(operation, nn.Conv2d) or operation.stride not in (1, (1, 1))

    def _above(self, targets: tuple[Node, ...]) -> frozenset[Node]:
        """The nodes that mass passes on its way from the classifier's input down to the targets, without the lowest."""
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
                raise InputError(f"target {target.name} does not lie below the classifier")
            reached |= (above & below) - {target}
        return frozenset(reached | self._unfinished(reached, targets))

    def _unfinished(self, reached: set[Node], targets: tuple[Node, ...]) -> set[Node]:
        """Below these, what is needed to know the excitation of a neuron whose nonlinearity lies above."""
        found, waiting = (
            set(),
            [n for node in reached for n in node.all_input_nodes if n not in reached] + list(targets),
        )
        while waiting:
            node = waiting.pop()
            if node not in found and node not in reached and self._open(node):
                found.add(node)
                waiting += node.all_input_nodes
        return found

    def _open(self, node: Node) -> bool:
        """Whether a node's value is a sum that a nonlinearity further up makes a neuron of."""
        rule = RULES.get(self.kind(node))
        if rule in (rules.weighted, rules.add):
            return True
        return rule in PASSING and any(map(self._open, node.all_input_nodes))

    def averaged(self) -> Node:
        """The layer whose average over positions the classifier reads, as class activation maps need it.

        Raises:
            InputError: the classifier reads something else.
        """
        node, averages = self.features, False
        while self.kind(node) in (*AVERAGES, *SHAPES, *SHAPE_METHODS, nn.Dropout, nn.Identity):
            averages |= self.kind(node) in AVERAGES
            node = node.all_input_nodes[0]
        if not averages and not any(self.kind(n) in AVERAGES for n in self.nodes[self.nodes.index(self.head) :]):
            raise InputError(f"CAM needs a classifier over averaged features; {self.head.name} reads {node.name}")
        return node

    def scalar(self, node: Node) -> bool:
        """Whether a node computes sizes, and no values that mass could pass."""
        return measures(node) or bool(node.op == "call_function" and node.all_input_nodes
                                      and all(map(self.scalar, node.all_input_nodes)))  # fmt: skip

    def _split(self, targets: tuple[Node, ...]) -> "Split":
        """The network in two: what no mass passes, and the rest."""
        later = set(self.above(targets))
        for node in self.nodes:
            if later & set(node.all_input_nodes):
                later.add(node)
        stem = [node for node in self.nodes if node not in later]
        kept = {*targets, self.features, self.head, self.output}
        outputs = [node for node in stem if node in kept or later & set(node.users)]
        module = self._part(stem, outputs)
        rest = [node for node in self.nodes if node in later]
        return Split(torch.compile(module) if self._compiled else module, outputs, rest)

    def _part(self, nodes: list[Node], outputs: list[Node]) -> torch.fx.GraphModule:
        graph, copies = torch.fx.Graph(), {}
        for node in nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in outputs))
        return torch.fx.GraphModule(self.module, graph)


@dataclass(frozen=True)
class Split:
    """A network in two.

    Attributes:
        stem: images -> the values of ``outputs``, the nodes that the rest reads, or that are asked for.
        rest: the other nodes, in their order.
    """

    stem: Callable[[Tensor], tuple[object, ...]]
    outputs: list[Node]
    rest: list[Node]


def _defaults(model: nn.Module) -> tuple[str | None, str | None]:
    """Classifier and target of a known model: torchvision's, timm's by what they say of themselves, or ours."""
    if hasattr(model, "feature_info") and hasattr(model, "default_cfg"):
        stages = [stage["module"] for stage in model.feature_info if stage["reduction"] == 8]
        return model.default_cfg.get("classifier"), stages[-1] if stages else None
    classifier, target = DEFAULTS.get(type(model).__name__, (None, None))
    return classifier, target or getattr(model, "target", None)


def is_item(node: Node) -> bool:
    """Whether a node takes one of several values."""
    return node.op == "call_function" and node.target is operator.getitem


def measures(node: Node) -> bool:
    """Whether a node asks a tensor for its size."""
    return (node.op == "call_method" and node.target in ("size", "dim")) or node.target is getattr


def refusal(kind: object) -> str:
    """Why mass cannot pass an operation."""
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    for refused, reason in REFUSED.items():
        if isinstance(kind, type) and issubclass(kind, refused):
            return f"no mass passes down {name}: {reason}"
    return f"no rule says how mass passes down {name}"


class _Tracer(torch.fx.Tracer):
    """Takes every layer that has a rule, or a reason to have none, as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = type(m) in RULES or isinstance(m, (nn.Linear, *REFUSED))
        return whole or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> torch.fx.GraphModule:
    """A private copy in evaluation mode, traced, with every batch norm after a convolution folded into it."""
    with _TRACING:
        model = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        try:
            _split_norms(model)
            traced = torch.fx.GraphModule(model, _Tracer().trace(model))
        except (torch.fx.proxy.TraceError, TypeError) as error:
            raise InputError(f"torch.fx cannot trace this model: {error}") from error
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and type(traced.get_submodule(node.target)) is nn.BatchNorm2d:
            _fold(traced, node)
    for node in traced.graph.nodes:
        if _in_place(traced, node):
            _redirect(traced, node)
    return traced


def _split_norms(model: nn.Module) -> None:
    """Puts a batch norm and its activation in the place of a module that is both, as timm has them."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d) and hasattr(norm, "act"):
                plain = nn.BatchNorm2d(norm.num_features, norm.eps)
                plain.load_state_dict(norm.state_dict())
                plain.to(norm.weight).eval().requires_grad_(False)
                setattr(parent, name, nn.Sequential(plain, norm.act))


def _in_place(traced: torch.fx.GraphModule, node: Node) -> bool:
    """Whether a node changes its argument."""
    if node.op == "call_module":
        return getattr(traced.get_submodule(node.target), "inplace", False) is True
    named = node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__")
    return named or node.kwargs.get("inplace") is True


def _redirect(traced: torch.fx.GraphModule, node: Node) -> None:
    """Who reads the argument of an operation in place after it reads its result."""
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    for reader in list(node.args[0].users):
        if order[reader] > order[node]:
            reader.replace_input_with(node.args[0], node)


def _fold(traced: torch.fx.GraphModule, norm: Node) -> None:
    """Takes a batch norm into the convolution before it, in a module of its own: the convolution may be shared."""
    before = norm.args[0]
    if before.op != "call_module" or len(before.users) > 1:
        return
    convolution = traced.get_submodule(before.target)
    if type(convolution) is not nn.Conv2d:
        return
    folded = f"{before.name}_folded"
    traced.add_submodule(folded, fuse_conv_bn_eval(convolution, traced.get_submodule(norm.target)))
    before.target = folded
    before.meta["nn_module_stack"] = {**before.meta["nn_module_stack"], **norm.meta["nn_module_stack"]}
    norm.replace_all_uses_with(before)
    traced.graph.erase_node(norm)


def _check_weights(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float16:
            raise InputError(f"{name} is float16, which g overflows; use float32, or bfloat16 on a GPU")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"the weights {name} are not finite")

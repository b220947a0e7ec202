"""One traced forward pass, and one batched top-down pass for many words.

scene = TopDown(model, target="pool2", classifier="fc").look(images)
scene.logits                               # (N, tags)
scene.attend([3, 17], method="c-mwp")      # (N, 2, h, w)
"""

import copy
import difflib
import functools
import threading
from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from grounding.attention import METHODS
from grounding.rules import RULES, Descend, Rule, Stream, close, ratio, through
from proposals.errors import InputError

# torch.fx patches module calls of the whole process while it traces
_TRACING = threading.Lock()


class TopDown:
    """A CNN classifier prepared for top-down attention.

    The model is copied, its batch norms are folded into the convolutions before them, and it is traced once; the model
    given is never modified, nothing is stored here afterwards, and threads may share it.

    Args:
        model: any ``nn.Module`` that torch.fx can trace and whose layers between target and classifier have a rule.
        target: the layer whose neurons' marginal winning probability is the map; a module's name, or its end where
            that is unique ("pool2" for "trunk.pool2").
        classifier: the ``nn.Linear`` or 1x1 ``nn.Conv2d`` whose outputs are the tags.
        chunk: how many (image, word) pairs go down at once; bounds the memory.

    Raises:
        InputError: an unknown layer (the nearest names are offered), a target that does not lie below the classifier,
            or a layer between the two that has no rule.
    """

    def __init__(self, model: nn.Module, target: str, classifier: str = "classifier", chunk: int = 32):
        self._module = _trace(model)
        self._chunk = chunk
        nodes = list(self._module.graph.nodes)
        head, self._target = _find(nodes, classifier), _find(nodes, target)
        layer = self._operation(head)
        if not isinstance(layer, nn.Linear) and not (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
            raise InputError(f"classifier={classifier} is neither a linear layer nor a 1x1 convolution")
        self._weight, self._bias = layer.weight.flatten(1), layer.bias
        self._features = head.all_input_nodes[0]
        self._above = _between(nodes, self._target, self._features)
        self._nodes = nodes[: nodes.index(head)]
        self._last_read = _last_read(self._nodes, keep={self._target, self._features})
        for node in self._above:
            self._rule(node)

    def look(self, images: Tensor) -> "Scene":
        """Runs the network once.

        Args:
            images: (N, 3, h, w), preprocessed as the model expects, of the dtype of its weights.

        Raises:
            InputError: images of another shape or dtype.
        """
        if images.ndim != 4 or images.dtype != self._weight.dtype:
            raise InputError(f"images must be (N, 3, h, w) of {self._weight.dtype}, not {images.dtype} "
                             f"{tuple(images.shape)}")  # fmt: skip
        with torch.no_grad():
            return self._ascend(images.contiguous(memory_format=torch.channels_last))

    def _ascend(self, images: Tensor) -> "Scene":
        streams: dict[torch.fx.Node, Stream] = {}
        walk: list[tuple[torch.fx.Node, Descend]] = []
        for node in self._nodes:
            if node.op == "placeholder":
                streams[node] = Stream(images)
            elif node in self._above:
                arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), streams.__getitem__)
                streams[node], descend = self._rule(node)(self._operation(node), *arguments, **keywords)
                walk.append((node, descend))
            else:
                streams[node] = self._plain(node, streams)
            for used in self._last_read[node]:
                del streams[used]
        return Scene(self, streams[self._target], streams[self._features], walk)

    def _plain(self, node: torch.fx.Node, streams: dict[torch.fx.Node, Stream]) -> Stream:
        """A layer that no mass passes. Of a signed target only the positive part can win."""
        values = {used: streams[used].value for used in node.all_input_nodes}
        arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        value = self._operation(node)(*arguments, **keywords)
        return Stream(value, value.clamp(min=0)) if node is self._target and value.min() < 0 else Stream(value)

    def _operation(self, node: torch.fx.Node):
        if node.op == "call_module":
            return self._module.get_submodule(node.target)
        if node.op == "call_method":
            return lambda x, *a, **k: getattr(x, node.target)(*a, **k)
        if node.op == "get_attr":
            return lambda: functools.reduce(getattr, node.target.split("."), self._module)
        return node.target

    def _rule(self, node: torch.fx.Node) -> Rule:
        key = type(self._operation(node)) if node.op == "call_module" else node.target
        if key not in RULES:
            name = key if isinstance(key, str) else getattr(key, "__name__", str(key))
            raise InputError(f"{node.name}: no rule says how mass passes down {name}; choose a target above it, or "
                             "add one with grounding.rules.rule")  # fmt: skip
        return RULES[key]


class Scene:
    """Images that a network has looked at; any number of words may be asked of them.

    Attributes:
        score_maps: (N, tags, h', w'), what the classifier says at each of its positions (1 x 1 at 224 pixels).
    """

    def __init__(self, topdown: TopDown, target: Stream, features: Stream, walk: list):
        self._topdown, self._target, self._features, self._walk = topdown, target, features, walk
        flat = features.value.flatten(2) if features.value.ndim == 4 else features.value.unsqueeze(2)
        scores = torch.einsum("tc,ncp->ntp", topdown._weight, flat)
        scores = scores if topdown._bias is None else scores + topdown._bias[:, None]
        positions = features.value.shape[2:] if features.value.ndim == 4 else (1, 1)
        self.score_maps = scores.unflatten(2, positions)

    @property
    def logits(self) -> Tensor:
        """(N, tags): the classifier's outputs, averaged over its positions."""
        return self.score_maps.mean((2, 3))

    @torch.no_grad()
    def attend(self, units: Sequence[int] | Tensor, method: str = "c-mwp") -> Tensor:
        """The attention maps of words at the target layer.

        Args:
            units: W indices of tags, or a (W, tags) matrix of top-down signals, each a distribution P(A_0) over the
                output units (any finite numbers: a map is linear in its signal until c-MWP is truncated).
            method: a name of ``grounding.attention.METHODS``.

        Returns:
            (N, W, h, w); a map of "mwp" is >= 0 and sums to the sum of its signal (less only where some Z is 0); one
            of "c-mwp" is >= 0.

        Raises:
            InputError: no unit, a unit that the classifier does not have, or an unknown method.
        """
        if method not in METHODS:
            raise InputError(f"there is no attention method {method!r}; choose one of {', '.join(METHODS)}")
        signals = self._signals(units)
        used = signals.any(0).nonzero()[:, 0]
        # words share one pass, and passes share the memory bound
        words = max(1, self._topdown._chunk // len(self.score_maps))
        parts = [METHODS[method](self, part[:, used], used) for part in signals.split(words)]
        return torch.cat(parts, 1)

    def prior(self, signals: Tensor, used: Tensor, dual: bool = False) -> Tensor:
        """The signals' g at the classifier's input: sum over tags of s_t . share . W+_t / (W+_t . x).

        The share of a position is the softmax over positions of the tag's own score map. The dual unit (Sec. 3.3) has
        the negated weights, W- = max(-W, 0), and the same shares.

        Args:
            signals: (W, T) over the T tags that are used; used: (T,) their indices; dual: of the dual units.

        Returns:
            (N, W, *features), mass ``signals.sum(1)`` a word and image.
        """
        weight = self._topdown._weight[used]
        weight = (-weight if dual else weight).clamp(min=0)
        features = self._features.activation
        flat = features.flatten(2) if features.ndim == 4 else features.unsqueeze(2)
        share = self.score_maps[:, used].flatten(2).softmax(2)
        winning = ratio(share, torch.einsum("tc,ncp->ntp", weight, flat))
        g = torch.einsum("wt,ntp,tc->nwcp", signals, winning, weight)
        return g.reshape(*g.shape[:2], *features.shape[1:])

    def descend(self, g: Tensor) -> Tensor:
        """Sends g (N, W, *features) down to the target: (N, W, h, w), the marginal winning probability of its
        neurons, p = x . g, summed over channels (Sec. 3.2)."""
        images, words = g.shape[:2]
        waiting = {self._topdown._features: through(close(self._features), g.flatten(0, 1))}
        for node, step in reversed(self._walk):
            if node not in waiting:
                continue
            for source, share in zip(node.all_input_nodes, step(waiting.pop(node)), strict=True):
                waiting[source] = waiting[source] + share if source in waiting else share
        mass = waiting[self._topdown._target].unflatten(0, (images, words))
        return torch.einsum("nchw,nvchw->nvhw", self._target.z, mass)

    def _signals(self, units: Sequence[int] | Tensor) -> Tensor:
        weight = self._topdown._weight
        if isinstance(units, Tensor) and units.ndim == 2:
            if units.shape[1] != len(weight) or not len(units) or not units.isfinite().all():
                raise InputError(f"signals must be a finite (W, {len(weight)}) matrix, not {tuple(units.shape)}")
            return units.to(weight)
        ids = torch.as_tensor(units, dtype=torch.long, device=weight.device)
        if ids.ndim != 1 or not len(ids):
            raise InputError("no word to attend to: give at least one tag")
        unknown = ids[(ids < 0) | (ids >= len(weight))]
        if len(unknown):
            raise InputError(f"tag {int(unknown[0])} does not exist: the classifier has {len(weight)}")
        return F.one_hot(ids, len(weight)).to(weight)


class _Tracer(torch.fx.Tracer):
    """Takes every layer that has a rule as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in RULES or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> torch.fx.GraphModule:
    """A private copy in evaluation mode, traced, with every batch norm after a convolution folded into it."""
    with _TRACING:
        model = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        try:
            traced = torch.fx.GraphModule(model, _Tracer().trace(model))
        except torch.fx.proxy.TraceError as error:
            raise InputError(f"torch.fx cannot trace this model: {error}") from error
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and type(traced.get_submodule(node.target)) is nn.BatchNorm2d:
            _fold(traced, node)
    return traced


def _fold(traced: torch.fx.GraphModule, norm: torch.fx.Node) -> None:
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


def _find(nodes: list[torch.fx.Node], name: str) -> torch.fx.Node:
    """The node whose output is that of the layer with this name, or with the one name that ends in it."""
    names: dict[str, torch.fx.Node] = {}
    for node in nodes:
        names |= dict.fromkeys(node.meta.get("nn_module_stack", {}), node)
        if node.op == "call_function":
            names[node.name] = node
    found = [name] if name in names else [known for known in names if known.endswith(f".{name}")]
    if len(found) != 1:
        near = difflib.get_close_matches(name, names, 5, 0.3) or list(names)[:20]
        raise InputError(f"the model has {'more than one' if found else 'no'} layer {name!r}; near it: "
                         f"{', '.join(found or near)}")  # fmt: skip
    return names[found[0]]


def _between(nodes: list[torch.fx.Node], target: torch.fx.Node, features: torch.fx.Node) -> set[torch.fx.Node]:
    """The nodes that mass passes on its way from the classifier's input to the target, without the target."""
    above = {target}
    for node in nodes[nodes.index(target) :]:
        if above & set(node.all_input_nodes):
            above.add(node)
    below = {features}
    for node in reversed(nodes):
        if node in below:
            below.update(node.all_input_nodes)
    if features not in above:
        raise InputError(f"target {target.name} does not lie below the classifier")
    return (above & below) - {target}


def _last_read(nodes: list[torch.fx.Node], keep: set[torch.fx.Node]) -> dict[torch.fx.Node, list[torch.fx.Node]]:
    """What each node is the last to read, so that the forward pass holds no activation longer than it must."""
    last = {used: node for node in nodes for used in node.all_input_nodes if used not in keep}
    return {node: [used for used, reader in last.items() if reader is node] for node in nodes}

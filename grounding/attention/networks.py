"""The captures of one model: one for images of all sizes, or one for each size."""

import difflib
import re
from collections import OrderedDict
from threading import Lock

import torch
import torch.fx
from torch import Tensor, nn

from grounding.attention import layers
from grounding.attention.capture.capture import Captured, capture
from grounding.attention.capture.constants import Constants
from grounding.attention.capture.copying import check_weights, opened, private_copy
from grounding.attention.capture.graph import title
from grounding.attention.network import Network, defaults
from grounding.attention.verification import verify
from proposals.errors import InputError

SIZES = 16  # captures that are kept, of a network that must be captured for each size


class Networks:
    """Captures a model when images of a new size need it. Threads may share it.

    Args:
        model: the model, which is not modified.
        classifier: the name of the layer whose outputs are the tags; by default the architecture's.
        compiled: whether to apply torch.compile to the part below the targets.

    Attributes:
        like: a weight of the model, which has the dtype and the device that images must have.
        default_target: the architecture's target, or None if the architecture is not known.
        count: how many times the model was captured.

    Raises:
        InputError: see ``TopDown``.
    """

    def __init__(self, model: nn.Module, classifier: str | None = None, compiled: bool = False):
        self._model = private_copy(model)
        check_weights(self._model)
        name, self.default_target = defaults(opened(model))
        self._modules = [path for path, _ in self._model.named_modules() if path]
        self._classifier, self._compiled = classifier or name or "classifier", compiled
        if self._classifier == "classifier" != classifier and "classifier" not in self._modules:
            last = ", ".join(self._modules[-4:])
            kind = type(self._model).__name__
            raise InputError(f"use classifier=LAYER, the layer whose outputs are the tags: {kind} has no default; its "
                             f"last layers are {last}")  # fmt: skip
        self.check(self._classifier)
        weights = [t for t in (*self._model.parameters(), *self._model.buffers()) if t.is_floating_point()]
        if not weights:
            raise InputError(f"{type(self._model).__name__} has no weights")
        self.like = weights[0]
        self._constants, self._lock = Constants(), Lock()
        self._kept: OrderedDict[torch.Size | None, Network] = OrderedDict()
        self.count = 0

    def check(self, name: str) -> None:
        """Checks the name of a layer as far as that is possible before the model has run.

        Raises:
            InputError: it can be neither a module nor an operation.
        """
        if any(path == name or path.endswith(f".{name}") for path in self._modules):
            return
        kind = re.sub(r"_\d+$", "", name)
        operations = {title(kind) for kind in layers.RULES} | {"image"}
        known = kind in operations or re.fullmatch(r"(conv|pool)\d+", name)
        if not known and not name.startswith(("module.", "_orig_mod.")):
            near = difflib.get_close_matches(name, self._modules, 5, 0.3) or self._modules[:20]
            raise InputError(f"the model has no layer {name!r}; similar names: {', '.join(near)}")

    def __call__(self, images: Tensor) -> Network:
        """The network for images of this size.

        Args:
            images: ``(N, C, h, w)``.

        Raises:
            InputError: the model cannot be captured (see ``capture.capture``), or has no such classifier.
        """
        with self._lock:
            network = self._kept.get(None) or self._kept.get(images.shape[1:])
            if network is None:
                network = self._capture(images[:1])
            if network.sized:
                self._kept.move_to_end(images.shape[1:])
            return network

    def _capture(self, image: Tensor) -> Network:
        captured = capture(self._model, image, _has_rule)
        if not self.count:
            check_repeatable(captured, capture(self._model, image.flip(-1) / 2, _has_rule))
        network = Network(captured, self._constants, self._classifier, self.default_target, self._compiled)
        network.sized |= any(key is not None for key in self._kept)
        verify(network, self._model, image.contiguous(memory_format=torch.channels_last))
        self.count += 1
        self._kept[image.shape[1:] if network.sized else None] = network
        if len(self._kept) > SIZES:
            self._kept.popitem(last=False)
        return network

    def renew(self, images: Tensor) -> bool:
        """Captures the model for the size of some images only, after a capture for all sizes failed there.

        Args:
            images: ``(N, C, h, w)``.

        Returns:
            False if the capture was of this size already.
        """
        with self._lock:
            network = self._kept.get(None)
            if network is None or network.size == images.shape[1:]:
                return False
            del self._kept[None]
            self._kept[network.size] = network
            network.sized = True
            self._capture(images[:1])
            return True


def _has_rule(module: nn.Module) -> bool:
    return type(module) in layers.RULES


def check_repeatable(first: Captured, second: Captured) -> None:
    """Checks that a model does the same twice, for two images.

    Args:
        first: a capture.
        second: a capture for another image of the same size.

    Raises:
        InputError: they differ; the message names the layer.
    """
    pairs = list(zip(first.graph.nodes, second.graph.nodes, strict=False))
    places = {id(node): i for pair in [first.graph.nodes, second.graph.nodes] for i, node in enumerate(pair)}

    def described(node: torch.fx.Node) -> str:
        return str((node.op, node.target, torch.fx.node.map_arg((node.args, node.kwargs), lambda n: places[id(n)])))

    for a, b in pairs:
        constant = a.op == b.op == "get_attr"
        same = (
            _equal(first.attributes[a.target], second.attributes[b.target])
            if constant
            else described(a) == described(b)
        )
        if not same:
            raise changes(a)
    if len(first.graph.nodes) != len(second.graph.nodes):
        raise changes(pairs[-1][0])


def changes(node: torch.fx.Node) -> InputError:
    """The error for a model that does not do the same twice."""
    place = node.meta["module"] or title(node.target)
    return InputError(f"the model does something else in its second forward pass, or for another image (at {place}): "
                      "maps need a network whose operations do not depend on its state or on values")  # fmt: skip


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    return a is b

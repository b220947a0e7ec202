"""The captures of one model: one for images of all sizes, or one for each size.

At the first look, the model is captured twice, for a changed part of the image and for the image. If the captures
differ, or the image is not larger than the part, the model is captured again, for a changed image of the same size. Two
captures for one size must be equal. If nothing in them depends on the size of the image, the model is captured once
more for the second size that is looked at. If that capture is equal, too, all further sizes need none. Otherwise each
size has its own, and the last ``SIZES`` are kept.
"""

import difflib
import re
from collections import OrderedDict
from itertools import zip_longest
from threading import Lock
from typing import Any

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
PART = 224  # pixels of each side of the part of an image; most networks accept no less


class Networks:
    """Captures a model when images of a new size need it. Threads may share it.

    Args:
        model: the model, which is not modified.
        classifier: the name of the layer whose outputs are the tags; by default the architecture's.
        compiled: whether to apply torch.compile to the part below the targets.
        default_target: the layer of the methods that have no target of their own; by default the architecture's.

    Attributes:
        model: the private copy of the model.
        like: a weight of the model, which has the dtype and the device that images must have.
        default_target: as given, or the architecture's; None if the architecture is not known.
        count: how many times the model ran to be captured.

    Raises:
        InputError: see ``TopDown``.
    """

    def __init__(self, model: nn.Module, classifier: str | None = None, compiled: bool = False,
                 default_target: str | None = None):  # fmt: skip
        self.model = private_copy(model)
        check_weights(self.model)
        name, target = defaults(opened(model))
        self.default_target = default_target or target
        self._modules = [path for path, _ in self.model.named_modules() if path]
        self._classifier, self._compiled = classifier or name or "classifier", compiled
        if self._classifier == "classifier" != classifier and "classifier" not in self._modules:
            last = ", ".join(self._modules[-4:])
            kind = type(self.model).__name__
            raise InputError(f"use classifier=LAYER, the layer whose outputs are the tags: {kind} has no default; its "
                             f"last layers are {last}")  # fmt: skip
        self.check(self._classifier)
        weights = [t for t in (*self.model.parameters(), *self.model.buffers()) if t.is_floating_point()]
        if not weights:
            raise InputError(f"{type(self.model).__name__} has no weights")
        self.like = weights[0]
        self._constants, self._lock = Constants(), Lock()
        self._kept: OrderedDict[torch.Size | None, Network] = OrderedDict()
        # an unprepared capture, to compare with; whether a capture for a second size was equal to it
        self._reference: Captured | None = None
        self._confirmed = False
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
            size = images.shape[1:]
            network = self._kept.get(None)
            if network is not None and (self._confirmed or network.size == size):
                return network
            if size not in self._kept:
                self._capture(images[:1])
            network = self._kept.get(None) or self._kept[size]
            if network.sized:
                self._kept.move_to_end(size)
            return network

    def _capture(self, image: Tensor) -> None:
        """Captures the model for the size of an image, or confirms that the first capture fits this size, too."""
        if self._reference is None:
            captured, reference = self._captured_twice(image)
        else:
            captured, reference = self._record(image), self._reference
        if (first := self._kept.pop(None, None)) is not None:
            if difference(captured, reference) is None:
                self._kept[None], self._confirmed = first, True
                return
            first.sized = captured.sized = True
            self._kept[first.size] = first
        network = Network(captured, self._constants, self._classifier, self.default_target, self._compiled)
        verify(network, self.model, image.contiguous(memory_format=torch.channels_last))
        self._reference = reference  # not before: after a refusal, the next look begins anew
        self._kept[network.size if network.sized else None] = network
        if len(self._kept) > SIZES:
            self._kept.popitem(last=False)

    def _captured_twice(self, image: Tensor) -> tuple[Captured, Captured]:
        """The capture for an image, and another one that shows that it depends neither on state nor on values.

        Raises:
            InputError: the model does something else in its second forward pass, or for another image.
        """
        part = self._capture_part(image)
        captured = self._record(image)
        differs = part is not None and difference(captured, part) is not None
        if part is not None and not differs and not captured.sized:
            return captured, part
        repeated = self._record(_changed(image))
        if (node := difference(captured, repeated)) is not None:
            place = node.meta["module"] or title(node.target)
            raise InputError(f"the model does something else in its second forward pass, or for another image (at "
                             f"{place}): maps need a network whose operations do not depend on its state or on "
                             "values")  # fmt: skip
        captured.sized |= differs  # only the size is left as the reason
        return captured, repeated

    def _capture_part(self, image: Tensor) -> Captured | None:
        """The capture for a part of an image, which takes less time; None if there is none."""
        if min(image.shape[2:]) <= PART:
            return None
        try:
            return self._record(_changed(image)[..., :PART, :PART])
        except InputError:  # perhaps the part is too small; if not, the capture of the whole image says what is wrong
            return None

    def _record(self, image: Tensor) -> Captured:
        self.count += 1
        return capture(self.model, image, lambda module: type(module) in layers.RULES)


def _changed(image: Tensor) -> Tensor:
    return image.flip(-1) / 2


def difference(first: Captured, second: Captured) -> torch.fx.Node | None:
    """The first operation in which two captures of one model differ, or None.

    Args:
        first: a capture.
        second: another one, for another image or for another size.
    """
    nodes = [_needed(captured) for captured in (first, second)]
    places = {node: i for part in nodes for i, node in enumerate(part)}

    def described(node: torch.fx.Node) -> str:
        return str((node.op, node.target, torch.fx.node.map_arg((node.args, node.kwargs), places.__getitem__)))

    a: Any
    b: Any
    for a, b in zip_longest(*nodes):
        if a is None or b is None or described(a) != described(b):
            return b if a is None else a  # type: ignore[no-any-return]
        if a.op == "get_attr" and not _equal(first.attributes[a.target], second.attributes[b.target]):
            return a  # type: ignore[no-any-return]
    return None


def _needed(captured: Captured) -> list[torch.fx.Node]:
    """The operations on which the outputs depend; others may note statistics that change from call to call."""
    found = {node for node, _ in captured.outputs} or set(captured.names.values())
    for node in reversed(captured.graph.nodes):
        if node in found:
            found.update(node.all_input_nodes)
    return [node for node in captured.graph.nodes if node in found]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    return a is b


def check_images(images: object, like: Tensor) -> None:
    """Checks images for a network.

    Args:
        images: what was given.
        like: a weight of the network.

    Raises:
        InputError: they are no tensor of 4 dimensions, of another dtype or device than the weights, or not finite.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"images must be a tensor (N, C, h, w), not {type(images).__name__}")
    if images.layout is not torch.strided:
        raise InputError(f"images must be dense, not {images.layout}: use images.to_dense()")
    if images.ndim != 4 or (images.dtype, images.device.type) != (like.dtype, like.device.type) or not len(images):
        raise InputError(f"images must be (N, C, h, w) of {like.dtype} on {like.device}, not {images.dtype} "
                         f"{tuple(images.shape)} on {images.device}")  # fmt: skip
    if not images.isfinite().all():
        raise InputError("images contain NaN or infinite values")

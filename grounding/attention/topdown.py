"""TopDown: any CNN classifier, prepared for top-down attention.

scene = TopDown(model, target="pool2", classifier="fc").look(images)
scene.logits                               # (N, tags)
scene.attend([3, 17], method="c-mwp")      # (N, 2, h, w)
"""

from collections.abc import Sequence

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from grounding.attention.atlas import Atlas
from grounding.attention.descent import Passes
from grounding.attention.engine.dense import DenseEngine
from grounding.attention.engine.kernels import LANES
from grounding.attention.engine.runs import CROSSING
from grounding.attention.engine.sparse import SparseEngine
from grounding.attention.forward import ForwardPass, rule_of
from grounding.attention.methods import AVERAGED, METHODS, Method, method_of
from grounding.attention.network import Network, is_item
from grounding.attention.rules import RuleSet
from proposals.errors import InputError

Node = torch.fx.Node

# the class of an engine, and the crossing at which a pass becomes sparse (see Passes): None chooses the faster form for
# each pass, "sparse" uses the sparse form wherever it applies
ENGINES: dict[str | None, tuple[type[DenseEngine], float]] = {
    None: (SparseEngine, CROSSING),
    "sparse": (SparseEngine, 0),
    "dense": (DenseEngine, 0),
}


class TopDown:
    """A CNN classifier prepared for top-down attention.

    The model is copied, its batch norms are folded into the convolutions before them, and the copy is traced once. The
    model itself is never modified. Threads may share a ``TopDown``.

    Args:
        model: any ``nn.Module`` that torch.fx can trace and whose layers between target and classifier have a rule, or
            the result of ``torch.compile`` for such a module.
        target: the layer whose neurons' mass is the map. A module's name; its end, if that is unique ("pool2" for
            "trunk.pool2"); a name of the paper ("pool4" is the fourth max pool, "conv5" the fifth convolution with its
            ReLU, "image" the input); or a list of names: one pass then gives a map at each of these layers. By
            default, the method's own target, and for Excitation Backprop the architecture's.
        classifier: the ``nn.Linear`` or 1x1 ``nn.Conv2d`` whose outputs are the tags; by default the architecture's.
        chunk: (image, word) pairs in one pass, which bounds the memory. By default 32 on a CPU and 512 on a GPU.
        compiled: whether to apply torch.compile to the part of the network below the target (needs a C++ compiler).
        engine: how passes are computed. "dense": plain PyTorch. "sparse": on active neurons only, where that applies.
            None: the faster of the two for each pass.

    Attributes:
        network: the traced copy.
        passes: runs the top-down passes.

    Raises:
        InputError: an unknown layer (the message has the nearest names), a target that is not below the classifier, a
            layer between the two without a rule, weights that are not finite, float16 weights, or an unknown engine.
    """

    def __init__(
        self,
        model: nn.Module,
        target: str | Sequence[str] | None = None,
        classifier: str | None = None,
        chunk: int | None = None,
        compiled: bool = False,
        engine: str | None = None,
    ):
        if engine not in ENGINES:
            raise InputError(f"there is no engine {engine!r}; use 'dense', 'sparse', or None for the faster one")
        self.network, self._target = Network(model, classifier, compiled), target
        self._engine, crossing = ENGINES[engine]
        self.passes = Passes(crossing)
        self._chunk = chunk or (32 if self.weight.device.type == "cpu" else 512)
        if target is not None or self.network.default_target:
            self.targets(METHODS["mwp"])

    @property
    def weight(self) -> Tensor:
        """``(tags, C)``, the weights of the classifier."""
        return self.network.weight

    def look(self, images: Tensor, method: str = "c-mwp") -> "Scene":
        """Runs the network once.

        Args:
            images: ``(N, 3, h, w)``, preprocessed as the model expects, of the dtype and on the device of its weights.
            method: the method whose rules this pass prepares. Others are prepared when they are first used.

        Raises:
            InputError: images of another shape, dtype or device, images too small for the network, or an unknown
                method.
        """
        like = self.weight
        if images.ndim != 4 or (images.dtype, images.device.type) != (like.dtype, like.device.type) or not len(images):
            raise InputError(f"images must be (N, 3, h, w) of {like.dtype} on {like.device}, not {images.dtype} "
                             f"{tuple(images.shape)} on {images.device}")  # fmt: skip
        return Scene(self, images.contiguous(memory_format=torch.channels_last), method_of(method))

    def targets(self, method: Method) -> tuple[Node, ...]:
        """The nodes at which a method's maps are read.

        Raises:
            InputError: no such layer, or a layer above it without a rule.
        """
        names = self._target
        if method.target == AVERAGED:
            return (self.network.averaged(),)
        if names is None:
            names = method.target or self.network.default_target
        if names is None:
            raise InputError("use target=LAYER: this architecture has no default; grounding step=layers lists them")
        nodes = tuple(self.network.find(name) for name in ([names] if isinstance(names, str) else names))
        for node in self.network.above(nodes):
            if not self.network.scalar(node) and not is_item(node):
                rule_of(self.network, node)
        return nodes

    def forward(self, images: Tensor, method: Method) -> list[ForwardPass]:
        """The forward passes of images by a method's rules.

        Args:
            images: ``(N, 3, h, w)``, preprocessed.
            method: the method.

        Returns:
            One pass per image on a CPU, where each image has its own active neurons; otherwise one pass for all.
        """
        parts = images.split(1) if images.device.type == "cpu" else [images]
        targets = self.targets(method)
        return [ForwardPass(self.network, method.rules(self._engine()), targets, part) for part in parts]

    def maps(self, forwards: Sequence[ForwardPass], signals: Tensor, method: Method) -> list[Tensor]:
        """The maps of words, ``(N, W, h, w)`` for each target.

        Args:
            forwards: the images.
            signals: ``(W, tags)``.
            method: the method.
        """
        used = signals.any(0).nonzero()[:, 0]
        most = LANES[-1] if forwards[0].density else len(signals)
        words = signals.split(max(1, min(self._chunk // forwards[0].images, most)))
        jobs = [(forward, part[:, used]) for forward in forwards for part in words]
        passes = self.passes(lambda top_down, part: method.maps(top_down, part, used), jobs)
        images = [passes[i : i + len(words)] for i in range(0, len(passes), len(words))]
        return [torch.cat([torch.cat([p[t] for p in parts], 1) for parts in images]) for t in range(len(passes[0]))]

    @property
    def several(self) -> bool:
        """Whether the targets were given as a list."""
        return not (isinstance(self._target, str) or self._target is None)


class Scene:
    """Images after the forward pass. :meth:`attend` can be called any number of times.

    Attributes:
        score_maps: ``(N, tags, h', w')``, the classifier's scores at each of its positions (1 x 1 at 224 pixels).
        logits: ``(N, tags)``, what the model itself returns (the average over positions where it returns score maps).
    """

    def __init__(self, topdown: TopDown, images: Tensor, method: Method):
        self._topdown, self._images = topdown, images
        self._forwards: dict[tuple[type[RuleSet], tuple[Node, ...]], list[ForwardPass]] = {}
        try:
            first = self.forward(method)
        except RuntimeError as error:
            # PyTorch's messages when an image has shrunk to nothing before the last layer
            signs = ("too small", "Kernel size can't be greater", "cannot be multiplied")
            if not any(sign in str(error) for sign in signs):
                raise
            size = " x ".join(map(str, images.shape[2:]))
            raise InputError(f"images of {size} pixels are too small for this network, or not of the one size that it "
                             f"accepts ({str(error).splitlines()[0]})") from error  # fmt: skip
        self.score_maps = torch.cat([forward.scores for forward in first])
        self.logits = torch.cat([forward.logits for forward in first])

    @torch.no_grad()
    def attend(self, units: Sequence[int] | Tensor, method: str = "c-mwp") -> Tensor | list[Tensor]:
        """The attention maps of words at the target layer.

        Args:
            units: W indices of tags; or a ``(W, tags)`` matrix of top-down signals, each a distribution P(A_0) over the
                output units (any finite numbers: a map is linear in its signal until c-MWP is truncated).
            method: a name of ``grounding.attention.methods.METHODS``.

        Returns:
            ``(N, W, h, w)``, or a list with one such tensor for each target if the targets were given as a list. A map
            of "mwp" is >= 0 and sums to the sum of its signal (less only where some Z is 0). Contrastive maps are >= 0.
            Maps of "lrp" and "cam" are signed.

        Raises:
            InputError: no unit, a unit that the classifier does not have, an unknown method, or one that this network
                does not allow.
        """
        chosen = method_of(method)
        maps = self._topdown.maps(self.forward(chosen), self._signals(units), chosen)
        return maps if self._topdown.several and chosen.target != AVERAGED else maps[0]

    @torch.no_grad()
    def atlas(self, method: str = "c-mwp", size: tuple[int, int] | None = None) -> Atlas:
        """The maps of all tags, for a scene of one image; see ``grounding.attention.atlas``.

        Args:
            method: "mwp" or "c-mwp".
            size: (height, width) of the image in the pixels in which boxes will be given; by default the size that
                the network saw.

        Raises:
            InputError: another method, several images, or an image with several positions of the classifier.
        """
        if len(self._images) > 1:
            raise InputError(f"an atlas needs one image, not {len(self._images)}: look at one image at a time")
        height, width = size or self._images.shape[2:]
        return Atlas(self.forward(method_of(method))[0], method, (height, width), self._topdown.passes)

    @torch.no_grad()
    def forward(self, method: Method) -> list[ForwardPass]:
        """The forward passes by a method's rules; each is computed once."""
        key = (method.rules, self._topdown.targets(method))
        if key not in self._forwards:
            self._forwards[key] = self._topdown.forward(self._images, method)
        return self._forwards[key]

    def _signals(self, units: Sequence[int] | Tensor) -> Tensor:
        weight = self._topdown.weight
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

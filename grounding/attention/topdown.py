"""TopDown: any CNN classifier, prepared for top-down attention.

scene = TopDown(model, target="pool2", classifier="fc").look(images)
scene.logits                               # (N, tags)
scene.attend([3, 17], method="c-mwp")      # (N, 2, h, w)
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from grounding.attention.atlas import Atlas
from grounding.attention.capture.copying import private_copy
from grounding.attention.descent import Passes, TopDownPass
from grounding.attention.engine.dense import DenseEngine
from grounding.attention.engine.kernels import LANES
from grounding.attention.engine.runs import CROSSING, Run
from grounding.attention.engine.sparse import SparseEngine
from grounding.attention.forward import ForwardPass, rule_of
from grounding.attention.mass import Kept, LostMassWarning, account
from grounding.attention.methods import AVERAGED, BOTH, METHODS, Method, method_of
from grounding.attention.network import Network
from grounding.attention.networks import Networks, check_images
from grounding.attention.rules import ExcitationBackprop, RuleSet
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

    The model is copied. At the first look, the copy runs once and is captured as ATen operations
    (``grounding.attention.capture``). Batch norms and other constant scales are folded into the convolutions before
    them. A capture serves images of all sizes, or of its own size if the model's code depends on the size. The model
    itself is never modified. Threads may share a ``TopDown``.

    Args:
        model: any ``nn.Module`` whose operations between target and classifier have a rule. ``nn.DataParallel``,
            ``DistributedDataParallel`` and the results of ``torch.compile`` are opened.
        target: the layer whose neurons' mass is the map. A module's name; its end, if that is unique ("pool2" for
            "trunk.pool2"); a name of the paper ("pool4" is the fourth max pool, "conv5" the fifth convolution with its
            ReLU, "image" the input); or a list of names: one pass then gives a map at each of these layers. By
            default, the method's own target, and for Excitation Backprop the architecture's.
        classifier: the ``nn.Linear`` or 1x1 ``nn.Conv2d`` whose outputs are the tags; by default the architecture's.
        chunk: (image, word) pairs in one pass, which bounds the memory. By default 16 on a CPU and 512 on a GPU.
        compiled: whether to apply torch.compile to the part of the network below the target (needs a C++ compiler).
        default_target: the layer of the methods that have no target of their own, if ``target`` is None; by default the
            architecture's.
        engine: how passes are computed. "dense": plain PyTorch. "sparse": on active neurons only, where that applies.
            None: the faster of the two for each pass.
        warn: whether ``attend`` warns, once, if less than half of the mass arrives at the target.

    Attributes:
        passes: runs the top-down passes.
        default_target: as given, or the architecture's; None if the architecture is not known.
        together: whether the images of a look share a forward pass. False on a CPU: each has its own active neurons.

    Raises:
        InputError: an unknown layer (the message has the nearest names), weights that are not finite or of float16, a
            scripted model, or an unknown engine.
    """

    def __init__(
        self,
        model: nn.Module,
        target: str | Sequence[str] | None = None,
        classifier: str | None = None,
        chunk: int | None = None,
        compiled: bool = False,
        engine: str | None = None,
        default_target: str | None = None,
        warn: bool = True,
    ):
        if engine not in ENGINES:
            raise InputError(f"there is no engine {engine!r}; use 'dense', 'sparse', or None for the faster one")
        self._target, self._arguments = target, (classifier, chunk, compiled, engine, default_target, warn)
        self._engine, crossing = ENGINES[engine]
        self.passes = Passes(crossing)
        self.networks = Networks(model, classifier, compiled, default_target)
        self.default_target = self.networks.default_target
        named = [target] if isinstance(target, str) else _names(target)
        for name in [*named, *_names(default_target and [default_target])]:
            self.networks.check(name)
        self.together = self.networks.like.device.type != "cpu"
        self._chunk = chunk or (512 if self.together else 16)
        self.warned = not warn

    def __reduce__(self) -> tuple[Any, ...]:
        # captured networks cannot be pickled; the copy captures its own
        arguments = (private_copy(self.networks.model), self._target, *self._arguments)
        return type(self), arguments

    def at(self, target: str) -> "TopDown":
        """The same network, whose maps are read at another layer. Both share what was captured.

        Args:
            target: as for the class.

        Raises:
            InputError: no such layer.
        """
        self.networks.check(target)
        other = object.__new__(type(self))
        vars(other).update(vars(self), _target=target)
        return other

    def look(self, images: Tensor, method: str = "c-mwp") -> "Scene":
        """Runs the network once.

        Args:
            images: ``(N, C, h, w)``, preprocessed as the model expects, of the dtype and on the device of its weights.
            method: the method whose rules this pass prepares. Others are prepared when they are first used.

        Raises:
            InputError: images of another shape, dtype or device, images too small for the network, images that are
                not finite, an unknown method, a model that cannot be captured (the message says where and why), or a
                layer without a rule.
        """
        chosen = method_of(method)
        check_images(images, self.networks.like)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            images = images.detach().clone(memory_format=torch.channels_last)
            return Scene(self, self.networks(images), images, chosen)

    def targets(self, network: Network, method: Method) -> tuple[Node, ...]:
        """The nodes at which a method's maps are read.

        Args:
            network: the captured network.
            method: the method.

        Raises:
            InputError: no such layer, or a layer above it without a rule.
        """
        names = self._target
        if method.target == AVERAGED:
            return (network.averaged(),)
        if names is None:
            names = method.target or network.default_target
        if names is None:
            raise InputError("use target=LAYER, the layer at which the map is read: this architecture has no default")
        nodes = tuple(network.find(name) for name in ([names] if isinstance(names, str) else names))
        above = network.above(nodes, method.rules.differentiable)
        for node in nodes:
            network.check_grid(node)
        for node in above if not method.rules.differentiable else ():
            rule_of(network, node)
        return nodes

    def forward(self, network: Network, images: Tensor, method: Method) -> list[ForwardPass]:
        """The forward passes of images by a method's rules.

        Args:
            network: the captured network.
            images: ``(N, C, h, w)``, preprocessed.
            method: the method.

        Returns:
            One pass for all images, or one for each (see ``together``).
        """
        parts = [images] if self.together else images.split(1)
        targets = self.targets(network, method)
        return [ForwardPass(network, method.rules(self._engine()), targets, part) for part in parts]

    def maps(self, forwards: Sequence[ForwardPass], signals: Tensor, method: Method) -> list[Tensor]:
        """The maps of words, ``(N, W, h, w)`` for each target.

        Args:
            forwards: the images.
            signals: ``(W, tags)``, the same for each image; or ``(N, W, tags)``.
            method: the method.
        """
        counts = [forward.images for forward in forwards]
        each = signals.expand(sum(counts), *signals.shape[-2:]).split(counts)
        if method.target == AVERAGED:
            # no signal goes down, so ``passes``, which also measures ``densifies``, is not used
            weighed = [
                method.maps(TopDownPass(forward, Run()), *_in_use(own))
                for forward, own in zip(forwards, each, strict=True)
            ]
            return [torch.cat(parts) for parts in zip(*weighed, strict=True)]
        most = LANES[-1] if forwards[0].density else method.lanes * signals.shape[-2]
        words = max(1, min(self._chunk // counts[0], most) // method.lanes)
        jobs = [(forward, part) for forward, own in zip(forwards, each, strict=True) for part in own.split(words, 1)]
        passes = self.passes(lambda top_down, part: method.maps(top_down, *_in_use(part)), jobs, method.lanes)
        step = len(jobs) // len(forwards)
        images = [passes[i : i + step] for i in range(0, len(passes), step)]
        return [torch.cat([torch.cat([p[t] for p in parts], 1) for parts in images]) for t in range(len(passes[0]))]

    @property
    def several(self) -> bool:
        """Whether the targets were given as a list."""
        return not (isinstance(self._target, str) or self._target is None)


def _in_use(signals: Tensor) -> tuple[Tensor, Tensor]:
    """Signals ``(N, W, T)`` over the T tags that any of them uses, and the indices of these tags."""
    used = signals.flatten(0, 1).any(0).nonzero()[:, 0]
    return signals[:, :, used], used


def _names(target: object) -> Sequence[str]:
    """The names in a list of targets."""
    if target is None:
        return ()
    if not isinstance(target, list | tuple) or not target or not all(isinstance(name, str) for name in target):
        raise InputError(f"target must be the name of a layer or a list of names, not {target!r}")
    return target


class Scene:
    """Images after the forward pass. :meth:`attend` can be called any number of times.

    Attributes:
        score_maps: ``(N, tags, h', w')``, the classifier's scores at each of its positions (1 x 1 at 224 pixels).
        logits: ``(N, tags)``, what the model itself returns (the average over positions where it returns score maps).
    """

    def __init__(self, topdown: TopDown, network: Network, images: Tensor, method: Method):
        self._topdown, self._network, self._images = topdown, network, images
        self._forwards: dict[tuple[type[RuleSet], tuple[Node, ...]], list[ForwardPass]] = {}
        self._both: tuple[Tensor, list[Tensor]] | None = None  # the latest signals, and the maps of units and duals
        try:
            first = self.forward(method)
        except RuntimeError as error:
            # PyTorch's messages when an image has shrunk to nothing before the last layer
            signs = ("too small", "Kernel size can't be greater", "cannot be multiplied")
            if not any(sign in str(error) for sign in signs):
                raise InputError(f"the captured network cannot be run: {str(error).splitlines()[0]}") from error
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
                output units (any finite numbers: a map is linear in its signal until c-MWP is truncated); or
                ``(N, W, tags)``, signals of its own for each image. A signal of zeros has a map of zeros, so images
                with fewer words are filled up with them.
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
        with torch.inference_mode(False), torch.autocast(self._images.device.type, enabled=False):
            signals = self._signals(units)
            maps = self._maps(signals, chosen)
            # after the first warning nothing is asked of the signals, because a GPU would have to wait for the answer
            if chosen.rules is ExcitationBackprop and not self._topdown.warned and signals[0, 0].any():
                self._topdown.warned = True
                self._warn(signals)
        return maps if self._topdown.several and chosen.target != AVERAGED else maps[0]

    def _maps(self, signals: Tensor, method: Method) -> list[Tensor]:
        """The maps of words. A method with a focus takes unit and dual down in one pass, which serves its focus, too.

        Without it, each of the two contrasts takes a pass of its own; ``Method.maps`` does that for one.
        """
        both = self._both
        if method.part is not None and both is not None and torch.equal(both[0], signals):
            return method.of_both(both[1])
        if method.part is None or method.focus is None:
            return self._topdown.maps(self.forward(method), signals, method)
        maps = self._topdown.maps(self.forward(method), signals, BOTH)
        self._both = signals, maps
        return method.of_both(maps)

    @torch.no_grad()
    def kept(self, units: Sequence[int] | Tensor) -> Kept:
        """How much of each word's mass arrives at the target, and at which layers the rest is lost (for "mwp").

        Args:
            units: as for :meth:`attend`; signals must not be negative.

        Raises:
            InputError: as for :meth:`attend`.
        """
        with torch.inference_mode(False), torch.autocast(self._images.device.type, enabled=False):
            signals = self._signals(units)
            if (signals < 0).any() or not (signals.sum(2) > 0).all():
                raise InputError("kept needs signals >= 0 with a sum > 0: a negative signal has no mass")
            signals, used = _in_use(signals)
            targets = self._topdown.targets(self._network, METHODS["mwp"])
            forwards = (
                ForwardPass(self._network, ExcitationBackprop(DenseEngine()), targets, image, keep=True)
                for image in self._images.split(1)
            )
            parts = [account(forward, own, used) for forward, own in zip(forwards, signals, strict=True)]
        names = list(dict.fromkeys(name for part in parts for name in part.lost))
        nothing = torch.zeros_like(parts[0].share)
        lost = {name: torch.cat([part.lost.get(name, nothing) for part in parts]) for name in names}
        return Kept(torch.cat([part.share for part in parts]), lost)

    def _warn(self, signals: Tensor) -> None:
        """Warns if less than half of the mass of the first word on the first image arrives."""
        signals = signals[:1, :1].clamp(min=0)
        if not signals.any() or self._topdown.several:
            return
        share = float(self._arrived(signals).sum() / signals.sum())
        if share < 0.5:
            warnings.warn(f"{share:.0%} of the mass arrives at the target, so maps show little of the evidence; "
                          "scene.kept(units) says at which layers the rest is lost", LostMassWarning, 3)  # fmt: skip

    def _arrived(self, signal: Tensor) -> Tensor:
        """The map of a word ``(1, 1, tags)`` on the first image (MWP); that of the latest pass, if it was its first."""
        both = self._both  # once, because another thread may replace it
        if both is not None and torch.equal(both[0][:1, :1], signal):
            return both[1][0][:1, :1, 0]
        return self._topdown.maps(self.forward(METHODS["mwp"])[:1], signal, METHODS["mwp"])[0][:1]

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
        """The forward passes by a method's rules; each is computed once.

        CAM needs only values of the averaged layer, which most passes keep, whatever their rules. So a map of CAM may
        differ by rounding with the methods that were asked before.
        """
        key = (method.rules, self._topdown.targets(self._network, method))
        if method.target == AVERAGED:
            for known in list(self._forwards.values()):  # a copy, because another thread may add one
                if known[0].averaged is not None:
                    return known
        if key not in self._forwards:
            self._forwards[key] = self._topdown.forward(self._network, self._images, method)
        return self._forwards[key]

    def _signals(self, units: Sequence[int] | Tensor) -> Tensor:
        """The signals of each image, ``(N, W, tags)``."""
        weight, images = self._network.weight, len(self._images)
        if isinstance(units, Tensor) and units.ndim in (2, 3):
            kind = units.is_complex() or units.dtype == torch.bool
            fits = units.shape[-1] == len(weight) and units.numel() and (units.ndim == 2 or len(units) == images)
            if kind or not fits or not units.isfinite().all():
                raise InputError(f"signals must be a finite (W, {len(weight)}) matrix of real numbers, or ({images}, "
                                 f"W, {len(weight)}), not {tuple(units.shape)} of {units.dtype}")  # fmt: skip
            return units.to(weight).expand(images, *units.shape[-2:])
        ids = _indices(units).to(weight.device)
        unknown = ids[(ids < 0) | (ids >= len(weight))]
        if len(unknown):
            raise InputError(f"tag {int(unknown[0])} does not exist: the classifier has {len(weight)}")
        return F.one_hot(ids, len(weight)).to(weight).expand(images, -1, -1)


def _indices(units: object) -> Tensor:
    """The indices of tags."""
    try:
        ids = torch.as_tensor(units)
    except (TypeError, ValueError, RuntimeError):
        ids = torch.empty(0, 0)
    kind = ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool
    if ids.ndim == 1 and not len(ids):
        raise InputError("no word to attend to: give at least one tag")
    if ids.ndim != 1 or kind:
        shown = f"{units!r:.60}".replace(chr(10), " ")
        raise InputError(f"tags must be given as integers, for example attend([3, 17]), or as a (W, tags) matrix of "
                         f"signals, not as {shown}")  # fmt: skip
    return ids.long()

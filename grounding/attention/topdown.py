"""One traced forward pass, and one batched top-down pass for many words.

scene = TopDown(model, target="pool2", classifier="fc").look(images)
scene.logits                               # (N, tags)
scene.attend([3, 17], method="c-mwp")      # (N, 2, h, w)
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from grounding.attention import network
from grounding.attention.atlas import Atlas
from grounding.attention.kernels import LANES
from grounding.attention.layers import RULES, Descend, Rule, Stream, Weights
from grounding.attention.methods import AVERAGED, METHODS, Method
from grounding.attention.rules import Table
from grounding.attention.signals import AnySignal, Parts, Signal, dense, each, integrate, merge, spread, workspace
from proposals.errors import InputError

Node = torch.fx.Node
# A connection between two winners costs about 36 times what one of a dense product costs, for any number of words up to
# 16 (measured on two cores with AVX-512): below this number of words times their share, the dense product is faster.
CROSSING = 36
Result = TypeVar("Result")


class TopDown:
    """A CNN classifier prepared for top-down attention.

    The model is copied, its batch norms are folded into the convolutions before them, and it is traced once; the model
    given is never modified, nothing is stored here afterwards, and threads may share it.

    Args:
        model: any ``nn.Module`` that torch.fx can trace and whose layers between target and classifier have a rule, or
            what ``torch.compile`` made of one.
        target: the layer whose neurons' mass is the map: a module's name, its end where that is unique ("pool2" for
            "trunk.pool2"), the paper's ("pool4" is the fourth max pool, "conv5" the fifth convolution with its ReLU,
            "image" the input), or a list of such names, which gives a map for each out of one pass. By default each
            method takes its own, and Excitation Backprop the architecture's.
        classifier: the ``nn.Linear`` or 1x1 ``nn.Conv2d`` whose outputs are the tags; by default the architecture's.
        chunk: how many (image, word) pairs go down at once; bounds the memory. By default 32, and 512 on a GPU.
        compiled: whether torch.compile takes the part of the network below the target (it needs a C++ compiler).

    Raises:
        InputError: an unknown layer (the nearest names are offered), a target that does not lie below the classifier, a
            layer between the two that has no rule, weights that are not finite, or float16.
    """

    def __init__(
        self,
        model: nn.Module,
        target: str | Sequence[str] | None = None,
        classifier: str | None = None,
        chunk: int | None = None,
        compiled: bool = False,
    ):
        self.network = network.Network(model, classifier, compiled)
        self._weight, self._target = self.network.weight, target
        self._chunk = chunk or (32 if self._weight.device.type == "cpu" else 512)
        if target is not None or self.network.default_target:
            self._plan(METHODS["mwp"])

    def look(self, images: Tensor, method: str = "c-mwp") -> "Scene":
        """Runs the network once.

        Args:
            images: (N, 3, h, w), preprocessed as the model expects, of the dtype and on the device of its weights.
            method: which method's rules this pass prepares; others are prepared when they are first asked for.

        Raises:
            InputError: images of another shape, dtype or device, images too small for the network, or an unknown
                method.
        """
        like = self._weight
        if images.ndim != 4 or (images.dtype, images.device.type) != (like.dtype, like.device.type) or not len(images):
            raise InputError(f"images must be (N, 3, h, w) of {like.dtype} on {like.device}, not {images.dtype} "
                             f"{tuple(images.shape)} on {images.device}")  # fmt: skip
        return Scene(self, images.contiguous(memory_format=torch.channels_last), _method(method))

    def _plan(self, method: Method) -> list[Node]:
        """The targets' nodes, checked: every layer above them has a rule."""
        names = self._target
        if method.target == AVERAGED:
            return [self.network.averaged()]
        if names is None:
            names = method.target or self.network.default_target
        if names is None:
            raise InputError("say target=LAYER: this architecture has no default; grounding step=layers lists them")
        nodes = [self.network.find(name) for name in ([names] if isinstance(names, str) else names)]
        for node in self.network.above(tuple(nodes)):
            if not self.network.scalar(node) and not network.is_item(node):
                _rule(self.network, node)
        return nodes


class Scene:
    """Images that a network has looked at; any number of words may be asked of them.

    Attributes:
        score_maps: (N, tags, h', w'), what the classifier says at each of its positions (1 x 1 at 224 pixels).
        logits: (N, tags), what the model itself returns (an average over positions where it returns score maps).
    """

    def __init__(self, topdown: TopDown, images: Tensor, method: Method):
        self._topdown, self._images = topdown, images
        self._walks: dict[tuple[Table, tuple[Node, ...]], list[Walk]] = {}
        try:
            first = self._walked(method)
        except RuntimeError as error:
            # PyTorch's words for an image that is used up before the last layer
            if not any(
                sign in str(error) for sign in ("too small", "Kernel size can't be greater", "cannot be multiplied")
            ):
                raise
            size = " x ".join(map(str, images.shape[2:]))
            raise InputError(f"images of {size} pixels are too small for this network, or not of the one size that it "
                             f"takes ({str(error).splitlines()[0]})") from error  # fmt: skip
        self.score_maps = torch.cat([walk.scores for walk in first])
        self.logits = torch.cat([walk.logits for walk in first])

    @torch.no_grad()
    def attend(self, units: Sequence[int] | Tensor, method: str = "c-mwp") -> Tensor | list[Tensor]:
        """The attention maps of words at the target layer.

        Args:
            units: W indices of tags, or a (W, tags) matrix of top-down signals, each a distribution P(A_0) over the
                output units (any finite numbers: a map is linear in its signal until c-MWP is truncated).
            method: a name of ``grounding.attention.methods.METHODS``, which says what each computes.

        Returns:
            (N, W, h, w), or a list of such, one for each target, where the targets were given as a list. A map of "mwp"
            is >= 0 and sums to the sum of its signal (less only where some Z is 0); contrastive ones are >= 0; those of
            "lrp" and "cam" are signed.

        Raises:
            InputError: no unit, a unit that the classifier does not have, an unknown method, or one that this network
                does not allow.
        """
        chosen = _method(method)
        signals = self._signals(units)
        used = signals.any(0).nonzero()[:, 0]
        walks = self._walked(chosen)
        most = LANES[-1] if walks[0].density else len(signals)
        words = signals.split(max(1, min(self._topdown._chunk // walks[0].images, most)))
        jobs = [(walk, part[:, used]) for walk in walks for part in words]
        passes = run_passes(lambda job: chosen.maps(*job, used), jobs)
        images = [passes[i : i + len(words)] for i in range(0, len(passes), len(words))]
        maps = [torch.cat([torch.cat([p[t] for p in parts], 1) for parts in images]) for t in range(len(passes[0]))]
        several = not (isinstance(self._topdown._target, str) or self._topdown._target is None)
        return maps if several and chosen.target != AVERAGED else maps[0]

    @torch.no_grad()
    def atlas(self, method: str = "c-mwp", size: tuple[int, int] | None = None) -> Atlas:
        """The maps of the whole vocabulary of the one image, see ``grounding.attention.atlas``.

        Args:
            method: "mwp" or "c-mwp"; size: (height, width) of the image in the pixels of the boxes that will be asked
                about, by default the pixels that the network saw.

        Raises:
            InputError: another method, several images, or an image with several positions of the classifier.
        """
        if len(self._images) > 1:
            raise InputError("an atlas is of one image: look at it alone")
        size = size or tuple(self._images.shape[2:])
        return Atlas(self._walked(_method(method))[0], method, size, run_passes)

    @torch.no_grad()
    def _walked(self, method: Method) -> list["Walk"]:
        """The images' walks by a method's table: on the CPU, where only winners cost, one each."""
        targets = tuple(self._topdown._plan(method))
        key = (method.table, targets)
        if key not in self._walks:
            parts = self._images.split(1) if self._images.device.type == "cpu" else [self._images]
            self._walks[key] = [Walk(self._topdown.network, method.table, targets, part) for part in parts]
        return self._walks[key]

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


class Walk:
    """Images that went up by one table, ready for signals to go down.

    Attributes:
        images: how many; scores: (N, tags, h', w'); logits: (N, tags).
        density: which share of the neurons above the targets can win; 0 where there are no rows.
        spills: whether a pass has to turn rows into dense signals; None before the first.
    """

    spills: bool | None = None

    def __init__(self, net: "network.Network", table: Table, targets: tuple[Node, ...], images: Tensor):
        self.images, self._net, self._table, self._targets = len(images), net, table, targets
        self._steps: list[tuple[Node, list[Node], Descend | None]] = []
        self._streams: dict[Node, Stream] = {}
        self._numbers: dict[Node, int] = {}
        above, split = net.above(targets), net.split(targets)
        values: dict[Node, object] = {}
        for node, value in zip(split.outputs, split.stem(images), strict=True):
            values[node] = self._settle(node, value)
        for node in split.rest:
            values[node] = self._settle(node, self._ascend(node, values) if node in above else self._run(node, values))
        self.scores = _at_positions(_plain(values[net.head]))
        self.logits = _logits(_plain(values[net.output]), self.scores)
        self.density = _density([value for value in values.values() if isinstance(value, Stream)])

    def _settle(self, node: Node, value: object) -> object:
        """A node's value, noted where it is a target or the classifier's input."""
        if node in self._targets:
            value = self._table.target(value) if isinstance(value, Stream) else self._table.source(value)
            self._streams[node] = value
        if node is self._net.features:
            self._features = value if isinstance(value, Stream) else self._table.source(value)
        return value

    def _run(self, node: Node, values: dict[Node, object]) -> object:
        """A node that no mass passes."""
        return self._net.run(node, torch.fx.node.map_arg((node.args, node.kwargs), lambda n: _plain(values[n])))

    def _ascend(self, node: Node, values: dict[Node, object]) -> object:
        arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: self._stream(values[n]))
        sources = [n for n in _arguments(node) if isinstance(values[n], Stream | Tensor | tuple)]
        if network.measures(node) or not sources:
            return self._run(node, values)
        if network.is_item(node):
            self._steps.append((node, sources, None))
            self._numbers[sources[0]] = len(arguments[0])
            return arguments[0][arguments[1]]
        stream, descend = _rule(self._net, node)(self._table, self._net.operation(node), *arguments, **keywords)
        self._steps.append((node, sources, descend))
        return stream

    def _stream(self, value: object) -> object:
        """What goes around the targets comes as a tensor: a source like theirs, whose share of the mass is lost."""
        return self._table.source(value) if isinstance(value, Tensor) else value

    def enter(self, signals: Tensor, used: Tensor, dual: bool = False) -> AnySignal:
        """What words send to the classifier's inputs.

        A word's share of each position is the softmax over positions of its own score map. The dual unit (Sec. 3.3) has
        the negated weights, and the same shares.

        Args:
            signals: (W, T) over the T tags that are used; used: (T,) their indices; dual: of the dual units.
        """
        sign = -1 if dual else 1
        bias = None if self._net.bias is None else sign * self._net.bias[used]
        units = Units(sign * self._net.weight[used], bias)
        shares = self.scores[:, used].flatten(2).softmax(2).view(self.images, len(used), *self.scores.shape[2:])
        asked = torch.einsum("wt,nt...->nwt...", signals, shares).flatten(0, 1)
        if self._features.value.ndim == 2:
            asked = asked.flatten(1)
        return self._table.entered(units, self._features, asked)

    @property
    def features(self) -> Tensor:
        """(N, C, h', w') or (N, C): the classifier's inputs, as far as they are above 0."""
        return self._features.activation

    @property
    def weight(self) -> Tensor:
        """(tags, C): the classifier's."""
        return self._net.weight

    def begin(self, g: Tensor) -> AnySignal:
        """A signal (N * W, *features) at the classifier's inputs, ready to go down."""
        return self._table.begun(g, self._features)

    def mass(self, g: AnySignal) -> list[Tensor]:
        """p = x . g at each target, summed over channels (Sec. 3.2): (N, W, h, w) each."""
        return [self._mass(self._streams[node].z, arrived) for node, arrived in self._descend(g)]

    def _mass(self, x: Tensor, g: AnySignal) -> Tensor:
        if isinstance(g, Signal):
            return integrate(g, x)[None]
        return torch.einsum("nchw,nvchw->nvhw", x, g.unflatten(0, (self.images, -1)))

    def magnitude(self, g: AnySignal) -> list[Tensor]:
        """max over channels of |g| at each target: (N, W, h, w) each."""
        return [dense(a).abs().amax(1).unflatten(0, (self.images, -1)) for _, a in self._descend(g)]

    def weighted_by(self, signals: Tensor, used: Tensor) -> list[Tensor]:
        """The targets' channels weighted as the classifier weighs its inputs: (N, W, h, w) each."""
        values = [self._streams[node].value for node in self._targets]
        return [torch.einsum("vc,nchw->nvhw", signals @ self._net.weight[used], x) for x in values]

    def _descend(self, g: AnySignal) -> list[tuple[Node, AnySignal]]:
        """Sends g from the classifier's inputs down: what arrives at each target."""
        waiting: dict[Node, AnySignal] = {self._net.features: g}
        arrived: dict[Node, AnySignal] = {}
        for node, sources, descend in reversed(self._steps):
            if node not in waiting:
                continue
            g = waiting.pop(node)
            if node in self._targets:
                arrived[node] = g
            if descend is None:
                part = Parts({node.args[1] % self._numbers[sources[0]]: g})
                waiting[sources[0]] = merge(waiting[sources[0]], part) if sources[0] in waiting else part
                continue
            shares = descend(g if getattr(descend, "on_rows", False) else dense(g))
            for source, share in zip(sources, shares, strict=True):
                if share is not None:
                    waiting[source] = merge(waiting[source], share) if source in waiting else share
            if self._table.rescaled:
                waiting = _rescaled(waiting)
        arrived |= {node: waiting[node] for node in self._targets if node in waiting}
        return [(node, arrived[node]) for node in self._targets]


class Units(Weights):
    """The classifier's units in use: weights (T, C), at every position of (N, C) or (N, C, h, w)."""

    def up(self, x: Tensor, sign: int, bias: Tensor | None = None) -> Tensor:
        scores = torch.einsum("tc,nc...->nt...", self.part(sign), x)
        return scores if bias is None else scores + bias.view(-1, *[1] * (x.ndim - 2))

    def down(self, g: AnySignal, inputs: Stream, sign: int) -> AnySignal:
        return torch.einsum("tc,nt...->nc...", self.part(sign), dense(g))


def _method(name: str) -> Method:
    if name not in METHODS:
        raise InputError(f"there is no attention method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def run_passes(go: Callable[[tuple[Walk, Tensor]], Result], jobs: Sequence[tuple[Walk, Tensor]]) -> list[Result]:
    """go(walk, signals) for every job, with rows or without, whichever is faster for so many words.

    Passes in rows run side by side, once a first one has shown that none of its signals has to become dense.
    """
    walk, signals = jobs[0]
    rows = len(signals) >= CROSSING * walk.density**2

    def one(job: tuple[Walk, Tensor]) -> Result:
        spilled, workspace.rows = workspace.spilled, rows
        try:
            return go(job)
        finally:
            job[0].spills, workspace.rows = workspace.spilled > spilled, True

    if not (rows and walk.density):
        return [one(job) for job in jobs]
    first = [one(jobs[0])] if walk.spills is None else []
    rest = jobs[len(first) :]
    return first + ([one(job) for job in rest] if walk.spills else spread(one, rest))


def _rule(net: "network.Network", node: Node) -> Rule:
    kind = net.kind(node)
    if kind not in RULES:
        raise InputError(f"{node.name}: {network.refusal(kind)}; choose a target above it, or add a rule with "
                         "grounding.attention.layers.rule")  # fmt: skip
    return RULES[kind]


def _plain(value: object) -> object:
    """What the network itself would see."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.value if isinstance(value, Stream) else value


def _arguments(node: Node) -> list[Node]:
    """The nodes among a call's arguments, in order, as often as they stand there."""
    found: list[Node] = []
    torch.fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _density(streams: Sequence[Stream]) -> float:
    """The share of winners among the neurons whose winners were looked for."""
    known = [stream for stream in streams if stream.__dict__.get("winners") is not None]
    return sum(len(s.winners) for s in known) / max(1, sum(s.value.numel() for s in known))


def _at_positions(scores: Tensor) -> Tensor:
    return scores if scores.ndim == 4 else scores[:, :, None, None]


def _logits(output: object, scores: Tensor) -> Tensor:
    fits = isinstance(output, Tensor) and output.shape[:2] == scores.shape[:2]
    return (output if fits else scores).flatten(2).mean(2) if not fits or output.ndim > 2 else output


def _rescaled(waiting: dict[Node, AnySignal]) -> dict[Node, AnySignal]:
    """All signals over one common scalar a word: they keep their proportions."""
    largest = functools.reduce(torch.maximum, [_largest(g) for g in waiting.values()])
    scale = torch.where(largest > 0, largest, 1)
    return {node: _over(g, scale) for node, g in waiting.items()}


def _largest(g: AnySignal | Parts) -> Tensor:
    if isinstance(g, Parts):
        return functools.reduce(torch.maximum, map(_largest, g.signals.values()))
    return g.values[:, : g.words].abs().amax(0) if isinstance(g, Signal) else g.flatten(1).abs().amax(1)


def _over(g: AnySignal | Parts, scale: Tensor) -> AnySignal | Parts:
    if isinstance(g, Parts):
        return Parts({i: _over(part, scale) for i, part in g.signals.items()})
    if isinstance(g, Signal):
        padded = F.pad(scale, (0, g.values.shape[1] - g.words), value=1)
        return each(lambda v: v / padded, g)
    return g / scale.view(-1, *[1] * (g.ndim - 1))

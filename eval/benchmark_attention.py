"""c-MWP beside its peers: TorchRay, zennit, Captum, plain autograd, and what the arithmetic must cost.

Networks: the embedded tagger's BVLC GoogLeNet on a photo; torchvision's GoogLeNet and VGG16, He-initialised, on the
same photo. TorchRay and Captum take one class at a time; zennit and autograd a batch. zennit has no contrast:
its time is of plain MWP. Captum's LRP goes down to the image, and only through networks without concatenations.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
import torchvision
from skimage import data
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d
from tqdm import tqdm

from eval.benchmark_table import Row
from eval.machine import matrix_rate
from grounding import TopDown
from grounding.attention.descent import TopDownPass
from grounding.attention.engine.runs import Run
from grounding.attention.engine.sparse import SparseEngine, SparseSignal
from grounding.attention.engine.winners import Winners
from grounding.attention.forward import ForwardPass
from grounding.attention.methods import METHODS
from grounding.attention.weights import Geometry
from grounding.runtime.timing import Work, interleaved, peak_memory
from grounding.tagger.preprocessing import TENSORFLOW, TORCHVISION, Preprocessing
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contest:
    """A network and the names of its layers.

    Attributes:
        target: of the maps; below: the classifier's input, where TorchRay takes its contrast.
    """

    model: nn.Module
    preprocessing: Preprocessing
    target: str
    below: str
    classifier: str

    def image(self, size: tuple[int, int]) -> Tensor:
        """A photo (1, 3, *size)."""
        photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float()
        return self.preprocessing(F.interpolate(photo, size=size, mode="bilinear", antialias=True))


def bvlc_googlenet() -> Contest:
    """The embedded tagger."""
    tagger = TagClassifier.load()
    return Contest(tagger, tagger.preprocessing, "trunk.pool2", "trunk.pool5", "classifier")


def googlenet() -> Contest:
    """torchvision's, its batch norms folded for all."""
    model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
    _initialise(model)
    for module in model.modules():
        if isinstance(module, BasicConv2d):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    return Contest(model, TENSORFLOW, "maxpool2", "avgpool", "fc")


def vgg16() -> Contest:
    """torchvision's."""
    model = torchvision.models.vgg16(weights=None)
    _initialise(model)
    return Contest(model, TORCHVISION, "features.23", "classifier.5", "classifier.6")


def _initialise(model: nn.Module) -> None:
    torch.manual_seed(0)
    for module in model.eval().modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


CONTESTS: dict[str, Callable[[], Contest]] = {f.__name__: f for f in (bvlc_googlenet, googlenet, vgg16)}
Size = tuple[int, int]


def measure(
    networks: Sequence[str] = tuple(CONTESTS),
    sizes: Sequence[Size] = ((224, 224), (300, 400)),
    words: Sequence[int] = (1, 16, 64),
    rounds: int = 5,
    peers: Sequence[str] = ("torchray", "zennit", "captum"),
    longest: int = 4,
) -> tuple[list[Row], dict]:
    """Every network at every size with every number of words.

    Args:
        rounds: turns that each contestant takes; the median counts.
        peers: whom to measure beside us, where they are installed.
        longest: so many words are timed of a peer, and the time of all is taken as so many times that: none of them
            shares work between words, and hours would pass.

    Returns:
        The rows, and {"multiply-adds a second": ...}. Seconds, MB, and ratios of seconds: how many times ours goes into
        theirs.

    Raises:
        InputError: an unknown network.
    """
    for name in networks:
        if name not in CONTESTS:
            raise InputError(f"unknown network {name!r}: choose among {', '.join(CONTESTS)}")
    rate = matrix_rate()
    cases = [(n, tuple(s), w) for n in networks for s in sizes for w in words]
    rows = [_row(name, size, w, rounds, peers, longest, rate) for name, size, w in tqdm(cases, "cases", disable=None)]
    return rows, {"multiply-adds a second": rate, "peers timed on so many words": longest}


def _row(name: str, size: Size, words: int, rounds: int, peers: Sequence[str], longest: int, rate: float) -> Row:
    contest = CONTESTS[name]()
    contest.model.requires_grad_(False)
    image, units = contest.image(size), list(range(words))
    topdown = TopDown(contest.model, contest.target, contest.classifier)
    scene = topdown.look(image)
    mine: dict[str, Work] = {
        "plain forward": lambda: _forward(contest.model, image),
        "look": lambda: topdown.look(image),
        "attend": lambda: scene.attend(units, "c-mwp"),
        "autograd": autograd(contest, topdown, image, words),
    }
    seconds = interleaved(mine, rounds)
    ours = seconds["look"] + seconds["attend"]
    theirs = {peer: _peer_seconds(peer, contest, image, words, longest) for peer in peers}
    connections = multiply_adds(contest, topdown, image), winning_connections(topdown, image)
    row: Row = {"network": name, "size": f"{size[0]}x{size[1]}", "words": float(words), "ours": ours} | seconds
    row |= {"floor": words * connections[0] / rate, "winners' floor": words * connections[1] / rate} | theirs
    row |= {f"{peer} / ours": spent and spent / ours for peer, spent in theirs.items()}
    row["attend / autograd"] = seconds["attend"] / seconds["autograd"]
    row["look / plain"] = seconds["look"] / seconds["plain forward"]
    with get_context("spawn").Pool(1) as fresh:
        return row | {"MB": fresh.apply(_memory, (name, size, words))}


def _memory(name: str, size: Size, words: int) -> float:
    """MB over the prepared network for one image and its words, in a process that did nothing before."""
    contest = CONTESTS[name]()
    topdown, small = TopDown(contest.model, contest.target, contest.classifier), contest.image((224, 224))
    topdown.look(small).attend([0])  # compiles, loads libraries
    image = contest.image(size)
    return peak_memory(lambda: topdown.look(image).attend(list(range(words))))


@torch.no_grad()
def _forward(model: nn.Module, image: Tensor) -> Tensor:
    return model(image)


def _peer_seconds(peer: str, contest: Contest, image: Tensor, words: int, longest: int) -> float | None:
    """The seconds of a peer for all words, None where it is not installed or cannot do the work."""
    timed = min(words, longest)
    try:
        work = PEERS[peer](contest, image, timed)
        return interleaved({peer: work}, 1)[peer] * words / timed
    except ImportError:
        log.warning("%s is not installed; .venv/bin/pip install -e '.[bench]'", peer)
    except Exception as error:  # what a peer cannot do it says in exceptions of any kind
        log.warning("%s cannot do the work: %s", peer, str(error).splitlines()[0])
    return None


def autograd(contest: Contest, topdown: TopDown, image: Tensor, words: int) -> Work:
    """Plain backpropagation of each word's score to the target, the words a batch; only the way back is timed."""
    module, target = topdown.network.module, topdown.network.find(contest.target)
    batch = _values(topdown, image)[target].expand(words, -1, -1, -1)
    batch = batch.contiguous(memory_format=torch.channels_last).requires_grad_()
    # what lies below the target runs on the one image and is read no more
    scores = torch.fx.Interpreter(module).run(image, initial_env={target: batch})
    scores = scores.mean((2, 3)) if scores.ndim == 4 else scores
    signals = torch.eye(words, scores.shape[1])
    return lambda: torch.autograd.grad(scores, batch, signals, retain_graph=True)


@torch.no_grad()
def _values(topdown: TopDown, image: Tensor) -> dict[torch.fx.Node, Tensor]:
    """What every node of the traced network computes."""
    interpreter = torch.fx.Interpreter(topdown.network.module, garbage_collect_values=False)
    interpreter.run(image)
    return interpreter.env


def multiply_adds(contest: Contest, topdown: TopDown, image: Tensor) -> int:
    """Of one signal's way from the classifier's input to the target, every connection counted."""
    network, values = topdown.network, _values(topdown, image)
    layers = [n for n in network.above((network.find(contest.target),)) if network.kind(n) in (nn.Conv2d, nn.Linear)]
    return sum(values[n].numel() * network.operation(n).weight[0].numel() for n in layers)


def winning_connections(topdown: TopDown, image: Tensor) -> int:
    """Multiply-adds of one signal between the classifier's input and the target, between two winners."""
    chosen, engine = METHODS["mwp"], CountingEngine()
    forward = ForwardPass(topdown.network, chosen.rules(engine), topdown.targets(chosen), image)
    with torch.no_grad():
        chosen.maps(TopDownPass(forward, Run()), torch.ones(1, 1), torch.tensor([0]))
    return engine.connections


class CountingEngine(SparseEngine):
    """The sparse engine, which counts the connections between winners that a signal passes.

    Attributes:
        connections: the count.
    """

    connections = 0

    def convolve(self, g: SparseSignal, weight: Tensor, geometry: Geometry, winners: Winners) -> SparseSignal:
        """Counts, and passes the signal on."""
        above, below = (
            torch.from_numpy(np.diff(w.layout[0])).double().view(1, 1, *w.layout[3:]) for w in (g.winners, winners)
        )
        window = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
        self.connections += int((F.conv2d(below, window, None, *geometry) * above).sum())
        return super().convolve(g, weight, geometry, winners)


def torchray(contest: Contest, image: Tensor, words: int) -> Work:
    """Contrastive excitation backprop, a class at a time."""
    from torchray.attribution.excitation_backprop import contrastive_excitation_backprop

    layers = {"saliency_layer": contest.target, "contrast_layer": contest.below, "classifier_layer": contest.classifier}
    return lambda: [contrastive_excitation_backprop(contest.model, image, word, **layers) for word in range(words)]


def zennit(contest: Contest, image: Tensor, words: int) -> Work:
    """Excitation backprop without the contrast, the words a batch."""
    from zennit.composites import ExcitationBackprop

    images, arrived = image.expand(words, -1, -1, -1).contiguous(), []
    layer = contest.model.get_submodule(contest.target)

    def work() -> None:
        hook = layer.register_forward_hook(lambda _, __, output: arrived.append(output.requires_grad_()))
        with ExcitationBackprop().context(contest.model) as model:
            scores = model(images)
        scores = scores.mean((2, 3)) if scores.ndim == 4 else scores
        torch.autograd.grad(scores, arrived.pop(), torch.eye(words, scores.shape[1]))
        hook.remove()

    return work


def captum(contest: Contest, image: Tensor, words: int) -> Work:
    """LRP by its epsilon rule, a class at a time."""
    from captum.attr import LRP

    model = copy.deepcopy(contest.model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    lrp = LRP(model)
    return lambda: [lrp.attribute(image, target=word) for word in range(words)]


PEERS: dict[str, Callable[[Contest, Tensor, int], Work]] = {"torchray": torchray, "zennit": zennit, "captum": captum}

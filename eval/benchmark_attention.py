"""c-MWP beside other implementations: TorchRay, zennit, Captum, and plain autograd.

Each row also has a lower bound: the time of a signal's multiply-adds at the machine's best rate.
"""

import logging
from collections.abc import Sequence
from multiprocessing import get_context

import torch
import torch.fx
from torch import Tensor, nn
from tqdm import tqdm

from eval.attention_peers import PEERS
from eval.benchmark_table import Row
from eval.connections import multiply_adds, node_values, winning_connections
from eval.machine import matrix_rate
from eval.networks import NETWORKS, BenchmarkNetwork
from grounding import TopDown
from grounding.runtime.timing import Work, interleaved, peak_memory
from proposals.errors import InputError

log = logging.getLogger(__name__)

Size = tuple[int, int]


def measure(
    networks: Sequence[str] = tuple(NETWORKS),
    sizes: Sequence[Size] = ((224, 224), (300, 400)),
    words: Sequence[int] = (1, 16, 64),
    rounds: int = 5,
    peers: Sequence[str] = ("torchray", "zennit", "captum"),
    peer_words: int = 4,
) -> tuple[list[Row], dict]:
    """Measures each network at each size with each number of words.

    Args:
        networks: names in ``eval.networks.NETWORKS``.
        sizes: (height, width) of the photo, in pixels.
        words: numbers of words.
        rounds: number of measurements of our own implementation; the median counts.
        peers: names in ``eval.attention_peers.PEERS``; peers that are not installed are left out.
        peer_words: time a peer with at most this number of words, and extrapolate to all words in proportion. No peer
            shares work between words, and timing all of them would take hours.

    Returns:
        A row for each case, and what the rows have in common. The rows have seconds, MB, and ratios of a peer's
        seconds to ours.

    Raises:
        InputError: a network is unknown.
    """
    for name in networks:
        if name not in NETWORKS:
            raise InputError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    rate = matrix_rate()
    cases = [(n, tuple(s), w) for n in networks for s in sizes for w in words]
    progress = tqdm(cases, "cases", disable=None)
    rows = [_row(name, size, w, rounds, peers, peer_words, rate) for name, size, w in progress]
    return rows, {"multiply-adds a second": rate, "words that a peer is timed on, at most": peer_words}


def _row(name: str, size: Size, words: int, rounds: int, peers: Sequence[str], peer_words: int, rate: float) -> Row:
    network = NETWORKS[name]()
    network.model.requires_grad_(False)
    image, units = network.image(size), list(range(words))
    topdown = TopDown(network.model, network.target, network.classifier)
    scene = topdown.look(image)
    mine: dict[str, Work] = {
        "plain forward": lambda: _forward(network.model, image),
        "look": lambda: topdown.look(image),
        "attend": lambda: scene.attend(units, "c-mwp"),
        "autograd": autograd(network, topdown, image, words),
    }
    seconds = interleaved(mine, rounds)
    ours = seconds["look"] + seconds["attend"]
    theirs = {peer: _peer_seconds(peer, network, image, words, peer_words) for peer in peers}
    connections = multiply_adds(network.target, topdown, image), winning_connections(topdown, image)
    row: Row = {"network": name, "size": f"{size[0]}x{size[1]}", "words": float(words), "ours": ours} | seconds
    row |= {"floor": words * connections[0] / rate, "winners' floor": words * connections[1] / rate} | theirs
    row |= {f"{peer} / ours": spent and spent / ours for peer, spent in theirs.items()}
    row["attend / autograd"] = seconds["attend"] / seconds["autograd"]
    row["look / plain"] = seconds["look"] / seconds["plain forward"]
    with get_context("spawn").Pool(1) as fresh:
        return row | {"MB": fresh.apply(_memory, (name, size, words))}


def _memory(name: str, size: Size, words: int) -> float:
    """Peak memory of one image and its words in MB, above that of the prepared network. Runs in a new process."""
    network = NETWORKS[name]()
    topdown, small = TopDown(network.model, network.target, network.classifier), network.image((224, 224))
    topdown.look(small).attend([0])  # compiles kernels and loads libraries first
    image = network.image(size)
    return peak_memory(lambda: topdown.look(image).attend(list(range(words))))


@torch.no_grad()
def _forward(model: nn.Module, image: Tensor) -> Tensor:
    return model(image)


def _peer_seconds(peer: str, network: BenchmarkNetwork, image: Tensor, words: int, peer_words: int) -> float | None:
    """The seconds of a peer for all words; None if it is not installed or fails on this network."""
    timed = min(words, peer_words)
    try:
        work = PEERS[peer](network, image, timed)
        return interleaved({peer: work}, 1)[peer] * words / timed
    except ImportError:
        log.warning("%s is not installed: .venv/bin/pip install -e '.[bench]'", peer)
    except Exception as error:  # a peer may raise anything
        log.warning("%s failed: %s", peer, str(error).splitlines()[0])
    return None


def autograd(network: BenchmarkNetwork, topdown: TopDown, image: Tensor, words: int) -> Work:
    """Plain backpropagation of the words' scores to the target, as a batch, without the forward pass.

    Args:
        network: the network and its layers.
        topdown: holds the captured network.
        image: ``(1, 3, H, W)``.
        words: number of words.

    Returns:
        What to time.
    """
    captured = topdown.networks(image)
    module, target = captured.module, captured.find(network.target)
    batch = node_values(topdown, image)[target].expand(words, -1, -1, -1)
    batch = batch.contiguous(memory_format=torch.channels_last).requires_grad_()
    # the layers below the target run on the one image; their values are not used
    scores = torch.fx.Interpreter(module).run(image, initial_env={target: batch})[0]
    scores = scores.mean((2, 3)) if scores.ndim == 4 else scores
    signals = torch.eye(words, scores.shape[1])
    return lambda: torch.autograd.grad(scores, batch, signals, retain_graph=True)

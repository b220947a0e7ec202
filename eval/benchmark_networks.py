"""The CNNs of torchvision and timm: the share of the mass that arrives, the error of the logits, and the time.

Each network is measured in a new process, with random weights; see ``eval.network_list``.
"""

import warnings
from collections.abc import Sequence
from multiprocessing import get_context
from time import perf_counter

import torch
from tqdm import tqdm

from eval.benchmark_table import Row
from eval.network_list import LISTED, initialise, listed_network, photos
from grounding import TopDown
from grounding.runtime.timing import interleaved
from proposals.errors import InputError


def measure(
    networks: Sequence[str] | None = None, size: int = 224, words: int = 8, rounds: int = 3
) -> tuple[list[Row], dict]:
    """Measures each network on one photo.

    Args:
        networks: names of ``eval.network_list.LISTED``; None for all.
        size: height and width of the photo, in pixels.
        words: number of classes whose maps are computed.
        rounds: number of measurements; the median counts.

    Returns:
        A row for each network, and what the rows have in common. A row has the target and the classifier; the share of
        a word's mass that arrives at the target (of MWP, mean over the words); the largest difference between the
        logits and the model's own, relative to their largest absolute value; and seconds: for the capture (the first
        look without what a later one takes), a plain forward pass, and a look with the maps of all words. For a network
        that is refused, it has the reason.

    Raises:
        InputError: a network is unknown.
    """
    names = LISTED if networks is None else tuple(networks)
    for name in names:
        if name not in LISTED:
            raise InputError(f"unknown network {name!r}: choose one of {', '.join(LISTED)}")
    threads = torch.get_num_threads()
    jobs = [(name, size, words, rounds, threads) for name in names]
    with get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        rows = list(tqdm(fresh.imap(row, jobs), "networks", len(jobs), disable=None))
    return rows, {"size": size, "words": words}


def row(job: tuple[str, int, int, int, int]) -> Row:
    """One network's row.

    Args:
        job: the name, the photo's size, the number of words, the number of measurements and of threads.
    """
    name, size, words, rounds, threads = job
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that build the networks
        found = listed_network(name)
    images = photos(size)
    initialise(found.model, images)
    image, model = images[:1], found.model.requires_grad_(False)
    cells: Row = {"network": name, "target": found.target, "classifier": found.classifier}
    try:
        start = perf_counter()
        topdown = TopDown(model, found.target, found.classifier)
        scene = topdown.look(image)
        first = perf_counter() - start
        kept = float(scene.attend(range(words), "mwp").sum((2, 3)).mean())
    except InputError as error:
        return cells | {"refused": str(error)}
    with torch.no_grad():
        logits = model(image)
    difference = float((scene.logits - logits).abs().max() / logits.abs().max())
    works = {
        "forward": torch.no_grad()(lambda: model(image)),
        "look": lambda: topdown.look(image),
        "look + attend": lambda: topdown.look(image).attend(range(words)),
    }
    seconds = interleaved(works, rounds)
    cells |= {"kept": kept, "logits' error": difference, "capture": first - seconds.pop("look")}
    return cells | seconds | {"look + attend / forward": seconds["look + attend"] / seconds["forward"]}

"""The time and memory that the maps of 18,157 tags of one photo take, with an atlas and without it.

The paper has as many tags.

The network is the trunk of the tagger googlenet with a random tag layer, because the values of its weights do not
change the time.
"""

from collections.abc import Sequence
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from eval.benchmark_table import Row
from eval.connections import winning_connections
from eval.machine import matrix_rate
from eval.networks import NETWORKS
from grounding import TopDown
from grounding.attention.topdown import Scene
from grounding.runtime.timing import interleaved, peak_memory

SIZE = (224, 224)


def measure(tags: int = 18157, targets: Sequence[str] = ("pool2", "pool3"), rounds: int = 3) -> tuple[list[Row], dict]:
    """Measures the maps at each layer.

    Args:
        tags: number of tags.
        targets: the layers of the maps.
        rounds: number of measurements; the median counts.

    Returns:
        A row for each layer, and what the rows have in common. A row has seconds: for the basis, for
        all maps with the atlas, for 64 tags without an atlas, and for a plain forward pass (in the model's own memory
        format and in channels_last). It has the ratios of all maps to a forward pass, and of all tags without an atlas
        to all maps with it. It has billions of multiply-adds: for the basis, for the product with it, and for both in
        a second. The last values are the largest relative difference between the maps with and without an atlas, and
        the memory in MB.
    """
    return [_row(tags, target, rounds) for target in targets], {"multiply-adds a second": matrix_rate()}


def _row(tags: int, target: str, rounds: int) -> Row:
    model, image = _network(tags)
    topdown = TopDown(model, target)
    scene = topdown.look(image)
    atlas = scene.atlas()
    plain, last = (_forwards(model, image, memory) for memory in (torch.contiguous_format, torch.channels_last))
    works = {"basis": scene.atlas, "all maps": lambda: _all(scene), "64 direct": lambda: scene.attend(list(range(64)))}
    seconds = interleaved(works | {"plain forward": plain, "channels last": last}, rounds)
    whole = seconds["all maps"]
    basis = len(atlas.basis) * winning_connections(topdown, image) / 1e9
    product = tags * atlas.basis.numel() / 1e9
    row: Row = {"target": target, "tags": float(tags), "basis maps": float(len(atlas.basis))} | seconds
    row |= {f"all / {name}": whole / seconds[name] for name in ("plain forward", "channels last")}
    row["direct / all"] = seconds["64 direct"] * tags / 64 / whole
    row |= {"basis G": basis, "product G": product, "G a second": (basis + product) / whole}
    row["difference"] = _difference(scene)
    with get_context("spawn").Pool(1) as fresh:
        return row | {"MB": fresh.apply(_memory, (tags, target))}


def _network(tags: int) -> tuple[nn.Module, Tensor]:
    network = NETWORKS["bvlc_googlenet"]()
    torch.manual_seed(0)
    network.model.classifier = nn.Conv2d(1024, tags, 1).eval()
    return network.model.requires_grad_(False), network.image(SIZE)


def _forwards(model: nn.Module, image: Tensor, memory: torch.memory_format):
    copied = TopDown(model, "pool5").networks(image).module if memory is torch.channels_last else model
    image = image.contiguous(memory_format=memory)
    return lambda: copied(image)


def _all(scene: Scene) -> None:
    for _ in scene.atlas():
        pass


def _difference(scene: Scene) -> float:
    tags = list(range(64))
    direct, maps = scene.attend(tags)[0], scene.atlas().maps(tags)
    return float(((maps - direct).abs().amax((1, 2)) / direct.amax((1, 2))).max())


def _memory(tags: int, target: str) -> float:
    model, image = _network(tags)
    topdown = TopDown(model, target)
    topdown.look(image).attend([0])
    return peak_memory(lambda: _all(topdown.look(image)))

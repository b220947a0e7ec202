"""The maps of 18,157 tags (the paper's dictionary) of one photo: seconds, memory, and the direct way beside them.

The embedded tagger's trunk, with a random tag layer of that size: what a tag's weights are makes no difference in time.
"""

from collections.abc import Sequence
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from eval.benchmark_attention import CONTESTS, winning_connections
from eval.benchmark_table import Row
from eval.machine import matrix_rate
from grounding import TopDown
from grounding.attention.topdown import Scene
from grounding.runtime.timing import interleaved, peak_memory

SIZE = (224, 224)


def measure(tags: int = 18157, targets: Sequence[str] = ("pool2", "pool3"), rounds: int = 3) -> tuple[list[Row], dict]:
    """One row a target.

    Returns:
        The rows: seconds of the basis, of all maps with it, of a plain forward pass (in the model's own memory format,
        and in channels_last) and of 64 tags directly; their ratios for all tags; billions of multiply-adds of basis and
        product, and their rate; the largest relative difference to the direct maps; MB.
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
    contest = CONTESTS["bvlc_googlenet"]()
    torch.manual_seed(0)
    contest.model.classifier = nn.Conv2d(1024, tags, 1).eval()
    return contest.model.requires_grad_(False), contest.image(SIZE)


def _forwards(model: nn.Module, image: Tensor, memory: torch.memory_format):
    copied = TopDown(model, "pool5").network.module if memory is torch.channels_last else model
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

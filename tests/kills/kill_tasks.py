"""Small tasks of ``kill_loop``, each of which writes all that its step writes."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from made_shards import make_shards, tiny_tagger
from made_tars import crawl, photo

from grounding import Grounder, TagClassifier
from grounding.cache import Cache
from grounding.settings import Settings
from grounding.steps.ground import ground
from grounding.steps.ground_shards import ShardOptions
from proposals import SegmentProposer
from training.sharding import shard
from training.train import train

PHRASES = ["a cat", "a zebra", "a zorgophone"]
Task = Callable[[Path, Path], None]


@cache
def small_grounder() -> Grounder:
    """A grounder with a network of one convolution, as fast as files are written."""
    with tempfile.TemporaryDirectory() as folder:
        tagger = TagClassifier.load(tiny_tagger(Path(folder, "tiny.safetensors")))
    return Grounder(tagger, SegmentProposer(count=20, side=32), Settings(method="mwp", side=224))


def make_inputs(folder: Path) -> None:
    """Writes photos, a table of captions, tars and training shards, and loads what all children share."""
    torch.set_num_threads(1)
    for number in range(3):
        (folder / "album").mkdir(exist_ok=True)
        (folder / "album" / f"{number}.jpg").write_bytes(photo(number))
    captions = [f"album/{number}.jpg,a cup and a plate" for number in range(3)] * 2
    (folder / "captions.csv").write_text("\n".join(["path,caption", *captions]) + "\n")
    crawl(folder / "crawl", 2, 2)
    make_shards(folder / "shards", train=2)
    tiny_tagger(folder / "tiny.safetensors")
    small_grounder().ground(folder / "album" / "0.jpg", PHRASES)  # compiles functions


def _ground(inputs: Path, output: Path) -> None:
    for form, pictures in (("jsonl", "png"), ("csv", "one"), ("coco", None), ("yolo", None)):
        ground(
            small_grounder(), str(inputs / "album"), PHRASES, str(output), form, pictures=pictures, maps=form == "csv"
        )


def _ground_tars(inputs: Path, output: Path) -> None:
    options = ShardOptions(workers=0, lease=1)
    ground(small_grounder(), str(inputs / "crawl"), PHRASES, str(output), "jsonl", maps=True, shards=options)


def _shard(inputs: Path, output: Path) -> None:
    table = str(inputs / "captions.csv")
    shard(table, str(output), side=48, min_images=1, held_out=0.3, images_per_shard=2, workers=0)


def _train(inputs: Path, output: Path) -> None:
    recipe = {"batch": 4, "trunk_lr": 0.001, "tag_lr": 0.01, "ema_decay": 0, "workers": 0, "epochs": 4}
    train(str(inputs / "shards"), str(output), init=str(inputs / "tiny.safetensors"), save_minutes=0, **recipe)


def _cache(inputs: Path, output: Path) -> None:
    for phrases in (PHRASES[:1], PHRASES[:2]):
        kept = Cache(small_grounder(), output)
        for number in range(3):
            kept.look(inputs / "album" / f"{number}.jpg", phrases)


TASKS: dict[str, Task] = {
    "ground": _ground,
    "ground-tars": _ground_tars,
    "shard": _shard,
    "train": _train,
    "cache": _cache,
}

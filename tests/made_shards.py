"""Shards of photos that scikit-image ships, for the tests of the training."""

import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from grounding import TagClassifier, Vocabulary
from grounding.tagger.architectures import ARCHITECTURES, Architecture
from grounding.tagger.preprocessing import TORCHVISION
from training.shard_writer import encode_vocabulary, write_index, write_shard
from training.shards import FORMAT, SHARDS, VOCABULARY, index_path
from training.thumbnails import Thumbnail

TAGS = {
    "astronaut": ["woman", "suit", "flag", "smile"],
    "chelsea": ["cat", "face"],
    "coffee": ["cup", "coffee", "table", "spoon"],
    "rocket": ["rocket", "tower", "night"],
}
ALL = [tag for tags in TAGS.values() for tag in tags]


def jpeg(name: str, turn: int = 0, side: int = 160) -> bytes:
    """One of scikit-image's photos, made small; ``turn`` columns are cut off."""
    path = next(Path(str(files("skimage.data"))).glob(f"{name}.*"))
    image = Image.open(path).convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.crop((turn, 0, image.width, image.height)).save(buffer, "JPEG")
    return buffer.getvalue()


def make_shards(
    root: Path,
    train: int = 2,
    val: int = 1,
    each: int = 1,
    tags: Sequence[str] = ALL,
    places: Sequence[int] = range(4),
) -> Path:
    """Makes a folder of shards.

    Args:
        root: the folder.
        train: number of shards for training.
        val: number of shards for validation.
        each: how often each shard has the four photos.
        tags: the vocabulary; it must contain the tags in ``TAGS``.
        places: where the tags of each photo were written.
    """
    root.mkdir(parents=True, exist_ok=True)
    text, digest = encode_vocabulary([(tag, train * each if tag in ALL else 0) for tag in tags])
    (root / VOCABULARY).write_bytes(text)
    listed = {
        "train": [_shard(root / f"train-{i:06d}.tar", i, each, tags, places) for i in range(train)],
        "val": [_shard(root / f"val-{i:06d}.tar", train + i, each, tags, places) for i in range(val)],
    }
    (root / SHARDS).write_text(json.dumps({"format": FORMAT, "settings": {}, "vocabulary": digest, **listed}))
    return root


def _shard(path: Path, number: int, each: int, tags: Sequence[str], places: Sequence[int]) -> dict:
    with write_shard(path) as writer:
        for turn in range(each):
            for name, names in TAGS.items():
                photo = Thumbnail(jpeg(name, number * each + turn), 160, 160)
                rows, agree = [tags.index(n) for n in names], [1] * len(names)
                writer.add(f"{number}-{turn}-{name}", photo, rows, agree, names, places[: len(names)])
    write_index(index_path(path), writer, {})
    return {"name": path.name, "photos": len(writer), "bytes": writer.bytes}


def tiny(pretrained: bool = False) -> nn.Sequential:
    """A trunk of one convolution, for fast tests."""
    layers = OrderedDict(conv=nn.Conv2d(3, 16, 7, stride=8), relu=nn.ReLU(), average=nn.AvgPool2d(28))
    return nn.Sequential(layers)


def tiny_tagger(path: Path, tags: Sequence[str] = ("cat", "zebra", "quagga")) -> str:
    """Writes a tagger with the trunk :func:`tiny`, which is registered as an architecture."""
    ARCHITECTURES["tiny"] = Architecture(tiny, 16, TORCHVISION, "conv")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        TagClassifier("tiny", Vocabulary(tags)).save(path)
    return str(path)

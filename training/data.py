"""Photos and the tags around them, from WebDataset shards to batches."""

import json
import logging
import random
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from tarfile import TarError

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_iterator

from grounding.images import read_image
from grounding.vocabulary import Vocabulary
from proposals.errors import InputError

log = logging.getLogger(__name__)

PADDED, CROP = 256, 224
Batch = tuple[Tensor, Tensor, Tensor]


def find_shards(root: str | Path) -> list[str]:
    """The tar files of a folder, in order of their names.

    Raises:
        InputError: there are none.
    """
    shards = sorted(str(path) for path in Path(root).glob("*.tar"))
    if not shards:
        raise InputError(f"{root} holds no .tar shards: set data.root to a folder of them")
    return shards


def read_shard(shard: str, suffixes: tuple[str, ...]) -> Iterator[dict]:
    """The samples of a WebDataset shard, as ``{"__key__": ..., suffix: bytes}``; nothing is decoded or unpickled.

    Raises:
        InputError: the shard is truncated or no tar file.
    """
    try:
        with Path(shard).open("rb") as stream:
            # a tar file ends in two blocks of zeros; without them tarfile takes a cut for the end
            stream.seek(-1024, 2)
            if any(stream.read()):
                raise TarError("its end is missing")
            stream.seek(0)
            wanted = tar_file_iterator(stream, select_files=lambda name: name.endswith(suffixes))
            yield from group_by_keys(part | {"__url__": shard} for part in wanted)
    except (TarError, OSError, ValueError) as error:
        raise InputError(f"{shard} is truncated or no tar file ({error})") from error


def shard_captions(shards: Sequence[str]) -> Iterator[list[str]]:
    """The captions of each photo, without its pixels, in constant memory.

    Raises:
        InputError: a shard is truncated or no tar file, or a sample's JSON is broken or holds no captions.
    """
    for shard in shards:
        for sample in read_shard(shard, (".json",)):
            yield _captions(sample["json"], f"{shard}: {sample['__key__']}.json")


def _captions(data: bytes, name: str) -> list[str]:
    try:
        captions = json.loads(data)["captions"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name} is no JSON object with captions") from error
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise InputError(f"{name}: captions must be a list of strings")
    return captions


def square(image: np.ndarray, side: int = PADDED) -> Image.Image:
    """An (H, W, 3) uint8 photo padded to a square by mirroring, then resized to ``side`` (Sec. 4.3)."""
    height, width = image.shape[:2]
    longest = max(height, width)
    missing = [(longest - n) // 2 for n in (height, width)]
    pads = [(before, longest - n - before) for before, n in zip(missing, (height, width), strict=True)]
    padded = np.pad(image, (*pads, (0, 0)), mode="symmetric")
    return Image.fromarray(padded).resize((side, side), Image.Resampling.BILINEAR)


def crop(image: Image.Image, rng: random.Random | None) -> Tensor:
    """A 224 crop of a square photo as (3, 224, 224) uint8: at random and perhaps flipped, or the centre without rng."""
    spare = PADDED - CROP
    x, y, flip = (rng.randint(0, spare), rng.randint(0, spare), rng.random() < 0.5) if rng else (spare // 2,) * 2 + (0,)
    pixels = np.array(image)[y : y + CROP, x : x + CROP]
    return torch.from_numpy((pixels[:, ::-1] if flip else pixels).copy()).permute(2, 0, 1)


def positives(captions: Sequence[str], vocabulary: Vocabulary) -> list[int]:
    """The tags of a photo: those that any of its captions puts on it, as indices in order."""
    return sorted(vocabulary.index(tag) for tag in set().union(*map(vocabulary.find, captions)))


class Photos(torch.utils.data.IterableDataset):
    """One epoch over shards: (image (3, 224, 224) uint8 RGB, tags (T,) int64).

    The order, crops and flips are a function of (seed, epoch). A photo that cannot be read is skipped and logged.

    Args:
        shards: tar files of ``ID.jpg`` and ``ID.json``; vocabulary: the tags that count.
        epoch: None gives the photos in their order, cropped at the centre, as validation wants them.
    """

    def __init__(self, shards: Sequence[str], vocabulary: Vocabulary, seed: int = 0, epoch: int | None = None):
        self.shards, self.vocabulary = list(shards), vocabulary
        self.key = None if epoch is None else f"{seed}/{epoch}"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = random.Random(self.key) if self.key else None
        shards = rng.sample(self.shards, len(self.shards)) if rng else self.shards
        samples = (sample for shard in shards for sample in read_shard(shard, (".jpg", ".json")))
        for sample in webdataset.shuffle(2000, rng=rng)(samples) if rng else samples:
            try:
                image = read_image(Image.open(BytesIO(sample["jpg"])))
                captions = _captions(sample["json"], sample["__key__"])
            except (InputError, KeyError, OSError) as error:
                log.warning("skipped %s: %s", sample["__key__"], error)
                continue
            yield crop(square(image), rng), torch.tensor(positives(captions, self.vocabulary), dtype=torch.long)


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """A batch: images (B, 3, 224, 224) uint8, and the rows and columns (P,) of the positives in (B, tags)."""
    images, tags = zip(*samples, strict=True)
    rows = torch.repeat_interleave(torch.arange(len(tags)), torch.tensor([len(t) for t in tags]))
    return torch.stack(images), rows, torch.cat(tags)

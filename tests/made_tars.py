"""Makes WebDataset tars of small photos for the tests."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG of coloured squares; another seed gives another photo."""
    squares = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(squares).resize(size, Image.Resampling.NEAREST).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def samples(count: int, first: int = 0) -> list[dict[str, object]]:
    """Samples as img2dataset writes them: a photo, its caption as text, and JSON."""
    return [
        {
            "__key__": f"{number:09d}",
            "jpg": photo(number),
            "txt": "a cup beside a plate",
            "json": json.dumps({"caption": "a cup and a spoon", "wanted": ["a cup", "a cup", "a plate"]}).encode(),
        }
        for number in range(first, first + count)
    ]


def write_tar(path: Path, contents: Iterable[Mapping[str, object]]) -> Path:
    """Writes samples as a tar, through webdataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, webdataset.TarWriter(file, mtime=0) as tar:
        for sample in contents:
            tar.write(sample)
    return path


def crawl(folder: Path, shards: int, photos: int) -> list[Path]:
    """Writes a folder of tars: ``00000.tar``, ``00001.tar`` and so on."""
    return [write_tar(folder / f"{i:05d}.tar", samples(photos, i * photos)) for i in range(shards)]

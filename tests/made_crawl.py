"""A small crawl: tars of photos and tags with every fault that a real one has, for the tests of the shards."""

import json
import tarfile
from importlib.resources import files
from io import BytesIO
from pathlib import Path

from PIL import Image

WORDS = ["dog", "cat", "red", "blue sky", "hot dog", "T-Shirt", "tree"]
SETTINGS = {"min_images": 3, "held_out": 0.2, "workers": 0, "side": 100}


def write_tar(path: Path, files: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """Writes files into a tar, by name; a list may have a name twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return path


def photo(number: int, size: tuple[int, int] = (90, 60), **options) -> bytes:
    """A piece of one of scikit-image's photos."""
    name = ("astronaut.png", "chelsea.png", "coffee.png")[number % 3]
    image = Image.open(str(files("skimage.data") / name)).convert("RGB").crop((number, 40, number + 240, 200))
    buffer = BytesIO()
    image.resize(size).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def sample(number: int, photo_bytes: bytes | None = None) -> dict[str, bytes]:
    tags = [WORDS[i] for i in range(len(WORDS)) if number % (i + 2) < 2] + [f"rare{number}"]
    pixels = photo(number) if photo_bytes is None else photo_bytes
    return {
        f"{number:05d}.jpg": pixels,
        f"{number:05d}.json": json.dumps({"tags": tags[:: -1 if number % 2 else 1]}).encode(),
    }


def write_crawl(root: Path) -> Path:
    """Three tars of twelve samples, some with larger photos, a tar of faulty samples and a truncated tar."""
    for i in range(3):
        parts = [sample(n, photo(n, (150, 120)) if n % 4 == 0 else None) for n in range(12 * i, 12 * i + 12)]
        write_tar(root / f"{i:05d}.tar", {name: data for part in parts for name, data in part.items()})
    faults = sample(90, b"") | sample(91, photo(91)[:900]) | sample(92, photo(92, (20, 60))) | sample(93)
    faults |= {"94.jpg": photo(94), "94.json": b'{"url": "x"}', "95.json": b"{}", "96.jpg": photo(96)}
    faults |= {"96.json": b'{"tags": ["unheard"]}', "97.jpg": photo(97), "97.json": b"{"}
    write_tar(root / "00003.tar", faults)
    cut = write_tar(root / "00004.tar", sample(98) | sample(99))
    with tarfile.open(cut) as tar:
        end = tar.getmember("00099.jpg").offset_data + 100
    cut.write_bytes(cut.read_bytes()[:end])
    return root


def content(output: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {path.name: path.read_bytes() for path in output.iterdir()}

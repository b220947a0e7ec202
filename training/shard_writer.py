"""Writing shards: a tar of photos and its index. The format is described in ``training.shards``."""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from grounding.runtime.artefacts import atomic_path
from training.sample_text import FIRST
from training.shards import ARRAYS, BLOCK, PLACES
from training.thumbnails import Thumbnail

MAX_KEY = 80  # characters


class ShardWriter:
    """Writes photos into a tar, and collects its index.

    Args:
        tar: the open tar file.

    Attributes:
        bytes: size of the tar, once it is complete.
    """

    def __init__(self, tar: tarfile.TarFile):
        self._tar, self.bytes = tar, 0
        self._columns: dict[str, list[int]] = {name: [] for name in ARRAYS | PLACES}
        self._columns["starts"].append(0)

    def __len__(self) -> int:
        return len(self._columns["offsets"])

    def add(
        self,
        key: str,
        photo: Thumbnail,
        rows: Sequence[int],
        agree: Sequence[int],
        names: Sequence[str],
        places: Sequence[int] | None = None,
    ) -> None:
        """Adds a photo.

        Args:
            key: key of the sample; the names in the tar are ``member_key(key)`` with a suffix.
            photo: the JPEG.
            rows: indices of its tags in the vocabulary, the most certain first.
            agree: for each tag, the number of captions that contain it.
            names: the tags.
            places: see ``training.shards.ShardIndex``. None: the photo's text has no other tags.
        """
        about = {"tags": list(names), "agree": list(agree), "first": list(names[:FIRST])}
        about |= {"width": photo.width, "height": photo.height}
        self._columns["offsets"].append(self._add_file(f"{member_key(key)}.jpg", photo.data))
        self._columns["sizes"].append(len(photo.data))
        self._add_file(f"{member_key(key)}.json", json.dumps(about).encode())
        self._columns["tags"] += rows
        self._columns["agree"] += agree
        self._columns["places"] += range(len(rows)) if places is None else places
        self._columns["starts"].append(len(self._columns["tags"]))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the index, see :class:`training.shards.ShardIndex`."""
        return {name: np.array(self._columns[name], dtype) for name, dtype in (ARRAYS | PLACES).items()}

    def _add_file(self, name: str, data: bytes) -> int:
        """Adds a file; returns the offset of its data."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, BytesIO(data))
        self._tar.members.clear()  # tarfile would keep them all in memory
        return self._tar.offset - -(-len(data) // BLOCK) * BLOCK


@contextmanager
def write_shard(path: Path) -> Iterator[ShardWriter]:
    """Writes a tar under another name and renames it when it is complete; it writes no index.

    Args:
        path: the tar.

    Yields:
        The writer; afterwards its ``bytes`` is the size of the tar.

    Raises:
        InputError: the tar cannot be written.
    """
    with atomic_path(path) as part:
        with tarfile.open(part, "w") as tar:
            writer = ShardWriter(tar)
            yield writer
        writer.bytes = part.stat().st_size


def write_index(path: Path, writer: ShardWriter, about: Mapping[str, Any]) -> None:
    """Writes the index of a tar.

    Args:
        path: the index, see ``training.shards.index_path``.
        writer: the writer of the tar.
        about: JSON values to store in addition to the arrays.

    Raises:
        InputError: the index cannot be written.
    """
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, about=text, **writer.arrays())


def member_key(key: str) -> str:
    """Converts a sample's key to a name by which WebDataset can group files.

    Args:
        key: any text.

    Returns:
        Letters, digits, ``-`` and ``_``, and ``%XX`` for any other byte. Distinct keys give distinct names; the end of
        a long one is replaced by a digest.
    """
    data = key.encode("utf-8", "surrogatepass")
    plain = re.sub(rb"[^A-Za-z0-9_-]", lambda found: b"%%%02X" % found[0][0], data).decode()
    return plain if len(plain) <= MAX_KEY else f"{plain[: MAX_KEY - 33]}%-{sha256(data).hexdigest()[:31]}"


def encode_vocabulary(pairs: Sequence[tuple[str, int]]) -> tuple[bytes, str]:
    """The content of ``vocabulary.txt``.

    Args:
        pairs: tags and their counts, the most frequent first.

    Returns:
        The bytes, and their SHA-256 in hexadecimal.
    """
    data = "".join(f"{tag}\t{count}\n" for tag, count in pairs).encode("utf-8")
    return data, sha256(data).hexdigest()

"""Reading and writing safetensors files."""

import json
import os
from pathlib import Path

import safetensors
from safetensors.torch import save
from torch import Tensor

from grounding.runtime.artefacts import atomic_path
from proposals.errors import InputError

LENGTH = 8  # bytes of the header's length, which come before the header


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file. If the write fails, no incomplete file is left.

    Equal tensors and metadata give equal bytes.

    Args:
        path: the file to write.
        tensors: the tensors by name.
        metadata: text by name, stored in the header of the file.

    Raises:
        InputError: the file cannot be written.
    """
    # Serialised here, because a file written by safetensors is readable by its owner only, and a full disk gives an
    # error that does not mention the disk.
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    size = int.from_bytes(data[:LENGTH], "little")
    header = _sorted_header(data[LENGTH : LENGTH + size])
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(LENGTH, "little") + header)
        file.write(memoryview(data)[LENGTH + size :])
        file.flush()
        os.fsync(file.fileno())  # otherwise a power failure after the rename could leave an incomplete file


def _sorted_header(header: bytes) -> bytes:
    """A header with its names in alphabetical order; safetensors writes the metadata in a random order."""
    text = json.dumps(json.loads(header), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % LENGTH)  # the tensors begin at a multiple of 8 bytes


def read_tensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads a safetensors file. Nothing in the file is executed.

    Args:
        path: the file to read.

    Returns:
        The metadata, and the tensors by name.

    Raises:
        InputError: the file does not exist, is truncated, or is not a safetensors file.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder: give the path of a safetensors file in it")
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist: give the path of a safetensors file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error})") from error

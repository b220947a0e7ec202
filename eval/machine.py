"""The machine that a benchmark runs on: its processor, its library versions, and its speed."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from grounding.runtime.timing import interleaved

PACKAGES = ("torch", "torchvision", "numba", "torchray", "zennit", "captum", "opencv-contrib-python-headless")


def machine() -> dict:
    """Describes the machine.

    Returns:
        ``processor``, ``threads``, ``python`` and ``versions`` (of the installed packages).
    """
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def matrix_rate(size: int = 1536) -> float:
    """The speed of a float32 matrix product or convolution, whichever is faster.

    Args:
        size: rows and columns of the matrices.

    Returns:
        Multiply-adds per second.
    """
    left, right = torch.rand(size, size), torch.rand(size, size)
    x, w = (
        t.contiguous(memory_format=torch.channels_last)
        for t in (torch.rand(8, 256, 28, 28), torch.rand(256, 256, 3, 3))
    )
    works = {"product": lambda: left @ right, "convolution": lambda: torch.conv2d(x, w, padding=1)}
    seconds = interleaved(works, 5)
    return max(size**3 / seconds["product"], 8 * 28**2 * w.numel() / seconds["convolution"])

"""Preprocessing: converts the pixels of a photo to the input of a network."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from proposals.errors import InputError

LONGEST = 8  # longer side of what the network sees, relative to the setting of its shorter side
LONGEST_SIDE = 3360  # pixels of this longer side at most, because they take memory and time
SMALLEST_SIDE = 224  # pixels; the networks need as many


@dataclass(frozen=True)
class Preprocessing:
    """Normalises each channel: (pixel - mean) / std.

    Args:
        mean: three values for pixels in 0..255, in the channel order of the network.
        std: three standard deviations, in the same order, none of them 0.
        bgr: whether the network expects the channels in the order blue, green, red.

    Raises:
        InputError: there are not three means and three standard deviations, or a standard deviation is 0.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise InputError("preprocessing needs three means and three standard deviations other than 0")

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises a batch of images.

        Args:
            images: ``(N, 3, h, w)`` RGB in 0..255, of any dtype.

        Returns:
            ``(N, 3, h, w)`` float32.
        """
        images = images.float()
        images = images.flip(1) if self.bgr else images
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std


def resize(pixels: NDArray[np.uint8], size: Sequence[int]) -> Tensor:
    """Resizes a photo with an antialiased bilinear filter; equals torchvision's ``resize`` bit by bit.

    torchvision itself would take longer to import than a photo takes to answer.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        size: ``[shorter side]`` or ``[height, width]`` of the result, in pixels.

    Returns:
        ``(1, 3, h, w)`` uint8.
    """
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    shape = list(size) if len(size) == 2 else _with_shorter_side(pixels.shape[:2], size[0])
    if list(tensor.shape[2:]) == shape:
        return tensor
    # one image in channels_last needs the stride of a batch, or PyTorch packs the result anew (pytorch#68430)
    tensor = tensor.as_strided(tensor.shape, (tensor.numel(), *tensor.stride()[1:]))
    native = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    resized = F.interpolate(
        tensor if native else tensor.float(), shape, mode="bilinear", align_corners=False, antialias=True
    )
    # reshape sets the strides of the one image as torchvision does
    return (resized if native else resized.round_().to(torch.uint8)).reshape(1, 3, *shape)


def network_size(shape: Sequence[int], side: int) -> list[int]:
    """The size at which the network sees a photo. It limits the cost of panoramas.

    The longer side has at most ``LONGEST`` times the pixels of ``side``, and at most ``LONGEST_SIDE``. If it would have
    more, the shorter side is reduced, but not below ``SMALLEST_SIDE``. Beyond this, the photo is squeezed along its
    longer side.

    Args:
        shape: height and width of the photo in pixels.
        side: the shorter side of the result in pixels.

    Returns:
        ``[side]``; for a panorama ``[height, width]``.
    """
    short, long = sorted(shape)
    longest = min(LONGEST * side, LONGEST_SIDE)
    if long * side <= longest * short:
        return [side]
    reduced = max(min(side, SMALLEST_SIDE), longest * short // long)
    return [reduced, longest] if shape[0] < shape[1] else [longest, reduced]


def _with_shorter_side(shape: Sequence[int], side: int) -> list[int]:
    """The height and width of a photo whose shorter side has ``side`` pixels."""
    height, width = shape
    return [side, int(side * width / height)] if height <= width else [int(side * height / width), side]


CAFFE = Preprocessing(mean=(104.007, 116.669, 122.679), bgr=True)
TORCHVISION = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# torchvision's GoogLeNet has weights from TensorFlow, which expect inputs in -1..1
TENSORFLOW = Preprocessing(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
LITE = Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))  # EfficientNet-Lite

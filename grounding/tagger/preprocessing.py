"""Preprocessing: converts the pixels of a photo to the input of a network."""

from dataclasses import dataclass

from torch import Tensor

from proposals.errors import InputError


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


CAFFE = Preprocessing(mean=(104.007, 116.669, 122.679), bgr=True)
TORCHVISION = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# torchvision's GoogLeNet has weights from TensorFlow, which expect inputs in -1..1
TENSORFLOW = Preprocessing(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))

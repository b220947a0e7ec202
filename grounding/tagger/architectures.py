"""Architectures: the convolutional networks that a tagger can be built on."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from grounding.tagger import cnns, efficientnet, googlenet
from grounding.tagger.convolutional import as_convolution
from grounding.tagger.preprocessing import CAFFE, LITE, TENSORFLOW, TORCHVISION, Preprocessing
from proposals.errors import InputError


@dataclass(frozen=True)
class Architecture:
    """A trunk and what belongs to it.

    Attributes:
        trunk: builds the network from the image up to the input of the classifier. Its output is
            ``(N, channels, h', w')``, with one position for 224 pixels and one more for every further 32 pixels (36 for
            CNN-S).
        channels: number of output channels of the trunk.
        preprocessing: the input that the trunk's published weights expect.
        target: name of the layer whose maps are read (as in the paper, an early pooling layer).
        coarse_target: name of the layer whose maps the default settings read. They show the network a larger photo
            than the paper, so that this layer has about as many cells as the paper's. None: ``target``.
    """

    trunk: Callable[..., nn.Sequential]
    channels: int
    preprocessing: Preprocessing
    target: str
    coarse_target: str | None = None


def torchvision_googlenet(pretrained: bool = False) -> nn.Sequential:
    """torchvision's GoogLeNet (with batch normalisation), without its classifier.

    The global average is replaced by a 7x7 average of stride 1, so that larger images give more positions.

    Args:
        pretrained: whether to download torchvision's ImageNet weights.

    Returns:
        The trunk, 1024 output channels.

    Raises:
        InputError: the download fails.
    """
    models = _torchvision_models()
    network = models.googlenet(weights=None, aux_logits=False, init_weights=False, transform_input=False)
    if pretrained:
        _load_pretrained(network, models.GoogLeNet_Weights.DEFAULT)
    return _trunk_of(network)


def resnet50(pretrained: bool = False) -> nn.Sequential:
    """torchvision's ResNet-50, without its classifier.

    The global average is replaced by a 7x7 average of stride 1, so that larger images give more positions.

    Args:
        pretrained: whether to download torchvision's ImageNet weights.

    Returns:
        The trunk, 2048 output channels.

    Raises:
        InputError: the download fails.
    """
    models = _torchvision_models()
    network = models.resnet50(weights=None)
    if pretrained:
        _load_pretrained(network, models.ResNet50_Weights.DEFAULT)
    return _trunk_of(network)


def vgg16(pretrained: bool = False) -> nn.Sequential:
    """torchvision's VGG16; its first two fully connected layers are 7x7 and 1x1 convolutions, as in Sec. 4.1.

    Args:
        pretrained: whether to download torchvision's ImageNet weights.

    Returns:
        The trunk, 4096 output channels.

    Raises:
        InputError: the download fails.
    """
    models = _torchvision_models()
    network = models.vgg16(weights=None)
    if pretrained:
        _load_pretrained(network, models.VGG16_Weights.DEFAULT)
    pools = iter(range(1, 6))
    named = enumerate(network.features)
    layers = [(f"pool{next(pools)}" if isinstance(f, nn.MaxPool2d) else f"layer{i}", f) for i, f in named]
    for name, size, inputs, dense in (("6", 7, 512, network.classifier[0]), ("7", 1, 4096, network.classifier[3])):
        layers += [(f"fc{name}", as_convolution(dense, inputs, (size, size))), (f"relu{name}", nn.ReLU(inplace=True))]
    return nn.Sequential(OrderedDict(layers))


def cnn_s(pretrained: bool = False) -> nn.Sequential:
    """CNN-S of Chatfield et al.; its first two fully connected layers are 6x6 and 1x1 convolutions, as in Sec. 4.1.

    Args:
        pretrained: must be False, because torchvision has no weights of it.

    Returns:
        The trunk, 4096 output channels.

    Raises:
        InputError: ``pretrained`` is True.
    """
    if pretrained:
        raise InputError("torchvision has no weights of cnn_s: give a tagger with them as init=FILE")
    return cnns.trunk_of(cnns.CNNS())


ARCHITECTURES = {
    "bvlc_googlenet": Architecture(googlenet.googlenet, googlenet.CHANNELS, CAFFE, "pool2", "pool3"),
    "googlenet": Architecture(torchvision_googlenet, 1024, TENSORFLOW, "maxpool2", "maxpool3"),
    "cnn_s": Architecture(cnn_s, 4096, CAFFE, "conv5"),
    "vgg16": Architecture(vgg16, 4096, TORCHVISION, "pool4"),
    "efficientnet_lite0": Architecture(
        partial(efficientnet.efficientnet_lite, 0), efficientnet.CHANNELS, LITE, "stage5"
    ),
    "efficientnet_lite1": Architecture(
        partial(efficientnet.efficientnet_lite, 1), efficientnet.CHANNELS, LITE, "stage5"
    ),
    "efficientnet_lite2": Architecture(
        partial(efficientnet.efficientnet_lite, 2), efficientnet.CHANNELS, LITE, "stage5"
    ),
    "resnet50": Architecture(resnet50, 2048, TORCHVISION, "layer2"),
}


def _torchvision_models() -> Any:
    """torchvision's networks; imported when one is built, because that takes seconds and our own network needs none."""
    from torchvision import models

    return models


def _load_pretrained(network: nn.Module, weights: Any) -> None:
    """Downloads torchvision's ImageNet weights into a network."""
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise InputError(
            f"torchvision's weights cannot be downloaded ({error}): connect to the network, or give a file as init=FILE"
        ) from error
    # the file has auxiliary classifiers too, which the network does not have
    network.load_state_dict({name: state[name] for name in network.state_dict()})


def _trunk_of(network: nn.Module) -> nn.Sequential:
    """The layers before the global average, and a 7x7 average of stride 1."""
    layers = [(name, layer) for name, layer in network.named_children() if name not in ("avgpool", "dropout", "fc")]
    return nn.Sequential(OrderedDict([*layers, ("avgpool", nn.AvgPool2d(7, stride=1))]))

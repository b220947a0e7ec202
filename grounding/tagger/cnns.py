"""CNN-S of Chatfield et al., *Return of the Devil in the Details*, 2014 (Table 1), as a PyTorch module.

One of the paper's three networks. Its weights are not part of the project. Pooling uses ceil mode, as in Caffe.
``trunk_of`` gives its fully convolutional form.
"""

from collections import OrderedDict

from torch import Tensor, nn

from grounding.tagger.convolutional import as_convolution
from grounding.tagger.googlenet import conv


class CNNS(nn.Module):
    """Five convolutions and three fully connected layers.

    Args:
        tags: number of outputs.
    """

    def __init__(self, tags: int = 1000) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = conv(3, 96, 7, stride=2)
        layers["norm1"] = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        layers["pool1"] = nn.MaxPool2d(3, 3, ceil_mode=True)
        layers["conv2"] = conv(96, 256, 5, padding=1)
        layers["pool2"] = nn.MaxPool2d(2, 2, ceil_mode=True)
        layers["conv3"] = conv(256, 512, 3, padding=1)
        layers["conv4"] = conv(512, 512, 3, padding=1)
        layers["conv5"] = conv(512, 512, 3, padding=1)
        layers["pool5"] = nn.MaxPool2d(3, 3, ceil_mode=True)
        self.features = nn.Sequential(layers)
        self.fc6, self.relu6, self.dropout6 = nn.Linear(512 * 6 * 6, 4096), nn.ReLU(), nn.Dropout()
        self.fc7, self.relu7, self.dropout7 = nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()
        self.fc8 = nn.Linear(4096, tags)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits.

        Args:
            images: ``(N, 3, 224, 224)`` BGR in 0..255 minus the mean.

        Returns:
            ``(N, tags)`` logits.
        """
        x = self.features(images).flatten(1)
        x = self.dropout6(self.relu6(self.fc6(x)))
        logits: Tensor = self.fc8(self.dropout7(self.relu7(self.fc7(x))))
        return logits


def trunk_of(network: CNNS) -> nn.Sequential:
    """The layers before fc8, with fc6 and fc7 as 6x6 and 1x1 convolutions.

    Args:
        network: the network; its weights are shared.

    Returns:
        ``(N, 3, h, w)`` images to ``(N, 4096, h', w')`` features, with one position for 224 pixels and one more for
        every further 36 pixels.
    """
    layers = OrderedDict(network.features.named_children())
    layers |= {"fc6": as_convolution(network.fc6, 512, (6, 6)), "relu6": nn.ReLU(inplace=True)}
    layers |= {"fc7": as_convolution(network.fc7, 4096, (1, 1)), "relu7": nn.ReLU(inplace=True)}
    return nn.Sequential(layers)

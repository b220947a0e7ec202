"""TagClassifier: a CNN that says which tags an image carries; one file holds it whole."""

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import safetensors
import torch
import torchvision
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from grounding.runtime.artefacts import written_aside
from grounding.tagger import googlenet
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

FORMAT = "grounding-tagger-1"
EMBEDDED = Path(str(files("grounding.tagger.weights") / "tagger.safetensors"))


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a network's input: (pixel - mean) / std per channel, in the channel order of the network."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise InputError("preprocessing needs three means, and three deviations that are not 0")

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) RGB in 0..255, of any dtype, to float32 of the same shape."""
        images = images.float()
        images = images.flip(1) if self.bgr else images
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std


CAFFE = Preprocessing(mean=(104.007, 116.669, 122.679), bgr=True)
TORCHVISION = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# torchvision's GoogLeNet turns its input back into what TensorFlow trained it with: -1..1
TENSORFLOW = Preprocessing(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))


def torchvision_googlenet(pretrained: bool = False) -> nn.Sequential:
    """torchvision's GoogLeNet (batch norm), up to a 7x7 average of stride 1 in place of the global one."""
    network = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False, transform_input=False)
    return _until_average(_filled(network, torchvision.models.GoogLeNet_Weights.DEFAULT, pretrained))


def resnet50(pretrained: bool = False) -> nn.Sequential:
    """torchvision's ResNet-50, up to a 7x7 average of stride 1 in place of the global one."""
    network = torchvision.models.resnet50(weights=None)
    return _until_average(_filled(network, torchvision.models.ResNet50_Weights.DEFAULT, pretrained))


def vgg16(pretrained: bool = False) -> nn.Sequential:
    """torchvision's VGG16 with its first fully connected layers as 7x7 and 1x1 convolutions (Sec. 4.1, as in [21])."""
    network = _filled(torchvision.models.vgg16(weights=None), torchvision.models.VGG16_Weights.DEFAULT, pretrained)
    pools = iter(range(1, 6))
    named = enumerate(network.features)
    layers = [(f"pool{next(pools)}" if isinstance(f, nn.MaxPool2d) else f"layer{i}", f) for i, f in named]
    for name, size, inputs, dense in (("6", 7, 512, network.classifier[0]), ("7", 1, 4096, network.classifier[3])):
        convolution = nn.Conv2d(inputs, 4096, size)
        convolution.weight.data.copy_(dense.weight.data.view_as(convolution.weight))
        convolution.bias.data.copy_(dense.bias.data)
        layers += [(f"fc{name}", convolution), (f"relu{name}", nn.ReLU(inplace=True))]
    return nn.Sequential(OrderedDict(layers))


def _filled(network: nn.Module, weights: torchvision.models.WeightsEnum, pretrained: bool) -> nn.Module:
    """The network with torchvision's ImageNet weights, downloaded, where they are wanted."""
    if pretrained:
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except OSError as error:
            raise InputError(f"torchvision's weights cannot be downloaded ({error}); give init=FILE") from error
        # the auxiliary classifiers are left out
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network


def _until_average(network: nn.Module) -> nn.Sequential:
    layers = [(name, layer) for name, layer in network.named_children() if name not in ("avgpool", "dropout", "fc")]
    return nn.Sequential(OrderedDict([*layers, ("avgpool", nn.AvgPool2d(7, stride=1))]))


@dataclass(frozen=True)
class Architecture:
    """A trunk, from the image to the classifier's input (N, channels, h', w'), one position at 224 pixels, one more
    for each further 32; ``target`` is the layer of the paper's maps."""

    trunk: Callable[..., nn.Sequential]
    channels: int
    preprocessing: Preprocessing
    target: str


ARCHITECTURES = {
    "bvlc_googlenet": Architecture(googlenet.googlenet, googlenet.CHANNELS, CAFFE, "pool2"),
    "googlenet": Architecture(torchvision_googlenet, 1024, TENSORFLOW, "maxpool2"),
    "vgg16": Architecture(vgg16, 4096, TORCHVISION, "pool4"),
    "resnet50": Architecture(resnet50, 2048, TORCHVISION, "layer2"),
}


class TagClassifier(nn.Module):
    """Images in, one logit a tag and position out; fully convolutional.

    Args:
        architecture: a name of ``ARCHITECTURES``.
        vocabulary: the tags, in the order of the outputs.
        preprocessing: what the weights expect; the architecture's own by default.
        dropout: the share of features dropped before the tag layer in training.

    Raises:
        InputError: an unknown architecture.
    """

    def __init__(
        self,
        architecture: str,
        vocabulary: Vocabulary,
        preprocessing: Preprocessing | None = None,
        dropout: float = 0.4,
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise InputError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
        blueprint = ARCHITECTURES[architecture]
        self.architecture, self.vocabulary, self.target = architecture, vocabulary, blueprint.target
        self.preprocessing = preprocessing or blueprint.preprocessing
        self.trunk = blueprint.trunk()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(blueprint.channels, len(vocabulary), 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed (N, 3, h, w), h and w at least 224, to score maps (N, tags, h', w')."""
        return self.classifier(self.dropout(self.trunk(images)))

    def prepare(self, pixels: np.ndarray, size: list[int]) -> Tensor:
        """A photo as the network's input, on the network's device.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            size: [shorter side] or [height, width] of the result.

        Returns:
            (1, 3, h, w) float32, preprocessed.
        """
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        # resized on the CPU, so that every device gets the same input
        resized = self.preprocessing(transforms.resize(tensor, size, antialias=True))
        return resized.to(self.classifier.weight.device)

    def save(self, path: str | Path, **notes: str) -> None:
        """Writes one safetensors file, weights in half precision, everything else in its metadata.

        Args:
            notes: further metadata, such as what trained it.

        Raises:
            InputError: the file cannot be written.
        """
        about = {
            "format": FORMAT,
            "architecture": self.architecture,
            "preprocessing": json.dumps(asdict(self.preprocessing)),
            "vocabulary": json.dumps(list(self.vocabulary), ensure_ascii=False),
        }
        # counters of batch norms stay whole numbers
        state = {name: t.half() if t.is_floating_point() else t for name, t in self.state_dict().items()}
        write_tensors(path, state, notes | about)

    @classmethod
    def load(cls, path: str | Path | None = None) -> "TagClassifier":
        """Reads what :meth:`save` wrote; the embedded tagger by default. In evaluation mode, float32.

        Raises:
            InputError: no such file, another file, a truncated one, or one whose shapes disagree with its metadata.
        """
        path = Path(path) if path else EMBEDDED
        about, tensors = read_tensors(path)
        try:
            if about.get("format") != FORMAT:
                raise InputError("it holds tensors, but no vocabulary")
            preprocessing = Preprocessing(**json.loads(about["preprocessing"]))
            with torch.device("meta"):
                tagger = cls(about["architecture"], Vocabulary(json.loads(about["vocabulary"])), preprocessing)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no tagger that can be read ({error}); give a file of step=train") from error
        tagger.take(tensors, path)
        return tagger.eval()

    def take(self, tensors: dict[str, Tensor], path: str | Path) -> None:
        """Replaces all weights by tensors of the same names and shapes.

        Raises:
            InputError: a tensor is missing, unknown, of another shape, or not finite.
        """
        own = self.state_dict()
        odd = own.keys() ^ tensors.keys() or {n for n in own if own[n].shape != tensors[n].shape}
        if odd:
            name = min(odd)
            has, wants = (tuple(t[name].shape) if name in t else "none" for t in (tensors, own))
            raise InputError(f"{path}: the weights disagree with the metadata: {name} is {has}, should be {wants}")
        bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if bad:
            raise InputError(f"{path}: {bad[0]} holds NaN or infinite weights; take an earlier checkpoint")
        floats = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
        # an optimizer may hold these parameters: only those that have no storage yet are exchanged
        self.load_state_dict(floats, assign=next(self.parameters()).is_meta)


def load_vocabulary(path: str | Path | None = None) -> Vocabulary:
    """The vocabulary of a tagger's file (the embedded tagger's by default).

    Raises:
        InputError: no such file, or no tagger.
    """
    return TagClassifier.load(path).vocabulary


def write_tensors(path: str | Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    # as bytes: safetensors' own files are for their owner alone, and its errors say nothing of a full disk
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, about)
    with written_aside(path) as aside, aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a name that stands for half a file is worse than none


def read_tensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file; nothing in it is executed.

    Raises:
        InputError: no such file, or a file that is truncated or no safetensors.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file ({error})") from error

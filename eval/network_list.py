"""The CNNs of torchvision and timm with random weights, for which ``benchmark=networks`` measures the attention.

The weights are random, because nothing is downloaded. Layers with random weights as PyTorch initialises them can let
every activation fade, so ``initialise`` sets them to what training leaves: activations of one scale in every layer.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from skimage import data
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# The smallest network of each family: target and classifier. Targets are the paper's where it uses the network,
# otherwise the last layer of stride 8.
TORCHVISION: dict[str, tuple[str, str]] = {
    "alexnet": ("features.11", "classifier.6"),
    "densenet121": ("features.denseblock2", "classifier"),
    "efficientnet_b0": ("features.3", "classifier.1"),
    "efficientnet_v2_s": ("features.3", "classifier.1"),
    "googlenet": ("maxpool2", "fc"),
    "inception_v3": ("maxpool2", "fc"),
    "mnasnet0_5": ("layers.9", "classifier.1"),
    "mobilenet_v2": ("features.6", "classifier.1"),
    "mobilenet_v3_small": ("features.3", "classifier.3"),
    "regnet_x_400mf": ("trunk_output.block2", "fc"),
    "regnet_y_400mf": ("trunk_output.block2", "fc"),
    "resnet18": ("layer2", "fc"),
    "resnet50": ("layer2", "fc"),
    "resnext50_32x4d": ("layer2", "fc"),
    "shufflenet_v2_x0_5": ("stage2", "fc"),
    "squeezenet1_1": ("features.5", "classifier.1"),
    "vgg11": ("features.10", "classifier.6"),
    "vgg16_bn": ("features.33", "classifier.6"),
    "wide_resnet50_2": ("layer2", "fc"),
}
# timm says where its networks' stages and classifiers are
TIMM = [
    "cs3darknet_focus_s",
    "cspdarknet53",
    "cspresnet50",
    "cspresnext50",
    "darknet53",
    "darknetaa53",
    "densenet121",
    "densenetblur121d",
    "dla34",
    "dla46x_c",
    "dpn48b",
    "eca_nfnet_l0",
    "ecaresnet26t",
    "efficientnet_b0",
    "efficientnet_es",
    "efficientnet_lite0",
    "efficientnetv2_rw_t",
    "ese_vovnet19b_dw",
    "fbnetc_100",
    "fbnetv3_b",
    "gc_efficientnetv2_rw_t",
    "gernet_s",
    "ghostnet_100",
    "hardcorenas_a",
    "hgnet_tiny",
    "hgnetv2_b0",
    "hrnet_w18_small",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnet_050",
    "legacy_seresnet18",
    "mixnet_s",
    "mnasnet_small",
    "mobilenetv1_100",
    "mobilenetv2_050",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "mobileone_s0",
    "nf_regnet_b0",
    "nf_resnet50",
    "regnetx_002",
    "regnety_002",
    "regnetz_b16",
    "repghostnet_050",
    "repvgg_a0",
    "res2net50_14w_8s",
    "resnest14d",
    "resnet10t",
    "resnet18",
    "resnet26d",
    "resnetaa50",
    "resnetblur18",
    "resnext26ts",
    "rexnet_100",
    "selecsls42b",
    "semnasnet_050",
    "seresnext26t_32x4d",
    "skresnet18",
    "spnasnet_100",
    "starnet_s1",
    "tf_efficientnet_b0",
    "tf_mobilenetv3_small_minimal_100",
    "tinynet_e",
    "tresnet_m",
    "vgg11_bn",
    "vovnet39a",
    "xception41",
]
LISTED = (*(f"torchvision/{name}" for name in TORCHVISION), *(f"timm/{name}" for name in TIMM))
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ListedNetwork:
    """A network with random weights.

    Attributes:
        model: the network, in evaluation mode.
        target: the layer of the maps.
        classifier: the layer whose outputs are the tags.
    """

    model: nn.Module
    target: str
    classifier: str


def listed_network(name: str, tags: int = 1000) -> ListedNetwork:
    """A network with the random weights of its library; see ``initialise``.

    Args:
        name: a name of ``LISTED``.
        tags: number of classes.

    Raises:
        ImportError: timm is not installed.
    """
    library, _, name = name.partition("/")
    torch.manual_seed(0)
    if library == "torchvision":
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = getattr(torchvision.models, name)(weights=None, num_classes=tags, **extra)
        return ListedNetwork(model.eval(), *TORCHVISION[name])
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=tags)
    stages = [stage["module"] for stage in model.feature_info if stage["reduction"] == 8]
    target = stages[-1].partition(".stack.")[0]  # not within a residual block, which its skip bypasses
    return ListedNetwork(model.eval(), target, model.default_cfg["classifier"])


def photos(size: int) -> Tensor:
    """Four photos of scikit-image, preprocessed as for ImageNet.

    Args:
        size: height and width in pixels.

    Returns:
        ``(4, 3, size, size)`` float32. The first one is of an astronaut.
    """
    arrays = [image() for image in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    pixels = [torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255 for array in arrays]
    square = [F.interpolate(photo, (size, size), mode="bilinear", antialias=True) for photo in pixels]
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (torch.cat(square) - mean) / deviation


@torch.no_grad()
def initialise(model: nn.Module, images: Tensor) -> None:
    """Sets random weights under which no activation fades, the same in every run.

    Convolutions and linear layers get He's normal initialisation. Batch norms get scales in [0.5, 1.5], shifts of
    deviation 0.2 and the statistics of these images, so that in every layer about as many neurons are active as after
    training. Scales at the end of residual branches, which start at 0, are set to 1.

    Args:
        model: the network; it is changed, and is in evaluation mode afterwards.
        images: ``(N, 3, h, w)``, at least two.
    """
    torch.manual_seed(0)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            _set(module, name, parameter)
    norms = [module for module in model.eval().modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = 1.0
    if norms:
        model(images)
    model.eval()


def _set(module: nn.Module, name: str, parameter: Tensor) -> None:
    if isinstance(module, _BatchNorm):
        nn.init.uniform_(parameter, 0.5, 1.5) if name == "weight" else nn.init.normal_(parameter, 0, 0.2)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and name == "weight":
        nn.init.kaiming_normal_(parameter)
    elif name != "bias" and not parameter.any():
        nn.init.ones_(parameter)

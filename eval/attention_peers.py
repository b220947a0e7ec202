"""Other implementations that the benchmark runs beside ours. Each function prepares one and returns what to time.

TorchRay and Captum take one class at a time, zennit takes a batch. zennit has no contrast, so its time is that of MWP.
Captum's LRP goes down to the image, and only through networks without concatenations.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from eval.networks import BenchmarkNetwork
from grounding.runtime.timing import Work


def torchray(network: BenchmarkNetwork, image: Tensor, words: int) -> Work:
    """Contrastive Excitation Backprop, one class at a time.

    Args:
        network: the network and its layers.
        image: ``(1, 3, H, W)``.
        words: number of classes.
    """
    from torchray.attribution.excitation_backprop import contrastive_excitation_backprop

    layers = {"saliency_layer": network.target, "contrast_layer": network.below, "classifier_layer": network.classifier}
    return lambda: [contrastive_excitation_backprop(network.model, image, word, **layers) for word in range(words)]


def zennit(network: BenchmarkNetwork, image: Tensor, words: int) -> Work:
    """Excitation Backprop without the contrast, with the classes as a batch.

    Args:
        network: the network and its layers.
        image: ``(1, 3, H, W)``.
        words: number of classes.
    """
    from zennit.composites import ExcitationBackprop

    images, outputs = image.expand(words, -1, -1, -1).contiguous(), []
    layer = network.model.get_submodule(network.target)

    def work() -> None:
        hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output.requires_grad_()))
        with ExcitationBackprop().context(network.model) as model:
            scores = model(images)
        scores = scores.mean((2, 3)) if scores.ndim == 4 else scores
        torch.autograd.grad(scores, outputs.pop(), torch.eye(words, scores.shape[1]))
        hook.remove()

    return work


def captum(network: BenchmarkNetwork, image: Tensor, words: int) -> Work:
    """LRP with the epsilon rule, one class at a time.

    Args:
        network: the network and its layers.
        image: ``(1, 3, H, W)``.
        words: number of classes.
    """
    from captum.attr import LRP

    model = copy.deepcopy(network.model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    lrp = LRP(model)
    return lambda: [lrp.attribute(image, target=word) for word in range(words)]


PEERS: dict[str, Callable[[BenchmarkNetwork, Tensor, int], Work]] = {
    "torchray": torchray,
    "zennit": zennit,
    "captum": captum,
}

"""EfficientNet-Lite against its published form: batch normalisation apart, and TensorFlow's padding."""

import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from grounding.tagger.efficientnet import efficientnet_lite, from_published, size_of
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.initialization import initial_tagger

# expansion, channels, blocks, stride and kernel of each stage, from Table 1 of Tan and Le 2019; the networks 0, 1 and 2
WIDTHS = {0: (16, 24, 40, 80, 112, 192, 320), 1: (16, 24, 40, 80, 112, 192, 320), 2: (16, 24, 48, 88, 120, 208, 352)}
DEPTHS = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
STRIDES, KERNELS = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)


def blocks(size: int) -> list[tuple[int, int, int, int, int]]:
    """Input channels, inner channels, output channels, stride and kernel of each block."""
    found, inputs = [], 32
    for stage, (outputs, repeats) in enumerate(zip(WIDTHS[size], DEPTHS[size], strict=True)):
        for number in range(repeats):
            inner = inputs * (6 if stage else 1)
            found.append((inputs, inner, outputs, 1 if number else STRIDES[stage], KERNELS[stage]))
            inputs = outputs
    return found


def published(size: int) -> dict[str, Tensor]:
    """Random weights with the published names."""
    generator = torch.Generator().manual_seed(size)
    tensors: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        fan = shape[1] * shape[2] * shape[3]
        tensors[f"{convolution}.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        for part, least in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.2), ("running_var", 0.5)):
            tensors[f"{norm}.{part}"] = torch.rand(shape[0], generator=generator) + least

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for i, (inputs, inner, outputs, _, kernel) in enumerate(blocks(size)):
        if inner > inputs:
            add(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", inner, inputs, 1, 1)
        add(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", inner, 1, kernel, kernel)
        add(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", outputs, inner, 1, 1)
    add("_conv_head", "_bn1", 1280, WIDTHS[size][-1], 1, 1)
    return tensors | {"_fc.weight": torch.randn(3, 1280, generator=generator), "_fc.bias": torch.zeros(3)}


def plain_features(tensors: dict[str, Tensor], size: int, x: Tensor) -> Tensor:
    """The features before the global average, layer by layer."""
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def layer(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = t[f"{convolution}.weight"]
        kernel = weight.shape[-1]
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        first = missing // 2
        x = F.conv2d(F.pad(x, (first, missing - first) * 2), weight, stride=stride, groups=groups)
        mean, variance, gain, shift = (
            t[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gain, shift, eps=1e-3)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    for i, (inputs, inner, outputs, stride, _) in enumerate(blocks(size)):
        name, y = f"_blocks.{i}", x
        if inner > inputs:
            y = F.relu6(layer(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = F.relu6(layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, inner))
        y = layer(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and inputs == outputs else y
    return F.relu6(layer(x, "_conv_head", "_bn1"))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_trunk_computes_what_the_published_network_computes(size):
    tensors = published(size)
    assert size_of(tensors) == size
    trunk = efficientnet_lite(size).double().eval()
    trunk.load_state_dict(from_published(tensors, size))
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(trunk[:-1](images), plain_features(tensors, size, images), rtol=1e-4, atol=1e-4)


def test_a_training_starts_from_published_weights_and_keeps_the_classes(tmp_path):
    tensors = published(0)
    save_file(tensors, tmp_path / "lite.safetensors")
    (tmp_path / "names.txt").write_text("0 tench\n1 goldfish\n2 dog, hound\n")
    path, names = str(tmp_path / "lite.safetensors"), tmp_path / "names.txt"
    tagger = initial_tagger(path, Vocabulary(["dog", "cat"]), names=names, inherit=True)
    assert (tagger.architecture, list(tagger.vocabulary)) == (
        "efficientnet_lite0",
        ["dog", "cat", "tench", "goldfish", "hound"],
    )
    assert torch.equal(tagger.classifier.weight[2:, :, 0, 0], tensors["_fc.weight"])


def test_incomplete_weights_are_refused(tmp_path):
    tensors = {name: tensor for name, tensor in published(0).items() if name != "_blocks.3._bn1.running_var"}
    save_file(tensors, tmp_path / "lite.safetensors")
    missing = re.escape("_blocks.3._bn1.running_var")
    with pytest.raises(InputError, match=f"the tensor '{missing}' of EfficientNet-Lite0 is missing"):
        initial_tagger(str(tmp_path / "lite.safetensors"), Vocabulary(["dog"]))

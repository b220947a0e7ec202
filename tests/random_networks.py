"""Random networks of the layers that a top-down pass knows, drawn by Hypothesis."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from surrogate import (
    TAGS,
    Chain,
    Concatenation,
    Network,
    Neurons,
    Norm,
    Pool,
    Residual,
    Scaling,
    Vector,
    add_in_place,
)
from torch import nn

from grounding.tagger.googlenet import ResponseNorm


class Builder:
    """Draws the parts of a network; the weights come from one seed."""

    def __init__(self, draw):
        self.draw = draw
        torch.manual_seed(draw(st.integers(0, 10**6)))

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def relu(self):
        return self.one_of(nn.ReLU(inplace=True), nn.ReLU(), torch.relu, lambda x: F.relu(x, inplace=True))

    def norm(self, channels: int) -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(channels)
        norm.weight.data.uniform_(-1.5, 1.5)
        norm.bias.data.normal_(0.2, 0.5)
        norm.running_mean.normal_(0, 0.5)
        norm.running_var.uniform_(0.3, 2)
        return norm

    def neurons(self, inputs, outputs=None, relu=True, same=True, stride=1) -> Neurons:
        """``same``: as large as its input; ``relu``: a ReLU, or True for any."""
        outputs = outputs or self.one_of(2, 3, 4, 6)
        kernel = self.one_of((1, 1), (3, 3), (5, 5), (1, 3), (3, 1))
        dilation = self.one_of(1, 1, 2)
        groups = self.one_of(
            *(n for n in (1, 1, inputs) if outputs % n == 0), 2 if inputs % 2 + outputs % 2 == 0 else 1
        )
        reach = tuple(dilation * (k // 2) for k in kernel)
        padding = reach if same else tuple(max(0, n - self.one_of(0, 1)) for n in reach)
        bias = self.one_of(True, False)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
        nn.init.kaiming_normal_(conv.weight)
        norm = self.norm(outputs) if self.one_of(False, False, True) else None
        return Neurons(conv, norm, self.relu() if relu else None)

    def branch(self, inputs, depth: int) -> tuple[nn.Module, int]:
        """One branch of a concatenation, and its channels."""
        kind = self.one_of("neurons", "neurons", "two", "pooled", "average", "skip", "nested" if depth else "neurons")
        if kind == "skip":
            return Chain(), inputs
        if kind == "nested":
            return self.concatenation(inputs, depth - 1)
        last = self.neurons(inputs, relu=kind != "two" or self.one_of(True, False))
        outputs = last.conv.out_channels
        if kind == "two":
            second = self.neurons(outputs)
            return Chain(last, second), second.conv.out_channels
        if kind == "pooled":
            return Chain(Pool(nn.MaxPool2d(3, 1, 1)), last), outputs
        if kind == "average":
            return Chain(Pool(nn.AvgPool2d(3, 1, 1, count_include_pad=self.one_of(True, False))), last), outputs
        return last, outputs

    def concatenation(self, inputs, depth: int = 1) -> tuple[nn.Module, int]:
        branches = [self.branch(inputs, depth) for _ in range(self.one_of(2, 3, 4))]
        return Concatenation(*(b for b, _ in branches)), sum(c for _, c in branches)

    def residual(self, inputs) -> tuple[nn.Module, int]:
        stride, projected = self.one_of((1, False), (1, True), (2, True))
        outputs = self.one_of(2, 4) if projected else inputs
        middle = self.neurons(inputs)
        branch = Chain(middle, self.neurons(middle.conv.out_channels, outputs, relu=False, stride=stride))
        skip = self.neurons(inputs, outputs, relu=False, stride=stride) if projected else Chain()
        add = self.one_of(torch.add, add_in_place, lambda x, y: x + y, lambda x, y: x.add_(y))
        return Residual(branch, skip, self.relu(), add), outputs

    def pool(self, size) -> nn.Module:
        if min(size) < 3:
            return nn.MaxPool2d(2, 2, ceil_mode=True)
        kind, ceil = self.one_of("max", "max", "average"), self.one_of(False, True)
        window, stride, padding = self.one_of(
            (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 2, 0), (3, 3, 0), ((3, 2), (2, 1), 0)
        )
        return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(window, stride, padding, ceil_mode=ceil)

    def stage(self, shape) -> nn.Module:
        channels = shape[1]
        kind = self.one_of(
            "neurons",
            "neurons",
            "wide" if min(shape[2:]) > 6 else "pool",
            "pool",
            "cat",
            "add",
            "twice",
            "norm",
            "lrn",
            "dropout",
        )
        if kind == "wide":
            return self.neurons(channels, same=False, stride=self.one_of(1, 2))
        if kind == "pool":
            return Chain(Pool(self.pool(shape[2:])))
        if kind == "cat":
            return self.concatenation(channels)[0]
        if kind == "add":
            return self.residual(channels)[0]
        if kind == "twice":
            part = self.neurons(channels, channels)
            return Chain(part, part)
        if kind == "norm":
            return Norm(self.norm(channels), self.relu())
        if kind == "lrn":
            return Scaling(self.one_of(ResponseNorm(), nn.LocalResponseNorm(3, 0.5, 0.75, 2.0)))
        if kind == "dropout":
            return Scaling(nn.Dropout(0.5))
        return self.neurons(channels)


@st.composite
def networks(draw) -> Network:
    """A network in evaluation mode and three images for it."""
    builder = Builder(draw)
    height, width = draw(st.integers(7, 13)), draw(st.integers(7, 13))
    images = torch.randn(3, 3, height, width, dtype=torch.float64)
    shape = images.shape
    stages = [builder.neurons(3, 4)]
    for _ in range(draw(st.integers(1, 5))):
        shape = _shape(stages, images)
        stage = builder.stage(shape)
        stages.append(stage if shape[1] < 40 else builder.neurons(shape[1]))
    end = builder.one_of("maps", "average", "global", "vector", "deep")
    shape = _shape(stages, images)
    if end == "average" and min(shape[2:]) > 2:
        stages.append(Pool(nn.AvgPool2d(2, 1)))
    if end == "global":
        stages.append(Pool(nn.AdaptiveAvgPool2d(1)))
    if end in ("vector", "deep"):
        features = shape[1:].numel()
        if end == "deep":
            stages.append(Vector(nn.Linear(features, 6), builder.relu()))
            features = 6
        classifier = nn.Linear(features, TAGS, bias=builder.one_of(True, False))
    else:
        classifier = nn.Conv2d(_shape(stages, images)[1], TAGS, 1)
    return Network(stages, classifier, images).double().eval()


@torch.no_grad()
def _shape(stages, images) -> torch.Size:
    x = images[:1]
    for stage in stages:
        x = stage.double().eval()(x)
    return x.shape

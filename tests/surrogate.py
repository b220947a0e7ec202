"""Excitation Backprop as the gradient of a surrogate, for networks whose parts say twice what they do.

``forward`` of a part is the plain layer, which ``TopDown`` is given. ``excite`` is the surrogate: it takes and returns
a pair (v, e) of the values and of their excitations, and autograd differentiates it. The excitation of a neuron is
W+ x. Where the neuron ends, it is scaled to the activation relu(W x + b), and the scale is a constant to autograd. The
marginal winning probability is then p = e * d signal / d e.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAGS = 5


def share(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, 0, numerator / denominator).detach()


def ended(v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """A neuron that ends here: its activation, and the same as its excitation scaled to that.

    An activation that nothing excites competes in the layer above, but passes nothing on.
    """
    activation = v.clamp(min=0)
    return activation, activation.detach() + share(activation, e) * (e - e.detach())


class Neurons(nn.Module):
    """A convolution, with or without a batch norm and a ReLU."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu):
        super().__init__()
        self.conv, self.norm, self.relu = conv, norm, relu

    def forward(self, x):
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.relu is None else self.relu(x)

    def excite(self, v, e):
        e = ended(v, e)[1]
        weight, bias = self.conv.weight, self.conv.bias
        if self.norm is not None:
            scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
            bias = self.norm.bias - scale * (self.norm.running_mean - (0 if bias is None else bias))
            weight = weight * scale[:, None, None, None]
        geometry = self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups
        v, e = F.conv2d(v, weight, bias, *geometry), F.conv2d(e, weight.clamp(min=0), None, *geometry)
        return (v, e) if self.relu is None else ended(v, e)


class Norm(nn.Module):
    """A batch norm by itself, and a ReLU: as many neurons of one input each."""

    def __init__(self, norm: nn.BatchNorm2d, relu):
        super().__init__()
        self.norm, self.relu = norm, relu

    def forward(self, x):
        return self.relu(self.norm(x))

    def excite(self, v, e):
        e = ended(v, e)[1]
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        return ended(self.norm(v), scale.clamp(min=0)[:, None, None] * e)


class Pool(nn.Module):
    """A maximum, whose winner's excitation is its own, or an average."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x)

    def excite(self, v, e):
        if not isinstance(self.pool, nn.MaxPool2d):
            return self.pool(v), self.pool(e)
        pool = copy.copy(self.pool)
        pool.return_indices = True
        v, where = pool(v)
        return v, e.flatten(2).gather(2, where.flatten(2)).view_as(v)


class Scaling(nn.Module):
    """A response norm or a dropout: each value times a factor that is held fixed."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)

    def excite(self, v, e):
        scaled = self.layer(v)
        return scaled, share(scaled, v) * e


class Chain(nn.Module):
    """Parts one after the other; a part may stand there twice."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def excite(self, v, e):
        for part in self.parts:
            v, e = part.excite(v, e)
        return v, e


class Concatenation(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)

    def excite(self, v, e):
        vs, es = zip(*(branch.excite(v, e) for branch in self.branches), strict=True)
        return torch.cat(vs, 1), torch.cat(es, 1)


def add_in_place(x, y):
    x += y
    return x


class Residual(nn.Module):
    """branch(x) + skip(x), and a ReLU: one neuron with the inputs of both."""

    def __init__(self, branch: nn.Module, skip: nn.Module, relu, add):
        super().__init__()
        self.branch, self.skip, self.relu, self.add = branch, skip, relu, add

    def forward(self, x):
        total = self.add(self.branch(x), self.skip(x))
        return total if self.relu is None else self.relu(total)

    def excite(self, v, e):
        (v1, e1), (v2, e2) = self.branch.excite(v, e), self.skip.excite(v, e)
        return (v1 + v2, e1 + e2) if self.relu is None else ended(v1 + v2, e1 + e2)


class Vector(nn.Module):
    """A linear layer on all values at once, with a ReLU."""

    def __init__(self, linear: nn.Linear, relu):
        super().__init__()
        self.linear, self.relu = linear, relu

    def forward(self, x):
        return self.relu(self.linear(x.flatten(1)))

    def excite(self, v, e):
        v, e = v.flatten(1), ended(v, e)[1].flatten(1)
        return ended(self.linear(v), F.linear(e, self.linear.weight.clamp(min=0)))


class Network(nn.Module):
    """Stages, any of which may be the target, and a classifier of score maps or of a vector."""

    def __init__(self, stages: list[nn.Module], classifier: nn.Module, images: Tensor):
        super().__init__()
        self.images = images
        self.stages, self.classifier = nn.ModuleList(stages), classifier

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.flatten(1) if isinstance(self.classifier, nn.Linear) else x)

    @torch.no_grad()
    def targets(self) -> list[str]:
        """The image and the stages where all neurons end."""
        names = ["image"]
        v, e = self.images, self.images.clamp(min=0)
        for i, stage in enumerate(self.stages):
            v, e = stage.excite(v, e)
            names += [f"stages.{i}"] * (v.ndim == 4 and torch.allclose(v, e, rtol=1e-12, atol=0))
        return names


def word_shares(scores: Tensor) -> Tensor:
    return scores.flatten(2).softmax(2).view_as(scores).detach() if scores.ndim == 4 else torch.ones_like(scores)


def surrogate_maps(net: Network, image: Tensor, target: str, dual: bool = False) -> Tensor:
    """MWP of every tag at the target, (tags, h, w)."""
    v, e = image, image.clamp(min=0).requires_grad_()
    at = e
    for i, stage in enumerate(net.stages):
        v, e = stage.excite(v, e)
        if target == f"stages.{i}":
            e = e if e.requires_grad else e.requires_grad_()
            at = e
    e = ended(v, e)[1]
    if isinstance(net.classifier, nn.Linear):
        v, e = v.flatten(1), e.flatten(1)
    weight = (net.classifier.weight * (-1 if dual else 1)).clamp(min=0)
    winning = (F.linear if e.ndim == 2 else F.conv2d)(e, weight)
    probability = word_shares(net.classifier(v)) * share(torch.ones_like(winning), winning) * winning
    totals = probability.view(TAGS, -1).sum(1)
    slopes = [torch.autograd.grad(total, at, retain_graph=True)[0] for total in totals]
    return torch.stack([(at * slope)[0].sum(0).detach() for slope in slopes])


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (g > 0), g, 0)


def gradient_maps(net: Network, image: Tensor, target: str, relu=torch.relu) -> Tensor:
    """max over channels of |d score / d x| of every tag, by autograd, (tags, h, w)."""
    net = copy.deepcopy(net)
    for part in net.modules():
        if getattr(part, "relu", None) is not None:
            del part.relu
            part.relu = relu
        if isinstance(part, Residual):
            part.add = torch.add
    x = at = image.clone().requires_grad_()
    for i, stage in enumerate(net.stages):
        x = stage(x)
        at = x if target == f"stages.{i}" else at
    scores = net.classifier(x.flatten(1) if isinstance(net.classifier, nn.Linear) else x)
    totals = (word_shares(scores) * scores).view(TAGS, -1).sum(1)
    return torch.stack([torch.autograd.grad(t, at, retain_graph=True)[0][0].abs().amax(0) for t in totals])

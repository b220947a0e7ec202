"""The layers of a network give the numbers of the definition on single neurons."""

import doctest

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grounding import TopDown
from grounding.attention import definition


def network(seed: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A network of 1x1 convolutions: one neuron a channel, the first layer being the target."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 4, 1)).double()


def test_the_examples_of_the_definition():
    assert doctest.testmod(definition).attempted >= 3
    assert not doctest.testmod(definition).failed


@given(st.integers(0, 10**6), st.sampled_from([(5,), (5, 4), (6, 5, 4)]), st.sampled_from(["dense", "sparse"]))
def test_a_map_is_the_marginal_winning_probability_of_each_layer(seed, widths, engine):
    net = network(seed, widths)
    image = torch.rand(1, 3, 1, 1, dtype=torch.float64)
    activations = [image]
    for layer in net:
        activations.append(layer(activations[-1]).detach())
    mass, dual = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for index in range(len(net) - 1, 0, -2):
        x, weights = activations[index].flatten(), net[index].weight.detach().flatten(1)
        mass = torch.stack([definition.marginal(x, weights, row) for row in mass])
        top = index == len(net) - 1
        dual = torch.stack([definition.marginal(x, -weights if top else weights, row) for row in dual])
    scene = TopDown(net, "1", str(len(net) - 1), engine=engine).look(image)
    torch.testing.assert_close(scene.attend([0, 1, 2, 3], "mwp").flatten(), mass.sum(1))
    contrast = (mass.sum(1) - dual.sum(1)).clamp(min=0)
    torch.testing.assert_close(scene.attend([0, 1, 2, 3], "c-mwp").flatten(), contrast)


@given(st.integers(0, 10**6), st.sampled_from(["dense", "sparse"]))
def test_a_contrastive_map_of_one_channel_is_the_contrast_of_the_definition(seed, engine):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(9, 4)).double()
    image, signal = torch.rand(1, 3, 3, 3, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    expected = definition.contrastive(net[:3](image)[0].detach(), net[3].weight.detach(), signal)
    maps = TopDown(net, "1", "3", engine=engine).look(image).attend(signal[None], "c-mwp")
    torch.testing.assert_close(maps.flatten(), expected)

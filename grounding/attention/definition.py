"""Excitation Backprop by its definition, on single neurons. Read this file first.

A neuron ``a = relu(w . x + b)`` passes its winning probability on to its inputs. Input j wins with the probability

    P(x_j | a) = x_j w_j / Z    where w_j > 0, otherwise 0;    Z = sum of x_j w_j over w_j > 0        (Eq. 2)

if all x_j >= 0. The bias takes no part. If Z = 0, no input wins and the mass of the neuron is lost. The marginal
winning probability (MWP) of an input is what it gets from all neurons that it is connected to:

    MWP(x_j) = sum over neurons a of P(x_j | a) MWP(a)                                                (Eq. 1)

A worked neuron: of three inputs, the first and the third excite it, the second inhibits it.

    >>> x, w = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([[2.0, -1.0, 1.0]])
    >>> winning_probabilities(x, w)                 # Z = 3 * 2 + 2 * 1 = 8
    tensor([[0.7500, 0.0000, 0.2500]])

The dual unit has the negated weights: it is the "not this tag" unit. Inputs that excite it argue against the tag. The
contrastive map (c-MWP, Sec. 3.3) is the unit's map minus the dual unit's, truncated at 0. Here each input is a position
of the map; where a position has several channels, the difference is summed over them before it is truncated.

    >>> winning_probabilities(x, -w)
    tensor([[0., 1., 0.]])
    >>> contrastive(x, w, torch.tensor([1.0]))
    tensor([0.7500, 0.0000, 0.2500])

``rules.py`` does the same for whole layers. There, a signal is g = p / x instead of p, so that a layer is one product
with the transposed positive weights.
"""

import torch
from torch import Tensor

__all__ = ["contrastive", "marginal", "winning_probabilities"]


def winning_probabilities(x: Tensor, weights: Tensor) -> Tensor:
    """P(x_j | a_i) of Eq. 2.

    Args:
        x: ``(J,)`` inputs >= 0.
        weights: ``(I, J)``, one row per neuron.

    Returns:
        ``(I, J)``; each row sums to 1, or to 0 where no input excites the neuron.
    """
    excitation = weights.clamp(min=0) * x
    z = excitation.sum(1, keepdim=True)
    return torch.where(z > 0, excitation / z, 0)


def marginal(x: Tensor, weights: Tensor, mass: Tensor) -> Tensor:
    """MWP of the inputs of a layer, Eq. 1.

    Args:
        x: ``(J,)`` inputs >= 0.
        weights: ``(I, J)``, one row per neuron.
        mass: ``(I,)``, MWP of the neurons.

    Returns:
        ``(J,)``; its sum is the sum of ``mass`` minus the mass of neurons that no input excites.
    """
    return mass @ winning_probabilities(x, weights)


def contrastive(x: Tensor, weights: Tensor, signal: Tensor) -> Tensor:
    """c-MWP of the inputs of a classifier (Sec. 3.3).

    Args:
        x: ``(J,)`` inputs >= 0.
        weights: ``(T, J)`` of the output units.
        signal: ``(T,)``, the top-down signal P(A_0): a distribution over the output units.

    Returns:
        ``(J,)``, >= 0.
    """
    return (marginal(x, weights, signal) - marginal(x, -weights, signal)).clamp(min=0)

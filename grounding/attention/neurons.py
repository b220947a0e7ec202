"""The values of a layer's neurons in the forward pass, with what a top-down pass must know about them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons of a layer in one forward pass.

    A neuron is a weighted sum together with the nonlinearity after it. Between the two, ``value`` is a pre-activation
    and ``excitation`` is the z = W+ x by which the winners among its inputs are normalised. The nonlinearity turns the
    pre-activation into an activation.

    Attributes:
        value: ``(N, C, h, w)`` or ``(N, C)``, as the network computes it.
        excitation: z, of the same shape. It is set for pre-activations, and for activations that may be negative. It is
            None for activations >= 0, and for all methods except Excitation Backprop.
        rectified: whether a neuron with ``value`` <= 0 passes no signal on, so that a signal to it may be dropped.
    """

    value: Tensor
    excitation: Tensor | None = None
    rectified: bool = True

    @property
    def z(self) -> Tensor:
        """The excitation of a pre-activation; the value of an activation."""
        return self.value if self.excitation is None else self.excitation

    @cached_property
    def activation(self) -> Tensor:
        """The positive part of the values: only that can win (Assumption A1 of the paper)."""
        return self.value if self.excitation is None else self.value.clamp(min=0)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Neurons":
        """The neurons after a linear function.

        Args:
            function: linear, without a bias, with weights >= 0, such as an average or a reshaping.
        """
        excitation = None if self.excitation is None else function(self.excitation)
        return Neurons(function(self.value), excitation, self.rectified)

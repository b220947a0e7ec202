"""Dropout whose masks follow from where in the training they are used."""

import numpy as np
import torch
from torch import Tensor, nn


class KeyedDropout(nn.Module):
    """Dropout keyed by seed, step and the photo's place in the batch of all ranks.

    So a resumed run repeats it, and the photos of a step meet the same masks however many ranks share them.

    Args:
        share: of the features that are dropped; seed: of the training.
    """

    def __init__(self, share: float, seed: int):
        super().__init__()
        self.share, self.seed = share, seed
        self.step, self.batch, self.first = 0, 0, 0
        self._of, self._numbers = None, torch.empty(0)

    def at(self, step: int, batch: int, first: int) -> None:
        """Says where the next photos are: in which step of how many photos, and which of them is the first one."""
        self.step, self.batch, self.first = step, batch, first

    @torch.compiler.disable  # it draws numbers in ways that cannot be compiled
    def forward(self, features: Tensor) -> Tensor:
        """(n, C, h, w) to the same shape; nothing is dropped outside training."""
        if not self.training or not self.share:
            return features
        kept = self._drawn(features.shape[1:])[self.first : self.first + len(features)] >= self.share
        return features * (kept / (1 - self.share)).to(features)

    def _drawn(self, shape: torch.Size) -> Tensor:
        """Numbers 0..1 for the whole batch, drawn once a step."""
        if self._of != (self.step, self.batch, shape):
            state = np.random.SeedSequence([self.seed, self.step]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0] >> 1))
            self._of, self._numbers = (
                (self.step, self.batch, shape),
                torch.rand(self.batch, *shape, generator=generator),
            )
        return self._numbers

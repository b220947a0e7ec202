"""Dropout whose masks depend only on the seed, the step and the photo."""

import numpy as np
import torch
from torch import Tensor, nn


class KeyedDropout(nn.Module):
    """Dropout whose mask depends on the seed, the step and the photo's place in the batch of all ranks.

    So a resumed training uses the same masks, and the masks do not depend on the number of ranks.

    Args:
        share: probability that a feature is dropped, in [0, 1).
        seed: seed of the training.
    """

    def __init__(self, share: float, seed: int):
        super().__init__()
        self.share, self.seed = share, seed
        self.step, self.batch, self.first = 0, 0, 0
        self._key, self._numbers = None, torch.empty(0)

    def at(self, step: int, batch: int, first: int) -> None:
        """Sets the place of the next photos.

        Args:
            step: step of the training, from 0.
            batch: photos per step, over all ranks.
            first: place of the first of these photos in the batch, from 0.
        """
        self.step, self.batch, self.first = step, batch, first

    @torch.compiler.disable  # the random numbers come from a generator that cannot be compiled
    def forward(self, features: Tensor) -> Tensor:
        """Applies dropout in training mode.

        Args:
            features: ``(n, C, h, w)`` float.

        Returns:
            A tensor of the same shape; ``features`` itself outside of training.
        """
        if not self.training or not self.share:
            return features
        kept = self._random(features.shape[1:])[self.first : self.first + len(features)] >= self.share
        return features * (kept / (1 - self.share)).to(features)

    def _random(self, shape: torch.Size) -> Tensor:
        """``(batch, *shape)`` numbers in [0, 1), generated once per step."""
        if self._key != (self.step, self.batch, shape):
            state = np.random.SeedSequence([self.seed, self.step]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0] >> 1))
            self._key = (self.step, self.batch, shape)
            self._numbers = torch.rand(self.batch, *shape, generator=generator)
        return self._numbers

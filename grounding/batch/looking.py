"""Looking at a photo in two parts: what is computed before the network, and the scene after it."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grounding.attention.topdown import TopDown
from grounding.images import MAX_PANORAMA, Photo, read_image
from grounding.maps import MapSource
from grounding.scene import GroundingScene
from grounding.settings import Settings
from grounding.tagger.tagger import TagClassifier
from proposals import Proposals, Proposer


class ReadPhoto(NamedTuple):
    """A photo that is ready for the network.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB.
        prepared: ``(1, 3, h, w)``, the input of the network, see ``TagClassifier.prepare``.
        proposals: the proposals of the photo.
    """

    pixels: NDArray[np.uint8]
    prepared: Tensor
    proposals: Proposals


class Looker(NamedTuple):
    """What a grounder looks with.

    Attributes:
        tagger: the network.
        proposer: computes the proposals.
        settings: the settings.
        topdown: the top-down attention of the network at the target layer.
    """

    tagger: TagClassifier
    proposer: Proposer
    settings: Settings
    topdown: TopDown

    def read(self, image: Photo, name: str | None = None) -> ReadPhoto:
        """Reads a photo and computes its proposals.

        Args:
            image: see ``Grounder.look``.
            name: see ``Grounder.look``.

        Raises:
            InputError: the image cannot be read, see ``grounding.images.read_image``.
        """
        pixels = read_image(image, MAX_PANORAMA)
        if name is None and isinstance(image, str | os.PathLike):
            name = Path(os.fsdecode(image)).stem
        return ReadPhoto(pixels, self.tagger.prepare(pixels, [self.settings.side]), self.proposer(pixels, name))

    def scene(self, photo: ReadPhoto, source: MapSource) -> GroundingScene:
        """The scene of a photo.

        Args:
            photo: the photo.
            source: its maps.
        """
        return GroundingScene(photo.pixels, photo.proposals, source, self.tagger, self.topdown, self.settings)

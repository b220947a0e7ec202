"""Grounder: look at an image once, ask many phrases."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from grounding.answers import Grounding
from grounding.attention.topdown import TopDown
from grounding.batch import GroundingBatch, Phrases
from grounding.images import Photo, read_image
from grounding.runtime.device import checked_device
from grounding.scene import GroundingScene, Settings
from grounding.tagger.tagger import TagClassifier
from proposals import Proposer, SegmentProposer


class Grounder:
    """Finds in photos what phrases name.

    Args:
        tagger: the network whose tags the words are.
        proposer: gives an image's proposals, see ``proposals.Proposer``.
        settings: method, layer, gamma, ...
    """

    def __init__(
        self,
        tagger: TagClassifier,
        proposer: Proposer | None = None,
        settings: Settings | None = None,
    ):
        self.tagger, self.settings = tagger, settings or Settings()
        self.proposer = proposer or SegmentProposer()
        self.topdown = TopDown(tagger, self.settings.target)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        proposer: Proposer | None = None,
        device: str | torch.device = "cpu",
        **settings: Any,
    ) -> "Grounder":
        """A grounder from a tagger's file.

        Args:
            path: the file; None for the embedded tagger.
            device: where the network runs, as PyTorch names it ("cpu", "cuda", "cuda:1"); proposals are the CPU's.
            settings: those of :class:`Settings`.

        Raises:
            InputError: the file is no tagger, there is no such device here, or a setting is out of range.
        """
        chosen = Settings(**settings)
        return cls(TagClassifier.load(path).to(checked_device(device)), proposer, chosen)

    def ground(
        self,
        image: Photo,
        phrases: Sequence[str],
        gamma: float | None = None,
        prior: float | None = None,
        nms: float | None = None,
        vote: float | None = None,
    ) -> list[Grounding]:
        """``look(image).ground(phrases)``: the answers of a photo that will be asked once.

        Raises:
            InputError: see :meth:`look` and :meth:`GroundingScene.ground`.
        """
        return self.look(image).ground(phrases, gamma, prior, nms, vote=vote)

    def ground_batch(
        self, images: Iterable[Photo], phrases: Phrases, progress: bool = True, keep_images: bool = False
    ) -> GroundingBatch:
        """The answers about many images, one image after another, in the memory that one of them takes.

        An image that cannot be used is skipped, counted and named in a warning at the end, and stands in ``skipped`` of
        what is returned.

        Args:
            images: as :meth:`look` takes them; a generator will do.
            phrases: asked of every image, or a list of phrases for each.
            progress: whether a terminal shows how far it is.
            keep_images: whether the answers hold their image, and so show it in a notebook; keep few of them then.

        Returns:
            An iterator over :class:`grounding.answers.Answers`, each with the image's path, or "image 0", "image 1"
            and so on where it is none.

        Raises:
            InputError: no phrase, an empty one, or lists of phrases that are not as many as the images.
        """
        return GroundingBatch(self.ground, self.tagger.vocabulary, images, phrases, progress, keep_images)

    def look(self, image: Photo) -> GroundingScene:
        """One forward pass and one set of proposals.

        Args:
            image: a path, a PIL image, or an array (H, W, 3) uint8 RGB.

        Raises:
            InputError: the image cannot be read (see ``read_image``).
        """
        pixels = read_image(image)
        scene = self.topdown.look(self.tagger.prepare(pixels, [self.settings.side]), self.settings.method)
        name = Path(image).stem if isinstance(image, str | Path) else None
        return GroundingScene(pixels, self.proposer(pixels, name), scene, self.tagger, self.topdown, self.settings)

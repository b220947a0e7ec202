"""Grounder: finds what phrases name in photos. The public class of the package."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from grounding.attention.methods import AVERAGED, METHODS
from grounding.batch.images import GroundingBatch, ImageWork, Phrases
from grounding.batch.looking import Looker
from grounding.batch.together import answer_together, batch_size
from grounding.images import Photo
from grounding.pictures.groundings import Groundings
from grounding.runtime import memory
from grounding.runtime.device import checked_device
from grounding.scene import GroundingScene
from grounding.settings import Settings
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase, at_least_one
from proposals import Proposer, SegmentProposer
from proposals.errors import InputError


class Grounder:
    """Finds what phrases name in photos.

    A grounder can be pickled, for example for the workers of a process pool.

    Args:
        tagger: the network; a phrase can be grounded if it contains one of its tags.
        proposer: computes the proposals of an image, see ``proposals.Proposer``; by default ``SegmentProposer()``.
        settings: the attention method and how proposals are ranked; by default ``Settings()``.

    Attributes:
        tagger: the network.
        proposer: computes the proposals.
        settings: the settings.
        topdown: the top-down attention of the network at the target layer.
    """

    def __init__(
        self,
        tagger: TagClassifier,
        proposer: Proposer | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.tagger, self.settings = tagger, settings or Settings()
        if proposer is not None and not callable(proposer):
            raise InputError(f"proposer={proposer!r} must be an object such as proposals.SegmentProposer()")
        self.proposer = proposer or SegmentProposer()
        self.topdown = self.settings.top_down(tagger)

    def __reduce__(self) -> tuple[Callable[..., "Grounder"], tuple[object, ...]]:
        # without the recorded network, which contains functions; the copy records it again
        return _of_own_tagger, (self.tagger, self.proposer, self.settings, type(self))

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        proposer: Proposer | None = None,
        device: str | torch.device = "cpu",
        lexicon: bool = True,
        plain_words: bool = False,
        **settings: Any,
    ) -> "Grounder":
        """Loads a tagger from a file and makes a grounder of it.

        Args:
            path: the tagger's file, or the name of a tagger of the package ("efficientnet", "googlenet"); None for its
                default one.
            proposer: see :class:`Grounder`.
            device: where the network runs, as PyTorch names it ("cpu", "cuda", "cuda:1"); proposals are always computed
                on the CPU.
            lexicon: whether words that are not tags are looked up in the lexicon beside the tagger's file.
            plain_words: whether words are only looked up as they are written, as in the paper; needs ``lexicon=False``.
            **settings: the fields of :class:`Settings`.

        Returns:
            The grounder.

        Raises:
            InputError: the file is not a tagger, its lexicon is for other tags, the device is not available, or a
                setting is out of range.
        """
        chosen = Settings(**settings)
        for name, value in (("lexicon", lexicon), ("plain_words", plain_words)):
            if not isinstance(value, bool):
                raise InputError(f"{name}={value!r} must be True or False")
        tagger = TagClassifier.load(path, lexicon=lexicon, plain_words=plain_words)
        return _of_own_tagger(tagger.to(checked_device(device)), proposer, chosen, cls)

    def ground(
        self,
        image: Photo,
        phrases: Sequence[str],
        gamma: float | None = None,
        prior: float | None = None,
        nms: float | None = None,
        vote: float | None = None,
        presence: float | None = None,
        rivalry: float | None = None,
    ) -> Groundings:
        """Answers phrases about one image. Equals ``look(image).ground(phrases)``.

        Memory that is free afterwards goes back to the system, at most twice a second.

        Args:
            image: see :meth:`look`.
            phrases: what to find.
            gamma: see :class:`Settings`; None for the grounder's.
            prior: see :class:`Settings`; None for the grounder's.
            nms: see :class:`Settings`; None for the grounder's.
            vote: see :class:`Settings`; None for the grounder's.
            presence: see :class:`Settings`; None for the grounder's.
            rivalry: see :class:`Settings`; None for the grounder's.

        Returns:
            One answer for each phrase.

        Raises:
            InputError: see :meth:`look` and :meth:`GroundingScene.ground`.
        """
        answers = self._answers(
            image, phrases, gamma=gamma, prior=prior, nms=nms, vote=vote, presence=presence, rivalry=rivalry
        )
        memory.trim()  # the scene and its activations are gone
        return answers

    def _answers(self, image: Photo, phrases: Sequence[str], **given: Any) -> Groundings:
        """The answers of :meth:`ground`, after which free memory is kept for the next image."""
        phrases = at_least_one(phrases)
        for text in phrases:  # and the settings: what is refused costs no look at the image
            Phrase.parse(text, self.tagger.vocabulary)
        self.settings.changed(**given)
        return self.look(image).ground(phrases, **given)

    def ground_batch(
        self,
        images: Iterable[Photo],
        phrases: Phrases,
        progress: bool = True,
        keep_images: bool = False,
        workers: int = 0,
        batch: int | None = None,
    ) -> GroundingBatch:
        """Answers phrases about many images, in their order. Only a few images are in memory at a time.

        An image that cannot be used is skipped. After the last image a warning names the skipped ones. The iterator's
        attribute ``skipped`` lists them.

        Args:
            images: see :meth:`look`; a generator is accepted.
            phrases: the phrases for every image, or a list of phrases for each image.
            progress: whether to show a progress bar in a terminal.
            keep_images: whether the answers contain their image, so that a notebook can show them. This takes the
                memory of all images whose answers are kept.
            workers: the number of processes that answer, each with one thread; 0 to answer in this process. Count
                1 GB, and 1.1 GB more for each (docs/scale.md). A script that uses them needs
                ``if __name__ == "__main__":``.
            batch: the largest number of images that go through the network together, see ``grounding.batch.together``.
                None for 8 on a GPU, and for 1 on a CPU, where more do not help. At most 4 times as many images wait
                for others of their size. Needs ``workers=0``.

        Returns:
            An iterator over :class:`grounding.answers.Answers`. Each has the path of its image, or "image 0", "image 1"
            and so on for images without a path.

        Raises:
            InputError: there is no phrase, a phrase is empty, the number of lists of phrases differs from the number
                of images, or ``workers`` or ``batch`` is out of range.
        """
        size = batch_size(batch, self.topdown, workers)
        together = partial(answer_together, ImageWork(self.looker, keep_images), size=size) if size > 1 else None
        return GroundingBatch(
            self._answers if workers else self.ground,  # the memory of a worker does not grow, and time counts
            self.tagger.vocabulary,
            images,
            phrases,
            progress,
            keep_images,
            workers,
            self.proposer,
            together,
        )

    def look(self, image: Photo, name: str | None = None) -> GroundingScene:
        """Runs the forward pass and computes the proposals of an image.

        Args:
            image: a path, the bytes of a file, a binary file, a PIL image, an array or a tensor, see
                ``grounding.images.read_image``. The network sees a panorama in less detail, see
                ``grounding.tagger.preprocessing.network_size``; at most 32:1.
            name: the name under which stored proposals of the image are found; by default that of its path, without the
                suffix.

        Returns:
            The scene, which answers phrases without another forward pass.

        Raises:
            InputError: the image cannot be read, see ``grounding.images.read_image``.
        """
        photo = self.looker.read(image, name)
        return self.looker.scene(photo, self.topdown.look(photo.prepared, self.settings.method))

    @property
    def target(self) -> str | None:
        """The layer at which maps are read: ``AVERAGED`` for CAM, else that of the settings, the method or the network.

        None if none of them names one, because the network's architecture is not known.
        """
        own = METHODS[self.settings.method].target
        if own == AVERAGED:  # part of CAM's definition
            return own
        return self.settings.target or own or self.topdown.default_target

    def used_settings(self) -> dict[str, Any]:
        """The settings as answers use them: with :attr:`target`, and ``ranked_by``, the methods that rank the boxes."""
        return asdict(self.settings) | {"target": self.target, "ranked_by": list(self.settings.methods(self.tagger))}

    @property
    def looker(self) -> Looker:
        """What the grounder looks with, for several photos in one pass of the network."""
        return Looker(self.tagger, self.proposer, self.settings, self.topdown)


def _of_own_tagger(
    tagger: TagClassifier, proposer: Proposer | None, settings: Settings, kind: type[Grounder] = Grounder
) -> Grounder:
    """A grounder whose tagger nobody else has, so the weights need not be there twice."""
    grounder = kind(tagger, proposer, settings)
    copies = dict(grounder.topdown.networks.model.named_parameters())
    for name, weight in tagger.named_parameters():
        weight.data = copies[name].data
    return grounder

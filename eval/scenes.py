"""The scenes of photos with phrases: their maps and proposals, from the cache where it has them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from eval.phrase_truth import PhrasePhoto
from grounding import Grounder
from grounding.cache import Cache
from grounding.runtime.ranks import rank_of, wait_for_all
from grounding.scene import GroundingScene
from proposals.errors import InputError

log = logging.getLogger(__name__)

Image = TypeVar("Image", bound=PhrasePhoto)


def scenes(
    grounder: Grounder,
    images: Sequence[Image],
    cache: str | None,
    unread: Callable[[str, str], object],
    without_phrase: bool = False,
) -> Iterator[tuple[Image, GroundingScene | None]]:
    """Prepares photos for the words of their phrases.

    Args:
        grounder: computes maps and proposals.
        images: the photos and their phrases.
        cache: the folder where maps and proposals are kept; None to keep nothing.
        unread: is called with the id of each photo that cannot be read, and the error message.
        without_phrase: whether to look at photos without a phrase, too.

    Yields:
        Each photo and its scene; None if the photo cannot be read, or has no phrase and need not be looked at.
    """
    kept = None if cache is None else Cache(grounder, cache)
    for image in tqdm(images, "photos", unit="photo", disable=None):
        scene = None
        try:
            if image.entities or without_phrase:
                texts = list(dict.fromkeys(entity.text for entity in image.entities))
                scene = grounder.look(image.path) if kept is None else kept.look(image.path, texts)
        except InputError as error:
            log.warning("skipped %s: %s", image.id, error)
            unread(image.id, str(error))
        yield image, scene


def fill_cache(grounder: Grounder, images: Sequence[PhrasePhoto], cache: str) -> list[str]:
    """Computes the scenes of photos and keeps them in the cache. Each rank takes a share, then waits for the others.

    Args:
        grounder: computes maps and proposals.
        images: the photos of all ranks.
        cache: the folder where maps and proposals are kept.

    Returns:
        The ids of the photos in this rank's share that could not be read.
    """
    rank, world = rank_of()
    unread: list[str] = []
    for _ in scenes(grounder, images[rank::world], cache, lambda name, _: unread.append(name)):
        pass
    if world > 1:
        wait_for_all()
    return unread


def evaluates_here(
    grounder: Grounder, images: Sequence[PhrasePhoto], predictions: str | None, cache: str | None
) -> bool:
    """Whether this rank evaluates: the first does, after every rank has filled its share of the cache.

    Args:
        grounder: computes maps and proposals.
        images: the photos and their phrases.
        predictions: a file of predictions to evaluate, which needs no cache; None for our own answers.
        cache: the folder where maps and proposals are kept; None to keep nothing.

    Raises:
        InputError: there are several ranks and no cache.
    """
    rank, world = rank_of()
    if world > 1 and predictions is None:
        if cache is None:
            raise InputError(f"{world} ranks share their work through a cache: set cache=FOLDER")
        fill_cache(grounder, images, cache)
    return rank == 0

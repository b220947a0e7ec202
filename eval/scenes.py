"""The scenes of photos with phrases: their maps and proposals, from the cache where it has them."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from eval.phrase_truth import PhrasePhoto
from eval.shared_photos import identity
from grounding import Grounder
from grounding.cache import Cache
from grounding.runtime.artefacts import write_json
from grounding.runtime.ranks import rank_of
from grounding.scene import GroundingScene
from grounding.shards.addresses import InputShard
from grounding.shards.photo_parts import LEASE, parts_folder, parts_of
from grounding.shards.sharing import share_shards
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


def fill_cache(grounder: Grounder, images: Sequence[PhrasePhoto], cache: str, lease: float = LEASE) -> list[str]:
    """Computes the scenes of photos and keeps them in the cache. All ranks share the photos, by leases.

    A part of the photos is done if a rank says so since this process began. So an earlier run never hides that a file
    of the cache is missing, and a photo that is in the cache takes little time.

    Args:
        grounder: computes maps and proposals.
        images: the photos of all ranks.
        cache: the folder where maps and proposals are kept.
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The ids of the photos that could not be read, by any rank.
    """
    start, parts = time.time(), parts_of(images)
    folder = parts_folder(cache, identity(grounder, images, {"step": "scenes"}))
    shards = [InputShard(name, str(folder / f"{name}.json")) for name in parts]

    def done(name: str) -> bool:
        path = folder / f"{name}.json"
        return path.exists() and path.stat().st_mtime > start - 1

    def work(shard: InputShard, check: Callable[[], None]) -> None:
        unread: list[str] = []
        for _ in scenes(grounder, parts[shard.name], cache, lambda name, _: unread.append(name)):
            check()
        write_json(shard.address, unread)

    share_shards(shards, folder, lease, done, work)
    return [name for shard in shards for name in json.loads(Path(shard.address).read_bytes())]


def evaluates_here(
    grounder: Grounder,
    images: Sequence[PhrasePhoto],
    predictions: str | None,
    cache: str | None,
    lease: float = LEASE,
) -> bool:
    """Whether this rank evaluates: the first does, after all ranks together have filled the cache.

    Args:
        grounder: computes maps and proposals.
        images: the photos and their phrases.
        predictions: a file of predictions to evaluate, which needs no cache; None for our own answers.
        cache: the folder where maps and proposals are kept; None to keep nothing.
        lease: seconds after which the photos of a process that has died are taken over.

    Raises:
        InputError: there are several ranks and no cache.
    """
    rank, world = rank_of()
    if world > 1 and predictions is None:
        if cache is None:
            raise InputError(f"{world} ranks share their work through a cache: set cache=FOLDER")
        fill_cache(grounder, images, cache, lease)
    return rank == 0

"""The steps ``attend`` and ``rescore``: the two halves of an evaluation, for a cluster or a sweep.

torchrun --nproc-per-node 4 -m grounding step=attend data.split=test cache=CACHE   # looks at every photo, once
grounding step=rescore data.split=test cache=CACHE gamma=0.5                       # boxes, without a further look
grounding step=evaluate data.split=test cache=CACHE gamma=0.5                      # the same, and judged
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval.counts import check_counts
from eval.flickr30k import EntityImage, Flickr30kEntities
from eval.localization import inclusive
from eval.predictions import Prediction, write_predictions
from grounding import Grounder
from grounding.cache import Cache
from grounding.runtime.ranks import rank_of, wait_for_all
from grounding.scene import GroundingScene
from grounding.text.phrases import Phrase
from proposals.errors import InputError

log = logging.getLogger(__name__)


def attend(grounder: Grounder, root: str, split: str, cache: str | None, limit: int | None = None) -> list[str]:
    """Looks at every photo of a split for the words of its phrases, and keeps maps and proposals.

    Args:
        root, split: of Flickr30k Entities; limit: the first so many photos; cache: the folder that they are kept in.

    Returns:
        The photos of this rank's share that could not be read.

    Raises:
        InputError: the folder is no Flickr30k Entities, an annotation is malformed, the limit is below 1, or there is
            no cache.
    """
    check_counts(limit=limit)
    if cache is None:
        raise InputError("there is nowhere to keep what is seen: set cache=FOLDER")
    return fill(grounder, list(islice(Flickr30kEntities(root, split), limit)), cache)


def rescore(
    grounder: Grounder, root: str, split: str, output: str, cache: str | None = None, limit: int | None = None
) -> list[str]:
    """Writes ``predictions.jsonl``, the ranked boxes of every phrase of a split (see ``eval.predictions``).

    Args:
        root, split, cache, limit: as in ``attend``; output: the folder that is written to.

    Returns:
        The photos that could not be read; their phrases have no boxes.

    Raises:
        InputError: as in ``attend``, but that there may be no cache.
    """
    check_counts(limit=limit)
    unread: list[str] = []
    images = islice(Flickr30kEntities(root, split), limit)
    found = _predictions(scenes(grounder, images, cache, unread.append))
    write_predictions(Path(output, "predictions.jsonl"), found)
    return unread


def fill(grounder: Grounder, images: Sequence[EntityImage], cache: str) -> list[str]:
    """Fills a cache, each rank its share, and waits until all have; returns the photos that could not be read."""
    rank, world = rank_of()
    unread: list[str] = []
    for _ in scenes(grounder, images[rank::world], cache, unread.append):
        pass
    if world > 1:
        wait_for_all()
    return unread


def scenes(
    grounder: Grounder,
    images: Sequence[EntityImage] | Iterator[EntityImage],
    cache: str | None,
    unread: Callable[[str], object],
) -> Iterator[tuple[EntityImage, GroundingScene | None]]:
    """Each photo with what is seen of it for the words of its phrases; None where it cannot be read.

    Args:
        cache: a folder where that is kept; None keeps nothing; unread: is told the photos that cannot be read.
    """
    kept = None if cache is None else Cache(grounder, cache)
    for image in tqdm(images, "photos", unit="photo", disable=None):
        try:
            if not image.entities:
                scene = None
            else:
                scene = grounder.look(image.path) if kept is None else kept.look(image.path, _tags(grounder, image))
        except InputError as error:
            log.warning("skipped %s: %s", image.id, error)
            unread(image.id)
            scene = None
        yield image, scene


def _tags(grounder: Grounder, image: EntityImage) -> list[str]:
    phrases = {entity.text for entity in image.entities}
    return sorted({tag for text in phrases for tag in Phrase.parse(text, grounder.tagger.vocabulary).tags})


def _predictions(seen: Iterator[tuple[EntityImage, GroundingScene | None]]) -> Iterator[Prediction]:
    for image, scene in seen:
        places = [(image.id, entity.sentence, entity.phrase) for entity in image.entities]
        if scene is None:
            yield from (Prediction(place, np.zeros((0, 4)), np.zeros(0)) for place in places)
        else:
            answers = scene.ground([entity.text for entity in image.entities])
            for place, answer in zip(places, answers, strict=True):
                yield Prediction(place, inclusive(answer.boxes), answer.scores)

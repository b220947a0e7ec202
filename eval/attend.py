"""The steps ``attend`` and ``rescore``: the two halves of an evaluation, for a cluster or a sweep.

torchrun --nproc-per-node 4 -m grounding step=attend data.split=test cache=CACHE   # maps and proposals, once
grounding step=rescore data.split=test cache=CACHE gamma=0.5                       # boxes, from the cache
grounding step=evaluate data.split=test cache=CACHE gamma=0.5                      # boxes and metrics
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eval.checks import check_counts
from eval.flickr30k import EntityImage, Flickr30kEntities
from eval.localization import inclusive
from eval.photo_reading import UNUSABLE, photo_ledger, read_photos, require_files
from eval.predictions import Prediction, write_predictions
from eval.scenes import fill_cache, scenes
from grounding import Grounder
from grounding.runtime.ledger import Ledger
from grounding.runtime.ranks import rank_of
from grounding.scene import GroundingScene
from grounding.shards.photo_parts import LEASE
from proposals.errors import InputError

log = logging.getLogger(__name__)


def attend(
    grounder: Grounder, root: str, split: str, cache: str | None, limit: int | None = None, lease: float = LEASE
) -> list[str]:
    """Computes the word maps and the proposals of every photo of a split, and keeps them in the cache.

    Args:
        grounder: computes maps and proposals.
        root: the folder of Flickr30k Entities.
        split: the name of the split, for example ``val``.
        cache: the folder where maps and proposals are kept.
        limit: use only the first ``limit`` photos; None for all.
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The ids of the photos that could not be read, by any rank.

    Raises:
        InputError: the folder is not Flickr30k Entities, no photo can be used, ``limit`` is below 1, or there is no
            cache.
    """
    check_counts(limit=limit)
    if cache is None:
        raise InputError("step=attend writes to a cache: set cache=FOLDER")
    data = Flickr30kEntities(root, split)
    images = read_photos(data, photo_ledger(data), limit, files=False)
    require_files(images, data.folder)
    unread = fill_cache(grounder, images, cache, lease)
    done = Ledger("photos", data.folder, "copy the photos")
    for name in done.reading(image.id for image in images):
        if name in unread:
            done.skip(name, UNUSABLE)
        else:
            done.keep()
    done.check()
    done.require_kept()
    if not rank_of()[0]:
        log.log(logging.WARNING if unread else logging.INFO, "%s", done.line())
    return unread


def rescore(
    grounder: Grounder, root: str, split: str, output: str, cache: str | None = None, limit: int | None = None
) -> list[str]:
    """Writes ``predictions.jsonl``, the ranked boxes of every phrase of a split (see ``eval.predictions``).

    Args:
        grounder: answers the phrases.
        root: the folder of Flickr30k Entities.
        split: the name of the split.
        output: the folder for the predictions.
        cache: the folder where maps and proposals are kept; None to keep nothing.
        limit: use only the first ``limit`` photos; None for all.

    Returns:
        The ids of the photos that could not be read. Their phrases have no boxes. Photos without a usable annotation
        have no phrases; they are listed in ``skipped.jsonl``, too.

    Raises:
        InputError: the folder is not Flickr30k Entities, no photo can be used, or ``limit`` is below 1.
    """
    check_counts(limit=limit)
    data = Flickr30kEntities(root, split)
    ledger = photo_ledger(data)
    images = read_photos(data, ledger, limit, files=False)
    require_files(images, data.folder)
    unread: list[str] = []

    def skip(name: str, error: str) -> None:
        unread.append(name)
        ledger.skip(name, UNUSABLE, error)

    write_predictions(Path(output, "predictions.jsonl"), _predictions(scenes(grounder, images, cache, skip)))
    ledger.kept = len(images) - len(unread)
    ledger.finish(output)
    return unread


def _predictions(prepared: Iterator[tuple[EntityImage, GroundingScene | None]]) -> Iterator[Prediction]:
    for image, scene in prepared:
        places = [(image.id, entity.sentence, entity.phrase) for entity in image.entities]
        if scene is None:
            yield from (Prediction(place, np.zeros((0, 4)), np.zeros(0)) for place in places)
        else:
            answers = scene.ground([entity.text for entity in image.entities])
            for place, answer in zip(places, answers, strict=True):
                yield Prediction(place, inclusive(answer.boxes), answer.scores)

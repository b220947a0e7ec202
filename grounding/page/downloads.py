"""The files that answers can be taken away as, by their endings."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from grounding.ground import as_record
from grounding.grounder import Grounding
from grounding.page.photos import Kept


class Download(NamedTuple):
    """A kind of file: its name on the page, its media type, and (photo, answers, boxes of a phrase) -> its bytes."""

    title: str
    media_type: str
    make: Callable[[Kept, Sequence[Grounding], int], bytes]


def _json(kept: Kept, answers: Sequence[Grounding], boxes: int) -> bytes:
    record = {"image": kept.name, "size": kept.scene.image.shape[:2]}
    return json.dumps(record | {"groundings": [as_record(answer, boxes) for answer in answers]}, indent=1).encode()


DOWNLOADS = {"json": Download("JSON", "application/json", _json)}

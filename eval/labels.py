"""The step ``labels``: the classes that photos show, as a table for ``step=shards``.

    grounding step=labels data=coco2017 data.split=train2017
    grounding step=shards images=runs/labels/labels.jsonl step.min_images=1

So a tag layer is trained on the classes themselves, as the paper's networks of Table 1 are, in place of words of
captions; data.classes then is ``classes@data.classes=own``.
"""

import logging
from pathlib import Path

from tqdm import tqdm

from eval.pointing import Photos, check_photos
from grounding.runtime.artefacts import write_json_lines
from grounding.text.words import normalize
from proposals.errors import InputError

log = logging.getLogger(__name__)


def label(photos: Photos | None, output: str) -> Path:
    """Writes ``labels.jsonl``, a photo that shows a class a line: ``{"path": ..., "tags": [...]}``.

    Args:
        photos: ``eval.voc.Voc`` or ``eval.coco.Coco``; None, of a data set without objects, is refused.
        output: the folder that is written to.

    Returns:
        The path of the table.

    Raises:
        InputError: an annotation is malformed, or no photo has an object.
    """
    check_photos(photos)
    images = tqdm(photos, "photos", unit="photo", disable=None)
    records = [{"path": str(image.path.absolute()), "tags": image.classes} for image in images if image.classes]
    if not records:
        raise InputError("no photo has an object: name another data.split")
    table = Path(output, "labels.jsonl")
    write_json_lines(table, records)
    names = {normalize(name) for record in records for name in record["tags"]}
    print(f"{len(records)} photos, {len(names)} classes: {table}")
    return table

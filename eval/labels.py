"""The step ``labels``: the classes that each photo shows, as a table for ``step=shards``.

    grounding step=labels data=coco2017 data.split=train2017
    grounding step=shards images=runs/labels/labels.jsonl step.min_images=1

A tagger that is trained on these shards has the classes themselves as tags, like the networks of Table 1, instead of
words of captions. Evaluate it with ``classes@data.classes=own``.
"""

from pathlib import Path

from tqdm import tqdm

from eval.annotated_photos import AnnotatedPhotos, check_annotated
from grounding.runtime.artefacts import write_json_lines
from grounding.text.words import normalize
from proposals.errors import InputError


def label(photos: AnnotatedPhotos | None, output: str) -> Path:
    """Writes ``labels.jsonl``, with one line ``{"path": ..., "tags": [...]}`` for each photo that shows a class.

    Args:
        photos: a reader, ``eval.voc.Voc`` or ``eval.coco.Coco``; None, for data without objects, is an error.
        output: the folder for the table.

    Returns:
        The path of the table.

    Raises:
        InputError: an annotation is malformed, or no photo has an object.
    """
    progress = tqdm(check_annotated(photos), "photos", unit="photo", disable=None)
    records = [{"path": str(photo.path.absolute()), "tags": photo.classes} for photo in progress if photo.classes]
    if not records:
        raise InputError("no photo has an object: set another data.split")
    table = Path(output, "labels.jsonl")
    write_json_lines(table, records)
    names = {normalize(name) for record in records for name in record["tags"]}
    print(f"{len(records)} photos, {len(names)} classes: {table}")
    return table

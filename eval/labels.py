"""The step ``labels``: the classes that each photo shows, as a table for ``step=shards``.

    grounding step=labels data=coco2017 data.split=train2017
    grounding step=shards images=runs/labels/labels.jsonl step.min_images=1

A tagger that is trained on these shards has the classes themselves as tags, like the networks of Table 1, instead of
words of captions. Evaluate it with ``classes@data.classes=own``.
"""

from pathlib import Path

from eval.annotated_photos import AnnotatedPhotos, check_annotated
from eval.photo_reading import photo_ledger, read_photos
from grounding.runtime.artefacts import write_json_lines
from grounding.text.words import normalize


def label(photos: AnnotatedPhotos | None, output: str) -> Path:
    """Writes ``labels.jsonl``, with one line ``{"path": ..., "tags": [...]}`` for each photo that shows a class.

    Photos without an object and photos that cannot be used are listed in ``skipped.jsonl``.

    Args:
        photos: a reader, ``eval.voc.Voc`` or ``eval.coco.Coco``; None, for data without objects, is an error.
        output: the folder for the table.

    Returns:
        The path of the table.

    Raises:
        InputError: no photo can be used, or none has an object.
    """
    photos = check_annotated(photos)
    ledger = photo_ledger(photos)
    records = []
    for photo in read_photos(photos, ledger):
        if photo.classes:
            records.append({"path": str(photo.path.absolute()), "tags": photo.classes})
            ledger.keep()
        else:
            ledger.skip(photo.id, "without an object")
    ledger.finish(output)
    table = Path(output, "labels.jsonl")
    write_json_lines(table, records)
    names = {normalize(name) for record in records for name in record["tags"]}
    print(f"{len(records)} photos, {len(names)} classes: {table}")
    return table

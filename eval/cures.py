"""Cures: what to do with annotations in a layout that is not read, for the messages of the readers."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from grounding.photos import SUFFIXES
from grounding.runtime.hidden import is_hidden

LISTED = 2000  # files of a folder that are looked at
# files of layouts that are not read
OTHERS = {
    "annotations.xml": "CVAT for images",
    "via_*.json": "the VGG Image Annotator",
    "*-annotations-bbox.csv": "Open Images",
    "*.tfrecord*": "TensorFlow's records",
}
START = 1 << 12  # bytes of a JSON file that are looked at


def layout_cure(root: Path, split: str) -> str:
    """What to do with a data set that lacks the files which a reader needs.

    Args:
        root: its folder.
        split: the name of the split.

    Returns:
        What the folder looks like, and an imperative; "" if nothing is known about it.
    """
    files = list(islice(_files(root), LISTED))
    photos = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    beside = {
        file.suffix: file for file in files if file.suffix in (".xml", ".json") and file.with_suffix("") in photos
    }
    if any(file.suffix == ".txt" and "labels" in (file.parent.name, file.parent.parent.name) for file in files):
        return "it looks like YOLO: convert it to COCO, for example with FiftyOne, and set data=coco2017"
    for pattern, tool in OTHERS.items():
        found = next((file for file in files if fnmatch(file.name, pattern)), None)
        if found:
            return f"{found.name} looks like {tool}: export it as COCO or PASCAL VOC, or convert it with FiftyOne"
    if ".json" in beside and _is_labelme(beside[".json"]):
        cure = "convert it with labelme2coco, and set data=coco2017 data.annotations= data.images="
        return f"{beside['.json'].name} looks like LabelMe: {cure}"
    if ".xml" in beside:
        listed = f"list the names in ImageSets/Main/{split}.txt"
        return f"{beside['.xml'].name} is beside its photo: move photos to JPEGImages, XML to Annotations, and {listed}"
    return ""


def _is_labelme(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b'"shapes"' in file.read(START)
    except OSError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(here, name) for name in sorted(names) if not is_hidden(Path(name)))

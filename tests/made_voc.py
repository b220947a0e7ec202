"""A folder in the format of PASCAL VOC with many small photos, for the tests of processes that share them."""

from pathlib import Path

from made_tars import photo
from voc_folder import OBJECT, XML

NAMES = ("cup", "dog", "zebra", "cat")  # a zebra has no tag


def write_photos(folder: Path, count: int) -> Path:
    """The split "toy"; photo 7 is broken, and each has one or two objects.

    Args:
        folder: the folder.
        count: number of photos.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    ids = [f"{number:05d}" for number in range(count)]
    for number, name in enumerate(ids):
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(b"no photo" if number == 7 else photo(number))
        first = (NAMES[number % 4], 0, 1 + number % 20, 1, 40, 40)
        second = (NAMES[number % 3], 0, 30, 10, 64, 48)
        objects = [OBJECT.format(*thing) for thing in (first, second)[: 1 + number % 2]]
        (folder / "Annotations" / f"{name}.xml").write_text(XML.format(w=64, h=48, objects="".join(objects)))
    (folder / "ImageSets/Main/toy.txt").write_text("\n".join(ids))
    return folder

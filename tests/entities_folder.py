"""Writes small folders in the format of Flickr30k Entities."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

XML = """<annotation><filename>{id}.jpg</filename>
<size><width>{w}</width><height>{h}</height><depth>3</depth></size>{objects}</annotation>"""
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
SUFFIXES = {"Annotations": "xml", "Sentences": "txt", "images": "jpg"}


def xml_object(names: str, *corners: object, flag: str = "") -> str:
    named = "".join(f"<name>{name}</name>" for name in names.split())
    return f"<object>{named}{BOX.format(*corners) if corners else flag}</object>"


def write_entities(folder: Path) -> Path:
    """One photo, "7", in the split "toy".

    Its phrases have two types, several boxes, several names, nobox, scenes with and without a box, and notvisual.
    """
    for name in SUFFIXES:
        (folder / name).mkdir()
    (folder / "toy.txt").write_text("7\n")
    objects = (
        xml_object("1 2", 1, 1, 10, 20)
        + xml_object("1", 31, 41, 60, 60)
        + xml_object("3", flag="<scene>1</scene><nobndbox>0</nobndbox>")
        + xml_object("4", 1, 1, 100, 80)
        + xml_object("5", flag="<scene>0</scene><nobndbox>1</nobndbox>")
    )
    (folder / "Annotations" / "7.xml").write_text(XML.format(id=7, w=100, h=80, objects=objects))
    (folder / "Sentences" / "7.txt").write_text(
        "[/EN#1/people/other Two dogs] and [/EN#5/other a ghost] in [/EN#3/scene the sky] .\n"
        "[/EN#0/notvisual It] shows [/EN#2/animals a dog] in [/EN#4/scene a park] and [/EN#9/other a lost chain] .\n"
    )
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "7.jpg")
    return folder


def add_unreadable_photo(root: Path) -> Path:
    """Adds photo "8", whose file is not an image, to the split "toy"."""
    copy_photo(root, ["8"])
    (root / "images" / "8.jpg").write_text("not an image")
    (root / "toy.txt").write_text("7\n8\n")
    return root


def copy_photo(root: Path, names: Iterable[str]) -> None:
    """Copies photo "7" and its annotations under other names; no split has them."""
    for name in names:
        for folder, suffix in SUFFIXES.items():
            shutil.copy(root / folder / f"7.{suffix}", root / folder / f"{name}.{suffix}")

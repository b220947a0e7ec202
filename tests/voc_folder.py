"""Writes a small folder in the format of PASCAL VOC."""

from pathlib import Path

from PIL import Image

XML = """<annotation><size><width>{w}</width><height>{h}</height></size>{objects}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def write_voc(folder: Path, woman: Path, coffee: Path) -> Path:
    """The split "toy": two photos, one that is broken, and one of another size than annotated."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for name, photo in (("woman", woman), ("coffee", coffee), ("sized", coffee)):
        Image.open(photo).convert("RGB").save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "JPEGImages/broken.jpg").write_text("no photo")
    flag = ("flag", 1, 1, 1, 90, 400)
    things = {
        "woman": (512, 512, [("person", 0, 71, 1, 341, 512), ("rocket", 0, 330, 1, 512, 300), flag]),
        "coffee": (600, 400, [("cup", 0, 130, 50, 460, 350), ("diningtable", 0, 1, 1, 600, 400)]),
        "sized": (300, 200, [("cup", 0, 1, 1, 9, 9)]),
        "broken": (300, 200, [("cup", 0, 1, 1, 9, 9)]),
    }
    for name, (w, h, listed) in things.items():
        text = XML.format(w=w, h=h, objects="".join(OBJECT.format(*thing) for thing in listed))
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    (folder / "ImageSets/Main/toy.txt").write_text("\n".join(things))
    return folder

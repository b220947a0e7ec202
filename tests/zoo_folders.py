"""Members of the zoo: folders of photos without texts, for ``step=ground`` and ``step=propose``."""

from pathlib import Path

from zoo import PHOTOS, STEMS, Given, Zoo, write_photos, write_text
from zoo_tars import APPLE_DOUBLE

FOLDERS = Zoo()


@FOLDERS.member("ImageNet: folders of classes", kind="photos")
def imagenet(folder: Path) -> Given:
    return Given(write_photos(folder / "train", [f"n0{i}440764/n0{i}440764_1{i}.JPEG" for i in range(3)]))


@FOLDERS.member("macOS: an unpacked zip", kind="photos", skipped={"hidden": 2})
def macos_zip(folder: Path) -> Given:
    write_photos(folder / "photos")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "__MACOSX" / "photos").mkdir(parents=True)
    (folder / "__MACOSX" / "photos" / "._p0.jpg").write_bytes(APPLE_DOUBLE)
    return Given(folder)


@FOLDERS.member("macOS: a copy on a FAT or network drive", kind="photos", skipped={"hidden": 3})
def macos_copy(folder: Path) -> Given:
    write_photos(folder)
    for stem in STEMS:
        (folder / f"._{stem}.jpg").write_bytes(APPLE_DOUBLE)
    return Given(folder)


@FOLDERS.member("Windows: a folder with Thumbs.db and desktop.ini", kind="photos", skipped={"not a photo": 2})
def windows(folder: Path) -> Given:
    for name in ("Thumbs.db", "desktop.ini"):
        write_text(folder / name, "x")
    return Given(write_photos(folder, ["A.JPG", "b.jpg", "C.Jpeg"]))


@FOLDERS.member(
    "iPhone: HEIC, MOV and AAE beside JPEG",
    kind="photos",
    skipped={"in a format that is not read": 1, "not a photo": 2},
)
def iphone(folder: Path) -> Given:
    for name in ("IMG_0001.HEIC", "IMG_0002.MOV", "IMG_0003.AAE"):
        write_text(folder / "100APPLE" / name, "x")
    write_photos(folder / "100APPLE", [f"IMG_001{i}.JPG" for i in range(3)])
    return Given(folder)


@FOLDERS.member("Google Takeout: a JSON beside each photo", kind="photos", skipped={"not a photo": 3})
def takeout(folder: Path) -> Given:
    write_photos(folder / "Photos from 2020")
    for stem in STEMS:
        write_text(folder / "Photos from 2020" / f"{stem}.jpg.json", "{}")
    return Given(folder)


@FOLDERS.member("browsers and wget: .jfif, .jpe and other suffixes of JPEG", kind="photos")
def downloads(folder: Path) -> Given:
    return Given(write_photos(folder, ["image.jfif", "download.jpe", "photo (1).jpg"]))


@FOLDERS.member(
    "a crawl without suffixes", kind="photos", refused="none of 3 files can be used…give a folder of photos"
)
def without_suffixes(folder: Path) -> Given:
    return Given(write_photos(folder, ["8f3a", "91bc", "a0d2"]))


@FOLDERS.member("Jupyter: checkpoints beside the photos", kind="photos", skipped={"hidden": 1})
def jupyter(folder: Path) -> Given:
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "p-checkpoint.jpg").write_bytes(PHOTOS[0])
    return Given(write_photos(folder))

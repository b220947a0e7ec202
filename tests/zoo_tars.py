"""Members of the zoo: tars of photos and texts, other archives, and the folders that are packed into them."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from made_crawl import write_tar
from zoo import CAPTIONS, HEIGHT, PHOTOS, STEMS, TAGS, WIDTH, Given, Zoo, first_captions, write_photos, write_text

TARS = Zoo()
FIRST = [texts[0] for texts in CAPTIONS]
KEYS = [f"{number:09d}" for number in range(3)]  # as img2dataset names them
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(40)  # the content of a ._ file


def img2dataset_files(place: str = "") -> dict[str, bytes]:
    """What img2dataset writes for each photo, in its order."""
    found: dict[str, bytes] = {}
    for key, photo, text in zip(KEYS, PHOTOS, FIRST, strict=True):
        about = {"caption": text, "url": "https://example.org/a.jpg", "key": key, "status": "success", "exif": "{}",
                 "error_message": None, "width": WIDTH, "height": HEIGHT, "original_width": 2 * WIDTH}  # fmt: skip
        found[f"{place}{key}.jpg"] = photo
        found[f"{place}{key}.txt"] = text.encode()
        found[f"{place}{key}.json"] = json.dumps(about, indent=4).encode()
    return found


def write_members(path: Path, members: dict[str, bytes], kind: int, folders: tuple[str, ...] = (), **pax: Any) -> Path:
    """Writes a tar in one of the formats that ``tarfile`` knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind, encoding="utf-8") as tar:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(data), dict(pax)
            tar.addfile(member, io.BytesIO(data))
    return path


@TARS.member("img2dataset: WebDataset", texts=first_captions())
def img2dataset(folder: Path) -> Given:
    write_tar(folder / "00000.tar", img2dataset_files())
    write_text(folder / "00000_stats.json", '{"count": 3, "successes": 3}')
    write_text(folder / "00000.parquet", "PAR1")
    return Given(folder)


@TARS.member("img2dataset: files", refused="it has photos with texts beside them: pack each folder with tar -cf")
def img2dataset_folder(folder: Path) -> Given:
    for name, data in img2dataset_files().items():
        (folder / "00000").mkdir(exist_ok=True)
        (folder / "00000" / name).write_bytes(data)
    return Given(folder)


@TARS.member(
    "kohya's scripts: NAME.txt beside NAME.jpg",
    refused="it has photos with texts beside them: pack each folder with tar -cf",
)
def kohya(folder: Path) -> Given:
    write_photos(folder)
    for stem, tags in zip(STEMS, TAGS, strict=True):
        write_text(folder / f"{stem}.txt", ", ".join(tags))
    return Given(folder)


@TARS.member("WebDataset: ShardWriter with jpg and txt", texts=first_captions())
def shard_writer(folder: Path) -> Given:
    return write_shards(folder, [{"jpg": photo, "txt": text} for photo, text in zip(PHOTOS, FIRST, strict=True)])


@TARS.member("WebDataset: ShardWriter with jpg and json", kind="tags")
def shard_writer_json(folder: Path) -> Given:
    return write_shards(folder, [{"jpg": p, "json": {"tags": tags}} for p, tags in zip(PHOTOS, TAGS, strict=True)])


@TARS.member("WebDataset: fields with dots, 1.image.jpg and 1.text.txt", texts=first_captions())
def dotted_fields(folder: Path) -> Given:
    return write_shards(
        folder, [{"image.jpg": photo, "text.txt": text} for photo, text in zip(PHOTOS, FIRST, strict=True)]
    )


@TARS.member("WebDataset of classes: jpg and cls", refused="none of 3 samples can be used (3 without text)")
def shard_writer_classes(folder: Path) -> Given:
    return write_shards(folder, [{"jpg": photo, "cls": number} for number, photo in enumerate(PHOTOS)])


def write_shards(folder: Path, fields: list[dict[str, Any]]) -> Given:
    import pytest

    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(folder / "train-%06d.tar"), maxcount=2, verbose=0) as writer:
        for key, values in zip(KEYS, fields, strict=True):
            writer.write({"__key__": f"part/{key}", **values})
    return Given(folder)


@TARS.member("GNU tar: all photos, then all texts", texts=first_captions())
def gnu_tar(folder: Path) -> Given:
    members = {f"{stem}.jpg": photo for stem, photo in zip(STEMS, PHOTOS, strict=True)}
    members |= {f"{stem}.txt": text.encode() for stem, text in zip(STEMS, FIRST, strict=True)}
    return Given(write_members(folder / "x.tar", members, tarfile.GNU_FORMAT))


@TARS.member("GNU tar of a folder, with long names", texts=first_captions())
def gnu_tar_folder(folder: Path) -> Given:
    members = img2dataset_files(f"./{'long' * 40}/")
    return Given(write_members(folder / "x.tar", members, tarfile.GNU_FORMAT, (".", f"./{'long' * 40}")))


@TARS.member("bsdtar: PAX headers and names outside of ASCII", texts=first_captions())
def bsdtar(folder: Path) -> Given:
    headers = {"LIBARCHIVE.creationtime": "1700000000", "SCHILY.dev": "16777220", "mtime": "1700000000.123456"}
    return Given(write_members(folder / "x.tar", img2dataset_files("Café/"), tarfile.PAX_FORMAT, ("Café",), **headers))


@TARS.member("macOS: a tar with hidden files", texts=first_captions(), skipped={"hidden": 3})
def macos_tar(folder: Path) -> Given:
    members: dict[str, bytes] = {}
    for name, data in img2dataset_files("./").items():
        path = Path(name)
        members[f"./._{path.name}"], members[name] = APPLE_DOUBLE, data
    return Given(write_members(folder / "x.tar", members, tarfile.PAX_FORMAT, (".",), SCHILY="a"))


@TARS.member("macOS: a folder of tars on a network drive", texts=first_captions())
def macos_folder(folder: Path) -> Given:
    write_members(folder / "x.tar", img2dataset_files(), tarfile.PAX_FORMAT)
    (folder / "._x.tar").write_bytes(APPLE_DOUBLE)
    return Given(folder)


@TARS.member("ustar: tar --format=ustar", texts=first_captions())
def ustar(folder: Path) -> Given:
    return Given(write_members(folder / "x.tar", img2dataset_files("train/"), tarfile.USTAR_FORMAT, ("train",)))


@TARS.member("compressed tars: .tar.gz", refused="x.tar.gz is packed: unpack it first, a .tar.gz with gunzip")
def compressed(folder: Path) -> Given:
    with tarfile.open(folder / "x.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    return Given(folder)


@TARS.member(
    "a compressed tar that is named .tar", refused="in the damaged part of a tar…unpack it if it is compressed"
)
def compressed_tar(folder: Path) -> Given:
    compressed(folder)
    (folder / "x.tar.gz").rename(folder / "x.tar")
    return Given(folder)


@TARS.member("a zip file, as Kaggle delivers it", refused="archive.zip is packed: unpack it first")
def zip_file(folder: Path) -> Given:
    with zipfile.ZipFile(folder / "archive.zip", "w") as file:
        file.writestr("Images/a.jpg", PHOTOS[0])
    return Given(folder / "archive.zip")


@TARS.member("a folder with a zip file", refused="archive.zip is packed: unpack it first")
def zip_folder(folder: Path) -> Given:
    zip_file(folder)
    return Given(folder)


@TARS.member(
    "ImageNet: a folder of photos for each class",
    refused="if its folders are classes: write a table",
)
def imagenet(folder: Path) -> Given:
    write_photos(folder / "train", [f"n0{i}440764/n0{i}440764_1.JPEG" for i in range(3)])
    return Given(folder / "train")

"""Photos in folders, patterns and tars: every format that Pillow reads is found, everything else counted and named."""

import os
import tarfile
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_crawl import write_tar
from PIL import Image

from grounding.images import NOT_READ, read_image
from grounding.photos import SUFFIXES, UNREAD, PhotoShard, find_photos, photo_shards
from grounding.runtime.heic import HEIC_SUFFIXES
from grounding.runtime.hidden import is_hidden
from grounding.runtime.ledger import Ledger
from proposals.errors import InputError


def write_photos(folder: Path, *names: str) -> Path:
    """Writes small photos in the format of their suffix."""
    photo = Image.open(str(files("skimage.data") / "coffee.png")).convert("RGB").resize((96, 64))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(folder / name)
    return folder


def reasons(ledger: Ledger) -> dict[str, str]:
    return {Path(skipped.name).name: skipped.reason for skipped in ledger.skipped}


def test_every_format_that_pillow_opens_is_found():
    Image.init()
    opened = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    unread = {suffix for suffix in opened if Image.registered_extensions()[suffix] in NOT_READ}
    assert opened - SUFFIXES - HEIC_SUFFIXES == unread  # pillow-heif is registered when it is first needed
    assert not SUFFIXES & UNREAD
    assert {".jpg", ".jfif", ".jpe", ".avif", ".jp2", ".ppm", ".webp", ".tif", ".gif", ".bmp"} <= SUFFIXES


WRITTEN = [
    "a.jpg",
    "b.jfif",
    "c.avif",
    "d.jpe",
    "e.jp2",
    "f.ppm",
    "g.PNG",
    "h.tiff",
    "i.webp",
    "j.gif",
    "k.bmp",
    "l.tga",
]


def test_photos_of_all_formats_are_read(tmp_path):
    found = find_photos(str(write_photos(tmp_path, *WRITTEN)))
    assert [found.name(path) for path in found.paths] == WRITTEN
    assert all(read_image(path).shape == (64, 96, 3) for path in found.paths)
    assert not found.left_out.came
    assert [photo.name for shard in photo_shards(tmp_path) for photo in shard.photos()] == [name[0] for name in WRITTEN]


def test_everything_else_is_counted_and_named(tmp_path):
    write_photos(tmp_path, "p0.jpg", "deep/p1.png")
    others = [
        "._p0.jpg",
        ".DS_Store",
        "deep/._p1.png",
        "notes.txt",
        "raw.heic",
        "noname",
        "__MACOSX/p0.jpg",
        ".git/x.jpg",
    ]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "deep")
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "annexed")
    found, ledger = find_photos(str(tmp_path)), Ledger("files")
    assert [found.name(path) for path in found.paths] == ["deep/p1.png", "lost.jpg", "p0.jpg"]
    assert reasons(found.left_out) == {
        "._p0.jpg": "hidden", ".DS_Store": "hidden", "._p1.png": "hidden", "__MACOSX": "hidden", ".git": "hidden",
        "notes.txt": "not a photo", "raw.heic": "in a format that is not read", "noname": "not a photo",
        "elsewhere": "a link to a folder",
    }  # fmt: skip
    details = {skipped.detail for skipped in found.left_out.skipped}
    assert ".heic: install pillow-heif (the extra heic), or convert it to JPEG" in details
    assert "a name without a suffix is not the suffix" in str(sorted(details))
    assert (
        found.left_out.line()
        == "9 files: 0 kept, 5 hidden, 2 not a photo, 1 a link to a folder, 1 in a format that is not read"
    )
    photo_shards(tmp_path, left_out=ledger)
    assert reasons(ledger) == reasons(found.left_out)


def test_an_unreadable_folder_is_counted(tmp_path, monkeypatch):
    write_photos(tmp_path, "p0.jpg", "deep/p1.png")
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = find_photos(str(tmp_path))
    (skipped,) = found.left_out.skipped
    assert (Path(skipped.name).name, skipped.reason) == ("deep", "an unreadable folder")
    assert skipped.detail == "Permission denied" and len(found.paths) == 1


def test_a_folder_without_photos_says_what_is_there(tmp_path):
    for name in ("a.heic", "b.txt", "._c.jpg"):
        (tmp_path / name).touch()
    for search in (find_photos, photo_shards):
        with pytest.raises(InputError) as raised:
            search(str(tmp_path))
        assert (
            "none of 3 files can be used (1 hidden, 1 in a format that is not read, 1 not a photo): looked in"
            in str(raised.value)
        )
        assert "found there: ._c.jpg, a.heic, b.txt; give" in str(raised.value)
        assert "give a folder of photos (.jpg, .png, .webp, .tif or another format that Pillow reads)" in str(
            raised.value
        )


PARTS = st.text(st.sampled_from("aB. é_"), min_size=1, max_size=4).filter(lambda part: set(part) != {"."})
PATHS = st.tuples(
    st.lists(PARTS, max_size=2), PARTS, st.sampled_from([".jpg", ".JPE", ".heic", ".txt", "", ".tar.png"])
)


@given(st.lists(PATHS, max_size=8))
def test_every_file_is_found_or_counted(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("album")
    for folders, stem, suffix in paths:
        path = root.joinpath(*(f"{folder}_" for folder in folders), f"{stem}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    ledger = Ledger("files")
    try:
        found = [Path(path) for path in find_photos(str(root)).paths]
    except InputError:
        found = []
    files = {path for path in root.rglob("*") if path.is_file()}
    try:
        photo_shards(root, left_out=ledger)
    except InputError as error:  # two photos of one name, or none
        assert "have the same name" in str(error) or not found
    left_out = {Path(skipped.name) for skipped in ledger.skipped}
    inside = {file for file in files for folder in left_out if folder.is_dir() and folder in file.parents}
    assert set(found) | (left_out & files) | inside == files
    assert not set(found) & (left_out | inside)
    assert all(path.suffix.lower() in SUFFIXES for path in found)


def test_packed_photos_are_named(tmp_path):
    (tmp_path / "0.tar").touch()
    with pytest.raises(InputError, match=r"0\.tar: \.tar: unpack it; give a folder of photos"):
        find_photos(str(tmp_path))


def test_patterns(tmp_path):
    write_photos(tmp_path, "a.jpg", ".b.jpg", "deep.jpg/c.jpg")
    found = find_photos(str(tmp_path / "*.jpg"))
    assert [found.name(path) for path in found.paths] == ["a.jpg"]
    assert reasons(found.left_out) == {"deep.jpg": "a folder"}
    assert len(find_photos(str(tmp_path / "**" / "*.jpg")).paths) == 2


def test_a_long_text_is_not_a_path():
    for text in ("iVBORw0KGgo" * 1000, "/9j/" * 100):
        with pytest.raises(InputError, match="decode base64 text and give"):
            read_image(find_photos(text).paths[0])


def test_a_url_is_not_a_pattern():
    with pytest.raises(InputError, match=r"is a URL: download the photo and give its path"):
        read_image(find_photos("https://example.org/a.jpg?w=[1]").paths[0])


def test_hidden_members_of_a_tar_are_left_out(tmp_path):
    names = ["./._a.jpg", "./a.jpg", "__MACOSX/b.jpg", "b.jpe", "b.json", "._b.json"]
    tar = write_tar(tmp_path / "x.tar", dict.fromkeys(names, b"x"))
    write_tar(tmp_path / "._x.tar", {})
    (shard,) = photo_shards(tmp_path)
    ledger = Ledger("files")
    assert [photo.name for photo in shard.photos(ledger)] == ["a", "b"]
    assert [(skipped.name, skipped.reason, skipped.where) for skipped in ledger.skipped] == [
        ("._a.jpg", "hidden", str(tar)), ("__MACOSX/b.jpg", "hidden", str(tar))
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), [
    (tarfile.PAX_FORMAT, {"pax_headers": {"comment": "a"}}), (tarfile.GNU_FORMAT, {}), (tarfile.USTAR_FORMAT, {}),
])  # fmt: skip
def test_tars_of_every_format_are_read(tmp_path, kind, options):
    name = f"{'d' * 90}/{'e' * 20}-é.jpg"
    with tarfile.open(tmp_path / "x.tar", "w", format=kind, encoding="utf-8", **options) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mtime = 3, 1e9
        tar.addfile(member, BytesIO(b"abc"))
    (photo,) = PhotoShard("x", tmp_path / "x.tar").photos()
    assert (photo.name, photo.read()) == (Path(name).stem, b"abc")


def test_hidden_names():
    assert all(map(is_hidden, map(Path, ("._a.jpg", "a/.b/c.jpg", "__MACOSX/a.jpg", ".DS_Store"))))
    assert not any(map(is_hidden, map(Path, ("a.jpg", "./a.jpg", "../a.jpg", "a/b..jpg", "__a/b.jpg"))))

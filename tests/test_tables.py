"""Tables as common programs write them: joined by photo, or refused with what to do."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposals.errors import InputError
from training.samples import SourceSample
from training.sources import find_source

EXPECTED = {"a": ("one", "two"), "b": ("three",)}


def samples(images: Path, captions: Path | None = None) -> list[SourceSample]:
    return [sample for unit in find_source(images, captions).units() for sample in unit.samples()]


def texts(*given: Path) -> dict[str, tuple[str, ...]]:
    return {sample.key: sample.text.captions for sample in samples(*given) if not sample.reason}


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


WRITTEN = {
    "Kaggle's captions.txt": ("c.txt", "image,caption\na.jpg,one\nb.jpg,three\na.jpg,two\n"),
    "Flickr8k.token.txt": ("c.txt", "a.jpg#0\tone\nb.jpg#0\tthree\na.jpg#1\ttwo\n"),
    "Kaggle's Flickr30k": ("c.csv", "image_name| comment_no| comment\na.jpg| 0| one\nb.jpg|0|three\na.jpg| 1| two\n"),
    "Excel with semicolons": ("c.csv", "\ufeffImage;Caption\r\na.jpg;one\r\nb.jpg;three\r\na.jpg;two\r\n"),
    "Excel with sep=": ("c.csv", "sep=;\r\nFile Name;Text\r\na.jpg;one\r\nb.jpg;three\r\na.jpg;two\r\n"),
    "pandas with an index": ("c.csv", ",image,caption\n0,a.jpg,one\n1,b.jpg,three\n2,a.jpg,two\n"),
    "pandas with lists": ("c.csv", 'image,caption\na.jpg,"[\'one\', \'two\']"\nb.jpg,[\'three\']\n'),
    "tabs in a .csv": ("c.csv", "filename\tcaption\na.jpg\tone\nb.jpg\tthree\na.jpg\ttwo\n"),
    "bars in a .tsv": ("c.tsv", "filename|caption\na.jpg|one\nb.jpg|three\na.jpg|two\n"),
    "Windows's paths": ("c.csv", "image,caption\n.\\a.jpg,one\n.\\b.jpg,three\n.\\a.jpg,two\n"),
    "names without a suffix": ("c.csv", "image,caption\na,one\nb,three\na,two\n"),
    "spaces and ./": ("c.csv", "image,caption\n a.jpg ,one\nb.jpg,three\n./a.jpg,two\n"),
    "JSON lines": ("c.jsonl", '{"Image": "a.jpg", "Caption": "one"}\n{"image": "b.jpg", "caption": "three"}\n'
                              '{"image": "a.jpg", "caption": "two"}\n'),
    "a JSON array": ("c.json", '\ufeff[{"image": "a.jpg", "caption": "one"}, {"image": "b.jpg", "caption": "three"},'
                               ' {"image": "a.jpg", "caption": "two"}]'),
    "captions by photo": ("c.json", '{"a.jpg": ["one", "two"], "b.jpg": "three"}'),
    "Karpathy's splits": ("c.json", json.dumps({"images": [
        {"filename": "a.jpg", "filepath": "", "sentences": [{"raw": "one", "tokens": ["one"]}, {"raw": "two"}]},
        {"filename": "b.jpg", "sentences": [{"raw": "three"}], "split": "val"}], "dataset": "flickr8k"})),
    "COCO": ("c.json", json.dumps({"images": [{"id": i, "file_name": n} for i, n in ((1, "a.jpg"), (2, "b.jpg"))],
        "annotations": [{"image_id": i, "caption": c} for i, c in ((1, "one"), (2, "three"), (1, "two"))]})),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITTEN)
def test_common_writers(root, writer):
    name, text = WRITTEN[writer]
    found = texts(root, write(root / name, text))
    assert {key: tuple(map(str.strip, captions)) for key, captions in found.items()} == EXPECTED


def test_photos_that_differ_in_their_suffix_are_two(root):
    (root / "a.png").touch()
    table = write(root / "c.csv", "image,caption\na.jpg,one\na.png,two\na.jpg,three\n")
    assert texts(root, table) == {"a": ("one", "three"), "a//.png": ("two",)}


@given(st.lists(st.tuples(st.sampled_from(["a.jpg", "b.jpg", "a.png", "x/a.jpg"]), st.integers(0, 9)), max_size=20))
def test_rows_in_any_order_are_joined(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("rows")
    (root / "first.jpg").touch()
    rows = [("first.jpg", 0), *rows]
    table = write(root / "c.csv", "".join(["path,caption\n", *(f"{path},{text}\n" for path, text in rows)]))
    found = {Path(s.photo.path).relative_to(root).as_posix(): s.text.captions for s in samples(root, table)}
    assert found == {path: tuple(str(t) for p, t in rows if p == path) for path, _ in rows}


def test_a_comma_without_quotes_stays_in_the_last_column(root):
    table = write(root / "c.csv", "image,caption\na.jpg,A dog, running\nb.jpg,A cat,,\n")
    assert texts(root, table) == {"a": ("A dog, running",), "b": ("A cat",)}
    found = samples(root, write(root / "d.csv", "caption,image\nA cat,a.jpg\nA dog, running,b.jpg\n"))
    assert found[1].reason == "with too many cells: 3 for 2 columns; a text with ',' needs quotes"


REFUSED = {
    "Latin-1": ("c.csv", "image,caption\na.jpg,one\nb.jpg,café\n".encode("latin-1"),
                r"c\.csv:3: not UTF-8 \(byte 0xe9\): if it is Latin-1, convert it with iconv -f WINDOWS-1252 -t UTF-8"),
    "Excel's Unicode text": ("c.txt", "image\tcaption\na.jpg\tone\n".encode("utf-16"),
                             r"is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8 c\.txt > utf8\.txt"),
    "UTF-16 without a mark": ("c.csv", "image,caption\na.jpg,one\n".encode("utf-16-le"), "is UTF-16, not UTF-8"),
    "UTF-32": ("c.csv", "image,caption\na.jpg,one\n".encode("utf-32"), "is UTF-32, not UTF-8"),
    "an open quote": ("c.csv", b'path,text\na.jpg,one\nb.jpg,"two\na.jpg,three\n', r"c\.csv:3: a quote is not closed"),
    "a quote that closes later": ("c.csv", b'path,text\na.jpg,"one\nb.jpg,two"\n', r"c\.csv:2: a quote .*next rows"),
    "quotes in quotes": ("c.csv", b'path,text\na.jpg,"a "red" mug"\n', r"c\.csv:2: .* not closed or not doubled"),
    "an endless cell": ("c.csv", b'image,caption\na.jpg,"' + b"x" * (1 << 21), r"c\.csv:2: .*field larger"),
    "two columns": ("c.csv", b"image,caption,Caption\na.jpg,1,2\n", "has two columns caption: rename or join them"),
    "no header": ("c.csv", b"a.jpg,one\nb.jpg,two\n", r"has columns a\.jpg, one: one must be .*or add a header"),
    "names only": ("c.json", b'["a.jpg", "b.jpg"]', "is JSON without photos and texts: give COCO captions, or a list"),
    "an empty array": ("c.json", b"[]", "is JSON without photos and texts"),
    "another object": ("c.json", b'{"name": "x"}', "is JSON without photos and texts"),
    "no JSON": ("c.json", b"a.jpg", "is not JSON in UTF-8"),
    "wrong paths": ("c.csv", b"image,caption\nx/1.jpg,one\nx/2.jpg,two\nx/3.jpg,3\nx/4.jpg,4\n",
                    r"none of 4 photos can be used \(4 missing\): looked in .* for x/1\.jpg, x/2\.jpg, x/3\.jpg; "
                    r"found there: a\.jpg, b\.jpg, c\.csv; give the folder that the paths in .*c\.csv are relative to"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_read_for_certain_is_refused(root, fault):
    name, content, message = REFUSED[fault]
    (root / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        samples(root, root / name)
    assert "\n" not in str(error.value)


def test_images_that_is_not_a_folder_is_refused(root):
    table = write(root / "sub" / "c.csv", "image,caption\nz.jpg,one\n") if (root / "sub").mkdir() is None else None
    with pytest.raises(InputError, match=r"a\.jpg is not a folder: give the folder of the photos that .*c\.csv names"):
        samples(root / "a.jpg", table)


def test_a_broken_line_of_flickr8k_gets_a_reason(root):
    found = samples(root, write(root / "c.txt", "a.jpg#0\tone\nbroken\n"))
    assert [sample.reason for sample in found] == ["", "in broken rows: no image#number"]


def test_the_identity_covers_the_text_and_the_folder_of_the_photos(root):
    table = write(root / "c.csv", "image,caption\na.jpg,one\n")
    one = find_source(root, table).identity()
    (root / "sub").mkdir()
    other = find_source(root / "sub", table).identity()
    assert {name for name in one if one[name] != other[name]} == {"photos"}
    write(table, "image,caption\na.jpg,two\n")
    assert {name for name in one if one[name] != find_source(root, table).identity()[name]} == {"source"}

"""Sources: tars, tables, COCO and Entities give the same samples, and broken samples get a reason."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_crawl import write_tar

from proposals.errors import InputError
from training.sample_text import SampleText
from training.samples import SourceSample, read_photo
from training.sources import WorkUnit, find_source
from training.table_readers import read_table

CAPTIONS = {"a": ("A dog; a cat.",), "b/c": ("Two dogs", 'and, "more"')}


def samples(images: Path, captions: Path | None = None, size: int = 10_000) -> list[SourceSample]:
    return [sample for unit in find_source(images, captions, size).units() for sample in unit.samples()]


def texts(*given: Path) -> dict[str, tuple[str, ...]]:
    return {sample.key: sample.text.captions for sample in samples(*given)}


def reasons(*given: Path) -> list[tuple[str, str]]:
    return [(sample.key, sample.reason) for sample in samples(*given) if sample.reason]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write_rows(path: Path, rows: list[dict]) -> Path:
    """Writes a table, and an empty photo for its first row."""
    if not any(
        (folder / str(next(iter(rows[0].values())))).exists() for folder in (path.parent, path.parent / "photos")
    ):
        touch(path.parent, str(next(iter(rows[0].values()))))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        from pyarrow import Table

        parquet.write_table(Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list) and len(v) > 1 else v[0] if isinstance(v, list) else v
                 for k, v in row.items()} for row in rows
            )  # fmt: skip
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables(tmp_path, suffix):
    rows = [{"file_name": f"{key}.jpg", "caption": list(found)} for key, found in CAPTIONS.items()]
    table = write_rows(tmp_path / f"table{suffix}", rows)
    assert texts(table) == CAPTIONS
    assert [sample.photo.path for sample in samples(table)] == [str(tmp_path / f"{key}.jpg") for key in CAPTIONS]
    assert [len(unit.listed) for unit in find_source(table, None, 1).units()] == [1, 1]


def test_tables_of_tags(tmp_path):
    rows = [{"path": "x.png", "tags": ["Hot dog", "red, blue"]}, {"path": "y.png", "tags": ["cat|dog"]}]
    tags = [("Hot dog", "red, blue"), ("cat", "dog")]
    assert [s.text for s in samples(write_rows(tmp_path / "t.csv", rows))] == [SampleText(tags=found) for found in tags]
    assert [s.text.tags for s in samples(write_rows(tmp_path / "t.jsonl", rows))] == [tags[0], ("cat|dog",)]


def test_consecutive_rows_of_one_photo_are_one_sample(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,one\na.jpg,two\nb.jpg,three\n")
    assert texts(tmp_path / "captions.csv") == {"a": ("one", "two"), "b": ("three",)}


def test_paths_are_relative_to_the_photos_or_to_the_table(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for paths, base in ((["a.jpg", "b.jpg"], "photos"), (["photos/a.jpg", "photos/b.jpg"], "")):
        table = write_rows(tmp_path / "t.csv", [{"path": path, "caption": ["x"]} for path in paths])
        found = samples(tmp_path / "photos", table)
        assert [sample.photo.path for sample in found] == [str(tmp_path / base / path) for path in paths]
        assert [sample.key for sample in found] == [path[:-4] for path in paths]
    away = write_rows(tmp_path / "t.csv", [{"path": str(tmp_path / "x" / "a.jpg"), "caption": ["x"]}])
    assert samples(tmp_path / "photos", away)[0].photo.path == str(tmp_path / "x" / "a.jpg")


def test_broken_rows_get_a_reason_and_the_others_are_kept(tmp_path):
    touch(tmp_path, "a.jpg")
    lines = ['{"path": "a.jpg", "tags": ["x"]}', "{", "7", "", '{"path": "."}', '{"tags": ["x"]}', '{"path": "b.jpg"}']
    (tmp_path / "t.jsonl").write_bytes(
        "\n".join(lines).encode() + b'\n{"path": "\xff"}\n{"path": "a.jpg", "tags": "y"}'
    )
    found = reasons(tmp_path / "t.jsonl")
    assert [key for key, _ in found] == ["", "", "", "", "b", ""]
    kinds = [reason.partition(":")[0] for _, reason in found]
    assert kinds == ["in broken rows"] * 2 + ["without a path"] * 2 + ["without text", "in broken rows"]
    assert samples(tmp_path / "t.jsonl")[0].text.tags == ("x", "y")
    (tmp_path / "t.csv").write_text('path,tags\na.jpg,"x, y"\nc.jpg\n')
    assert samples(tmp_path / "t.csv")[0].text == SampleText(tags=("x", " y"))
    assert reasons(tmp_path / "t.csv") == [("", "with too few cells: 1 for 2 columns, and none for tags, in 'c.jpg'")]
    (tmp_path / "t.jsonl").write_bytes(
        b'{"path": "a", "text": "' + bytes(b"x" * (1 << 22)) + b'"}\n{"path": "a.jpg", "text": "c"}'
    )
    assert [s.reason.partition(":")[0] for s in samples(tmp_path / "t.jsonl")] == ["in broken rows", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", "path,tags\n", "has no rows"),
        ("t.csv", "url,tags\nx,y\n", "columns url, tags: one must be path, image, file_name, filename"),
        ("t.jsonl", '{"path": "x", "title": "y"}', "one must be tags, keywords, captions, caption, text"),
        ("t.parquet", "no", "is not a readable Parquet file"),
        ("t.json", '{"annotations": 1}', "COCO captions need"),
        ("t.xml", "", "is of an unknown kind: give tar files or a folder of them"),
    ],
)
def test_broken_tables_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        samples(tmp_path, tmp_path / name)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").touch()
    with pytest.raises(InputError, match=r"needs pyarrow: .*pip install -e '\.\[parquet\]'"):
        next(read_table(tmp_path / "t.parquet"))


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist: give"):
        find_source(tmp_path / "none")
    with pytest.raises(InputError, match="does not exist: give"):
        find_source(tmp_path, tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"has no texts that are read: give .* or set captions="):
        find_source(tmp_path)
    with pytest.raises(InputError, match=r"has no \.txt files"):
        find_source(tmp_path, tmp_path)
    source = find_source(write_tar(tmp_path / "a.tar", {}))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(InputError, match=r"a\.tar cannot be read: No such file"):
        source.identity()
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(InputError, match=r"t\.csv cannot be read: Is a directory"):
        samples(tmp_path, tmp_path / "t.csv")


def test_tars_of_a_crawl(tmp_path):
    write_tar(
        tmp_path / "00000.tar",
        [
            ("000.jpg", b"photo"), ("000.json", b'{"caption": "a dog", "url": "x"}'), ("000.txt", b"a cat"),
            ("x/001.JPEG", b"photo"), ("x/001.txt", "\ufeffein Hund".encode()),
            ("002.png", b"photo"), ("002.json", b'{"url": "x"}'), ("002.txt", b"a cow"),
            ("003.json", b'{"caption": "failed"}'), ("003.txt", b"failed"),
            ("004.jpg", b"photo"), ("004.json", b'{"url": "x"}'),
            ("005.jpg", b"photo"), ("005.json", b"{"),
            ("006.jpg", b"photo"), ("006.json", b"[" * 100_000),
            ("007.jpg", b"photo"), ("007.txt", b"x" * (1 << 21)),
            ("000.jpg", b"other"), ("000.txt", b"again"),
            ("._008.jpg", b"macOS"), ("009.seg.png", b"mask"), ("README", b"text"),
            ("010.webp", b"photo"), ("010.jpg", b"other"), ("010.json", b'{"keywords": "a,b", "caption": "c"}'),
        ],
    )  # fmt: skip
    found = samples(tmp_path)
    assert [(s.key, s.text) for s in found if not s.reason] == [
        ("000", SampleText(captions=("a dog",))),
        ("x/001", SampleText(captions=("ein Hund",))),
        ("002", SampleText(captions=("a cow",))),
        ("010", SampleText(tags=("a", "b"))),
    ]
    assert [(s.key, s.reason.partition(":")[0]) for s in found if s.reason] == [
        ("000", "of a key that repeats"),
        ("003", "without a photo"),
        ("004", "without text"),
        ("005", "with broken JSON"),
        ("006", "with broken JSON"),
        ("007", "with a text that is too long"),
        ("._008.jpg", "hidden"),
        ("009", "without text"),
        ("010", "second photos of a sample"),
    ]
    assert [read_photo(s.photo) for s in found if not s.reason] == [b"photo"] * 4


def test_a_truncated_tar_gives_the_samples_before_the_damage(tmp_path):
    files = {f"{i}.{kind}": b"x" * 600 for i in range(4) for kind in ("jpg", "txt")}
    whole = write_tar(tmp_path / "a.tar", files).read_bytes()
    for cut in (1536 * 5 + 100, 1536 * 5 + 700, 1536 * 8, 1536 * 8 + 512):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        found = samples(tmp_path)
        assert [s.key for s in found if not s.reason][:2] == ["0", "1"]
        assert found[-1].reason.startswith("in the damaged part of a tar: truncated or not a tar file (")
        assert str(tmp_path) not in found[-1].reason
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b no tar")
    assert [reason[:28] for _, reason in reasons(tmp_path)] == ["in the damaged part of a tar"]


def test_the_message_about_an_unreadable_file_has_no_path(tmp_path):
    table = write_rows(
        tmp_path / "t.jsonl", [{"path": path, "text": "x"} for path in ("c.jpg", "a.jpg", "b\0", "\ud800", ".")]
    )
    messages = []
    for sample in samples(table)[1:4]:
        with pytest.raises(InputError) as error:
            read_photo(sample.photo)
        messages.append(str(error.value))
    assert messages == ["missing: no such file", "unreadable: invalid name", "unreadable: invalid name"]


def test_coco(tmp_path):
    touch(tmp_path, "a.jpg")
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}, {"id": 9, "file_name": "c.jpg"}]
    annotations = [{"image_id": i, "caption": c} for i, c in ((8, "one"), (7, "two"), (8, "three"))]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    assert texts(tmp_path, tmp_path / "captions.json") == {"b": ("one", "three"), "a": ("two",)}


def test_entities(tmp_path):
    (tmp_path / "Sentences").mkdir()
    touch(tmp_path, "images/1.jpg")
    (tmp_path / "Sentences" / "1.txt").write_text("[/EN#3/people A man] on [/EN#4/other a horse] .\nA horse .\n")
    (tmp_path / "Sentences" / "2.txt").write_text("[/EN#5/animals A dog] .\n")
    expected = {"1": ("A man on a horse .", "A horse ."), "2": ("A dog .",)}
    assert texts(tmp_path) == texts(tmp_path, tmp_path / "Sentences") == texts(tmp_path, tmp_path) == expected
    assert samples(tmp_path)[0].photo.path == str(tmp_path / "images" / "1.jpg")
    assert [unit.number for unit in find_source(tmp_path, None, 1).units()] == [0, 1]


def test_real_data_sets(data):
    found = samples(data / "coco2017" / "val2017", data / "coco2017" / "annotations" / "captions_val2017.json")
    assert len(found) == 50 and all(len(s.text.captions) >= 5 and read_photo(s.photo) for s in found)
    found = samples(data / "flickr30k_entities")
    assert len(found) == 247 and all(len(s.text.captions) == 5 and read_photo(s.photo) for s in found)
    assert not any("[" in caption for s in found for caption in s.text.captions)


def test_the_identity_depends_on_the_names_and_sizes_of_the_files(tmp_path):
    one = find_source(write_tar(tmp_path / "a" / "1.tar", {"x": b""})).identity()
    assert one == find_source(write_tar(tmp_path / "b" / "1.tar", {"x": b""})).identity()
    assert one != find_source(write_tar(tmp_path / "c" / "2.tar", {"x": b""})).identity()
    assert one != find_source(write_tar(tmp_path / "d" / "1.tar", {"x": bytes(20000)})).identity()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    touch(folder, "first.jpg")
    return folder


@given(st.lists(st.tuples(st.text(min_size=1), st.lists(st.text()))), st.integers(1, 4))
def test_units_are_consecutive_rows(folder, rows, size):
    path, rows = folder / "t.jsonl", [("first.jpg", ["one"]), *rows]
    path.write_text("".join(json.dumps({"path": name, "captions": found}) + "\n" for name, found in rows))
    units = list(find_source(path, None, size).units())
    listed = [sample for unit in units for sample in unit.listed]
    assert listed == [sample for unit in find_source(path).units() for sample in unit.listed]
    assert [len(unit.listed) for unit in units[:-1]] == [size] * (len(units) - 1)
    assert all(isinstance(unit, WorkUnit) and unit.number == i for i, unit in enumerate(units))

"""Tars in any order, with repeats, dotted keys and long names: nothing is lost, and no photo gets another's text."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_crawl import write_tar

import training.tar_reader
from grounding.photos import SUFFIXES
from grounding.runtime.ledger import Ledger, LedgerError
from training import grouping
from training.samples import SourceSample, read_photo
from training.sources import WorkUnit, count_samples
from training.tar_reader import tar_samples

# few plain names, so that keys repeat, and some odd ones
KEYS = st.sampled_from(["1"] * 9 + ["2"] * 4 + ["a/1", "./1", ".3", "._1", "ü" * 60, "x" * 120, "d.e/1", "__meta__/4"])
FIELDS = st.sampled_from([""] * 6 + [".v1"] * 3 + [".v2", ".a.b"])
ENDS = st.sampled_from([".jpg"] * 4 + [".txt"] * 4 + [".png", ".json", ".cls", ""])
NAMES = st.tuples(KEYS, FIELDS, ENDS).map("".join)


def write(path: Path, names: list[str], form: int = tarfile.PAX_FORMAT) -> Path:
    """Writes files whose content is their own name, as text or as JSON."""
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            text = f"{name}#{number}"
            data = (json.dumps({"caption": text}) if name.endswith(".json") else text).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def key_of(name: str) -> str:
    """The key by WebDataset's rule; the whole name if it has none there."""
    folder, slash, last = str(Path(name)).rpartition("/")
    if last.startswith(".") or name.startswith("__meta__"):
        return str(Path(name))
    return folder + slash + last.partition(".")[0]


def name_in(text: str) -> str:
    return text.rpartition("#")[0]


@pytest.fixture(scope="module")
def tar(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tar") / "a.tar"


@settings(max_examples=200)
@given(
    st.lists(NAMES, min_size=2, max_size=10), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.booleans()
)
def test_nothing_is_lost_and_no_photo_has_the_text_of_another(tar, names, form, spilled):
    limit, grouping.IN_MEMORY = grouping.IN_MEMORY, 500 if spilled else grouping.IN_MEMORY
    try:
        unit = WorkUnit(0, "a.tar", write(tar, names, form))
        samples, ledger = list(unit.samples()), Ledger("samples")
        count_samples(unit, ledger)
    finally:
        grouping.IN_MEMORY = limit
    ledger.check()
    assert ledger.came == len(samples)
    photos = [name for name in names if Path(name).suffix in SUFFIXES]
    assert Counter(name_in(read_photo(s.photo).decode()) for s in samples if s.photo) == Counter(photos)
    used = [sample for sample in samples if not sample.reason]
    assert len({sample.key for sample in used}) == len(used)
    for sample in used:
        check_pair(sample, names)


def check_pair(sample: SourceSample, names: list[str]) -> None:
    """Photo and text have the same key; also the same field, unless there is only one photo in question."""
    texts = read_photo(sample.photo).decode(), *sample.text.captions
    (photo, text), places = map(name_in, texts), [int(text.rpartition("#")[2]) for text in texts]
    key, files = key_of(photo), names
    assert len(texts) == 2 and key_of(text) == key
    if repeats(name for name in names if key_of(name) == key):  # then they stand together, with no second photo or text
        start, end = min(places), max(places) + 1
        while start and key_of(names[start - 1]) == key:
            start -= 1
        while end < len(names) and key_of(names[end]) == key:
            end += 1
        files = names[start:end]
        assert {key_of(name) for name in files} == {key} and not repeats(files)
    photos = [name for name in files if key_of(name) == key and Path(name).suffix in SUFFIXES]
    assert field_of(photo) == field_of(text) or len(photos) == 1


def field_of(name: str) -> str:
    return Path(name).name.partition(".")[2].rpartition(".")[0]


def repeats(names: Iterable[str]) -> bool:
    """Whether two of the photos and texts of a key have the same field and suffix."""
    kinds = [(field_of(name), Path(name).suffix) for name in names]
    kinds = [kind for kind in kinds if kind[1] in {*SUFFIXES, ".txt", ".json"}]
    return len(set(kinds)) < len(kinds)


def read(path: Path, *names: str) -> list[tuple[str, str, str]]:
    samples = tar_samples(write(path / "a.tar", list(names)))
    return [(s.key, s.reason.partition(":")[0], "".join(map(name_in, s.text.captions))) for s in samples]


def test_files_of_one_key_need_not_be_neighbours(tmp_path):
    found = read(tmp_path, "1.jpg", "2.jpg", "3.jpg", "1.txt", "2.txt", "3.txt")
    assert found == [(str(n), "", f"{n}.txt") for n in (1, 2, 3)]


def test_keys_with_dots_are_read_as_webdataset_does(tmp_path):
    assert read(tmp_path, "1.v1.jpg", "1.v1.txt") == [("1", "", "1.v1.txt")]
    assert read(tmp_path, "1.jpg", "1.caption.txt", "1.cls") == [("1", "", "1.caption.txt")]
    found = read(tmp_path, "1.v1.jpg", "1.v2.jpg", "1.v2.txt", "1.v1.txt")
    assert found == [("1.v1", "", "1.v1.txt"), ("1.v2", "", "1.v2.txt")]
    found = read(tmp_path, "1.jpg", "1.seg.png", "1.txt", "2.a.txt", "2.jpg", "2.b.txt")
    assert found == [("1", "", "1.txt"), ("1.seg", "without text", ""), ("2", "with several texts", "")]


def test_a_key_that_repeats_is_used_only_where_its_files_belong_together_for_certain(tmp_path):
    repeated = "of a key that repeats"
    found = read(tmp_path, "same.jpg", "same.txt", "same.jpg", "same.txt")
    assert found == [("same", repeated, ""), ("same", repeated, "")]
    found = read(tmp_path, "same.jpg", "same.txt", "2.jpg", "2.txt", "same.jpg", "same.txt")
    assert found == [("same", "", "same.txt"), ("same", repeated, ""), ("2", "", "2.txt")]
    found = read(tmp_path, "same.jpg", "2.jpg", "same.jpg", "same.txt", "2.txt", "same.txt")
    assert found == [("same", repeated, ""), ("same", repeated, ""), ("2", "", "2.txt")]
    assert read(tmp_path, "1.txt", "1.txt") == [("1", repeated, "")]


def test_hidden_files_and_leftover_texts_are_listed(tmp_path):
    found = read(
        tmp_path, "._1.jpg", "1.jpg", "1.txt", "2.txt", "._1.txt", "README", "__meta__/x.jpg", "3.txt", "3.json"
    )
    assert found == [
        ("._1.jpg", "hidden", ""),
        ("1", "", "1.txt"),
        ("2", "without a photo", ""),
        ("__meta__/x.jpg", "hidden", ""),
        ("3", "without a photo", ""),
    ]


def test_links_and_sparse_files_are_listed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("1.jpg", tarfile.REGTYPE), ("2.jpg", tarfile.LNKTYPE), ("3.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "1.jpg" if kind != tarfile.REGTYPE else ""
            tar.addfile(member)
        member = tarfile.TarInfo("4.jpg")
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"}
        tar.addfile(member)
    assert [(s.key, s.reason) for s in tar_samples(tmp_path / "a.tar")] == [
        ("1", "without text"),
        *(
            (str(n), f"links or sparse files: {n}.jpg; pack it with tar --dereference --hard-dereference, without -S")
            for n in (2, 3, 4)
        ),
    ]


def test_a_text_that_is_not_utf8_is_refused_by_name(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": b"", "1.txt": "café".encode("latin-1"), "2.jpg": b"", "2.json": b"\xff"})
    reasons = [sample.reason for sample in tar_samples(tmp_path / "a.tar")]
    assert reasons[0] == "not UTF-8: byte 0xe9 in the text"
    assert reasons[1].startswith("with broken JSON: 'utf-8' codec can't decode byte 0xff")


def test_a_photo_that_the_reader_loses_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(training.tar_reader, "_samples_of_files", lambda *_: iter(()))
    with pytest.raises(LedgerError, match="2 files of the key 1, but 0 samples: report this"):
        read(tmp_path, "1.jpg", "1.txt")

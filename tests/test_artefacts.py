"""Files appear complete or not at all, and their content is read again unchanged."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from grounding.runtime.artefacts import write_json, write_json_lines, write_once
from proposals.errors import InputError

# text beyond ASCII, characters that some readers take for the end of a line, and a file name that is not UTF-8
ODD = {"é": "日本", "ends": "\u2028 \x85 \n", "name": "photo-\udce9.jpg", "number": 0.1, "none": None}


def test_written_values_are_read_again(tmp_path):
    write_json(tmp_path / "new" / "a.json", ODD)
    assert json.loads((tmp_path / "new" / "a.json").read_bytes()) == ODD
    assert "日本" in (tmp_path / "new" / "a.json").read_text("utf-8")
    write_json_lines(tmp_path / "a.jsonl", iter([ODD, 1, ODD]))
    assert list(map(json.loads, (tmp_path / "a.jsonl").read_text("ascii").splitlines())) == [ODD, 1, ODD]


def test_the_first_of_several_writers_decides(tmp_path):
    path = tmp_path / "new" / "a.json"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(write_once, path), range(20)))
    first = path.read_bytes()
    assert json.loads(first) in range(20)
    write_once(path, ODD)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_once(tmp_path / "a.json", ODD)
    assert json.loads((tmp_path / "a.json").read_bytes()) == ODD
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_an_interrupted_write_leaves_no_file(tmp_path):
    def broken():
        yield ODD
        raise InputError("the second is broken")

    with pytest.raises(InputError, match="the second is broken"):
        write_json_lines(tmp_path / "a.jsonl", broken())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", ODD)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""Files appear complete or not at all, and their content is read again unchanged."""

import json

import pytest

from grounding.runtime.artefacts import write_json, write_json_lines
from proposals.errors import InputError

# text beyond ASCII, characters that some readers take for the end of a line, and a file name that is not UTF-8
ODD = {"é": "日本", "ends": "\u2028 \x85 \n", "name": "photo-\udce9.jpg", "number": 0.1, "none": None}


def test_written_values_are_read_again(tmp_path):
    write_json(tmp_path / "new" / "a.json", ODD)
    assert json.loads((tmp_path / "new" / "a.json").read_bytes()) == ODD
    assert "日本" in (tmp_path / "new" / "a.json").read_text("utf-8")
    write_json_lines(tmp_path / "a.jsonl", iter([ODD, 1, ODD]))
    assert list(map(json.loads, (tmp_path / "a.jsonl").read_text("ascii").splitlines())) == [ODD, 1, ODD]


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

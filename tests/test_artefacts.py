"""Files are written whole or not at all, and what is written is read again."""

import json

import pytest

from grounding.runtime.artefacts import write_json, write_json_lines
from proposals.errors import InputError

# text that is not of ASCII, ends of lines that are none, and bytes of a name that are no text
ODD = {"é": "日本", "ends": "\u2028 \x85 \n", "name": "photo-\udce9.jpg", "number": 0.1, "none": None}


def test_what_is_written_is_read_again(tmp_path):
    write_json(tmp_path / "new" / "a.json", ODD)
    assert json.loads((tmp_path / "new" / "a.json").read_bytes()) == ODD
    assert "日本" in (tmp_path / "new" / "a.json").read_text("utf-8")
    write_json_lines(tmp_path / "a.jsonl", iter([ODD, 1, ODD]))
    assert list(map(json.loads, (tmp_path / "a.jsonl").read_text("ascii").splitlines())) == [ODD, 1, ODD]


def test_half_a_file_is_none(tmp_path):
    def broken():
        yield ODD
        raise InputError("the second is broken")

    with pytest.raises(InputError, match="the second is broken"):
        write_json_lines(tmp_path / "a.jsonl", broken())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", ODD)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

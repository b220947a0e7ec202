"""The step ``ground`` with tar files: what it writes, how it continues, and what it says."""

import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from made_tars import crawl, samples, write_tar

from grounding import Grounder
from grounding.answers import Answers
from grounding.exports import image_record
from grounding.shards.addresses import find_shards
from grounding.shards.leases import Lease
from grounding.shards.parts import ShardPart
from grounding.steps.ground import ground
from grounding.steps.ground_shards import ShardOptions, ground_shards
from proposals.errors import InputError, SkippedError

PHRASES = ["a cup", "a zorgophone"]
HERE = ShardOptions(workers=0)


@pytest.fixture(scope="module")
def grounder(tiny_grounder) -> Grounder:
    return tiny_grounder


def run(grounder, source, output, phrases=PHRASES, form="jsonl", options=HERE, maps=False):
    ground_shards(grounder, find_shards(str(source)), phrases, output, form, None, maps, options)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(folder: Path) -> dict[str, bytes]:
    kinds = ("groundings-", "ledger-", "maps-", "skipped")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name.startswith(kinds)}


def test_each_tar_has_a_file_of_answers(grounder, tmp_path, capsys):
    crawl(tmp_path / "crawl", 2, 3)
    ground(grounder, str(tmp_path / "crawl"), PHRASES, str(tmp_path / "out"), shards=HERE)
    assert "2 shards, 6 photos: 6 kept; answers: " in capsys.readouterr().out
    records = [record for i in range(2) for record in lines(tmp_path / "out" / f"groundings-0000{i}.jsonl")]
    assert [record["image"] for record in records] == [f"{number:09d}" for number in range(6)]
    data = samples(6)[4]["jpg"]
    (tmp_path / "4.jpg").write_bytes(data)
    alone = grounder.ground(tmp_path / "4.jpg", PHRASES)
    assert records[4] == json.loads(json.dumps(image_record(Answers("000000004", alone[0].size, alone))))
    assert not list((tmp_path / "out" / "leases").iterdir())
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_each_photo_may_have_its_own_phrases(grounder, tmp_path):
    write_tar(tmp_path / "a.tar", [*samples(1), {"__key__": "bare", "jpg": samples(1)[0]["jpg"]}])
    for field, expected in {"caption": ["a cup", "a spoon"], "wanted": ["a cup", "a plate"]}.items():
        with pytest.raises(SkippedError, match="1 shards, 2 photos: 1 kept, 1 without phrases; see"):
            run(grounder, tmp_path / "a.tar", tmp_path / field, [], options=ShardOptions(field=field, workers=0))
        (record,) = lines(tmp_path / field / "groundings-a.jsonl")
        assert [answer["phrase"] for answer in record["groundings"]] == expected
        (skipped,) = lines(tmp_path / field / "skipped.jsonl")
        assert skipped["name"] == "bare"
        assert f"no text or list {field!r} in its JSON" in skipped["detail"]
    write_tar(tmp_path / "t.tar", [{key: value for key, value in samples(1)[0].items() if key != "json"}])
    run(grounder, tmp_path / "t.tar", tmp_path / "t", [], options=ShardOptions(field="caption", workers=0))
    (record,) = lines(tmp_path / "t" / "groundings-t.jsonl")
    assert [answer["phrase"] for answer in record["groundings"]] == ["a cup", "a plate"]


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(grounder, tmp_path):
    crawl(tmp_path / "crawl", 2, 5)
    run(grounder, tmp_path / "crawl", tmp_path / "one", maps=True)
    run(grounder, tmp_path / "crawl", tmp_path / "two", maps=True, options=ShardOptions(workers=2))
    assert answers(tmp_path / "one") == answers(tmp_path / "two")
    assert len(answers(tmp_path / "one")) == 7
    with tarfile.open(tmp_path / "one" / "maps-00000.tar") as tar:
        assert tar.getnames() == [f"{number:09d}.npz" for number in range(5)]
        maps = np.load(BytesIO(tar.extractfile("000000000.npz").read()))
    assert list(maps) == ["01"]  # the other phrase has no map
    alone = grounder.ground(BytesIO(samples(1)[0]["jpg"]), PHRASES)[0].map
    np.testing.assert_allclose(maps["01"], alone, rtol=1e-3, atol=1e-6)
    assert maps["01"].sum() == pytest.approx(1, abs=0.05)


def test_a_run_continues_at_the_photo_where_it_was(grounder, tmp_path, monkeypatch):
    crawl(tmp_path / "crawl", 2, 4)
    run(grounder, tmp_path / "crawl", tmp_path / "whole", maps=True)
    asked = []
    look = Grounder.look

    def counted(self, image, name=None):
        asked.append(name)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return look(self, image, name)

    monkeypatch.setattr(Grounder, "look", counted)
    with pytest.raises(KeyboardInterrupt):
        run(grounder, tmp_path / "crawl", tmp_path / "out", maps=True)
    (part,) = [path for path in (tmp_path / "out").iterdir() if path.suffix == ".rows"]
    with part.open("ab") as file:
        file.write(b'[{"image": "0000')  # a line that a killed process did not complete
    run(grounder, tmp_path / "crawl", tmp_path / "out", maps=True)
    assert asked == [f"{number:09d}" for number in (0, 1, 2, 3, 4, 5, 5, 6, 7)]
    assert answers(tmp_path / "out") == answers(tmp_path / "whole")
    run(grounder, tmp_path / "crawl", tmp_path / "out", maps=True)
    assert len(asked) == 9


def test_what_killed_processes_left_is_removed(grounder, tmp_path, monkeypatch):
    crawl(tmp_path / "crawl", 2, 2)
    out = tmp_path / "out"
    (out / "leases").mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    old = f"{gethostname()}.{dead.pid}"
    for name in (f".groundings-00000.jsonl.{old}.part", f".maps-00000.tar.{old}.part", f".00000.{old}.new"):
        (out / name).touch()  # killed while it wrote
    with monkeypatch.context() as patched:
        patched.setattr(ShardPart, "remove", ShardPart.close)  # killed after it had written the results
        patched.setattr(Lease, "release", lambda self: None)
        run(grounder, tmp_path / "crawl", out, maps=True)
    assert list((out / "leases").iterdir()) and list(out.glob(".*.rows"))
    for path in (out / "leases").iterdir():
        lines = path.read_text().split("\n")
        path.write_text("\n".join([lines[0], str(dead.pid), *lines[2:]]))
    done = answers(out)
    run(grounder, tmp_path / "crawl", out, maps=True)
    assert answers(out) == done
    assert not list((out / "leases").iterdir()) and not list(out.glob(".*"))


def test_parquet_has_a_row_for_each_phrase(grounder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    crawl(tmp_path / "crawl", 1, 2)
    run(grounder, tmp_path / "crawl", tmp_path / "out", form="parquet")
    rows = parquet.read_table(tmp_path / "out" / "groundings-00000.parquet").to_pylist()
    assert [(row["image"], row["phrase"], row["groundable"]) for row in rows] == [
        (f"00000000{photo}", phrase, phrase == "a cup") for photo in range(2) for phrase in PHRASES
    ]
    run(grounder, tmp_path / "crawl", tmp_path / "lines")
    first = lines(tmp_path / "lines" / "groundings-00000.jsonl")[0]["groundings"][0]
    assert {name: rows[0][name] for name in first} == first
    assert [rows[0][name] for name in ("x1", "y1", "x2", "y2")] == first["boxes"][0]
    assert rows[1]["x1"] is rows[1]["score"] is None


QUERY = """
SELECT image, presence FROM '{folder}/groundings-*.parquet'
WHERE phrase = '{tag}' AND x2 <= width AND y1 >= 0 ORDER BY presence DESC
"""


def test_an_index_of_the_most_probable_tags(grounder, tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    pytest.importorskip("pyarrow")
    crawl(tmp_path / "crawl", 2, 2)
    options = ShardOptions(tags=3, workers=0)
    run(grounder, tmp_path / "crawl", tmp_path / "out", [], "parquet", options)
    (photos,) = duckdb.sql(f"SELECT count(DISTINCT image) FROM '{tmp_path}/out/*.parquet'").fetchone()
    assert photos == 4
    run(grounder, tmp_path / "crawl", tmp_path / "lines", [], "jsonl", options)
    (record, *_) = lines(tmp_path / "lines" / "groundings-00000.jsonl")
    asked = [answer["phrase"] for answer in record["groundings"]]
    presences = [answer["presence"] for answer in record["groundings"]]
    assert len(asked) == 3
    assert presences == sorted(presences, reverse=True)
    found = duckdb.sql(QUERY.format(folder=tmp_path / "out", tag=asked[0])).fetchall()
    assert (record["image"], presences[0]) in found


def test_what_is_skipped_is_named(grounder, tmp_path):
    good = samples(3)
    broken = {"__key__": "broken", "jpg": b"no photo"}
    write_tar(tmp_path / "crawl" / "a.tar", [good[0], broken, {"__key__": "._good", "jpg": b"x"}, good[1], good[0]])
    data = write_tar(tmp_path / "crawl" / "b.tar", good).read_bytes()
    (tmp_path / "crawl" / "b.tar").write_bytes(data[: data.index(b"000000002.jpg") + 600])
    (tmp_path / "crawl" / "c.tar").write_bytes(b"no tar")
    with pytest.raises(SkippedError) as raised:
        run(grounder, tmp_path / "crawl", tmp_path / "out")
    counts = "4 kept, 2 in the damaged part of a tar, 1 hidden, 1 of a key that repeats, 1 unreadable"
    assert f"2 shards, 10 photos: {counts}, 1 unreadable shards; see" in str(raised.value)
    found = {line["name"]: line["reason"] for line in lines(tmp_path / "out" / "skipped.jsonl")}
    assert found["._good.jpg"] == "hidden"
    assert found["broken"] == "unreadable"
    assert found["000000000.jpg"] == "of a key that repeats"
    assert found["c"] == "unreadable shards"
    write_tar(tmp_path / "crawl" / "c.tar", good)  # it is repaired, and a run some time later reads it
    for note in (tmp_path / "out").rglob("*.failed.json"):
        os.utime(note, (0, 0))
    with pytest.raises(SkippedError, match="3 shards, 12 photos: 7 kept"):
        run(grounder, tmp_path / "crawl", tmp_path / "out")


def test_another_question_needs_another_folder(grounder, tmp_path):
    crawl(tmp_path / "crawl", 1, 1)
    run(grounder, tmp_path / "crawl", tmp_path / "out")
    with pytest.raises(InputError, match=r"has groundings with other settings \(phrases\): choose another folder with"):
        run(grounder, tmp_path / "crawl", tmp_path / "out", ["a dog"])


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (
            "no phrase to ground: set phrases= for all photos, step.shards.field=caption for those of each photo",
            {"phrases": []},
        ),
        ("phrases= and step.shards.field= are given: give one", {"options": ShardOptions(field="caption", workers=0)}),
        ("format=csv is not written for tar files: choose jsonl or parquet", {"form": "csv"}),
        ("lease=0.1 must be 1.0 or more|lease=0.1 must be 1 or more", {"options": ShardOptions(lease=0.1, workers=0)}),
    ],
)
def test_messages(grounder, tmp_path, message, change):
    crawl(tmp_path / "crawl", 1, 1)
    with pytest.raises(InputError, match=message):
        run(grounder, tmp_path / "crawl", tmp_path / "out", **change)


def test_settings_must_be_numbers():
    with pytest.raises(InputError, match="workers=-1 must be a whole number, 0 or more"):
        ShardOptions(workers=-1)
    with pytest.raises(InputError, match="tags=0 must be a whole number, 1 or more"):
        ShardOptions(tags=0)

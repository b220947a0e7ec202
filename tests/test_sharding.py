"""The step ``shards``: the same bytes however the work is divided, no incomplete files, and clear errors."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from command_line import run_here
from hypothesis import given
from hypothesis import strategies as st
from made_crawl import SETTINGS, content, photo, sample, write_crawl, write_tar
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

from proposals.errors import InputError
from training import sharding
from training.shard_maker import ShardSettings
from training.shard_statistics import ShardStatistics
from training.sharding import shard
from training.shards import Shards, read_photo_bytes
from training.thumbnails import make_thumbnail

UNKNOWN = "without a tag of the vocabulary"


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    return write_crawl(tmp_path_factory.mktemp("crawl"))


@pytest.fixture(scope="module")
def made(crawl, tmp_path_factory) -> Path:
    """The shards of the crawl."""
    output = tmp_path_factory.mktemp("once")
    shard(str(crawl), str(output), **SETTINGS)
    return output


def test_the_vocabulary_has_the_counts_of_a_plain_loop(crawl, made):
    counts, settings = Counter(), ShardSettings(100, 32, 10, 3, frozenset(), 0.2)
    for number in [*range(36), 90, 91, 92, 93, 98]:
        if not settings.holds_out(f"{number:05d}"):
            tags = json.loads(sample(number, b"")[f"{number:05d}.json"])["tags"]
            counts.update({tag.lower() for tag in tags})
    pairs = sorted(((tag, n) for tag, n in counts.items() if n >= 3), key=lambda pair: (-pair[1], pair[0]))
    assert (made / "vocabulary.txt").read_text() == "".join(f"{tag}\t{n}\n" for tag, n in pairs)
    assert "blue sky" in dict(pairs) and "t-shirt" in dict(pairs)
    shards = Shards(made)
    assert list(shards.vocabulary) == [tag for tag, _ in pairs]
    np.testing.assert_array_equal(shards.counts, [n for _, n in pairs])


def samples(tar: Path) -> list[dict]:
    """The samples of a tar, read by WebDataset."""
    with tar.open("rb") as file:
        return list(group_by_keys(part | {"__url__": tar.name} for part in tar_file_iterator(file)))


def test_the_shards_hold_the_photos_and_their_tags(crawl, made):
    shards, found = Shards(made), {}
    for listed in (*shards.train, *shards.val):
        index = shards.index(listed.name)
        assert len(index) == listed.photos and shards.index(listed.name) is index
        for row, one in enumerate(samples(made / listed.name)):
            about = json.loads(one["json"])
            mine = slice(index.starts[row], index.starts[row + 1])
            assert one["jpg"] == read_photo_bytes(made, listed.name, index, row)
            assert [shards.vocabulary[tag] for tag in index.tags[mine]] == about["tags"]
            assert about["agree"] == index.agree[mine].tolist() == [1] * len(about["tags"])
            assert about["first"] == about["tags"][:5]
            assert Image.open(BytesIO(one["jpg"])).size == (about["width"], about["height"])
            found[one["__key__"]] = listed.name, about["tags"], one["jpg"]
    settings = ShardSettings(100, 32, 10, 3, frozenset(), 0.2)
    for number in range(36):
        name, tags, jpg = found.pop(f"{number:05d}")
        given = json.loads(sample(number, b"")[f"{number:05d}.json"])["tags"]
        assert tags == [tag.lower() for tag in given if tag.lower() in shards.vocabulary]
        assert name.startswith("val" if settings.holds_out(f"{number:05d}") else "train")
        assert jpg == make_thumbnail(photo(number, (150, 120) if number % 4 == 0 else (90, 60)), 100).data
    assert sorted(found) == ["00093", "00098"]


def test_skipped_samples_are_listed_with_their_reasons(made):
    lines = [json.loads(line) for line in (made / "skipped.jsonl").read_text().splitlines()]
    reasons = [(line["where"], line["name"], line["reason"]) for line in lines]
    assert reasons == [
        ("00003.tar", "00090", "empty"),
        ("00003.tar", "00091", "truncated or corrupt"),
        ("00003.tar", "00092", "too small"),
        ("00003.tar", "94", "without text"),
        ("00003.tar", "95", "without a photo"),
        ("00003.tar", "96", UNKNOWN),
        ("00003.tar", "97", "with broken JSON"),
        ("00004.tar", "00099", "without text"),
        ("00004.tar", "", "in the damaged part of a tar"),
    ]
    stats = Shards(made).stats
    assert stats["skipped"] == dict(sorted(Counter(reason for *_, reason in reasons).items()))
    assert stats["train"] + stats["held_out"] + len(reasons) == stats["samples"]


def test_the_statistics(made, crawl, tmp_path, capsys):
    stats = shard(str(crawl), str(tmp_path), **SETTINGS)
    printed, shards = capsys.readouterr().out, Shards(tmp_path)
    numbers = np.concatenate([np.diff(shards.index(s.name).starts) for s in (*shards.train, *shards.val)])
    assert stats == shards.stats and stats["train"] == sum(s.photos for s in shards.train)
    assert stats["tags_mean"] == pytest.approx(numbers.mean()) and stats["tags_kept"] == len(shards.vocabulary)
    for percent in (5, 50, 95):
        assert stats[f"tags_{percent}"] == np.percentile(numbers, percent, method="inverted_cdf")
    assert stats["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    assert 0 < stats["coverage"] < 1 and stats["with_five"] < stats["with_one"] < 1 and stats["error"] == 0
    lines = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in printed.splitlines()}
    assert lines["photos"] == f"{stats['train']} for training, {stats['held_out']} for validation"
    assert lines["tags"] == f"{stats['tags_kept']} in the vocabulary"
    assert f"the rarest tag has {stats['rarest']} photos; {stats['left_out']} distinct" in lines["rare tags"]


RUN = """
import sys
from training.sharding import shard
if __name__ == "__main__":
    shard(*sys.argv[1:3], min_images=3, held_out=0.2, workers=int(sys.argv[3]), side=100)
"""


def start(folder: Path, crawl: Path, output: Path, workers: int = 1, **variables: str) -> subprocess.Popen:
    (folder / "run.py").write_text(RUN)
    command = [sys.executable, str(folder / "run.py"), str(crawl), str(output), str(workers)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | variables)


@pytest.mark.slow
def test_a_run_that_is_killed_and_continued_by_two_workers_gives_the_same_bytes(crawl, made, tmp_path):
    output = tmp_path / "out"
    with start(tmp_path, crawl, output) as process:
        while process.poll() is None and not list(output.glob("*.npz")):
            time.sleep(0.002)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not (output / "shards.json").exists()
    with pytest.raises(
        InputError, match=r"has no complete shards, because shards.json is missing: run grounding step=shards"
    ):
        Shards(output)
    kept = {path: path.stat().st_mtime_ns for path in output.glob("train-*.npz")}
    (output / ".train-000004.tar.host.1.part").touch()
    shard(str(crawl), str(output), **SETTINGS | {"workers": 2})
    assert content(output) == content(made)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


@pytest.mark.parametrize("lost", ["train-000001.tar", "train-000001.npz", "val-000000.tar", "val-000000.npz"])
def test_only_what_is_missing_is_made(crawl, made, tmp_path, lost):
    for name, data in content(made).items():
        (tmp_path / name).write_bytes(data[:-1024] if name == lost else data)
    if lost.endswith("val-000000.npz"):
        (tmp_path / lost).unlink()
    number = lost[lost.index("-") :][:7]
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*-0*") if number not in p.name}
    shard(str(crawl), str(tmp_path), **SETTINGS)
    assert content(tmp_path) == content(made)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


def test_tags_are_counted_again_if_the_vocabulary_is_missing(crawl, made, tmp_path):
    for name, data in content(made).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "vocabulary.txt").unlink()
    shard(str(crawl), str(tmp_path), **SETTINGS)
    assert content(tmp_path) == content(made)


@pytest.mark.slow
def test_two_ranks_give_the_same_bytes(crawl, made, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(tmp_path, crawl, tmp_path / "out", 0, RANK=str(rank), **job) for rank in range(2)]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    assert content(tmp_path / "out") == content(made)


def test_ranks_without_an_address_to_meet_are_refused(crawl, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match=r"the ranks cannot connect .*: start them with torchrun, or set MASTER_ADDR"):
        shard(str(crawl), str(tmp_path), **SETTINGS)


@pytest.mark.parametrize("change", [{"side": 99}, {"min_images": 4}, {"held_out": 0.1}, {"stop_words": "stop.txt"}])
def test_a_folder_of_other_settings_is_refused(crawl, made, tmp_path, change):
    if "stop_words" in change:
        (tmp_path / "stop.txt").write_text("dog")
        change = {"stop_words": str(tmp_path / "stop.txt")}
    message = (
        rf"has shards of other photos or settings \({next(iter(change))}\): use another folder, or remove this one"
    )
    with pytest.raises(InputError, match=message):
        shard(str(crawl), str(made), **SETTINGS | change)


def test_a_folder_of_other_photos_is_refused(crawl, made, tmp_path):
    with pytest.raises(InputError, match=r"of other photos or settings \(files, source\)"):
        write_tar(tmp_path / "00000.tar", sample(0))
        shard(str(tmp_path), str(made), **SETTINGS)
    write_tar(tmp_path / "out" / "x.tar", {})
    with pytest.raises(InputError, match="of other photos or settings: use another folder"):
        shard(str(crawl), str(tmp_path / "out"), **SETTINGS)
    (tmp_path / "out" / "counted.json").write_text("[]")
    with pytest.raises(InputError, match=r"counted.json cannot be read .*: remove the folder and start again"):
        shard(str(crawl), str(tmp_path / "out"), **SETTINGS)


def test_stop_list_and_size_of_the_vocabulary(crawl, made, tmp_path):
    (tmp_path / "stop.txt").write_text("# not these\nDOG\nblue  Sky\n")
    shard(str(crawl), str(tmp_path / "out"), **SETTINGS, max_tags=2, stop_words=str(tmp_path / "stop.txt"))
    expected = [tag for tag in Shards(made).vocabulary if tag not in ("dog", "blue sky")][:2]
    assert list(Shards(tmp_path / "out").vocabulary) == expected


def test_tags_are_ordered_by_how_many_captions_contain_them(tmp_path):
    rows = [{"path": f"{i}.jpg", "captions": ["a cat runs", "dog and cat", f"word{i}"]} for i in range(4)]
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(photo(i))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SETTINGS | {"held_out": 0, "images_per_shard": 3}
    shard(str(tmp_path), str(tmp_path / "out"), str(tmp_path / "t.jsonl"), **settings)
    shards = Shards(tmp_path / "out")
    assert [s.photos for s in shards.train] == [3, 1] and not shards.val
    index = shards.index("train-000000.tar")
    assert [shards.vocabulary[tag] for tag in index.tags[:3]] == ["cat", "runs", "dog"]
    assert index.agree[:3].tolist() == [2, 1, 1]


def test_tars_with_captions(data, tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(data / "flickr8k" / "train-000000.tar") as tar:
        few = {m.name: tar.extractfile(m).read() for m, _ in zip(tar, range(120), strict=False)}
    write_tar(tmp_path / "in" / "a.tar", few)
    stats = shard(str(tmp_path / "in"), str(tmp_path / "out"), workers=0, side=256)
    shards = Shards(tmp_path / "out")
    assert stats["train"] + stats["held_out"] + stats["skipped"].get(UNKNOWN, 0) == 60 and shards.counts.min() >= 10
    jpg = read_photo_bytes(shards.root, "train-000000.tar", shards.index("train-000000.tar"), 0)
    assert jpg in few.values()  # a thumbnail is copied


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 0}, "side=0 must be 1 or more"),
        ({"min_side": 0}, "min_side=0 must be 1 or more"),
        ({"max_tags": 0}, "max_tags=0 must be 1 or more"),
        ({"min_images": 0}, "min_images=0 must be 1 or more"),
        ({"held_out": 1}, "held_out=1 must be at least 0 and below 1"),
        ({"workers": -1}, "workers=-1 must be 0 or more"),
        ({"images_per_shard": 0}, "images_per_shard=0 must be 1 or more"),
        ({"stop_words": "none.txt"}, "stop_words=none.txt cannot be read"),
        ({"min_images": 99}, r"no tag occurs in 99 of the \d+ photos for training: lower step.min_images="),
    ],
)
def test_settings_out_of_range_are_refused(crawl, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        shard(str(crawl), str(tmp_path), **SETTINGS | settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"there are no samples: looked in .*in; found there: a\.tar; give photos that can be read"),
        ({"x.jpg": b"", "x.json": b'{"url": 1}'}, r"none of 1 samples can be used \(1 without text\): .* for x; "),
        (None, r"\(1 in the damaged part of a tar\): .*; the first: a\.tar: truncated or not a tar file"),
    ],
)
def test_a_source_without_texts_is_refused(tmp_path, files, message):
    write_tar(tmp_path / "in" / "a.tar", files or {})
    if files is None:
        (tmp_path / "in" / "a.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=message):
        shard(str(tmp_path / "in"), str(tmp_path / "out"), **SETTINGS)


def test_an_output_that_is_a_file_or_contains_the_photos_is_refused(crawl, tmp_path):
    for images, output in ((crawl, crawl), (crawl / "00000.tar", crawl)):
        with pytest.raises(InputError, match="contains the photos: use another folder for the shards"):
            shard(str(images), str(output), **SETTINGS)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: use a folder"):
        shard(str(crawl), str(tmp_path / "file"), **SETTINGS)


def test_an_output_that_cannot_be_written_is_refused_before_counting(crawl, monkeypatch):
    monkeypatch.setattr(sharding.ShardJob, "count", lambda job: pytest.fail("it counted"))
    with pytest.raises(InputError, match=r"output=/proc/grounding cannot be written: .*; use another folder"):
        shard(str(crawl), "/proc/grounding", **SETTINGS)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_loses_no_finished_shard(crawl, made, tmp_path, workers):
    # with a limit on the size of files, a write fails as on a full disk, but with another message
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(InputError, match=r"train-000000\.tar cannot be written: File too large"):
            shard(str(crawl), str(tmp_path), **SETTINGS | {"workers": workers})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("train-000000.*"))
    if not workers:
        shard(str(crawl), str(tmp_path), **SETTINGS)
        assert content(tmp_path) == content(made)


def test_a_damaged_tar_gives_a_warning(crawl, tmp_path, caplog):
    shard(str(crawl), str(tmp_path), **SETTINGS)
    damage, counts = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert damage.startswith("00004.tar: truncated or not a tar file (")
    assert counts.startswith(
        "47 samples: 38 kept, 2 without text, 1 empty, 1 in the damaged part of a tar, 1 too small"
    )
    assert counts.endswith(f"see {tmp_path / 'skipped.jsonl'}")


@given(st.lists(st.text(), max_size=30, unique=True), st.floats(0, 0.99))
def test_held_out_photos_depend_on_the_key_and_grow_with_the_fraction(keys, share):
    settings, more = (ShardSettings(1, 1, 1, 1, frozenset(), s) for s in (share, min(share + 0.1, 0.999)))
    assert not any(settings.holds_out(key) and not more.holds_out(key) for key in keys)


def test_the_fraction_that_is_held_out():
    settings = ShardSettings(1, 1, 1, 1, frozenset(), 0.05)
    assert 400 < sum(settings.holds_out(str(key)) for key in range(10_000)) < 600


@given(st.lists(st.integers(1, 9)), st.integers(0, 9))
def test_statistics_of_parts_add_up(samples, cut):
    whole, one, other = ShardStatistics(), ShardStatistics(), ShardStatistics()
    for i, tags in enumerate(samples):
        for part in (whole, one if i < cut else other):
            part.text(tags + 1, tags)
            part.keep(i % 2 == 0, tags)
    one.add(ShardStatistics.from_json(json.loads(json.dumps(other.to_json()))))
    assert one == whole and whole.train + whole.held_out == len(samples)


def test_the_command_line(crawl, tmp_path):
    given = ["step.min_images=3", "step.workers=0", f"images={crawl}", f"hydra.run.dir={tmp_path / 'run'}"]
    done = run_here(tmp_path, "step=shards", *given)
    assert done.returncode == 0, done.stderr
    assert "in the vocabulary" in done.stdout and Shards(tmp_path / "run").train


def test_the_step_does_not_import_torch():
    code = "import sys, training.sharding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The step ``shards``: the same bytes however the work is cut, nothing half-written, and every fault told."""

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
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_sources import write_tar
from webdataset.tariterators import group_by_keys, tar_file_iterator

from proposals.errors import InputError
from training import sharding
from training.maker import Settings
from training.sharding import shard
from training.shards import Index, Shard, Shards, index_path, member_key, read, read_index, write_index, write_shard
from training.statistics import Statistics
from training.thumbnails import thumbnail

WORDS = ["dog", "cat", "red", "blue sky", "hot dog", "T-Shirt", "tree"]
UNKNOWN = "none of its tags is in the vocabulary"
SETTINGS = {"min_images": 3, "held_out": 0.2, "workers": 0, "side": 100}


def photo(number: int, size: tuple[int, int] = (90, 60), **options) -> bytes:
    """A piece of one of scikit-image's photos."""
    name = ("astronaut.png", "chelsea.png", "coffee.png")[number % 3]
    image = Image.open(str(files("skimage.data") / name)).convert("RGB").crop((number, 40, number + 240, 200))
    buffer = BytesIO()
    image.resize(size).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def sample(number: int, photo_bytes: bytes | None = None) -> dict[str, bytes]:
    tags = [WORDS[i] for i in range(len(WORDS)) if number % (i + 2) < 2] + [f"rare{number}"]
    pixels = photo(number) if photo_bytes is None else photo_bytes
    return {
        f"{number:05d}.jpg": pixels,
        f"{number:05d}.json": json.dumps({"tags": tags[:: -1 if number % 2 else 1]}).encode(),
    }


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    """Three tars of twelve samples, larger photos among them, and what a crawl brings besides."""
    root = tmp_path_factory.mktemp("crawl")
    for i in range(3):
        parts = [sample(n, photo(n, (150, 120)) if n % 4 == 0 else None) for n in range(12 * i, 12 * i + 12)]
        write_tar(root / f"{i:05d}.tar", {name: data for part in parts for name, data in part.items()})
    faults = sample(90, b"") | sample(91, photo(91)[:900]) | sample(92, photo(92, (20, 60))) | sample(93)
    faults |= {"94.jpg": photo(94), "94.json": b'{"url": "x"}', "95.json": b"{}", "96.jpg": photo(96)}
    faults |= {"96.json": b'{"tags": ["unheard"]}', "97.jpg": photo(97), "97.json": b"{"}
    write_tar(root / "00003.tar", faults)
    cut = write_tar(root / "00004.tar", sample(98) | sample(99))
    with tarfile.open(cut) as tar:
        end = tar.getmember("00099.jpg").offset_data + 100
    cut.write_bytes(cut.read_bytes()[:end])
    return root


def content(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture(scope="module")
def made(crawl, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("once")
    shard(str(crawl), str(output), **SETTINGS)
    return output


def test_the_vocabulary_is_that_of_a_plain_count(crawl, made):
    counts, settings = Counter(), Settings(100, 32, 10, 3, frozenset(), 0.2)
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
    """As WebDataset reads them."""
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
            assert one["jpg"] == read(made, listed.name, index, row)
            assert [shards.vocabulary[tag] for tag in index.tags[mine]] == about["tags"]
            assert about["agree"] == index.agree[mine].tolist() == [1] * len(about["tags"])
            assert about["first"] == about["tags"][:5]
            assert Image.open(BytesIO(one["jpg"])).size == (about["width"], about["height"])
            found[one["__key__"]] = listed.name, about["tags"], one["jpg"]
    settings = Settings(100, 32, 10, 3, frozenset(), 0.2)
    for number in range(36):
        name, tags, jpg = found.pop(f"{number:05d}")
        given = json.loads(sample(number, b"")[f"{number:05d}.json"])["tags"]
        assert tags == [tag.lower() for tag in given if tag.lower() in shards.vocabulary]
        assert name.startswith("val" if settings.holds_out(f"{number:05d}") else "train")
        assert jpg == thumbnail(photo(number, (150, 120) if number % 4 == 0 else (90, 60)), 100).data
    assert sorted(found) == ["00093", "00098"]


def test_what_is_skipped_is_told(made):
    lines = [json.loads(line) for line in (made / "skipped.jsonl").read_text().splitlines()]
    told = [(line["source"], line["key"], line["reason"].partition(":")[0]) for line in lines]
    assert told == [
        ("00003.tar", "00090", "empty file"),
        ("00003.tar", "00091", "truncated or corrupt image"),
        ("00003.tar", "00092", "below 32 pixels"),
        ("00003.tar", "94", "no tags or captions"),
        ("00003.tar", "95", "no photo"),
        ("00003.tar", "96", UNKNOWN),
        ("00003.tar", "97", "broken JSON"),
        ("00004.tar", "00099", "no tags or captions"),
        ("00004.tar", "", "damaged tar"),
    ]
    stats = Shards(made).stats
    assert stats["skipped"] == dict(sorted(Counter(reason for *_, reason in told).items()))
    assert stats["train"] + stats["held_out"] + len(told) == stats["samples"]


def test_the_statistics(made, crawl, tmp_path, capsys):
    stats = shard(str(crawl), str(tmp_path), **SETTINGS)
    told, shards = capsys.readouterr().out, Shards(tmp_path)
    numbers = np.concatenate([np.diff(shards.index(s.name).starts) for s in (*shards.train, *shards.val)])
    assert stats == shards.stats and stats["train"] == sum(s.photos for s in shards.train)
    assert stats["tags_mean"] == pytest.approx(numbers.mean()) and stats["tags_kept"] == len(shards.vocabulary)
    for percent in (5, 50, 95):
        assert stats[f"tags_{percent}"] == np.percentile(numbers, percent, method="inverted_cdf")
    assert stats["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    assert 0 < stats["coverage"] < 1 and stats["with_five"] < stats["with_one"] < 1 and stats["error"] == 0
    lines = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in told.splitlines()}
    assert lines["photos"] == f"{stats['train']} for training, {stats['held_out']} held out"
    assert lines["skipped, no photo"] == "1" and lines["tags"] == f"{stats['tags_kept']} in the vocabulary"
    assert f"the rarest tag has {stats['rarest']} photos; {stats['left_out']} distinct" in lines["the tail"]


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


def test_one_worker_killed_in_the_middle_and_two_that_go_on_give_the_same_bytes(crawl, made, tmp_path):
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
        InputError, match=r"holds no whole shards, for shards.json is missing: run grounding step=shards"
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


def test_counting_begins_anew_where_the_vocabulary_is_gone(crawl, made, tmp_path):
    for name, data in content(made).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "vocabulary.txt").unlink()
    shard(str(crawl), str(tmp_path), **SETTINGS)
    assert content(tmp_path) == content(made)


def test_ranks_share_the_work(crawl, made, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(tmp_path, crawl, tmp_path / "out", 0, RANK=str(rank), **job) for rank in range(2)]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    assert content(tmp_path / "out") == content(made)


def test_ranks_that_cannot_meet_are_told(crawl, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match=r"the ranks cannot meet .*: start them with torchrun, or set MASTER_ADDR"):
        shard(str(crawl), str(tmp_path), **SETTINGS)


@pytest.mark.parametrize("change", [{"side": 99}, {"min_images": 4}, {"held_out": 0.1}, {"stop_words": "stop.txt"}])
def test_other_settings_do_not_mix(crawl, made, tmp_path, change):
    if "stop_words" in change:
        (tmp_path / "stop.txt").write_text("dog")
        change = {"stop_words": str(tmp_path / "stop.txt")}
    told = rf"has shards of other photos or settings \({next(iter(change))}\): choose another folder, or remove it"
    with pytest.raises(InputError, match=told):
        shard(str(crawl), str(made), **SETTINGS | change)


def test_other_photos_do_not_mix(crawl, made, tmp_path):
    with pytest.raises(InputError, match=r"of other photos or settings \(files, source\)"):
        write_tar(tmp_path / "00000.tar", sample(0))
        shard(str(tmp_path), str(made), **SETTINGS)
    write_tar(tmp_path / "out" / "x.tar", {})
    with pytest.raises(InputError, match="of other photos or settings: choose another folder"):
        shard(str(crawl), str(tmp_path / "out"), **SETTINGS)
    (tmp_path / "out" / "counted.json").write_text("[]")
    with pytest.raises(InputError, match=r"counted.json cannot be read .*: remove the folder and start anew"):
        shard(str(crawl), str(tmp_path / "out"), **SETTINGS)


def test_stop_list_and_size_of_the_vocabulary(crawl, made, tmp_path):
    (tmp_path / "stop.txt").write_text("# not these\nDOG\nblue  Sky\n")
    shard(str(crawl), str(tmp_path / "out"), **SETTINGS, max_tags=2, stop_words=str(tmp_path / "stop.txt"))
    expected = [tag for tag in Shards(made).vocabulary if tag not in ("dog", "blue sky")][:2]
    assert list(Shards(tmp_path / "out").vocabulary) == expected


def test_captions_agree(tmp_path):
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


def test_captions_that_come_with_tars_end_to_end(data, tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(data / "flickr8k" / "train-000000.tar") as tar:
        few = {m.name: tar.extractfile(m).read() for m, _ in zip(tar, range(120), strict=False)}
    write_tar(tmp_path / "in" / "a.tar", few)
    stats = shard(str(tmp_path / "in"), str(tmp_path / "out"), workers=0, side=256)
    shards = Shards(tmp_path / "out")
    assert stats["train"] + stats["held_out"] + stats["skipped"].get(UNKNOWN, 0) == 60 and shards.counts.min() >= 10
    jpg = read(shards.root, "train-000000.tar", shards.index("train-000000.tar"), 0)
    assert jpg in few.values()  # a thumbnail is copied


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"side": 0}, "side=0 must be 1 or more"),
        ({"min_side": 0}, "min_side=0 must be 1 or more"),
        ({"max_tags": 0}, "max_tags=0 must be 1 or more"),
        ({"min_images": 0}, "min_images=0 must be 1 or more"),
        ({"held_out": 1}, "held_out=1 must be 0 or more and below 1"),
        ({"workers": -1}, "workers=-1 must be 0 or more"),
        ({"images_per_shard": 0}, "images_per_shard=0 1 or more"),
        ({"stop_words": "none.txt"}, "stop_words=none.txt cannot be read"),
        ({"min_images": 99}, r"no tag occurs in 99 of the \d+ photos for training: lower step.min_images="),
    ],
)
def test_settings_out_of_range_are_told(crawl, tmp_path, settings, told):
    with pytest.raises(InputError, match=told):
        shard(str(crawl), str(tmp_path), **SETTINGS | settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "there is none"),
        ({"x.jpg": b"", "x.json": b'{"url": 1}'}, "the first is x: no tags or captions"),
        (None, "the first is a.tar: damaged tar: truncated or not a tar file"),
    ],
)
def test_a_source_without_any_text_is_told(tmp_path, files, told):
    write_tar(tmp_path / "in" / "a.tar", files or {})
    if files is None:
        (tmp_path / "in" / "a.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=rf"no photo for training has a text \({told}.*\); name other images"):
        shard(str(tmp_path / "in"), str(tmp_path / "out"), **SETTINGS)


def test_output_must_be_apart_and_a_folder(crawl, tmp_path):
    for images, output in ((crawl, crawl), (crawl / "00000.tar", crawl)):
        with pytest.raises(InputError, match="is where the photos are: the shards need a folder of their own"):
            shard(str(images), str(output), **SETTINGS)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: name a folder"):
        shard(str(crawl), str(tmp_path / "file"), **SETTINGS)


def test_an_output_that_cannot_be_written_is_told_before_anything_is_counted(crawl, monkeypatch):
    monkeypatch.setattr(sharding.Job, "count", lambda job: pytest.fail("it counted"))
    with pytest.raises(InputError, match=r"output=/proc/grounding cannot be written: .*; name another folder"):
        shard(str(crawl), "/proc/grounding", **SETTINGS)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_told_and_nothing_is_lost(crawl, made, tmp_path, workers):
    # no file may be larger: what a write beyond it meets is what it meets on a full disk, but for the error's name
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


def test_a_damaged_tar_is_warned_of(crawl, tmp_path, caplog):
    shard(str(crawl), str(tmp_path), **SETTINGS)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        next(m for m in caplog.messages if m.startswith("00004.tar: damaged tar: truncated or not a tar file ("))
    ]


def spoil(made: Path, folder: Path, name: str, change) -> Path:
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    data = change((folder / name).read_bytes())
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    return folder


def of_shards(**changes):
    return lambda data: json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "shards.json",
            lambda data: None,
            "holds no whole shards, for shards.json is missing: run grounding step=shards",
        ),
        ("shards.json", lambda data: b"{", "shards.json cannot be read .*: remove it and run grounding step=shards"),
        ("shards.json", lambda data: b"[" * 100_000, "shards.json cannot be read"),
        ("shards.json", lambda data: b"[]", "is not of the format grounding-shards-1: make the shards anew"),
        ("shards.json", of_shards(format="x"), "is not of the format grounding-shards-1"),
        ("shards.json", of_shards(train=None), "lists no train shards"),
        ("shards.json", of_shards(val=[{"name": "../x.tar", "photos": 1, "bytes": 1}]), "lists no val shards"),
        ("shards.json", of_shards(val=[{"name": "val-000000.tar", "photos": -1, "bytes": 1}]), "lists no val shards"),
        ("shards.json", of_shards(vocabulary="0"), "vocabulary.txt is not the one that the shards were made with"),
        ("vocabulary.txt", lambda data: data + b"x\t1\n", "vocabulary.txt is not the one"),
        ("vocabulary.txt", lambda data: None, "vocabulary.txt cannot be read .*makes only what is missing"),
        ("train-000001.tar", lambda data: None, "train-000001.tar is missing: run grounding step=shards again"),
        ("train-000001.tar", lambda data: data[:-512], "train-000001.tar is truncated, .*makes only what is missing"),
    ],
)
def test_a_folder_that_is_not_whole_is_told(made, tmp_path, name, change, told):
    with pytest.raises(InputError, match=told):
        Shards(spoil(made, tmp_path, name, change))


@pytest.mark.parametrize("change", [lambda data: None, lambda data: data[:300], lambda data: b"no index"])
def test_an_index_that_is_damaged_is_told(made, tmp_path, change):
    shards = Shards(spoil(made, tmp_path, "train-000001.npz", change))
    assert len(shards.index("train-000000.tar"))
    with pytest.raises(InputError, match=r"is no index of train-000001.tar .*: remove it and run"):
        shards.index("train-000001.tar")
    with pytest.raises(InputError, match=r"has no shard train-000009.tar"):
        shards.index("train-000009.tar")


def test_indices_are_kept_while_they_are_used(made):
    names = [f"train-{i:06d}.tar" for i in range(3)]
    photos = {shard.name: shard.photos for shard in Shards(made).train}
    shards = Shards(made, keep=photos[names[1]] + photos[names[2]])
    first, second, third = map(shards.index, names)
    assert shards.index(names[1]) is second and shards.index(names[2]) is third
    assert shards.index(names[0]) is not first


def test_a_photo_of_a_tar_that_was_cut_or_is_gone_is_told(made, tmp_path):
    shards = Shards(spoil(made, tmp_path, "shards.json", lambda data: data))
    name, index = "train-000000.tar", shards.index("train-000000.tar")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: int(index.offsets[1]) + 5])
    with pytest.raises(InputError, match=r"train-000000.tar is truncated: run grounding step=shards again"):
        read(tmp_path, name, index, 1)
    assert read(tmp_path, name, index, 0)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path, name, index, 0)


GOOD = {"offsets": [512, 1536], "sizes": [10, 20], "starts": [0, 1, 3], "tags": [0, 1, 2], "agree": [1, 1, 5]}
LARGE = 2**63 - 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"offsets": [512, LARGE]}, "outside"),
        ({"offsets": [-1, 5]}, "outside"),
        ({"sizes": [-1, 5]}, "outside"),
        ({"sizes": [10, 8000]}, "outside"),
        ({"sizes": [10]}, "2 offsets, 1 sizes for 2 photos"),
        ({"starts": [0, 3, 1]}, "in stretches"),
        ({"starts": [0, 4, 3]}, "in stretches"),
        ({"starts": [1, 1, 3]}, "in stretches"),
        ({"starts": [0, 1, -(2**62)]}, "in stretches"),
        ({"agree": [1]}, "3 tags, 1 counts"),
        ({"tags": [0, 1, 3]}, "not among the 3"),
        ({"tags": [0, -1, 2]}, "not among the 3"),
        ({"tags": np.array([0, 1, 2], np.int64)}, "tags is"),
        ({"tags": np.zeros((1, 3), np.int32)}, "tags is"),
        ({"tags": np.array([[]], object)}, "an array of|Object arrays|"),
    ],
)
def test_a_hostile_index_is_told(tmp_path, change, told):
    types = {"offsets": np.int64, "sizes": np.int32, "starts": np.int64, "tags": np.int32, "agree": np.uint8}

    def save(values):
        arrays = {k: v if isinstance(v, np.ndarray) else np.array(v, types[k]) for k, v in values.items()}
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    shard_of_two = Shard("train-000000.tar", 2, 8192)
    assert isinstance(read_index(save(GOOD), shard_of_two, 3), Index)
    with pytest.raises(InputError, match=told):
        read_index(save(GOOD | change), shard_of_two, 3)
    np.savez_compressed(tmp_path / "x.npz", **{k: np.array(v, types[k]) for k, v in GOOD.items()})
    with pytest.raises(InputError, match="an array is packed"):
        read_index(tmp_path / "x.npz", shard_of_two, 3)


@pytest.fixture(scope="module")
def index_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    with write_shard(folder / "train-000000.tar") as writer:
        for number in range(3):
            writer.add(f"{number}", thumbnail(photo(number)), [number, 3], [1, 2], ["a", "b"])
    write_index(folder / "train-000000.npz", writer, {"x": 1})
    return folder / "train-000000.npz"


@given(st.data())
def test_bytes_that_were_changed_give_an_index_or_are_told(index_file, draw):
    data = bytearray(index_file.read_bytes())
    for _ in range(draw.draw(st.integers(1, 5))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    spoiled, tar = index_file.with_name("spoiled.npz"), index_file.with_suffix(".tar")
    spoiled.write_bytes(data[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else data)
    listed = Shard(tar.name, 3, tar.stat().st_size)
    try:
        index = read_index(spoiled, listed, 4)
    except InputError:
        return
    assert len(index) == 3 and index.starts[-1] == len(index.tags) <= len(data) and index.tags.max(initial=0) < 4
    assert all(len(read(tar.parent, tar.name, index, row)) == index.sizes[row] for row in range(3))


@given(st.lists(st.text(), unique=True))
def test_keys_stay_apart_and_are_plain(keys):
    plain = [member_key(key) for key in keys]
    assert len(set(plain)) == len(keys)
    assert all(set(key) <= set("%-_") or key.isascii() for key in plain) and not any(
        set("./ \\") & set(k) for k in plain
    )
    assert max(map(len, plain), default=0) <= 80


def test_keys():
    assert member_key("00012_a-B") == "00012_a-B" and member_key("a/b.c") == "a%2Fb%2Ec"
    long = [member_key("x" * 100 + end) for end in "ab"]
    assert long[0] != long[1] and all(len(key) == 80 for key in long)


@given(st.lists(st.text(), max_size=30, unique=True), st.floats(0, 0.99))
def test_what_is_held_out_is_a_function_of_the_key_and_grows_with_the_share(keys, share):
    settings, more = (Settings(1, 1, 1, 1, frozenset(), s) for s in (share, min(share + 0.1, 0.999)))
    assert not any(settings.holds_out(key) and not more.holds_out(key) for key in keys)


def test_the_share_that_is_held_out():
    settings = Settings(1, 1, 1, 1, frozenset(), 0.05)
    assert 400 < sum(settings.holds_out(str(key)) for key in range(10_000)) < 600


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.sampled_from(["a", "b: 1", "b: 2"]))), st.integers(0, 9))
def test_statistics_of_parts_add_up(samples, cut):
    whole, one, other = Statistics(), Statistics(), Statistics()
    for i, (kept, tags, reason) in enumerate(samples):
        for part in (whole, one if i < cut else other):
            part.text(tags + 1, tags)
            part.keep(i % 2 == 0, tags) if kept else part.skip(reason)
    one.add(Statistics.of(json.loads(json.dumps(other.plain()))))
    assert one == whole and whole.samples == len(samples) and whole.skipped.keys() <= {"a", "b"}


def test_the_command_line(crawl, tmp_path):
    command = [sys.executable, "-m", "grounding", "step=shards", "step.min_images=3", "step.workers=0"]
    done = subprocess.run(
        [*command, f"images={crawl}", f"hydra.run.dir={tmp_path / 'run'}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "in the vocabulary" in done.stdout and Shards(tmp_path / "run").train


def test_a_worker_does_without_torch():
    code = "import sys, training.sharding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_indices_stand_beside_their_tars():
    assert index_path(Path("a/train-000001.tar")) == Path("a/train-000001.npz")

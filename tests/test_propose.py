"""The step ``propose``: the same bytes for any number of workers and ranks, and no incomplete files."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grounding.images import read_image
from grounding.photos import PhotoShard, photo_shards
from grounding.runtime.ledger import SKIPPED
from grounding.runtime.ranks import cores, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import THREADS
from grounding.shards.parts import claim_folder
from grounding.steps import propose as propose_step
from grounding.steps.propose import propose
from proposals import BoxProposer, InputError, SegmentProposer
from proposals.cores import own_cores
from proposals.provenance import settings_of
from proposals.shards import ShardProposals

NAMES = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
SMALL = {"count": 20, "side": 60}
CLAIM = "proposals.settings.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Parts of scikit-image's photos, and broken files as in a crawl."""
    root = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        photo = Image.open(str(files("skimage.data") / name)).convert("RGB")
        for i in range(2):
            photo.crop((60 * i, 40, 60 * i + 90, 160)).save(root / f"{Path(name).stem}-{i}.png")
    (root / "broken.jpg").write_bytes((root / "coffee-0.png").read_bytes()[:2000])
    (root / "empty.jpg").touch()
    (root / "notes.txt").write_text("no photo")
    return root


def run(folder: Path, output: Path, **settings) -> dict:
    return propose(str(folder), SegmentProposer(**SMALL), str(output), **{"photos": 4, "workers": 1, **settings})


def shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*.tar")}


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("once")
    done = run(folder, output)
    assert done["photos"] == 10 and done["bytes"] == sum(map(len, shards(output).values()))
    assert [line["name"] for line in done["skipped"]] == [str(folder / "notes.txt"), "broken", "empty"]
    assert list(map(json.loads, (output / SKIPPED).read_text().splitlines())) == done["skipped"]
    return shards(output)


def test_shards_contain_the_proposals(folder, undisturbed, tmp_path):
    for name, data in undisturbed.items():
        (tmp_path / name).write_bytes(data)
    kept, proposer = ShardProposals(tmp_path), SegmentProposer(**SMALL)
    assert sorted(undisturbed) == [f"photos-00000{i}.tar" for i in range(3)] and len(kept) == 8
    for path in sorted(folder.glob("*-?.png")):
        image = np.asarray(Image.open(path))
        one, other = kept(image, path.stem), proposer(image)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
    with tarfile.open(tmp_path / "photos-000000.tar") as tar:
        skipped = [json.loads(line) for line in tar.extractfile(SKIPPED).read().splitlines()]
    assert [(line["name"], line["where"]) for line in skipped] == [("broken", "broken.jpg")]
    assert skipped[0]["reason"] == "unreadable" and "truncated or corrupt" in skipped[0]["detail"]


def test_four_workers_write_the_same_bytes(folder, undisturbed, tmp_path):
    run(folder, tmp_path, workers=4)
    assert shards(tmp_path) == undisturbed


def test_a_rank_does_what_the_others_leave(folder, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for rank, skipped in (("1", []), ("0", [str(folder / "notes.txt"), "broken", "empty"])):
        monkeypatch.setenv("SLURM_PROCID", rank)
        done = run(folder, tmp_path)
        assert done["photos"] == (10 if rank == "1" else 0)
        assert [line["name"] for line in done["skipped"]] == skipped
    assert shards(tmp_path) == undisturbed
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == skipped


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_of_which_one_is_killed(folder, undisturbed, tmp_path, ranks):
    output = tmp_path / "out"
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(folder), str(output)]
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "WORLD_SIZE": str(ranks)}
    started = [subprocess.Popen(command, env=variables | {"RANK": str(rank)}) for rank in range(ranks)]
    while not list(output.glob("leases/*.0")):
        time.sleep(0.005)
        assert started[-1].poll() is None
    started[-1].kill()
    started[-1].wait()
    started[-1] = subprocess.Popen(command, env=variables | {"RANK": str(ranks - 1)})
    assert [process.wait() for process in started] == [0] * ranks
    assert shards(output) == undisturbed
    lines = (output / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [str(folder / "notes.txt"), "broken", "empty"]
    assert not list(output.glob(".*")) and not list((output / "leases").iterdir())


def test_existing_shards_are_kept(folder, undisturbed, tmp_path):
    (tmp_path / "photos-000001.tar").write_bytes(undisturbed["photos-000001.tar"])
    before = (tmp_path / "photos-000001.tar").stat().st_mtime_ns
    done = run(folder, tmp_path)
    assert done["shards_before"] == 1 and done["photos"] == 6
    assert [line["name"] for line in done["skipped"]] == [str(folder / "notes.txt"), "broken", "empty"]
    assert run(folder, tmp_path)["skipped"] == done["skipped"]  # also if all of it was there
    assert (tmp_path / "photos-000001.tar").stat().st_mtime_ns == before and shards(tmp_path) == undisturbed


@pytest.mark.parametrize("change", [{"photos": 3}, {"proposer": SegmentProposer(count=21, side=60)}])
def test_shards_of_other_settings_are_refused(folder, undisturbed, tmp_path, change):
    (tmp_path / "photos-000000.tar").write_bytes(undisturbed["photos-000000.tar"])
    given = {"source": str(folder), "proposer": SegmentProposer(**SMALL), "output": str(tmp_path), "photos": 4} | change
    with pytest.raises(InputError, match="belongs to other photos or settings: choose another folder"):
        propose(**given, workers=1)


def test_a_run_with_other_settings_that_has_just_begun_is_refused(folder, tmp_path):
    claim_folder(tmp_path, "proposals", {"grounding": VERSION, "proposer": settings_of(SegmentProposer(count=21))})
    with pytest.raises(InputError, match=r"has proposals with other settings \(proposer\): choose another folder"):
        run(folder, tmp_path)
    assert not shards(tmp_path)


def test_shards_that_another_run_writes_meanwhile_are_checked(folder, undisturbed, tmp_path, monkeypatch):
    run(folder, tmp_path / "other", photos=3)
    plain = propose_step._propose_shard

    def disturbed(shard, *rest):
        plain(shard, *rest)
        later = "photos-000001.tar"
        (tmp_path / "out" / later).write_bytes((tmp_path / "other" / later).read_bytes())

    monkeypatch.setattr(propose_step, "_propose_shard", disturbed)
    with pytest.raises(InputError, match=r"photos-000001\.tar belongs to other photos or settings"):
        run(folder, tmp_path / "out")


RUN = """
import sys
from grounding.steps.propose import propose
from proposals import SegmentProposer
if __name__ == "__main__":
    propose(sys.argv[1], SegmentProposer(count=20, side=60), sys.argv[2], photos=4, workers=1)
"""


@pytest.mark.slow
def test_a_killed_run_continues(folder, undisturbed, tmp_path):
    output = tmp_path / "out"
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(folder), str(output)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None and not list(output.glob("*.tar")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    whole = {path.name: path.read_bytes() for path in output.glob("*.tar")}
    assert whole and whole.items() <= undisturbed.items()
    (output / ".photos-000002.tar.1.part").touch()
    run(folder, output)
    assert shards(output) == undisturbed


@pytest.mark.parametrize(("kind", "at", "byte"), [("PNG", 11, 0), ("TIFF", 12, 1)])
def test_every_exception_of_pillow_becomes_an_input_error(kind, at, byte):
    buffer = BytesIO()
    Image.new("RGB", (64, 48), "teal").save(buffer, kind)
    data = bytearray(buffer.getvalue())
    data[at] = byte
    # Pillow raises a bare ValueError
    with pytest.raises(InputError, match="the image cannot be read as an image"):
        read_image(BytesIO(bytes(data)))


def test_files_of_a_killed_run_are_removed(folder, tmp_path):
    source, output = tmp_path / "[1]", tmp_path / "out"
    source.mkdir()
    with tarfile.open(source / "[1].tar", "w") as tar:
        tar.add(folder / "coffee-0.png", "caf\udce9.png")  # a name that is not UTF-8
    output.mkdir()
    (output / ".[1].tar.1.part").touch()
    run(source, output)
    assert {path.name for path in output.iterdir()} == {"[1].tar", SKIPPED, "leases", CLAIM}
    assert len(ShardProposals(output)) == 1


def test_a_killed_worker_is_reported(folder, tmp_path):
    with pytest.raises(InputError, match="a worker ended too early"):
        propose(str(folder), Suicide(), str(tmp_path), workers=1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["leases", CLAIM]


def test_workers_have_one_thread(folder, tmp_path, monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"none of 11 files can be used \(10 unreadable, 1 not a photo\)"):
        propose(str(folder), Threads(), str(tmp_path), workers=1)
    skipped = [json.loads(line) for line in (tmp_path / SKIPPED).read_text().splitlines()]
    # NumPy has no threads of its own; the second thread waits for the end of the parent process
    assert {line["detail"] for line in skipped if line["name"].endswith(("-0", "-1"))} == {"2 threads"}
    assert not THREADS & os.environ.keys()


class Threads:
    def __call__(self, image, name=None):
        raise InputError(f"{len(list(Path('/proc/self/task').iterdir()))} threads")


class Suicide:
    def __call__(self, image, name=None):
        os.kill(os.getpid(), signal.SIGKILL)


class Memory:
    """Proposes, and writes the peak memory of its process in MB to a file."""

    def __init__(self):
        self.segments = SegmentProposer()

    def __call__(self, image, name=None):
        found = self.segments(image)
        # not ru_maxrss, which a child inherits from its parent
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
        Path(os.environ["PEAK"]).write_text(str(peak))
        return found


def test_memory_of_a_large_photo(tmp_path, monkeypatch):
    # smooth noise has edges everywhere and compresses well enough
    small = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(small).resize((6000, 4000)).save(tmp_path / "photos" / "large.jpg", quality=90)
    monkeypatch.setenv("PEAK", str(tmp_path / "peak"))
    done = propose(str(tmp_path / "photos"), Memory(), str(tmp_path / "out"), workers=1)
    assert done["photos"] == 1 and not done["skipped"]
    assert float((tmp_path / "peak").read_text()) < 500


def test_small_and_long_photos_give_the_whole_image(tmp_path):
    sizes = [(4000, 1), (1, 4000), (2, 1), (50, 40)]
    (tmp_path / "photos").mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, "teal").save(tmp_path / "photos" / f"odd-{number}.png")
    propose(str(tmp_path / "photos"), BoxProposer(**SMALL), str(tmp_path / "out"), workers=1)
    for number, (width, height) in enumerate(sizes):
        found = ShardProposals(tmp_path / "out")(np.zeros((height, width, 3), np.uint8), f"odd-{number}")
        assert [0, 0, width, height] in found.boxes.tolist()


def test_tars_become_tars_of_the_same_name(folder, undisturbed, tmp_path):
    (tmp_path / "in").mkdir()
    for name, part in {"b": NAMES[:2], "a": NAMES[2:]}.items():
        with tarfile.open(tmp_path / "in" / f"{name}.tar", "w") as tar:
            for photo in part:
                tar.add(folder / f"{Path(photo).stem}-0.png", f"deep/{Path(photo).stem}-0.png")
            tar.addfile(tarfile.TarInfo("x.json"), BytesIO(b""))
    propose(str(tmp_path / "in"), SegmentProposer(**SMALL), str(tmp_path / "out"), workers=1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tar", "b.tar", "leases", CLAIM, SKIPPED]
    kept = ShardProposals(tmp_path / "out")
    image = np.asarray(Image.open(folder / "coffee-0.png"))
    np.testing.assert_array_equal(kept(image, "coffee-0").boxes, SegmentProposer(**SMALL)(image).boxes)


def test_a_tar_without_photos_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x.json"), BytesIO(b""))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"x\.tar contains no photo: move it out"):
        propose(str(tmp_path), SegmentProposer(), str(tmp_path / "out"), workers=1)


def test_the_split_of_a_data_set(tmp_path):
    for path in ("images/b.jpg", "images/a.jpg", "val2017/c.jpg", "other.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfb\r\n")
    (tmp_path / "annotations").mkdir()

    def listed(split):
        return [photo.name for shard in photo_shards(tmp_path, split) for photo in shard.photos()]

    assert listed("val") == ["b"] and listed("val2017") == ["c"] and listed(None) == ["a", "b", "other", "c"]
    (tmp_path / "odd.txt").write_text("../b\n")
    with pytest.raises(InputError, match=r"odd.txt: '../b' is not the name of a photo: list one name per line"):
        listed("odd")
    (tmp_path / "odd.txt").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"odd.txt cannot be read .*: list one name per line, in UTF-8"):
        listed("odd")


def test_equal_names_are_refused(tmp_path):
    for path in ("a/x.jpg", "b/x.png"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    with pytest.raises(InputError, match=r"x\.jpg and .*x\.png have the same name"):
        photo_shards(tmp_path)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for path in ("a/x.jpg", "b/x.png"):
            tar.addfile(tarfile.TarInfo(path), BytesIO(b""))
    with pytest.raises(InputError, match=r"both contain a photo x: rename one"):
        list(PhotoShard("t", tmp_path / "t.tar").photos())


def test_invalid_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder or tar file"):
        photo_shards(tmp_path / "none")
    with pytest.raises(
        InputError, match=r"there are no files: looked in .*; found there: nothing; give a folder of photos"
    ):
        photo_shards(tmp_path)
    with pytest.raises(InputError, match="photos=0 must be 1"):
        photo_shards(tmp_path, photos=0)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is the folder of the photos"):
        propose(str(tmp_path), SegmentProposer(), str(tmp_path), workers=1)
    with pytest.raises(InputError, match="workers=0 must be 1"):
        propose(str(tmp_path), SegmentProposer(), str(tmp_path / "out"), workers=0)


def test_a_truncated_or_missing_photo_is_refused(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member = tarfile.TarInfo("x.jpg")
        member.size = 2000
        tar.addfile(member, BytesIO(bytes(2000)))
    (photo,) = PhotoShard("t", tmp_path / "t.tar").photos()
    assert photo.read() == bytes(2000)
    (tmp_path / "t.tar").write_bytes((tmp_path / "t.tar").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"t\.tar:x is cut off after 488 of 2000 bytes"):
        photo.read()
    (tmp_path / "t.tar").unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        photo.read()


def test_ranks_come_from_the_launcher():
    assert rank_of({}) == (0, 1)
    assert rank_of({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == (1, 4)
    assert rank_of({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}) == (2, 3)
    for rank in ("4", "x", "-1"):
        with pytest.raises(InputError, match="give a rank below the world's size"):
            rank_of({"RANK": rank, "WORLD_SIZE": "4"})
    assert cores({}) == own_cores() and cores({"LOCAL_WORLD_SIZE": "1000"}) == 1


def test_cores_are_limited_by_the_affinity(monkeypatch):
    assert 1 <= own_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert own_cores() == os.cpu_count()


def test_a_worker_does_not_import_torch():
    code = "import sys, grounding.steps.propose; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

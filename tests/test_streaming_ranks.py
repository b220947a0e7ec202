"""``step=train`` from a server by two processes that torchrun starts: no photo twice in an epoch, and a kill."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from faulty_server import serving
from made_shards import make_shards
from training_runs import PROGRAM, RECIPE, last_step, same, start_training, tiny_trainings

from grounding.shards.fetching import FetchOptions
from training.streaming import StreamOptions

EPOCHS, TARS, EACH = 3, 6, 4
# writes the epoch and the name of each photo that the rank trains on
RECORDED = """
import os, sys
from training.feeds import StreamDataset
plain = StreamDataset.__getitem__
def recorded(dataset, requests):
    with open(f"{sys.argv[2]}.{os.environ['RANK']}.used", "a") as file:
        file.writelines(f"{r.crop_seed.split('/')[1]} {r.photo.name}\\n" for r in requests if r.crop_seed)
    return plain(dataset, requests)
StreamDataset.__getitem__ = recorded
"""


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory) -> Iterator[None]:
    with tiny_trainings(tmp_path_factory.mktemp("init")):
        yield


def used(folder: Path) -> Counter[str]:
    return Counter(line for path in folder.glob("*.used") for line in path.read_text().splitlines())


@pytest.mark.slow
def test_two_ranks_use_each_photo_once_and_continue_after_a_kill(tmp_path):
    shards = make_shards(tmp_path / "shards", train=TARS)
    fetch = FetchOptions(cache=str(tmp_path / "cache"), attempts=4, pause=0.01, gigabytes=0)
    stream = asdict(StreamOptions(buffer=EACH, fetch=fetch))
    arguments = {"epochs": EPOCHS, "save_minutes": 0, "stream": stream, **RECIPE}
    faults = {"train-000001.tar": ["503"], "train-000004.tar": ["cut"]}
    with serving(shards, faults) as server:
        (tmp_path / "whole").mkdir()
        whole = arguments | {"root": server.url, "output": str(tmp_path / "whole" / "out")}
        process = start_training(whole, 2, RECORDED + PROGRAM)
        _, log = process.communicate(timeout=400)
        assert process.returncode == 0, log
        assert set(used(tmp_path / "whole").values()) == {1}
        assert used(tmp_path / "whole").total() == EPOCHS * TARS * EACH
        for number in range(TARS):
            name = f"train-{number:06d}.tar"
            assert server.requests[name] - len(faults.get(name, ())) == EPOCHS, name
        (tmp_path / "killed").mkdir()
        process = start_training(whole | {"output": str(tmp_path / "killed" / "out")}, 2)
        while not last_step(tmp_path / "killed" / "out" / "checkpoints") >= 3:
            time.sleep(0.01)
            assert process.poll() is None
        reached = last_step(tmp_path / "killed" / "out" / "checkpoints")
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
        _, log = process.communicate(timeout=400)
        assert process.returncode == 0, log
    assert reached < EPOCHS * TARS * EACH // RECIPE["batch"]
    assert "resumed after step" in log
    assert same(tmp_path / "killed" / "out" / "tagger.safetensors", tmp_path / "whole" / "out" / "tagger.safetensors")

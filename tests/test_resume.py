"""The step ``train``: a training that is stopped continues with the same weights, and nothing is lost."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_shards import ALL, make_shards, tiny_tagger
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_runs import RECIPE, ROOT, equal, last_step, losses, same, start_training, tiny_trainings

from grounding import TagClassifier
from grounding.runtime.renamed import new_names
from proposals.errors import InputError
from training import checkpoint, loader
from training.interruption import SIGNALS, Interruption
from training.model import TrainableTagger
from training.train import TrainingLoop, train

KILLS = int(os.environ.get("GROUNDING_KILLS", "1"))  # how often a training is killed


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), train=3)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory) -> Iterator[None]:
    with tiny_trainings(tmp_path_factory.mktemp("init")):
        yield


@pytest.mark.parametrize("init", ["tiny", pytest.param("embedded", marks=pytest.mark.slow)])
def test_a_training_in_two_runs_gives_the_same_weights_as_in_one(shards, tmp_path, init):
    recipe = RECIPE | {"ema_decay": 0.5} | ({"init": "embedded"} if init == "embedded" else {})
    whole = train(str(shards), str(tmp_path / "whole"), epochs=2, **recipe)
    measured = json.loads((tmp_path / "whole" / "metrics.json").read_text())["validations"]
    assert [line["epoch"] for line in measured] == [1, 2]
    assert measured[1]["loss"] < measured[0]["loss"] < measured[0]["train_loss"]
    train(str(shards), str(tmp_path / "parts"), epochs=1, **recipe)
    parts = train(str(shards), str(tmp_path / "parts"), epochs=2, **recipe)
    assert same(parts, whole)
    assert json.loads((tmp_path / "parts" / "metrics.json").read_text())["validations"] == measured
    assert {"cat", "coffee", "rocket"} <= set(TagClassifier.load(parts).vocabulary)
    assert len(list((tmp_path / "whole" / "maps").iterdir())) == 2
    assert "| precision_at_5" in (tmp_path / "whole" / "report.md").read_text()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(shards, tmp_path):
    arguments = {"root": str(shards), "epochs": 50 + 25 * KILLS, "save_minutes": 0, "validate_every": 50, **RECIPE}
    whole = train(output=str(tmp_path / "whole"), **arguments)
    rng, folder, reached = random.Random(KILLS), tmp_path / "killed" / "checkpoints", -1
    for _ in range(KILLS):
        process = start_training(arguments | {"output": str(tmp_path / "killed")})
        while last_step(folder) <= reached:
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert reached < last_step(folder) < 3 * arguments["epochs"]
        reached = last_step(folder)
    assert same(train(output=str(tmp_path / "killed"), **arguments), whole)
    lines = map(json.loads, (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines())
    steps = [(line["step"], "validation" in line) for line in lines]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_two_ranks_give_the_losses_of_one_process_although_a_rank_is_killed(shards, tmp_path):
    arguments = {"root": str(shards), "epochs": 4, "save_minutes": 0, **RECIPE}
    train(output=str(tmp_path / "one"), **arguments)
    train(output=str(tmp_path / "parts"), micro_batch=2, **arguments)
    process = start_training(arguments | {"output": str(tmp_path / "two")}, ranks=2)
    while last_step(tmp_path / "two" / "checkpoints") < 0:
        time.sleep(0.01)
        assert process.poll() is None
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    _, log = process.communicate(timeout=100)
    assert process.returncode == 0, log
    assert "resumed after step" in log
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    # two ranks add the same numbers as one rank with two micro batches
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "parts"), abs=1e-5)


class RequeuedError(Exception):
    pass


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_the_training_and_then_calls_the_earlier_handler(shards, tmp_path, monkeypatch, number):
    whole = train(str(shards), str(tmp_path / "whole"), epochs=1, **RECIPE)

    def handler(*_):
        raise RequeuedError

    before = signal.signal(number, handler)
    plain = TrainingLoop._backward

    def backward(loop, parts):
        if loop.progress.step == 1:
            os.kill(os.getpid(), number)
        return plain(loop, parts)

    monkeypatch.setattr(TrainingLoop, "_backward", backward)
    try:
        with pytest.raises(RequeuedError):
            train(str(shards), str(tmp_path / "out"), epochs=1, **RECIPE)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert last_step(tmp_path / "out" / "checkpoints") == 2
    monkeypatch.undo()
    assert same(train(str(shards), str(tmp_path / "out"), epochs=1, **RECIPE), whole)


@pytest.mark.slow
def test_a_signal_to_all_processes_saves_the_training(shards, tmp_path):
    arguments = {"root": str(shards), "output": str(tmp_path / "out"), **RECIPE, "epochs": 10**5, "workers": 1}
    process = start_training(arguments | {"validate_every": 10**6, "save_minutes": 1e-3})
    while last_step(tmp_path / "out" / "checkpoints") < 0:
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, log
    assert f"step {last_step(tmp_path / 'out' / 'checkpoints')} is saved" in log


def test_a_training_continues_after_a_signal_that_is_ignored(shards, tmp_path, monkeypatch, caplog):
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    plain = TrainingLoop._backward

    def backward(loop, parts):
        if loop.progress.step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(loop, parts)

    monkeypatch.setattr(TrainingLoop, "_backward", backward)
    try:
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caplog.text.count("received a signal; step 2 is saved") == caplog.text.count("received a signal") == 1


def test_a_signal_without_a_handler_ends_the_process():
    code = (
        "import os, signal\nfrom training.interruption import Interruption\n"
        "with Interruption() as held:\n    os.kill(os.getpid(), signal.SIGUSR1)\n    print('saved', flush=True)\n"
        "    held.follow(held.signal)\n    print('never')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -signal.SIGUSR1
    assert done.stdout == "saved\n"


def test_the_earlier_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_newest_checkpoints_are_kept(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=2, save_minutes=0, keep_checkpoints=3, **RECIPE)
    assert [path.stem for path in checkpoint.checkpoints(tmp_path / "checkpoints")] == [
        f"step-00000000{i}" for i in (4, 5, 6)
    ]


def test_an_initial_tagger_with_other_tags_is_another_training(shards, tmp_path):
    recipe = RECIPE | {"distillation_weight": 1.0}
    train(str(shards), str(tmp_path / "out"), epochs=1, **recipe)
    weights = load_file(RECIPE["init"])
    other = tiny_tagger(tmp_path / "tiny.safetensors", ("cat", "quagga", "zebra"))
    assert equal(load_file(other), weights)
    with pytest.raises(InputError, match="another training"):
        train(str(shards), str(tmp_path / "out"), epochs=2, **(recipe | {"init": other}))


def test_a_killed_worker_ends_the_training_after_a_checkpoint(shards, tmp_path, monkeypatch):
    plain = TrainableTagger.after_step

    def stepped(network):
        for child in multiprocessing.active_children():
            child.kill()
        plain(network)

    monkeypatch.setattr(TrainableTagger, "after_step", stepped)
    with pytest.raises(InputError, match=r"a process that reads photos ended .*: use fewer of them, step\.workers="):
        train(str(shards), str(tmp_path), epochs=50, **(RECIPE | {"workers": 1}))
    assert checkpoint.checkpoints(tmp_path / "checkpoints")


@pytest.mark.parametrize("error", [RuntimeError("killed\nby"), ConnectionResetError(104, "reset"), EOFError()])
def test_the_error_of_a_killed_worker_is_one_line(shards, tmp_path, monkeypatch, error):
    def batches(*_, **__):
        raise error
        yield

    monkeypatch.setattr(loader, "DataLoader", batches)
    with pytest.raises(
        InputError, match=r"^a process that reads photos ended \(.+\): use fewer of them, step\.workers=$"
    ):
        train(str(shards), str(tmp_path), epochs=1, **RECIPE)


def test_a_checkpoint_of_another_training_is_refused(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    with pytest.raises(InputError, match=r"another training \(tag_lr: 0\.01, now 0\.5\): set name="):
        train(str(shards), str(tmp_path), epochs=2, **(RECIPE | {"tag_lr": 0.5}))
    others = make_shards(tmp_path / "others", tags=[*ALL, "zebra"])
    with pytest.raises(InputError, match=r"another training \(shards: "):
        train(str(others), str(tmp_path), epochs=2, **RECIPE)
    folder = tmp_path / "checkpoints"
    last = checkpoint.checkpoints(folder)[-1]
    tensors, about = load_file(last), safe_open(last, "pt").metadata()
    save_file(
        {name: t for name, t in tensors.items() if name != "momentum.0"} | {"momentum.x": torch.zeros(1)}, last, about
    )
    with pytest.raises(InputError, match=r"is damaged \(.*\): remove it"):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    last.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"truncated or not a safetensors file .*: remove it to resume from the checkpoint before"
    ):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    save_file({"a": torch.zeros(1)}, checkpoint.checkpoint_path(folder, 99))
    with pytest.raises(InputError, match=r"step-000000099\.safetensors is not a checkpoint"):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)


def test_a_checkpoint_with_old_names_of_settings_is_resumed(shards, tmp_path):
    old = {new: old for old, new in new_names("train").items()}
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    last = checkpoint.checkpoints(tmp_path / "checkpoints")[-1]
    tensors, about = load_file(last), safe_open(last, "pt").metadata()
    progress = json.loads(about["progress"])
    identity = {old.get(name, name): value for name, value in json.loads(progress["identity"]).items()}
    assert {"decay", "plateau", "trunk_rate"} <= identity.keys()
    save_file(tensors, last, about | {"progress": json.dumps(progress | {"identity": json.dumps(identity)})})
    train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    assert last_step(tmp_path / "checkpoints") == 6
    with pytest.raises(InputError, match=r"another training \(weight_decay: 0\.0005, now 0\.5\)"):
        train(str(shards), str(tmp_path), epochs=2, weight_decay=0.5, **RECIPE)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_disappears_ends_the_training_after_a_checkpoint(tmp_path, monkeypatch, workers):
    root = make_shards(tmp_path / "shards", train=8)
    plain = TrainableTagger.after_step

    def stepped(network):
        for path in root.glob("train-*.tar"):
            path.write_bytes(b"")
        plain(network)

    monkeypatch.setattr(TrainableTagger, "after_step", stepped)
    with pytest.raises(InputError, match=r"train-\d+\.tar is truncated"):
        train(str(root), str(tmp_path / "out"), epochs=1, **(RECIPE | {"workers": workers}))
    assert checkpoint.checkpoints(tmp_path / "out" / "checkpoints")


def test_a_full_disk_leaves_the_last_checkpoint(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    before = {path: path.read_bytes() for path in checkpoint.checkpoints(tmp_path / "checkpoints")}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, limit[1]))
    try:
        with pytest.raises(InputError, match=r"safetensors cannot be written"):
            train(str(shards), str(tmp_path), epochs=2, save_minutes=0, **RECIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before

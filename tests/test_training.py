"""The step ``train`` on photos that scikit-image ships: the same weights however the work is cut, and nothing lost."""

import json
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_shards import ALL, TAGS, make_shards, tiny_tagger
from omegaconf import OmegaConf
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import training.train as step
from grounding import TagClassifier
from grounding.runtime.renamed import new_names
from proposals.errors import InputError
from training import checkpoint
from training.interruption import SIGNALS, Interruption
from training.recipe import Recipe
from training.shards import Shards, index_path
from training.train import train

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get("GROUNDING_KILLS", "1"))  # more of them where there is time
RECIPE = {"batch": 4, "trunk_lr": 0.001, "tag_lr": 0.01, "ema_decay": 0, "workers": 0}
PROGRAM = """
import json, logging, sys
from pathlib import Path
import made_shards
from training.train import train
logging.basicConfig(level=logging.INFO)
arguments = json.loads(sys.argv[1])
made_shards.tiny_tagger(Path(sys.argv[2]))
train(**arguments)
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), train=3)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory) -> Iterator[None]:
    """All start from a trunk of one convolution unless they say otherwise, and compute on one thread, as the processes
    of ``start`` do: sums over two round otherwise."""
    RECIPE["init"] = tiny_tagger(tmp_path_factory.mktemp("init") / "tiny.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(arguments: dict, ranks: int = 1) -> subprocess.Popen:
    """The training in processes of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "3"]
    program = Path(arguments["output"]).with_suffix(".py")
    program.write_text(PROGRAM)
    given = [str(program), json.dumps(arguments), f"{program}.safetensors"]
    line = [sys.executable, *(torchrun if ranks > 1 else []), *given]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def same(ours: Path, theirs: Path) -> bool:
    """Whether two trainings left equal taggers, and equal checkpoints, whose weights are not rounded."""
    pairs = [(ours, theirs), tuple(checkpoint.saved(path.parent / "checkpoints")[-1] for path in (ours, theirs))]
    return all(equal(load_file(a), load_file(b)) for a, b in pairs)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_and_goes_on_bit_equal(shards, tmp_path):
    recipe = RECIPE | {"init": "embedded", "ema_decay": 0.5}
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


def test_a_killed_training_ends_with_the_same_weights(shards, tmp_path):
    arguments = {"root": str(shards), "epochs": 50 + 25 * KILLS, "save_minutes": 0, "validate_every": 50, **RECIPE}
    whole = train(output=str(tmp_path / "whole"), **arguments)
    rng, folder, reached = random.Random(KILLS), tmp_path / "killed" / "checkpoints", -1
    for _ in range(KILLS):
        process = start(arguments | {"output": str(tmp_path / "killed")})
        while step_of(folder) <= reached:
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert reached < step_of(folder) < 3 * arguments["epochs"]
        reached = step_of(folder)
    assert same(train(output=str(tmp_path / "killed"), **arguments), whole)
    lines = map(json.loads, (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines())
    told = [(line["step"], "validation" in line) for line in lines]
    assert told == sorted(set(told))


def step_of(folder: Path) -> int:
    """The last step that is saved."""
    return max([int(path.stem.removeprefix("step-")) for path in checkpoint.saved(folder)], default=-1)


def test_ranks_train_as_one_process_does_even_where_one_dies(shards, tmp_path):
    arguments = {"root": str(shards), "epochs": 4, "save_minutes": 0, **RECIPE}
    train(output=str(tmp_path / "one"), **arguments)
    train(output=str(tmp_path / "parts"), micro_batch=2, **arguments)
    process = start(arguments | {"output": str(tmp_path / "two")}, ranks=2)
    while step_of(tmp_path / "two" / "checkpoints") < 0:
        time.sleep(0.01)
        assert process.poll() is None
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert "resumed after step" in told
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    # two ranks do the same sums as one that takes the batch in two parts
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "parts"), abs=1e-5)


def losses(output: Path) -> list[float]:
    measured = json.loads((output / "metrics.json").read_text())["validations"]
    return [line[name] for line in measured for name in ("train_loss", "loss")]


class RequeuedError(Exception):
    pass


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_then_does_what_it_would_have_done(shards, tmp_path, monkeypatch, number):
    whole = train(str(shards), str(tmp_path / "whole"), epochs=1, **RECIPE)

    def handler(*_):
        raise RequeuedError

    before = signal.signal(number, handler)
    plain = step._Loop._backward

    def backward(loop, parts):
        if loop.progress.step == 1:
            os.kill(os.getpid(), number)
        return plain(loop, parts)

    monkeypatch.setattr(step._Loop, "_backward", backward)
    try:
        with pytest.raises(RequeuedError):
            train(str(shards), str(tmp_path / "out"), epochs=1, **RECIPE)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert step_of(tmp_path / "out" / "checkpoints") == 2
    monkeypatch.undo()
    assert same(train(str(shards), str(tmp_path / "out"), epochs=1, **RECIPE), whole)


def test_a_signal_to_all_processes_of_a_training_saves_it(shards, tmp_path):
    arguments = {"root": str(shards), "output": str(tmp_path / "out"), **RECIPE, "epochs": 10**5, "workers": 1}
    process = start(arguments | {"validate_every": 10**6, "save_minutes": 1e-3})
    while step_of(tmp_path / "out" / "checkpoints") < 0:
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, told
    assert f"step {step_of(tmp_path / 'out' / 'checkpoints')} is saved" in told


def test_a_signal_that_is_ignored_is_noted_once(shards, tmp_path, monkeypatch, caplog):
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    plain = step._Loop._backward

    def backward(loop, parts):
        if loop.progress.step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(loop, parts)

    monkeypatch.setattr(step._Loop, "_backward", backward)
    try:
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caplog.text.count("a signal came; step 2 is saved") == caplog.text.count("a signal came") == 1


def test_a_signal_that_nobody_handles_ends_the_process():
    code = (
        "import os, signal\nfrom training.interruption import Interruption\n"
        "with Interruption() as held:\n    os.kill(os.getpid(), signal.SIGUSR1)\n    print('saved', flush=True)\n"
        "    held.follow(held.signal)\n    print('never')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -signal.SIGUSR1
    assert done.stdout == "saved\n"


def test_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_last_checkpoints_stay(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=2, save_minutes=0, keep_checkpoints=3, **RECIPE)
    assert [path.stem for path in checkpoint.saved(tmp_path / "checkpoints")] == [
        f"step-00000000{i}" for i in (4, 5, 6)
    ]


def test_a_trained_trunk_moves_and_a_frozen_one_does_not(shards, tmp_path):
    start = TagClassifier.load(RECIPE["init"]).state_dict()
    for rate in (0.0, 0.001):
        path = train(str(shards), str(tmp_path / str(rate)), epochs=1, **(RECIPE | {"trunk_lr": rate}))
        trained = load_file(path)
        trunk = [name for name in trained if name.startswith("trunk.")]
        assert all(torch.equal(trained[name].float(), start[name]) for name in trunk) == (rate == 0)


@pytest.mark.parametrize("rate", [0.0, 0.001])
def test_inherited_names_stay(shards, tmp_path, rate):
    path = train(str(shards), str(tmp_path), epochs=1, distillation_weight=1.0, **(RECIPE | {"trunk_lr": rate}))
    known, tagger = TagClassifier.load(RECIPE["init"]), TagClassifier.load(path)
    spare = [tag for tag in known.vocabulary if tag not in Shards(shards).vocabulary]
    assert list(tagger.vocabulary)[-len(spare) :] == spare
    theirs = known.classifier.weight[[known.vocabulary.index(tag) for tag in spare]]
    moved = (tagger.classifier.weight[-len(spare) :] - theirs).abs().max().item()
    assert moved == 0 if rate == 0 else 0 < moved < 0.1
    measured = json.loads((tmp_path / "metrics.json").read_text())["validations"][-1]
    assert ("names_kept" in measured) == (rate > 0)


def test_other_names_are_another_training(shards, tmp_path):
    recipe = RECIPE | {"distillation_weight": 1.0}
    train(str(shards), str(tmp_path / "out"), epochs=1, **recipe)
    weights = load_file(RECIPE["init"])
    other = tiny_tagger(tmp_path / "tiny.safetensors", ("cat", "quagga", "zebra"))
    assert equal(load_file(other), weights)
    with pytest.raises(InputError, match="another training"):
        train(str(shards), str(tmp_path / "out"), epochs=2, **(recipe | {"init": other}))


@pytest.mark.parametrize("factor", [0.5, 1])
def test_a_plateau_lowers_the_rates_and_1_keeps_them(shards, tmp_path, factor):
    train(str(shards), str(tmp_path), epochs=20, lr_factor=factor, **(RECIPE | {"tag_lr": 30.0}))  # no loss gets better
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    rates = [line["tag_lr"] for line in lines if "tag_lr" in line]
    assert len(rates) == 3
    assert min(rates) < 30 if factor < 1 else rates == [30] * 3


def test_a_reader_that_is_killed_ends_the_training_with_its_work_saved(shards, tmp_path, monkeypatch):
    plain = step.Network.stepped

    def stepped(network):
        for child in multiprocessing.active_children():
            child.kill()
        plain(network)

    monkeypatch.setattr(step.Network, "stepped", stepped)
    with pytest.raises(InputError, match=r"a process that reads photos ended .*: set step\.workers= to fewer"):
        train(str(shards), str(tmp_path), epochs=50, **(RECIPE | {"workers": 1}))
    assert checkpoint.saved(tmp_path / "checkpoints")


@pytest.mark.parametrize("error", [RuntimeError("killed\nby"), ConnectionResetError(104, "reset"), EOFError()])
def test_however_a_dead_reader_shows_it_is_told_on_one_line(shards, tmp_path, monkeypatch, error):
    def batches(*_, **__):
        raise error
        yield

    monkeypatch.setattr(step, "DataLoader", batches)
    with pytest.raises(InputError, match=r"^a process that reads photos ended \(.+\): set step\.workers= to fewer$"):
        train(str(shards), str(tmp_path), epochs=1, **RECIPE)


def test_the_average_is_published(shards, tmp_path, monkeypatch):
    seen = []
    plain = step.Network.stepped

    def stepped(network):
        seen.append(network.tagger.classifier.bias.detach().clone())
        plain(network)

    monkeypatch.setattr(step.Network, "stepped", stepped)
    path = train(str(shards), str(tmp_path), epochs=1, **(RECIPE | {"tag_lr": 1.0, "ema_decay": 0.9}))
    average = seen[0]
    for bias in seen[1:]:
        average = 0.9 * average + 0.1 * bias
    torch.testing.assert_close(TagClassifier.load(path).classifier.bias, average, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(seen[-1], average, atol=2e-3, rtol=1e-3)


def test_bfloat16_trains(shards, tmp_path):
    train(str(shards), str(tmp_path / "bf"), epochs=1, precision="bfloat16", **RECIPE)
    train(str(shards), str(tmp_path / "f"), epochs=1, **RECIPE)
    assert losses(tmp_path / "bf") == pytest.approx(losses(tmp_path / "f"), rel=0.1)


def test_only_the_first_tags_count(shards, tmp_path, monkeypatch):
    most = []
    plain = step.Network.loss

    def loss(network, batch, *where):
        most.append(torch.bincount(batch.rows).max().item())
        return plain(network, batch, *where)

    monkeypatch.setattr(step.Network, "loss", loss)
    train(str(shards), str(tmp_path), epochs=1, tags_per_image=2, **RECIPE)
    assert max(most) == 2 < max(map(len, TAGS.values()))


def test_a_checkpoint_of_another_training_is_not_continued(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    with pytest.raises(InputError, match=r"another training \(tag_lr: 0\.01, now 0\.5\); set name="):
        train(str(shards), str(tmp_path), epochs=2, **(RECIPE | {"tag_lr": 0.5}))
    others = make_shards(tmp_path / "others", tags=[*ALL, "zebra"])
    with pytest.raises(InputError, match=r"another training \(shards: "):
        train(str(others), str(tmp_path), epochs=2, **RECIPE)
    folder = tmp_path / "checkpoints"
    last = checkpoint.saved(folder)[-1]
    tensors, about = load_file(last), safe_open(last, "pt").metadata()
    save_file(
        {name: t for name, t in tensors.items() if name != "momentum.0"} | {"momentum.x": torch.zeros(1)}, last, about
    )
    with pytest.raises(InputError, match=r"is damaged \(.*\): remove it"):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    last.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"truncated or not a safetensors file .*: remove it, to go on from the one before"
    ):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    save_file({"a": torch.zeros(1)}, checkpoint.path_of(folder, 99))
    with pytest.raises(InputError, match=r"step-000000099\.safetensors is no checkpoint"):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)


def test_a_checkpoint_with_old_names_of_settings_is_continued(shards, tmp_path):
    old = {new: old for old, new in new_names("train").items()}
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    last = checkpoint.saved(tmp_path / "checkpoints")[-1]
    tensors, about = load_file(last), safe_open(last, "pt").metadata()
    progress = json.loads(about["progress"])
    identity = {old.get(name, name): value for name, value in json.loads(progress["identity"]).items()}
    assert {"decay", "plateau", "trunk_rate"} <= identity.keys()
    save_file(tensors, last, about | {"progress": json.dumps(progress | {"identity": json.dumps(identity)})})
    train(str(shards), str(tmp_path), epochs=2, **RECIPE)
    assert step_of(tmp_path / "checkpoints") == 6
    with pytest.raises(InputError, match=r"another training \(weight_decay: 0\.0005, now 0\.5\)"):
        train(str(shards), str(tmp_path), epochs=2, weight_decay=0.5, **RECIPE)


def test_broken_photos_are_skipped_counted_and_named(tmp_path, caplog):
    root = make_shards(tmp_path / "shards")
    shards = Shards(root)
    index = shards.index("train-000000.tar")
    with (root / "train-000000.tar").open("r+b") as file:
        file.seek(int(index.offsets[1]))
        file.write(bytes(int(index.sizes[1])))
    train(str(root), str(tmp_path / "out"), epochs=1, **RECIPE)
    assert "skipped photo 1 of train-000000.tar" in caplog.text
    assert "1 broken photos were skipped" in (tmp_path / "out" / "report.md").read_text()


def test_a_shard_of_broken_photos_ends_the_training(tmp_path):
    root = make_shards(tmp_path / "shards", train=1)
    index = Shards(root).index("train-000000.tar")
    with (root / "train-000000.tar").open("r+b") as file:
        for offset, size in zip(index.offsets, index.sizes, strict=True):
            file.seek(int(offset))
            file.write(bytes(int(size)))
    with pytest.raises(InputError, match="broken photos in a row: make the shards anew"):
        train(str(root), str(tmp_path / "out"), epochs=1, **RECIPE)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_goes_ends_the_training_with_its_work_saved(tmp_path, monkeypatch, workers):
    root = make_shards(tmp_path / "shards", train=8)
    plain = step.Network.stepped

    def stepped(network):
        for path in root.glob("train-*.tar"):
            path.write_bytes(b"")
        plain(network)

    monkeypatch.setattr(step.Network, "stepped", stepped)
    with pytest.raises(InputError, match=r"train-\d+\.tar is truncated"):
        train(str(root), str(tmp_path / "out"), epochs=1, **(RECIPE | {"workers": workers}))
    assert checkpoint.saved(tmp_path / "out" / "checkpoints")


def test_shards_that_are_not_whole_are_told(shards, tmp_path):
    with pytest.raises(InputError, match=r"shards\.json is missing"):
        train(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"12 photos for training and 4 held out: lower step\.batch=64"):
        train(str(shards), str(tmp_path / "out"))
    root = make_shards(tmp_path / "missing")
    (root / "train-000001.tar").unlink()
    with pytest.raises(InputError, match=r"train-000001\.tar is missing"):
        train(str(root), str(tmp_path / "out"), **RECIPE)
    index_path(root / "train-000000.tar").unlink()
    make_shards(root, train=1)
    (root / "train-000000.tar").write_bytes((root / "train-000000.tar").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train-000000\.tar is truncated"):
        train(str(root), str(tmp_path / "out"), **RECIPE)


def test_a_loss_that_is_not_finite_stops_with_its_batch_saved(shards, tmp_path):
    with pytest.raises(InputError, match=r"the loss of step \d+ is no longer finite .*lower step\.trunk_lr"):
        train(str(shards), str(tmp_path), epochs=50, save_minutes=0, **(RECIPE | {"tag_lr": 1e38}))
    with safe_open(tmp_path / "not-finite-0.safetensors", "pt") as file:
        assert file.get_tensor("0.images").shape == (4, 3, 224, 224)
        stopped = int(file.metadata()["step"])
    assert stopped == step_of(tmp_path / "checkpoints")


def test_a_full_disk_leaves_the_last_checkpoint(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    before = {path: path.read_bytes() for path in checkpoint.saved(tmp_path / "checkpoints")}
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


def test_an_output_that_cannot_be_written_is_told(shards, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be written"):
        train(str(shards), str(tmp_path / "out"), epochs=1, **RECIPE)


def test_settings_out_of_their_range_are_told():
    wrong = {"batch": 0, "tags_per_image": 0, "tag_lr": -1, "seed": -1, "ema_decay": 1, "lr_factor": 0}
    wrong |= {"precision": "float16"}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=f"step.{name}={value}"):
            Recipe.of(**{name: value})
    with pytest.raises(InputError, match="step=train has no setting speed"):
        Recipe.of(speed=1)
    with pytest.raises(InputError, match="decay was renamed: use weight_decay"):
        Recipe.of(decay=0.1)
    with pytest.raises(InputError, match=re.escape("step.batch=64 photos cannot be split over 3 ranks")):
        Recipe().share(3)


def test_the_configuration_has_the_recipes_defaults():
    settings = OmegaConf.load(ROOT / "conf" / "step" / "train.yaml")
    fields = {name: value for name, value in vars(Recipe()).items() if name != "seed"}  # which is that of all steps
    assert {name: settings[name] for name in fields} == fields


def test_tensorboard_gets_scalars_and_maps(shards, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: .venv/bin/pip install -e '.[watch]'")
    train(str(shards), str(tmp_path), tensorboard=True, epochs=1, **RECIPE)
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_the_maps_are_of_the_photo(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    with Image.open(next((tmp_path / "maps").iterdir())) as picture:
        assert picture.size == (224 * (1 + len(TAGS["astronaut"])), 224)

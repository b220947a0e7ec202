"""Each command line and each Python recipe of README.md and docs/ runs, on small stand-ins for photos and data sets.

``docs_world`` writes what the lines name. Settings that make a run short are added. Lines that cannot run here are in
``NOT_RUN`` and ``NOT_RUN_RECIPES``, each with the reason.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from docs_lines import ROOT, SHOWN, commands, recipes
from docs_world import make_world
from faulty_server import serving
from torch import nn

from grounding import Grounder
from grounding.__main__ import main
from grounding.attention import layers
from grounding.runtime import front_door
from grounding.runtime.settings import chosen_step, read_setting
from grounding.tagger.cnns import CNNS

NOT_RUN = {
    "cluster=slurm": "Slurm; tests/test_slurm.py writes what is submitted",
    "srun": "Slurm",
    "experiment=all": "hours; its commands are lines of their own, and tests/test_all_tables.py runs such a list",
    "s3://bucket": "a bucket of others; tests/test_streaming_s3.py runs the same lines with a bucket of its own",
}
NOT_RUN_RECIPES = {
    "fiftyone": "FiftyOne is not a dependency, and its database has to be installed",
}
STANDS_FOR = {
    "ENTITIES": "flickr30k_entities",
    "init=cnn-s.safetensors": "init=small.safetensors",  # the recipe on the page writes it, with 400 MB
    "00127": "00003",
    r"--nproc-per-node \d+": "--nproc-per-node 2",
    "captions=FILE": "captions=captions.txt",
    "device=cuda": "device=cpu",
    "init=FILE": "init=small.safetensors",
    "tagger.path=FILE": "tagger.path=own.safetensors",
    r"(classes=own) tagger.path=runs/train\S+": r"\1 tagger.path=own.safetensors",  # runs/train may have other tags
    "wordnet=FOLDER": "wordnet=wordnet",
    "mcg.root=FOLDER": "mcg.root=mcg",
    "(data=voc2012.*)FILE.jsonl": r"\1voc.jsonl",
    "FILE.jsonl": "entities.jsonl",
}
TOKEN = "0123456789abcdef0123456789abcdef"
# settings that make a step short
SHORT = {
    "ground": ["step.shards.workers=0"],
    "train": ["step.batch=4", "step.epochs=1", "step.workers=0"],
    "shards": ["step.workers=1", "step.held_out=0.3", "step.min_images=2"],
    "check": ["step.photos.min_images=2"],
    "propose": ["step.workers=1"],
    "point": ["step.resamples=9"],
    "localize": ["step.resamples=9"],
    "calibrate": ["step.folds=2"],
    "lexicon": ["tagger.path=own.safetensors"],
}
BENCHMARKS = {
    "batches": ["benchmark.photos=2", "benchmark.batches=[1,2]"],
    "serve": ["benchmark.clients=1", "benchmark.seconds=1", "benchmark.rounds=1"],
    "proposals": ["benchmark.limit=1", "benchmark.splits=[val2017]", "benchmark.counts=[100]"],
    "networks": ["benchmark.networks=[torchvision/squeezenet1_1]", "benchmark.rounds=1"],
    "attention": ["benchmark.networks=[bvlc_googlenet]", "benchmark.sizes=[[224,224]]", "benchmark.words=[1]",
                  "benchmark.rounds=1", "benchmark.peers=[]"],
}  # fmt: skip
# what a line needs that another line writes
EVALUATE = "step=evaluate data.root=flickr30k_entities data.split=val"
MADE_BY = {
    "runs/labels/labels.jsonl": "step=labels data=coco2017 data.split=train2017",
    "runs/shards/shards.json": "step=shards images=FLICKR8K",
    "runs/train/tagger.safetensors": "step=train data.root=runs/shards",
    "runs/captioned/shards.json": "step=shards images=FLICKR8K name=captioned",
    "runs/unlabelled/shards.json": "step=shards images=TARS step.untagged=true name=unlabelled",
    "runs/shards-18k/shards.json": "step=shards images=TAGGED step.min_images=1 name=shards-18k",
    "runs/best/metrics.json": f"{EVALUATE} name=best",
    "runs/paper/metrics.json": f"{EVALUATE} name=paper experiment=paper",
    "runs/judge/judge.json": "step=judge",
    "runs/propose/settings.json": "step=propose images=flickr30k_entities",
    **{
        f"runs/{method}/metrics.json": f"step=point attention={method} name={method}"
        for method in ("mwp", "c-mwp", "grad")
    },
}


def filled(text: str) -> str:
    """A line with the names of the stand-ins in place of FILE and FOLDER."""
    for shown, name in STANDS_FOR.items():
        text = re.sub(shown, name, text)
    return text


LINES = sorted({(line.before, re.split(r"\s+#", line.command)[0].strip()) for line in commands(SHOWN)})


def reason(before: str, command: str, table: dict[str, str] = NOT_RUN) -> str | None:
    return next((why for part, why in table.items() if part in f"{before} {command}"), None)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def there(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("GROUNDING_DATA", str(world))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def chosen(words: list[str]) -> tuple[str, dict[str, str]]:
    """The step of a command line, and its settings."""
    settings = {setting.key: setting.value for word in words if (setting := read_setting(word))}
    if words[0] in front_door.choices()["step"]:
        settings["step"] = words[0]
    return chosen_step({key: settings[key] for key in ("step", "experiment") if key in settings}), settings


def short(words: list[str]) -> list[str]:
    """The words of a command line, and settings that make its run short."""
    step, settings = chosen(words)
    added = BENCHMARKS[settings["benchmark"]] if step == "benchmark" else SHORT.get(step, [])
    if step == "train":
        added = [*added, "init=small.safetensors"]
    if step not in ("train", "benchmark"):
        added = [*added, "tagger.path=small.safetensors"]
    added = [one for one in added if one.partition("=")[0] not in settings]
    end = words.index("--") if "--" in words else len(words)
    return words if "--help" in words else [*words[:end], *added, *words[end:]]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command line in this process; log files would stay open."""
    words = short(words)
    asked = front_door.read(words)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"] if asked.text is None and not asked.config else []
    monkeypatch.setattr(sys, "argv", ["grounding", *words, *quiet])
    main()


def prepare(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the lines whose results a line reads, and removes its folder of a line before."""
    step, settings = chosen(words)
    shutil.rmtree(Path("runs", settings.get("name", step)), ignore_errors=True)
    data = [word for word in words if word.startswith("data")]
    makers = MADE_BY | {"runs/evaluate/metrics.json": shlex.join(["step=evaluate", *data])}
    for file, maker in makers.items():
        folder = file.rpartition("/")[0]
        again = folder in ("runs/evaluate", "runs/judge")  # which other lines write with other settings
        if re.search(rf"{folder}\b", " ".join(words)) and (again or not Path(file).exists()):
            prepare(shlex.split(maker), monkeypatch)
            run(shlex.split(maker), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "command"), sorted({(filled(one), filled(two)) for one, two in LINES if not reason(one, two)})
)
def test_a_command_line_runs(before, command, world, monkeypatch, capsys):
    words = shlex.split(command)
    prepare(words, monkeypatch)
    if {"serve", "step=serve"} & {*words} and "--help" not in words:
        with server(words) as address, urllib.request.urlopen(visit(address, words)) as page:
            assert b"</html>" in page.read()
    elif before.startswith("torchrun"):
        torchrun(before, words, world)
    elif before.startswith("cat"):
        with Path(before.split()[1]).open("rb") as photo:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=photo))
            run(words, monkeypatch)
    elif "https://host" in command:
        with serving(world / "SHARDS") as site:
            run([word.replace("https://host/shards", site.url) for word in words], monkeypatch)
    else:
        run(words, monkeypatch)
    assert "failed" not in capsys.readouterr().err


@contextmanager
def server(words: list[str]) -> Iterator[str]:
    """A server of the page in a process of its own; yields its address."""
    Path("grounding.token").write_text(f"{TOKEN}\n")
    Path("grounding.token").chmod(0o600)
    command = [sys.executable, "-m", "grounding", *words, "step.port=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield next(line for line in process.stdout if line.startswith("open ")).split()[1]
        finally:
            process.terminate()


def visit(address: str, words: list[str]) -> urllib.request.Request:
    """A visit of the page, with the host name and the token of ``docs/how-to/deploy.md`` if the line sets them."""
    named = {"Host": "photos.example.org"} if "photos.example.org" in " ".join(words) else {}
    return urllib.request.Request(address, headers=named | {"Authorization": f"Bearer {TOKEN}"})


def torchrun(before: str, words: list[str], world: Path) -> None:
    """Runs a line of torchrun; its processes learn of the small architecture by ``sitecustomize``."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{world / 'site'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", *before.split()[1:], "grounding", *short(words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


class MyScaling(nn.Module):
    """A layer that multiplies by a factor."""

    factor = torch.tensor(2.0)


def given() -> dict[str, object]:
    """What the recipes take for granted."""
    photo = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    return {
        "torchvision": without_weights(),
        "model": torchvision.models.resnet18(weights=None).eval(),
        "images": torch.rand(1, 3, 224, 224),
        "MyScaling": MyScaling,
        "MyFlip": type("MyFlip", (nn.Module,), {}),
        "weights": CNNS().state_dict(),
        "image": photo,
        "photo": photo,
        "maps": np.ones((2, 300, 400)),
        "paths": ["one.jpg", "two.jpg"],
    }


def without_weights() -> SimpleNamespace:
    """torchvision, whose VGG16 downloads nothing."""
    return SimpleNamespace(models=SimpleNamespace(vgg16=lambda weights: torchvision.models.vgg16(weights=None).eval()))


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, _ in recipes()}))
def test_the_recipes_of_a_page_run(page, monkeypatch):
    monkeypatch.setattr(layers, "RULES", dict(layers.RULES))
    names = given()
    for number, (_, code) in enumerate(part for part in recipes() if part[0] == page):
        missing = "supervision" in code and find_spec("supervision") is None
        if not missing and not reason("", code, NOT_RUN_RECIPES):
            if "grounder" in code and "grounder" not in names:
                names["grounder"] = Grounder.load()
            exec(compile(code, f"{page}, block {number}", "exec"), names)


def test_each_line_has_settings_that_make_it_short():
    assert all(short(shlex.split(filled(command))) for before, command in LINES if not reason(before, command))


def test_what_is_not_run_is_still_shown():
    shown = [f"{before} {command}" for before, command in LINES]
    assert not [part for part in NOT_RUN if not any(part in line for line in shown)]
    assert not [part for part in NOT_RUN_RECIPES if not any(part in code for _, code in recipes())]
    assert sum(reason(*line) is not None for line in LINES) < len(LINES) / 10

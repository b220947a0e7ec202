"""Short trainings, for the tests of the step ``train``."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from made_shards import tiny_tagger
from safetensors.torch import load_file

from training import checkpoint

ROOT = Path(__file__).parents[1]
RECIPE = {"batch": 4, "trunk_lr": 0.001, "tag_lr": 0.01, "ema_decay": 0, "workers": 0}
PROGRAM = """
import json, logging, sys
from pathlib import Path
import made_shards
from grounding.shards.fetching import FetchOptions
from training.streaming import StreamOptions
from training.train import train
logging.basicConfig(level=logging.INFO)
arguments = json.loads(sys.argv[1])
made_shards.tiny_tagger(Path(sys.argv[2]))
if "stream" in arguments:
    fetch = FetchOptions(**arguments["stream"].pop("fetch"))
    arguments["stream"] = StreamOptions(**arguments["stream"], fetch=fetch)
train(**arguments)
"""


@contextmanager
def tiny_trainings(folder: Path) -> Iterator[None]:
    """Sets ``init`` of ``RECIPE`` to a trunk of one convolution, and computes on one thread.

    The processes of ``start_training`` compute on one thread, and sums over two threads round differently.
    """
    RECIPE["init"] = tiny_tagger(folder / "tiny.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start_training(arguments: dict, ranks: int = 1, text: str = PROGRAM) -> subprocess.Popen:
    """Starts ``train(**arguments)`` in a process of its own, or in one process per rank; ``text`` is the program."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "3"]
    program = Path(arguments["output"]).with_suffix(".py")
    program.write_text(text)
    given = [str(program), json.dumps(arguments), f"{program}.safetensors"]
    line = [sys.executable, *(torchrun if ranks > 1 else []), *given]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def same(ours: Path, theirs: Path) -> bool:
    """Whether two trainings wrote the same tagger, to the byte, and equal checkpoints, which are not rounded."""
    if ours.read_bytes() != theirs.read_bytes():
        return False
    pairs = [(ours, theirs), tuple(checkpoint.checkpoints(path.parent / "checkpoints")[-1] for path in (ours, theirs))]
    return all(equal(load_file(a), load_file(b)) for a, b in pairs)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def last_step(folder: Path) -> int:
    """The step of the last checkpoint in a folder; -1 if there is none."""
    return max([int(path.stem.removeprefix("step-")) for path in checkpoint.checkpoints(folder)], default=-1)


def losses(output: Path) -> list[float]:
    """The training and validation loss of each validation."""
    measured = json.loads((output / "metrics.json").read_text())["validations"]
    return [line[name] for line in measured for name in ("train_loss", "loss")]

"""Jobs of a cluster: how they are started, where their ranks meet, and what a signal or a failed rank causes.

tests/slurm.sh tests a real Slurm.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_shards import make_shards
from omegaconf import OmegaConf

from grounding.__main__ import main
from grounding.runtime.ranks import rendezvous_url

ROOT = Path(__file__).parents[1]
LOCAL = ["-m", "cluster=local", "step=train", "init=embedded", "step.trunk_lr=0", "step.batch=4", "step.workers=0"]


def start(folder: Path, *arguments: str, path: str = "") -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": f"{path}:{ROOT}", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    environment.pop("HYDRA_FULL_ERROR", None)
    command = [sys.executable, "-m", "grounding", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def children(process: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_a_preempted_job_is_resumed(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: .venv/bin/pip install -e '.[slurm]'")
    shards = make_shards(tmp_path / "shards", train=3)
    process = start(tmp_path, *LOCAL, f"data.root={shards}", "step.epochs=1", "step.save_minutes=0")
    output = tmp_path / "runs" / "train-sweep" / "0"
    while not list(output.glob("checkpoints/step-*.safetensors")):
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    (controller,) = children(process.pid)
    os.kill(children(controller)[0], signal.SIGUSR2)
    _, printed = process.communicate(timeout=100)
    assert process.returncode == 0, printed
    log = (output / "train.log").read_text()
    stopped, resumed = (
        re.search(words, log)[1] for words in (r"received a signal; step (\d+)", r"resumed after step (\d+)")
    )
    assert stopped == resumed
    assert len(list((output / "checkpoints").iterdir())) == 2
    assert (output / "tagger.safetensors").exists()


def test_a_launcher_that_is_not_installed_is_refused(tmp_path):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "__init__.py").touch()  # hides the installed plugins
    process = start(tmp_path, "cluster=slurm", path=str(tmp_path))
    _, printed = process.communicate(timeout=100)
    assert process.returncode == 2
    assert printed == "grounding: cluster= needs an extra: .venv/bin/pip install -e '.[slurm]'\n"


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("vm", "vm"),
        ("gpu-3,gpu-7", "gpu-3"),
        ("node[01-03,7],other", "node01"),
        ("node[8,10]", "node8"),
        ("rack2-n[003-004]", "rack2-n003"),
        ("a.b.org", "a.b.org"),
    ],
)
def test_the_ranks_of_srun_meet_at_the_first_node(nodes, host):
    step = {"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "1234567"}
    assert rendezvous_url(step) == f"tcp://{host}:24567"
    assert rendezvous_url(step | {"MASTER_ADDR": "other"}) is None
    assert rendezvous_url({"SLURM_JOB_NODELIST": nodes, "SLURM_JOB_ID": "1"}) is None


def test_a_rank_that_fails_in_a_sweep_exits_with_1(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["grounding", "-m", "step=train", "step._target_=builtins.bytes"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1


@pytest.mark.slow
@pytest.mark.parametrize(("deaths", "starts", "code"), [(0, 1, 0), (3, 4, 0), (9, 4, 1)])
def test_a_failed_step_is_started_again(tmp_path, deaths, starts, code):
    setup = OmegaConf.load(ROOT / "conf" / "cluster" / "slurm.yaml").hydra.launcher.setup
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$@" >> log\n[ $(wc -l < log) -gt {deaths} ] || exit 137\n')
    (tmp_path / "srun").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "2"}
    script = "\n".join([*setup, "srun --output 'a b' python"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code
    assert (tmp_path / "log").read_text() == "--output a b python\n" * starts

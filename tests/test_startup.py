"""What a process imports before its first answer, and that what replaces an import gives the same results."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from eval import benchmark_startup
from grounding.tagger.preprocessing import resize
from proposals import kernel_cache
from proposals.errors import InputError

ROOT = Path(__file__).parents[1]


def loaded_after(statement: str, *names: str) -> list[str]:
    """Those of ``names`` that a new process has imported after a statement."""
    code = f"{statement}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
def test_a_grounder_imports_no_compiler_and_no_other_library_that_it_does_not_use():
    unused = ("torch._dynamo", "torchvision", "matplotlib", "scipy.stats", "nltk", "hydra", "simplemma")
    photo = "numpy.full((64, 64, 3), 9, numpy.uint8)"
    assert not loaded_after(f"import grounding, numpy; grounding.Grounder.load().ground({photo}, ['a cat'])", *unused)


def test_an_error_of_the_proposals_package_needs_none_of_its_libraries():
    assert not loaded_after("from proposals import InputError", "numpy", "scipy", "numba", "torch")
    assert loaded_after("from proposals import SegmentProposer", "numba") == ["numba"]


def test_an_unknown_name_of_the_proposals_package_is_an_attribute_error():
    import proposals

    assert all(getattr(proposals, name).__name__ == name for name in proposals.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Magic'"):
        _ = proposals.Magic


@pytest.mark.parametrize("shape", [(512, 512), (97, 240), (333, 224), (420, 560)])
@pytest.mark.parametrize("size", [[224], [420], [333], [224, 224]])
@pytest.mark.parametrize("processor", [None, "DEFAULT"])
def test_resizing_equals_torchvision(monkeypatch, shape, size, processor):
    if processor:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = transforms.resize(torch.from_numpy(photo).permute(2, 0, 1)[None], size, antialias=True)
    ours = resize(photo, size)
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()


def test_the_benchmark_measures_new_processes():
    rows = benchmark_startup.compare({"idle": ["-c", "pass"], "busy": ["-c", "bytearray(10**8)"]}, 1)
    assert [row["start"] for row in rows] == ["idle", "busy"]
    assert rows[0]["times import torch"] == 1
    assert rows[1]["MB"] > rows[0]["MB"] + 80
    with pytest.raises(InputError, match="rounds=0 must be a whole number, 1 or more"):
        benchmark_startup.measure(rounds=0)
    with pytest.raises(InputError, match="'broken' ended with exit status 3: run 'python -c raise SystemExit"):
        benchmark_startup.compare({"broken": ["-c", "raise SystemExit(3)"]}, 1)


def test_kernels_are_kept_for_the_process_if_no_folder_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    kernel_cache.ensure_kernel_cache()  # the package's folder can be written
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "file" / "below")
    monkeypatch.setattr(kernel_cache.os, "access", lambda *_: False)
    removed = []
    monkeypatch.setattr(kernel_cache.atexit, "register", lambda *work, **_: removed.append(work[1]))
    kernel_cache.ensure_kernel_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert removed == [str(folder)]
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


def test_numba_compiles_although_its_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    code = "from numba import njit; import proposals.boxes"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file" / "below"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

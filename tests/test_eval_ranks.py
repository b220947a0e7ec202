"""``step=point``, ``localize`` and ``evaluate`` by several processes, one of which is killed: the results of one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_shards import tiny_tagger
from made_voc import write_photos

from eval import dominant, pointing
from eval.dominant import localize
from eval.evaluate import evaluate
from eval.pointing import point
from eval.shared_photos import identity
from eval.voc import Voc
from grounding import Grounder
from grounding.shards.photo_parts import SIZE, parts_of
from proposals import BoxProposer

PHOTOS = 90
CHILD = """
import sys
from pathlib import Path
import test_eval_ranks as own
grounder = own.make_grounder(Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
own.STEPS[sys.argv[1]](grounder, *map(Path, sys.argv[2:]))
"""


def make_grounder(root: Path) -> Grounder:
    path = root / f"tiny-{os.getpid()}.safetensors"
    tagger = tiny_tagger(path, ("cup", "dog", "cat"))
    return Grounder.load(tagger, proposer=BoxProposer(50, 32), method="mwp", side=224)


def run_point(grounder: Grounder, root: Path, output: Path) -> dict:
    return point(grounder, Voc(root, "toy"), {}, str(output), resamples=20, lease=60)


def run_localize(grounder: Grounder, root: Path, output: Path) -> dict:
    return localize(grounder, Voc(root, "toy"), {}, str(output), "largest", resamples=20, lease=60)


def run_evaluate(grounder: Grounder, root: Path, output: Path) -> dict:
    cache = str(output.parent / f"cache-{output.name}")
    return evaluate(grounder, str(root), "toy", str(output), photos=Voc(root, "toy"), cache=cache, lease=60)


STEPS: dict[str, Callable[[Grounder, Path, Path], dict]] = {
    "point": run_point,
    "localize": run_localize,
    "evaluate": run_evaluate,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("voc"), PHOTOS)


@pytest.fixture(scope="module")
def grounder(root) -> Grounder:
    return make_grounder(root)


def results(output: Path) -> dict[str, bytes]:
    """The files of results, without the parts."""
    return {path.name: path.read_bytes() for path in sorted(output.iterdir()) if path.is_file()}


def start(step: str, rank: int, ranks: int, root: Path, output: Path) -> subprocess.Popen:
    own = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    own["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", CHILD, step, str(root), str(output)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, env=os.environ | own, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def finish(processes: list[subprocess.Popen]) -> None:
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs


def begun(output: Path, step: str) -> bool:
    """Whether a process is within a part: it has answered some photos of it, and not all."""
    if step == "evaluate":
        return len(list(output.parent.glob(f"cache-{output.name}/maps-*/*.npz"))) > 2
    return any(path.read_bytes().count(b"\n") > 3 for path in output.glob("parts-*/.*.rows"))


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_two_ranks_and_four_of_which_one_is_killed_give_the_results_of_one_process(root, grounder, tmp_path, step):
    alone = STEPS[step](grounder, root, tmp_path / "one")
    assert alone["skipped_images"] == ["00007"]
    for ranks in (2, 4):
        output = tmp_path / str(ranks)
        processes = [start(step, rank, ranks, root, output) for rank in reversed(range(ranks))]
        if ranks == 4:
            killed = processes.pop(1)
            go(killed)
            while not begun(output, step):
                assert killed.poll() is None
                time.sleep(0.005)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            assert not (output / "metrics.json").exists()
        for process in processes:
            go(process)
        finish(processes)
        assert results(output) == results(tmp_path / "one")
    assert not [*tmp_path.rglob("leases/*")]
    assert not [*tmp_path.rglob("*.rows")]


def test_photos_that_were_answered_are_not_answered_again(root, grounder, tmp_path, monkeypatch):
    asked = []
    plain = pointing.play

    def play(grounder, photo, *rest):
        asked.append(photo.id)
        if len(asked) == 30:
            raise KeyboardInterrupt
        return plain(grounder, photo, *rest)

    monkeypatch.setattr(pointing, "play", play)
    with pytest.raises(KeyboardInterrupt):
        run_point(grounder, root, tmp_path / "out")
    again = run_point(grounder, root, tmp_path / "out")
    assert asked == [f"{number:05d}" for number in [*range(30), *range(29, PHOTOS)]]
    monkeypatch.setattr(pointing, "play", lambda *_: pytest.fail("answered again"))
    assert run_point(grounder, root, tmp_path / "out") == again
    monkeypatch.undo()
    assert run_point(grounder, root, tmp_path / "whole") == again
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_answers_of_other_photos_and_settings_are_not_used(root, grounder, tmp_path, monkeypatch):
    counts = []

    def count(step: str) -> int:
        STEPS[step](grounder, root, tmp_path / "out")
        return len(counts)

    monkeypatch.setattr(pointing, "play", lambda *_: counts.append(1) or pointing_result())
    monkeypatch.setattr(dominant, "alpha_overlaps", lambda *_: counts.append(1) or dominant.np.ones(21))
    assert count("point") == PHOTOS
    assert count("point") == PHOTOS
    image = root / "JPEGImages" / "00003.jpg"
    data = image.read_bytes()
    image.write_bytes(data + b"\0")
    assert count("point") == 2 * PHOTOS
    image.write_bytes(data)
    assert count("point") == 2 * PHOTOS
    xml = root / "Annotations" / "00003.xml"
    text = xml.read_text()
    xml.write_text(text.replace("<xmax>40", "<xmax>41"))
    assert count("point") == 3 * PHOTOS
    xml.write_text(text)
    before = len(counts)
    assert before < count("localize") < before + PHOTOS  # some have no tag, or no dominant object


def pointing_result() -> list:
    return [pointing.CueResult("1", "cup", difficult=False, centred=True, known=True, point=(1, 2), hit=True)]


def test_the_key_has_the_weights_and_all_settings(root, grounder, tmp_path):
    photos = [Voc(root, "toy").read(name) for name in ("00000", "00001")]
    keys = [
        identity(grounder, photos, {"limit": 1}),
        identity(grounder, photos, {"limit": 2}),
        identity(grounder, photos[:1], {"limit": 1}),
        identity(Grounder(grounder.tagger, grounder.proposer, replaced(grounder, gamma=0.9)), photos, {"limit": 1}),
        identity(Grounder(grounder.tagger, BoxProposer(40, 32), grounder.settings), photos, {"limit": 1}),
    ]
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(keys)
    assert keys[0] == identity(grounder, photos, {"limit": 1})


def replaced(grounder: Grounder, **changed: float):
    from dataclasses import replace

    return replace(grounder.settings, **changed)


def test_parts_have_all_photos_once():
    parts = parts_of(list(range(2 * SIZE + 1)))
    assert [len(part) for part in parts.values()] == [SIZE, SIZE, 1]
    assert [number for part in parts.values() for number in part] == list(range(2 * SIZE + 1))
    assert parts_of([]) == {}

"""The command line: its output, its files and its error messages."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run_here
from entities_folder import write_entities
from PIL import Image

from grounding.__main__ import main


def grounding(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONWARNINGS": "default"}
    environment.pop("HYDRA_FULL_ERROR", None)
    command = [sys.executable, "-m", "grounding", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_ground_a_photo(tmp_path, coffee):
    done = grounding(tmp_path, f"image={coffee}", "phrases=[a cup of coffee, a zorgophone]")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    known, unknown = done.stdout.splitlines()[1:3]
    assert known.startswith("a cup of coffee")
    assert "not groundable" in unknown
    assert unknown.endswith("zorgophone")
    record = json.loads((tmp_path / "runs" / "ground" / "groundings.json").read_text())
    assert [g["groundable"] for g in record["groundings"]] == [True, False]
    assert (tmp_path / "runs" / "ground" / "01-a-cup-of-coffee.png").exists()


def test_phrases_are_extracted_from_captions(tmp_path):
    (tmp_path / "captions.txt").write_text("A man in a red shirt rides a brown horse .\n")
    done = run_here(tmp_path, "step=phrases", "captions=captions.txt")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "runs" / "phrases" / "phrases.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == ["A man", "a red shirt", "a brown horse"]
    assert lines[1]["tags"] == ["red", "shirt", "shirts", "t-shirt", "tee shirt"]


@pytest.mark.slow
def test_a_sweep_runs_every_job(tmp_path, coffee):
    arguments = [f"image={coffee}", "phrases=[a cup]", "attention=mwp,c-mwp", "gamma=0.25,0.75", "name=mine"]
    done = grounding(tmp_path, "-m", *arguments)
    assert done.returncode == 0, done.stderr
    records = sorted((tmp_path / "runs" / "mine-sweep").glob("*/groundings.json"))
    assert [record.parent.name for record in records] == ["0", "1", "2", "3"]
    assert len({record.read_text() for record in records}) == 4


@pytest.mark.slow
def test_a_sweep_with_failing_jobs_joins_the_others_and_names_each(tmp_path):
    write_entities(tmp_path)
    arguments = ["step=evaluate", "data.root=.", "data.split=toy", "cache=null", "gamma=0.5,-1,-2"]
    done = grounding(tmp_path, "-m", *arguments)
    assert done.returncode == 1
    assert "| 0 | gamma=0.5 | c-mwp-partial, our segments |" in done.stdout
    failures = [line for line in done.stderr.splitlines() if line.startswith("grounding:")]
    assert failures == [
        f"grounding: job {number} (gamma={gamma}) failed: gamma={gamma} must be a number >= 0; the paper uses 0 to 1"
        for number, gamma in ((1, -1), (2, -2))
    ]
    assert "| 2 | gamma=-2 | gamma=-2 must be" in (tmp_path / "runs" / "evaluate-sweep" / "tables.md").read_text()


def test_a_sweep_of_one_job_ends_as_the_job_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr(sys, "argv", ["grounding", "-m", "step=evaluate", "data.root=.", *quiet])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("grounding: . has no images: set data.root")


def test_a_bug_in_one_job_of_a_sweep_keeps_its_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    asked = ["step=train", "step._target_=builtins.bytes,builtins.dict"]
    monkeypatch.setattr(sys, "argv", ["grounding", "-m", *asked, *quiet])
    with pytest.raises(Exception, match="bytes"):
        main()
    assert "grounding: job 0 (step._target_=builtins.bytes) failed: InstantiationException: " in capsys.readouterr().err


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:2000])


SMALL = "attention.side=224"  # the photo is looked at before this is refused
REFUSALS = {
    "no image": (["phrases=[a cat]"], "no image: set image=PHOTO"),
    "missing image": (["image=nowhere.jpg", "phrases=[a cat]"], "nowhere.jpg: no such image file"),
    "text": (["image=text.jpg", "phrases=[a cat]"], "text.jpg cannot be read as an image"),
    "truncated": (["image=half.jpg", "phrases=[a cat]"], "half.jpg is truncated or corrupt"),
    "no format": (["image=PHOTO", "phrases=[a cat]", "format=xml"], "there is no format 'xml'"),
    "no device": (["image=PHOTO", "phrases=[a cat]", "device=tpu"], "device=tpu is not a PyTorch device"),
    "no file of phrases": (["image=PHOTO", "phrases=a cat"], "the file phrases=a cat cannot be read"),
    "unquoted signs": (
        ["step=layers", "image=PHOTO", "phrases=[a cat]", "name=Tür?"],
        """name=Tür? cannot be read: put text with other characters than letters, digits and spaces into quotes: """
        """'name="Tür?"'""",
    ),
    "open bracket": (["image=PHOTO", "phrases=[a cat"], "phrases=[a cat cannot be read: close each bracket"),
    "nothing fits": (["image=*.webp", "phrases=[a cat]"], "*.webp: no file matches this pattern"),
    "none fit for use": (["image=*.jpg", "phrases=[a cat]"], "none of 2 files can be used"),
    "no phrases": ([SMALL, "image=PHOTO", "phrases=[]"], "no phrase to ground"),
    "empty phrase": ([SMALL, "image=PHOTO", "phrases=[a cat,'']"], "a phrase is empty"),
    "unknown step": (["step=fly"], "there is no step=fly"),
    "unknown key": (["imag=PHOTO"], "there is no setting imag; did you mean image?"),
    "no tagger": (["image=PHOTO", "phrases=[a cat]", "tagger.path=text.jpg"], "not a safetensors file"),
    "no method": (["image=PHOTO", "phrases=[a cat]", "attention=magic"], "there is no attention=magic"),
    "bad gamma": ([SMALL, "image=PHOTO", "phrases=[a cat]", "gamma=-1"], "gamma=-1 must be a number"),
    "text as gamma": (["image=PHOTO", "phrases=[a cat]", "gamma=abc"], "gamma=abc must be a number"),
    "bad presence": (["image=PHOTO", "phrases=[a cat]", "presence=nan"], "presence=nan must be in 0..1"),
    "no annotations": (["step=evaluate", "data.root=."], "has no images: set data.root"),
    "no objects": (["step=point", "data=flickr30k_entities"], "no annotated objects: set data=voc2012"),
    "no object": (["step=localize", "data=flickr8k"], "no annotated objects: set data=voc2012"),
    "no photos": (["step=attend", "step.limit=0"], "limit=0 must be a whole number, 1 or more"),
    "minus photos": (["step=rescore", "step.limit=-1"], "limit=-1 must be a whole number, 1 or more"),
    "no shards": (["step=train", "data.root=."], "has no complete shards"),
    "no captions": (["step=phrases", "captions=nowhere.txt"], "nowhere.txt cannot be read"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_invalid_input_is_refused_in_one_line_with_exit_code_2(tmp_path, coffee, monkeypatch, capsys, name):
    arguments, message = REFUSALS[name]
    (tmp_path / "text.jpg").write_text("no photo")
    truncated(tmp_path / "half.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    # without log files, because they would stay open in this process
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr(sys, "argv", ["grounding", *(a.replace("PHOTO", str(coffee)) for a in arguments), *quiet])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_refusal_in_a_new_process(tmp_path):
    done = grounding(tmp_path, "image=nowhere.jpg", "phrases=[a cat]")
    assert done.returncode == 2
    assert done.stderr == "grounding: nowhere.jpg: no such image file\n"


def test_the_exit_code_is_3_if_some_images_were_skipped(tmp_path, coffee, caplog):
    (tmp_path / "album").mkdir()
    Image.open(coffee).resize((96, 64)).save(tmp_path / "album" / "cup.png")
    (tmp_path / "album" / "text.jpg").write_text("no photo")
    (tmp_path / "phrases.txt").write_text("a cup\n☕\n", "utf-8")
    done = run_here(tmp_path, SMALL, "image=album", "phrases=phrases.txt", "format=csv")
    message = "2 files: 1 kept, 1 unusable; see"
    assert done.stderr == f"grounding: {message} {tmp_path}/runs/ground/skipped.jsonl\n"
    assert done.returncode == 3
    assert "2 images: 1 kept, 1 unusable: album/text.jpg cannot be read as an image" in caplog.text
    assert "album/cup.png,☕,false" in (tmp_path / "runs" / "ground" / "groundings.csv").read_text("utf-8")


@pytest.mark.slow
def test_a_warning_reaches_the_terminal(tmp_path, coffee):
    (tmp_path / "album").mkdir()
    Image.open(coffee).resize((96, 64)).save(tmp_path / "album" / "cup.png")
    (tmp_path / "album" / "text.jpg").write_text("no photo")
    done = grounding(tmp_path, SMALL, "image=album", "phrases=[a cup]")
    assert "WARNING 2 images: 1 kept, 1 unusable: album/text.jpg cannot be read as an image" in done.stdout
    assert done.returncode == 3


def test_shell_completion(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "COMP_LINE": "grounding attention=c-m"}
    command = [sys.executable, "-m", "grounding", "--shell-completion", "query=bash"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == [
        "attention=c-mwp",
        "attention=c-mwp-nonorm",
        "attention=c-mwp-nonorm-pools",
        "attention=c-mwp-partial",
        "attention=c-mwp-postnorm",
    ]


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["grounding", "step._target_=grounding.steps.ground.no_such_function"])
    with pytest.raises(Exception, match="no_such_function"):
        main()

"""``step=all``: every command once, those that failed again, and one file with what all of them printed."""

import json
import logging
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest
from command_line import run_here

from eval.all_tables import all_tables
from grounding.tagger.packaged import tagger_path
from proposals.errors import InputError

PHRASES = ["step=phrases", "captions=captions.txt"]


@pytest.fixture
def tagger(tmp_path, monkeypatch) -> str:
    """A copy of the tagger of the package, in the working folder, and captions beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.txt").write_text("A man rides a brown horse .\n")
    return str(shutil.copy(tagger_path(None), tmp_path / "my, [1] tagger.safetensors"))


@pytest.fixture
def here(monkeypatch) -> None:
    """The commands run in this process."""

    def run(command: list[str], stdout, stderr, env: dict[str, str]) -> CompletedProcess[str]:
        done = run_here(Path(), *command[3:])
        stdout.write(done.stdout.encode())
        stderr.write(done.stderr.encode())
        return done

    monkeypatch.setattr("eval.all_tables.subprocess", SimpleNamespace(run=run))


def test_a_command_is_refused_in_one_line(tagger, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as main() does
    with pytest.raises(InputError, match="a: grounding: there is no setting nothing"):
        all_tables({"a": ["step=phrases", "nothing=1"]}, None, "out")


@pytest.mark.slow  # each command in a process of its own
def test_each_command_runs_until_it_has_succeeded(tagger, caplog):
    commands = {"right": PHRASES, "wrong": ["step=phrases", "captions=missing.txt"]}
    with pytest.raises(
        InputError, match=r"1 of 2 commands failed; correct the cause and start again\. wrong: .*missing"
    ):
        all_tables(commands, tagger, "out")
    assert Path("out/right/phrases.jsonl").is_file()
    text = Path("out/tables.md").read_text()
    assert "## right\n\n    grounding step=phrases captions=captions.txt\n\n" in text
    assert "## wrong\n\nNot done." in text

    Path("missing.txt").write_text("A horse .\n")
    Path("out/right/phrases.jsonl").unlink()
    with caplog.at_level(logging.INFO, "eval.all_tables"):
        all_tables(commands, tagger, "out")
    assert [message.split(":")[0] for message in caplog.messages] == ["1 of 2, right", "2 of 2, wrong"]
    assert caplog.messages[0].endswith("done before") and not Path("out/right/phrases.jsonl").exists()
    assert Path("out/wrong/phrases.jsonl").is_file() and "Not done" not in Path("out/tables.md").read_text()


def test_another_tagger_or_setting_runs_the_command_again(tagger, here):
    for number, (settings, path) in enumerate([(PHRASES, tagger), (PHRASES, None), ([*PHRASES, "seed=1"], None)]):
        all_tables({"a": settings}, path, "out")
        command = json.loads(Path("out/a.done.json").read_bytes())["command"]
        assert command[len(settings) :] == ([] if path is None else [f"tagger.path={json.dumps(path)}"])
        Path("out/a/phrases.jsonl").rename(f"{number}.jsonl")  # each run has written it
    Path("out/a.txt").unlink()
    all_tables({"a": [*PHRASES, "seed=1"]}, None, "out")  # without what it printed, a command is not done
    assert Path("out/a/phrases.jsonl").is_file() and Path("out/a.txt").is_file()


def test_the_table_of_earlier_settings_is_not_shown_if_the_command_fails_now(tagger, here):
    all_tables({"a": PHRASES}, None, "out")
    for _ in range(2):
        with pytest.raises(InputError, match="1 of 1 commands failed"):
            all_tables({"a": ["step=phrases", "captions=missing.txt"]}, None, "out")
        assert "Not done." in Path("out/tables.md").read_text()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(tagger, name):
    with pytest.raises(InputError, match=r"cannot be the name of a folder: give another name in step\.commands="):
        all_tables({name: PHRASES}, tagger, "out")


def test_without_a_command_nothing_is_done(tagger):
    with pytest.raises(InputError, match=r"there is no command: give step\.commands="):
        all_tables({}, tagger, "out")

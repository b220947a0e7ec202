"""A few executions of each target of ``make fuzz``, and what longer runs have found."""

import json
import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import fuzz

from eval.phrase_list import phrase_label, read_phrase_list
from proposals.errors import InputError


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_changed_inputs_are_read_or_refused(name, tmp_path):
    target = fuzz.TARGETS[name]
    for data in islice(fuzz.inputs(target, 1), 4 if name in ("overrides", "sentences") else 30):
        fuzz.execute(target, data, tmp_path)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_an_unchanged_input_is_read(name, tmp_path):
    target = fuzz.TARGETS[name]
    refused = [fuzz.execute(target, data, tmp_path) for data in target.seeds]
    assert not all(refused) or name == "tagger"  # its network lacks most weights


def test_executions_are_counted(tmp_path, capsys, monkeypatch):
    path = tmp_path / "counts.json"
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seconds", "0.2", "--targets", "voc,mat", "--json", str(path)])
    monkeypatch.setattr(fuzz, "_limit_memory", lambda: None)
    assert fuzz.main() == 0
    counts = json.loads(path.read_text())
    assert counts["executions"] == sum(target["executions"] for target in counts["targets"]) > 20
    assert counts["crashes"] == 0
    assert all(0 < target["lines"] <= target["of_lines"] for target in counts["targets"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("all ")


def test_a_crash_is_counted_and_slow_executions_end(tmp_path, monkeypatch):
    def read(data: bytes) -> None:
        while data:
            pass
        raise KeyError

    monkeypatch.setitem(fuzz.TARGETS, "slow", fuzz.Target((b"",), lambda data: data and read(data)))
    monkeypatch.setattr(fuzz, "SLOW", 0.05)
    assert fuzz.fuzz("slow", 0.2, 0).crashes[0].startswith("TimeoutError")


def test_inputs_depend_on_the_seed_only():
    first, again, other = (list(islice(fuzz.inputs(fuzz.TARGETS["voc"], seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


def test_numbers_of_thousands_of_digits(tmp_path):
    long = "9" * 5000
    assert phrase_label(f"{long} dogs") == f"{long} dogs"
    path = tmp_path / "phraseList.txt"
    for line in (f"1 {long} 1 1 a dog", f"1 1 {long} 1 a dog", "1 0 1 1 a dog"):
        path.write_text(line)
        with pytest.raises(InputError, match=r"phraseList.txt:1: a line must be IMAGE SENTENCE PHRASE MATCH WORDS"):
            read_phrase_list(path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["photo.jpg", "a cat", f"experiment=pap{'9' * 5000}"], "there is no experiment=pap9"),
        (["-m", "photo.jpg", "a cat", f"gamma={'9' * 5000}"], "write a shorter number"),
        (["image=photo.jpg", "pho.x=mwp", "~tagger.presence"], "pho"),
        (["-m", "photo.jpg", "a cat", "gamma=0.25,range(0,1,0.%)"], "gamma=0.25,range.* cannot be read"),
    ],
)
def test_command_lines(words, reason):
    with pytest.raises(InputError, match=reason):
        fuzz.TARGETS["overrides"].read("\n".join(words).encode())

"""A few executions of each target of ``make fuzz``, and what longer runs have found."""

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
    for data in islice(fuzz.inputs(target, 1), 30):
        fuzz.execute(target, data, tmp_path)


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

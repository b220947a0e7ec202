"""The ledger: what came in is what was kept and what was skipped."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.runtime.ledger import IN_MEMORY, Ledger, LedgerError, Skipped, show_names
from proposals.errors import InputError

REASONS = st.sampled_from(["", "unreadable", "without text"])  # "": kept


def fill(ledger: Ledger, outcomes: list[str]) -> Ledger:
    for number, reason in ledger.reading(enumerate(outcomes)):
        if reason:
            ledger.skip(f"{number}.jpg", reason, "why")
        else:
            ledger.keep()
    return ledger


@given(st.lists(REASONS, max_size=30), st.lists(REASONS, max_size=30))
def test_two_parts_make_the_whole(first, second):
    whole = fill(Ledger("photos"), first)
    whole.add_json(json.loads(json.dumps(fill(Ledger("photos"), second).to_json())))
    whole.check()
    assert whole.came == len(first) + len(second)
    assert whole.kept == (first + second).count("")
    assert [skipped.reason for skipped in whole.skipped] == [reason for reason in first + second if reason]


def test_the_line_has_the_most_frequent_reason_first():
    ledger = fill(Ledger("photos"), [""] * 1200 + ["unreadable"] + ["without text"] * 2)
    assert ledger.line() == "1,203 photos: 1,200 kept, 2 without text, 1 unreadable"


@pytest.mark.parametrize("wrong", ["lost", "twice"])
def test_a_thing_that_is_lost_or_counted_twice_is_a_fault(wrong, tmp_path):
    ledger = fill(Ledger("photos"), ["", ""])
    ledger.came_in("3.jpg") if wrong == "lost" else ledger.keep()
    with pytest.raises(LedgerError, match="report this"):
        ledger.finish(tmp_path)
    assert not list(tmp_path.iterdir())


def test_finish_writes_the_list_and_says_where(tmp_path, caplog):
    fill(Ledger("photos"), ["", "unreadable"]).finish(tmp_path)
    assert caplog.messages == [f"2 photos: 1 kept, 1 unreadable; see {tmp_path / 'skipped.jsonl'}"]
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "1.jpg", "reason": "unreadable", "detail": "why", "where": ""}
    ]


def test_a_run_without_skipped_things_replaces_the_list(tmp_path, caplog):
    (tmp_path / "skipped.jsonl").write_text("old\n")
    with caplog.at_level(logging.INFO):
        fill(Ledger("photos"), [""]).finish(tmp_path)
    assert caplog.messages == ["1 photos: 1 kept"]
    assert (tmp_path / "skipped.jsonl").read_text() == ""


def test_nothing_kept_says_what_was_looked_for_and_what_is_there(tmp_path):
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    for name in ("b.png", "c.png", "d.png"):
        (photos / name).touch()
    ledger = Ledger("photos", photos, "give the right folder")
    for name in ledger.reading(["1.jpg", "2.jpg", "3.jpg", "4.jpg"]):
        ledger.skip(name, "unreadable", "no such file")
    with pytest.raises(InputError) as error:
        ledger.finish(tmp_path)
    assert str(error.value) == (
        f"none of 4 photos can be used (4 unreadable): looked in {photos} for 1.jpg, 2.jpg, 3.jpg; "
        "found there: a/, b.png, c.png; the first: 1.jpg: no such file; give the right folder"
    )
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 4


def test_nothing_came_in(tmp_path):
    with pytest.raises(InputError, match=r"^there are no photos: looked in .*; found there: nothing; give others$"):
        Ledger("photos", tmp_path, "give others").require_kept()
    with pytest.raises(InputError, match=r"^there are no photos; give others$"):
        Ledger("photos", None, "give others").require_kept()
    with pytest.raises(InputError, match=r"^there are no photos: looked; found there: x\.gif; give others$"):
        Ledger("photos", None, "give others").require_kept(["x.gif"])


def test_a_long_list_is_in_a_file_and_can_grow_while_it_is_read():
    ledger = Ledger("photos")
    long = "x" * (IN_MEMORY // 4)
    for number in ledger.reading(range(8)):
        ledger.skip(number, "unreadable", long)
    names = []
    for skipped in ledger.skipped:
        names.append(skipped.name)
        if skipped.name == "0":
            ledger.came_in(8)
            ledger.skip(8, "late")
    assert names == [str(number) for number in range(9)]
    ledger.check()


def test_names_of_any_bytes_are_listed_and_shown(tmp_path):
    ledger = fill(Ledger("photos"), [""])
    ledger.came_in("a\nb")
    ledger.skip("caf\udce9.jpg", "unreadable", "line\nbreak")
    ledger.finish(tmp_path)
    assert json.loads((tmp_path / "skipped.jsonl").read_bytes())["name"] == "caf\udce9.jpg"
    assert show_names(["a\nb", "caf\udce9", "x" * 100, "4"]) == rf"a\nb, caf\udce9, {'x' * 60}…"


def test_a_message_that_has_the_name_does_not_repeat_it():
    assert str(Skipped("a.jpg", "unreadable", "a.jpg cannot be read")) == "a.jpg cannot be read"
    assert str(Skipped("a.jpg", "unreadable")) == "a.jpg: unreadable"


def test_a_missing_folder_is_no_second_error():
    with pytest.raises(InputError, match=r"looked in /missing for 0\.jpg; "):
        ledger = Ledger("photos", Path("/missing"))
        ledger.came_in("0.jpg")
        ledger.skip("0.jpg", "unreadable", "no such file")
        ledger.require_kept()

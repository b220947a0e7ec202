"""Items of one key are joined in the order of their first ones, in memory or through files."""

import json
import sys
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposals.errors import InputError
from training import grouping
from training.grouping import grouped

VALUES = st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4)


@given(st.lists(st.tuples(st.text(max_size=2), VALUES), max_size=40), st.integers(0, 5000))
def test_groups(items, in_memory):
    expected: dict[str, list] = {}
    for key, value in items:
        expected.setdefault(key, []).append(value)
    assert list(grouped(items, in_memory)) == list(expected.items())


def test_lone_surrogates_survive_the_files():
    assert list(grouped([("caf\udce9", "\ud800"), ("b", "x"), ("caf\udce9", 2)], 0)) == [
        ("caf\udce9", ["\ud800", 2]),
        ("b", ["x"]),
    ]


def test_memory_does_not_grow_with_the_items():
    resource = pytest.importorskip("resource")
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    items = ((str(i % 50_000), ["x" * 100]) for i in range(400_000))
    count = sum(len(values) for _, values in grouped(items, 10_000_000))
    assert count == 400_000
    # all items together would take 200 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before < 100e6


def test_a_full_disk_is_a_clear_error(monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(grouping, "TemporaryFile", Full)
    with pytest.raises(InputError, match=r"temporary file cannot be written \(No space left on device\): set TMPDIR"):
        list(grouped([("a", 1), ("b", 2)], 0))


def test_the_files_are_read_back_in_the_order_of_their_groups():
    with TemporaryFile() as file:
        file.writelines(json.dumps(line).encode() + b"\n" for line in ([3, "b", 1], [5, "a", 2], [7, "b", 3]))
        assert list(grouping._group_file(file)) == [[3, "b", [1, 3]], [5, "a", [2]]]

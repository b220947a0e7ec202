"""Cells as pandas, NumPy, Excel and web pages write them."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.cells import column_names, plain_text, split_tags
from training.sample_text import SampleText

TAG = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="&<>"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("['dog', 'ice cream']", ["dog", "ice cream"]),  # pandas, of a list
        ("('dog', \"it's\")", ["dog", "it's"]),
        ("{'dog', 'cat'}", ["dog", "cat"]),
        ("['dog' 'ice cream'\n 'cat']", ["dog", "ice cream", "cat"]),  # NumPy
        ("['dog', nan, None, 'a\\'b', 'caf\\xe9']", ["dog", "a'b", "café"]),
        ('["a", "b;c"]', ["a", "b;c"]),
        ('["a", 3]', ["a"]),
        ("[]", []),
        ("[dog, 'ice cream']", ["dog", "ice cream"]),
        ("[dog; cat]", ["dog", "cat"]),
        ("[oh, no", ["[oh", " no"]),
        ("(red) dog", ["(red) dog"]),
        ("dog，cat、tree；sky｜sea", ["dog", "cat", "tree", "sky", "sea"]),
        ("كلب،قطة؛شجرة", ["كلب", "قطة", "شجرة"]),
        ("dog\ncat\tsun", ["dog", "cat", "sun"]),
        ("rock &amp; roll;dog", ["rock & roll", "dog"]),
        ("&lt;b&gt;dog&lt;/b&gt;,cat&#39;s", [" dog ", "cat's"]),
        ("dog &amp;amp; cat", ["dog & cat"]),
        ("R&B, AT&T;", ["R&B", " AT&T", ""]),
        ("I <3 dogs", ["I <3 dogs"]),
    ],
)
def test_tags_of_a_cell(cell, tags):
    assert split_tags(cell) == tags


@given(st.lists(TAG), st.sampled_from([repr, lambda tags: repr(tuple(tags)), str]))
def test_what_python_writes_is_read_back(tags, write):
    assert split_tags(write(tags)) == tags or not tags


@given(st.text(max_size=40))
def test_any_cell_gives_texts(cell):
    assert all(isinstance(tag, str) for tag in split_tags(cell) + split_tags(f"[{cell}]"))
    plain_text(cell)


def test_hostile_cells_are_only_text():
    for cell in ("[" * 100_000 + "]", "['a'" + "('" * 50_000 + "]", "[__import__('os').system('true')]"):
        assert all(isinstance(tag, str) for tag in split_tags(cell))


def test_captions_may_be_lists_too():
    captions = ("A dog, running.", "A dog's ball.")
    assert SampleText.of({"Caption": repr(list(captions))}) == SampleText(captions=captions)
    assert SampleText.of({"caption": "A <b>dog</b> &amp; a cat"}) == SampleText(captions=("A  dog  & a cat",))
    assert SampleText.of({"caption": "[Explored] a dog"}) == SampleText(captions=("[Explored] a dog",))


def test_names_of_columns():
    assert column_names({"File Name": 1, "TAGS": 2, "\ufeffimage-path": 3}) == {
        "file_name": 1,
        "tags": 2,
        "image_path": 3,
    }
    assert column_names({"Caption": 1, "caption": 2, "CAPTION": 3}) == {"caption": 2}


def test_the_cells_of_a_csv_file_survive():
    file = io.StringIO()
    csv.writer(file).writerow([["dog", 'a "red" mug'], "x"])
    (cell, _) = next(csv.reader(io.StringIO(file.getvalue())))
    assert split_tags(cell) == ["dog", 'a "red" mug']

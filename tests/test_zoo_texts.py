"""Any text that a tool writes into a table is read as it is, with any delimiter, quoting and line end."""

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.sample_text import SampleText
from training.table_readers import read_table

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=15) | st.text("a,;|\t\"'\\ éж\n", max_size=8)
ROWS = st.lists(st.tuples(st.integers(0, 9).map("photos/{}.jpg".format), TEXTS), min_size=1, max_size=5)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@given(rows=ROWS, first=st.booleans())
def test_tables_of_any_text(tmp_path_factory, delimiter, quoting, line_end, rows, first):
    """The caption is the first or the last column, with an index beside it."""
    table, path = StringIO(), tmp_path_factory.mktemp("zoo") / "table.csv"
    writer = csv.writer(table, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    columns = ["caption", "", "image"] if first else ["image", "", "caption"]
    writer.writerow(columns)
    for number, (image, text) in enumerate(rows):
        writer.writerow([text, number, image] if first else [image, number, text])
    path.write_bytes(table.getvalue().encode())
    found = [(row["image"], SampleText.of(row)) for row in read_table(path)]
    assert found == [(image, SampleText.of({"caption": text.strip()})) for image, text in rows]

"""The notebook runs without errors, and its results are the ones that its text describes."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "from-captions-to-boxes.ipynb"
BOXES = "import json; print(json.dumps([answer.boxes[0].tolist() for answer in answers]))"


@pytest.mark.slow
def test_the_notebook_goes_from_captions_to_boxes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(new_code_cell(BOXES))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    shown = [output.data for output in outputs if "data" in output]
    assert "Grounding('a saucer': not groundable, skipped=('saucer',))" in shown[1]["text/plain"]
    assert "image/png" in shown[3]
    # the kitten is in the left half, the cup in the right one, near (306, 62)
    (left, _, right, _), (x1, y1, x2, y2) = json.loads(outputs[-1]["text"])
    assert left + right < 2 * 200 < x1 + x2
    assert x1 < 306 < x2 and y1 < 62 < y2


def test_the_notebook_is_light():
    assert NOTEBOOK.stat().st_size < 300_000

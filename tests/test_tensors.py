"""Tensors files: equal tensors and metadata give equal bytes, and what is written is read."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from source_tree import imported_names, modules

from grounding import TagClassifier, Vocabulary
from grounding.tagger.tensors import read_tensors, write_tensors

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KINDS = [torch.float16, torch.float32, torch.int64, torch.bool]


def tensors(names: list[str]) -> dict[str, torch.Tensor]:
    """A tensor of another shape and type for each name, which depends on the name only."""
    return {name: torch.arange(len(name) * 3).reshape(3, -1).to(KINDS[len(name) % 4]) for name in names}


@given(
    st.lists(TEXT.filter(lambda name: name != "__metadata__"), min_size=1, unique=True),
    st.dictionaries(TEXT, TEXT),
    st.data(),
)
def test_the_order_changes_no_byte(tmp_path_factory, names, metadata, data):
    folder = tmp_path_factory.mktemp("tensors")
    write_tensors(folder / "a", tensors(names), metadata)
    mixed = {name: metadata[name] for name in data.draw(st.permutations(list(metadata)))}
    write_tensors(folder / "b", tensors(data.draw(st.permutations(names))), mixed)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    found_metadata, found = read_tensors(folder / "a")
    assert found_metadata == metadata
    assert found.keys() == set(names)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors(names).items())


def test_a_tagger_is_saved_to_the_same_bytes(tmp_path):
    tagger = TagClassifier("googlenet", Vocabulary(["dog", "café"]))
    notes = {f"note{i}": str(i) for i in range(20)}
    for name in "ab":
        tagger.save(tmp_path / name, **notes)
        notes = dict(reversed(notes.items()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", "pt") as file:
        assert list(file.metadata()) and set(file.keys()) == set(tagger.state_dict())


@pytest.mark.parametrize("name", modules())
def test_one_module_writes_tensors(name):
    writes = {"safetensors.torch.save", "safetensors.torch.save_file", "torch.save"}
    text = Path(modules()[name]).read_text("utf-8")
    allowed = name == "grounding.tagger.tensors"
    assert allowed or (not writes & set(imported_names(modules()[name])) and "torch.save(" not in text)

"""The recipe that gives photos an ordered list of tags: docs/recipes/tag_photos.py."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from made_tars import photo, write_tar
from test_initialization import caffe_file

from training.sharding import shard
from training.sources import find_source

RECIPE = Path(__file__).parents[1] / "docs" / "recipes" / "tag_photos.py"


@pytest.fixture(scope="module")
def recipe() -> dict:
    return runpy.run_path(str(RECIPE))


def test_pairs_are_neighbours_and_have_no_function_word(recipe):
    assert recipe["pairs"]("A black dog, a ball and two red cars run") == {
        "black dog": True,
        "two red": False,
        "red cars": True,
        "cars run": False,
    }


def test_the_words_in_which_most_captions_agree_come_first_then_nouns(recipe):
    captions = ["a black dog jumps", "the dog has a ball", "a black dog"]
    tags = recipe["caption_order"](captions, {"black dog"})
    assert tags == ["dog", "black dog", "black", "ball", "jumps"]
    assert recipe["caption_order"](captions, set()) == ["dog", "black", "ball", "jumps"]
    assert recipe["caption_order"](["a dog and a ball", "a cat"], set()) == ["dog", "ball", "cat"]


def test_a_tar_becomes_a_tar_of_tags_that_step_shards_reads(recipe, tmp_path, capsys):
    said = ["two dogs and a red ball on the beach", "a red ball", "a dog"]
    texts = [{"json": json.dumps({"captions": [text]}).encode()} for text in said]
    samples = [{"__key__": f"{i}", "jpg": photo(i)} | text for i, text in enumerate([*texts, {}])]
    samples.insert(1, {"__key__": "broken", "jpg": photo(9)[:200]} | texts[2])  # with few words, so it is decoded
    write_tar(tmp_path / "crawl" / "photos.tar", samples)
    torch.manual_seed(0)
    caffe_file(tmp_path / "net.safetensors", classes=1000)
    Path(tmp_path, "names.txt").write_text("\n".join(f"n{i:08} Thing {i}, Other {i}" for i in range(1000)))
    network, names, crawl = (str(tmp_path / name) for name in ("net.safetensors", "names.txt", "crawl"))
    recipe["main"](network, names, str(tmp_path / "tagged"), [crawl])
    assert capsys.readouterr().err.startswith("broken is left out: ")
    (unit,) = find_source(tmp_path / "tagged").units()
    first, second, third, last = (list(sample.text.tags) for sample in unit.samples())
    assert first == ["dogs", "ball", "beach", "red ball", "two", "red"]
    assert second[:3] == ["ball", "red ball", "red"]
    assert third[:1] == ["dog"]
    assert last
    for found in (second[3:], third[1:], last):  # both names of each probable class
        assert found[::2] == [f"thing {name.split()[1]}" for name in found[1::2]]
    shards = shard(str(tmp_path / "tagged"), str(tmp_path / "shards"), min_images=1, held_out=0, workers=0)
    assert shards["train"] == 4

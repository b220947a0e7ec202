"""docs/fidelity.md names files and tests that exist, and the settings of the paper are those that it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from scipy.ndimage import gaussian_filter

from grounding.maps import blur

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fidelity.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w./-]+\.(?:py|yaml|md|txt))(?:::(\w+))?`", PAGE)))
SECTIONS = [part for part in PAGE.split("\n## ") if "| the paper | where | held by |" in part]


@pytest.mark.parametrize(("path", "test"), NAMED)
def test_each_path_and_test_of_the_page_exists(path, test):
    assert (ROOT / path).is_file()
    assert not test or f"\ndef {test}(" in (ROOT / path).read_text("utf-8")


def test_each_sentence_has_a_place_a_test_and_what_differs():
    lines = [line for part in SECTIONS for line in part.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if " | where | " not in line]
    assert len(rows) > 40
    for row in rows:
        _, said, where, test, differs, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", row))
        assert said and differs and re.search(r"`[\w/]+\.(py|yaml)`", where), row
        assert re.search(r"`tests/\w+\.py::test_\w+`", test) or test.startswith("none: "), row


def test_nothing_else_claims_to_follow_the_paper_to_the_letter():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").glob("*.md")]
    pages += (ROOT / "conf").rglob("*.yaml")
    assert not [page for page in pages if "to the letter" in page.read_text("utf-8")]


@pytest.mark.parametrize(("step", "side"), [("ground", 300), ("evaluate", 300), ("point", 224)])
def test_the_papers_settings(step, side):
    with initialize_config_module("conf", version_base="1.3"):
        paper = compose("config", [f"step={step}", "experiment=paper"])
        plain = compose("config", [f"step={step}"])
    assert (paper.attention.method, paper.attention.side, paper.gamma) == ("c-mwp", side, 0.5)
    assert (paper.plain_words, paper.lexicon, paper.vote, paper.prior) == (True, False, 0, 0)
    assert (paper.nms, paper.proposals.count, paper.include_margin) == (0.7, 500, True)
    assert (plain.plain_words, plain.include_margin, plain.attention.method) == (False, False, "c-mwp-partial")


def test_the_papers_training():
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", ["step=train", "experiment=stock6m"])
        shards = compose("config", ["step=shards", "images=x"]).step
    assert config.init == config.step.init == "bvlc_googlenet.safetensors" and config.step.architecture == "googlenet"
    values = {"epochs": 3, "batch": 64, "tags_per_image": 5, "count_unknown_tags": True, "lr_factor": 0.1}
    values |= {"trunk_lr": 0.01, "tag_lr": 0.01, "distillation_weight": 0, "ema_decay": 0}
    assert {name: config.step[name] for name in values} == values
    assert (shards.side, shards.max_tags) == (200, 18_000)


@pytest.mark.parametrize("shape", [(224, 300), (40, 33)])
def test_the_blur_is_scipys(shape):
    maps = torch.randn(1, 2, *shape, dtype=torch.float64)
    expected = [gaussian_filter(one, 0.02 * max(shape), mode="mirror", truncate=4) for one in maps[0].numpy()]
    np.testing.assert_allclose(blur(maps)[0].numpy(), expected, atol=1e-9)

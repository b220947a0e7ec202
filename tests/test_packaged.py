"""The taggers of the package, by name."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from safetensors import safe_open

from grounding import Grounder, TagClassifier, Vocabulary
from grounding.__main__ import main
from grounding.attention.mass import LostMassWarning
from grounding.tagger.packaged import DEFAULT, FOLDER, TAGGERS, tagger_path
from proposals.errors import InputError
from training.initialization import initial_tagger

LARGEST = 25_000_000  # bytes of a file


@pytest.mark.parametrize("name", TAGGERS)
def test_a_tagger_of_the_package_is_complete(name):
    path = tagger_path(name)
    assert path.stat().st_size < LARGEST
    with safe_open(path, "pt") as file:
        assert name in file.metadata()["architecture"]
    tagger = TagClassifier.load(name)
    assert tagger.presence is not None and tagger.vocabulary.lexicon is not None
    assert len(tagger.vocabulary) > 3000
    assert name in (FOLDER / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("given", [None, "", "embedded", DEFAULT])
def test_the_default_tagger_has_several_names(given):
    assert tagger_path(given) == FOLDER / f"{DEFAULT}.safetensors"


def test_other_texts_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "googlenet").touch()
    assert tagger_path("./googlenet") == tagger_path(tagger_path("./googlenet")) == Path("googlenet")
    assert tagger_path(tmp_path) == tmp_path
    with pytest.raises(
        InputError, match=r"path=3 must be the path of a tagger's file, efficientnet, googlenet, or None"
    ):
        tagger_path(3)
    message = (
        "eficientnet does not exist: give the path of a tagger's file, or the name of one: efficientnet, googlenet"
    )
    for function in (tagger_path, Grounder.load, lambda name: initial_tagger(name, Vocabulary(["dog"]))):
        with pytest.raises(InputError, match=message):
            function("eficientnet")


@pytest.mark.parametrize("name", TAGGERS)
def test_each_finds_the_cat(name, chelsea, tmp_path, monkeypatch):
    cat, bus = Grounder.load(name).ground(chelsea, ["a cat", "a bus"])
    assert cat.present and not bus.present
    x1, y1, x2, y2 = cat.boxes[0]
    assert x1 < 225 < x2 and y1 < 120 < y2  # between the eyes
    asked = [str(chelsea), "a cat", "a bus", f"tagger={name}", "pictures=null", f"hydra.run.dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["grounding", *asked])
    main()
    written = json.loads((tmp_path / "groundings.json").read_bytes())
    boxes = [answer["boxes"][0] for answer in written["groundings"]]
    np.testing.assert_allclose(boxes, [cat.boxes[0], bus.boxes[0]], atol=0.01)


@pytest.mark.filterwarnings("error")
def test_lost_mass_is_reported_only_at_a_target_that_was_given(chelsea):
    quiet = Grounder.load("efficientnet", side=224)
    copy = pickle.loads(pickle.dumps(quiet))  # noqa: S301  pickled by this test
    for grounder in (quiet, copy):
        assert grounder.ground(chelsea, ["a cat"])[0].groundable
    with pytest.warns(LostMassWarning, match="of the mass arrives"):
        Grounder.load("efficientnet", side=224, target="stage5").ground(chelsea, ["a cat"])


@pytest.mark.parametrize("name", ["paper", "table1", "table4", "contrast", "layers"])
def test_the_experiments_of_the_paper_have_its_network(name):
    with initialize_config_module("conf", version_base="1.3"):
        assert compose("config", [f"experiment={name}"]).tagger.path == "googlenet"
        assert compose("config", [f"experiment={name}", "tagger.path=own.safetensors"]).tagger.path == "own.safetensors"


@pytest.mark.parametrize("name", TAGGERS)
def test_a_training_starts_from_each(name):
    known = TagClassifier.load(name, presence=False)
    assert initial_tagger(name, known.vocabulary).architecture == known.architecture

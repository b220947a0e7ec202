"""The step ``methods``: maps of several methods beside each other in one picture."""

import numpy as np
import pytest
from PIL import Image

from eval.class_maps import class_maps
from grounding import Grounder
from grounding.images import read_image
from grounding.settings import Settings
from grounding.steps.layers import parse
from grounding.steps.methods import methods, phrase_maps
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError


@pytest.fixture(scope="module")
def tagger() -> TagClassifier:
    return TagClassifier.load("googlenet")


@pytest.mark.parametrize("method", ["c-mwp", "cam", "grad"])
def test_a_map_is_that_of_the_pointing_game(tagger, astronaut, method):
    pixels = read_image(astronaut)
    phrases = parse(["a man", "a smiling woman"], tagger.vocabulary)
    assert [phrase.tags for phrase in phrases] == [("man",), ("smiling", "woman")]
    found = phrase_maps(tagger, pixels, phrases, method, 224)
    expected = class_maps(Grounder(tagger, settings=Settings(method)), pixels, [p.tags for p in phrases], [224])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6 * expected.abs().max().item())


def test_a_line_for_each_photo_and_phrase(tagger, astronaut, coffee, tmp_path, capsys):
    photos, phrases = [str(astronaut), str(coffee)], ["a woman", "a cup"]
    path = methods(tagger, photos, phrases, str(tmp_path), ["mwp", "c-mwp"], 224)
    assert capsys.readouterr().out.strip() == str(path)
    with Image.open(path) as picture:
        several = picture.size
        assert np.asarray(picture.convert("RGB")).std() > 20
    path = methods(tagger, photos, phrases, str(tmp_path), ["c-mwp"], 224)
    with Image.open(path) as picture:
        assert picture.width == several[0] and 0.4 < picture.height / several[1] < 0.6
    assert [file.name for file in tmp_path.iterdir()] == ["methods.png"]


REFUSALS = {
    "no image": ({"image": None}, "no image: set image=PHOTO"),
    "missing image": ({"image": "nowhere.jpg"}, "no such image file"),
    "no phrase": ({"phrases": []}, "no phrase to map"),
    "unknown word": ({"phrases": ["a womann"]}, "knows no word of 'a womann'; similar tags: woman"),
    "no method": ({"methods": []}, r"needs attention methods: set step.methods=\[grad,c-mwp\]"),
    "one text": ({"methods": "mwp"}, "needs attention methods"),
    "unknown method": ({"methods": ["mwp", "magic"]}, "no attention method 'magic'"),
    "too small": ({"side": 100}, "side=100"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_input_is_refused(tagger, astronaut, tmp_path, name):
    changed, message = REFUSALS[name]
    arguments = {"image": str(astronaut), "phrases": ["a dog"], "output": str(tmp_path), "methods": ["mwp"]} | changed
    with pytest.raises(InputError, match=message):
        methods(tagger, **arguments)
    assert not list(tmp_path.iterdir())

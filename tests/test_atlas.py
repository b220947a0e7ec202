"""Every tag at once: the same maps as one by one, and what lies in a box."""

import numpy as np
import pytest
import torch
from sweeps import sweep
from torch import nn

from grounding import TopDown
from grounding.attention.atlas import most_fitting
from grounding.images import read_image
from grounding.scene import LIKELY
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError

BLOCK = 1024  # tags whose maps are worked on together


@pytest.fixture(scope="module")
def tagger():
    return TagClassifier.load("googlenet")


@pytest.fixture(scope="module")
def scene(tagger, astronaut):
    pixels = torch.from_numpy(read_image(astronaut).copy()).permute(2, 0, 1)[None].float()
    small = nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    return TopDown(tagger, "pool3").look(tagger.preprocessing(small))


@pytest.fixture(scope="module")
def atlas(scene):
    return scene.atlas()


@pytest.mark.parametrize("method", sweep(["c-mwp", "mwp"]))
def test_all_maps_are_those_asked_for_one_by_one(scene, method):
    tags = [0, 3, 700, len(scene.atlas(method)) - 1]
    maps, direct = scene.atlas(method).maps(tags), scene.attend(tags, method)[0]
    assert ((maps - direct).abs().amax((1, 2)) <= 1e-5 * direct.amax((1, 2))).all()


def test_the_whole_vocabulary_is_streamed_in_blocks(tagger, atlas):
    assert len(atlas) == len(tagger.vocabulary)
    blocks = list(atlas)
    assert [tag for tags, _ in blocks for tag in tags] == list(range(len(atlas)))
    tags, maps = blocks[1]
    assert tags.start == BLOCK
    torch.testing.assert_close(maps[0], atlas.maps([BLOCK])[0])


def test_concentration_is_the_share_of_mass_in_the_box(atlas):
    concentration = atlas.concentration((16, 32, 112, 160))
    maps = atlas.maps([5, 9])
    inside = maps[:, 2:10, 1:7].sum((1, 2)) / maps.sum((1, 2))
    torch.testing.assert_close(concentration[[5, 9]], inside)
    torch.testing.assert_close(atlas.concentration((0, 0, 224, 224)), torch.ones(len(atlas)), rtol=1e-5, atol=1e-5)


def test_a_box_may_cut_cells(atlas):
    left, right = (atlas.concentration(box) for box in ((0, 0, 71.5, 224), (71.5, 0, 224, 224)))
    torch.testing.assert_close(left + right, torch.ones(len(atlas)), rtol=1e-5, atol=1e-5)


def test_the_words_of_a_box_are_the_most_concentrated(atlas):
    words = atlas.words((0, 0, 100, 100), 5, likely=0)
    concentration = atlas.concentration((0, 0, 100, 100))
    assert [tag for tag, _ in words] == concentration.argsort(descending=True, stable=True)[:5].tolist()
    assert words[0][1] == pytest.approx(float(concentration.max()))


BODY = (100, 210, 400, 512)


def test_the_words_of_a_box_are_those_of_what_is_in_it(grounder, astronaut):
    scene = grounder.look(astronaut)
    words = [word for word, _ in scene.words(BODY, 8)]
    assert {"man", "suit"} & {*words}
    assert words != [word for word, _ in scene.words((300, 20, 420, 200), 8)]


@pytest.mark.slow
def test_the_words_of_a_box_are_probable_tags_whose_mass_lies_in_it(grounder, astronaut):
    scene = grounder.look(astronaut)
    words = scene.words(BODY, 8)
    small = scene._topdown.at("pool2").look(
        scene._tagger.prepare(scene.image, [224, 224])
    )  # the definition, with all tags
    atlas = small.atlas(size=scene.image.shape[:2])  # the definition, with all tags
    likely = set(atlas.scores.argsort(descending=True)[:LIKELY].tolist())
    shares = atlas.concentration(BODY).double().numpy()
    order = [tag for tag in np.argsort(-shares * scene.probabilities) if tag in likely][:8]
    assert [word for word, _ in words] == [scene._tagger.vocabulary[tag] for tag in order]
    assert [share for _, share in words] == pytest.approx(shares[order], rel=1e-4)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (-1, 0, 5, 5), (0, 0, 225, 5), (9, 0, 3, 5), (0, 0, np.nan, 5)])
def test_a_box_outside_of_the_image_is_refused(atlas, box):
    with pytest.raises(InputError, match="is empty or leaves the image of"):
        atlas.concentration(box)


def test_a_wrong_box_of_a_photo_is_refused_before_maps_are_computed(grounder, astronaut, monkeypatch):
    scene = grounder.look(astronaut)
    monkeypatch.setattr(scene._topdown, "look", lambda *_: pytest.fail("computed maps"))
    for box in [(0, 0, 513, 5), (9, 9, 9, 20), (0, 0, np.nan, 5)]:
        with pytest.raises(InputError, match="is empty or leaves the image of"):
            scene.words(box)
    for box in [(0, 0, 5), None, "abcd", (0, 0, "5", 5), (0, 0, None, 5), 7]:
        with pytest.raises(InputError, match="must be four numbers: x1, y1, x2, y2"):
            scene.words(box)


@pytest.mark.parametrize("count", [0, -1, 2.5, "x", None, True])
def test_an_invalid_number_of_words_is_refused(count):
    with pytest.raises(InputError, match=f"count={count!r} must be a whole number, 1 or more"):
        most_fitting(torch.ones(3), torch.ones(3), count)


def test_a_tag_without_mass_in_the_box_is_no_word_of_it():
    assert most_fitting(torch.tensor([0, 0.5, 0.1]), torch.tensor([1, 0.2, 0.9]), 5) == [1, 2]


def test_methods_and_images_without_an_atlas_are_refused(tagger, scene, atlas):
    with pytest.raises(InputError, match="an atlas can show mwp or c-mwp, not 'grad'"):
        scene.atlas("grad")
    with pytest.raises(InputError, match=f"an atlas has the tags 0 to {len(atlas) - 1}"):
        atlas.maps([len(atlas)])
    with pytest.raises(InputError, match="one position of the classifier: give it 224 x 224 pixels"):
        TopDown(tagger).look(torch.zeros(1, 3, 224, 288)).atlas()
    with pytest.raises(InputError, match="an atlas needs one image, not 2"):
        TopDown(tagger).look(torch.zeros(2, 3, 224, 224)).atlas()

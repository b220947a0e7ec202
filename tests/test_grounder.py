"""The whole chain on real photos that scikit-image ships, with the embedded tagger."""

import json
import pickle
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from PIL import Image

from grounding import Grounder, TopDown
from grounding.maps import resize_mass
from grounding.rescoring import first_box, rescore, vote, vote_overlaps, winning
from grounding.scene import GroundingScene
from grounding.settings import Settings
from grounding.steps.ground import ground
from grounding.tagger.tagger import TagClassifier
from grounding.text.phrases import Phrase
from proposals import BoxProposer
from proposals.errors import InputError


@pytest.fixture(scope="module")
def scene(grounder, astronaut):
    return grounder.look(astronaut)


def test_a_phrase_gets_boxes(scene):
    (answer,) = scene.ground(["A woman in an orange suit"])
    assert answer.phrase.text == "A woman in an orange suit"
    assert "woman" in answer.phrase.tags
    assert answer.boxes.shape == (len(answer.scores), 4)
    assert (np.diff(answer.scores) <= 0).all()
    assert (answer.boxes[:, :2] >= 0).all()
    assert (answer.boxes[:, 2:] <= 512).all()
    assert (answer.boxes[:, 2:] > answer.boxes[:, :2]).all()


def test_the_maximum_lies_on_the_orange_suit(astronaut):
    """The orange suit fills the lower left of the photo; the face and the rocket lie above y = 190."""
    (answer,) = Grounder.load("googlenet", method="c-mwp").look(astronaut).ground(["an orange suit"])
    x, y = answer.point
    assert x < 350
    assert y > 200


def test_unknown_words_are_named_and_get_no_boxes(scene):
    known, unknown = scene.ground(["a woman with a zorgophone", "a zorgophone"])
    assert known.groundable
    assert known.phrase.skipped == ("zorgophone",)
    assert not unknown.groundable
    assert unknown.phrase.skipped == ("zorgophone",)
    assert unknown.boxes.shape == (0, 4)
    assert unknown.heatmap is None
    assert unknown.point is None


def test_scores_are_the_mass_of_the_map_inside_the_masks(scene, grounder):
    (answer,) = scene.ground(["a woman"], vote=0)
    proposals = scene.proposals
    by_box: dict[tuple, float] = {}
    for i in range(len(proposals)):
        mask = proposals.mask(i)
        belief = proposals.scores[i] / proposals.scores.max()
        score = answer.map[mask].sum() / mask.mean() ** grounder.settings.gamma * belief**grounder.settings.prior
        key = tuple(proposals.boxes[i])
        by_box[key] = max(score, by_box.get(key, 0))
    for box, score in zip(answer.boxes[:20], answer.scores[:20], strict=True):
        assert by_box[tuple(box)] == pytest.approx(score, rel=1e-9)


def test_paper_settings_rank_by_score_and_ours_by_vote(scene, grounder):
    paper = Settings.paper()
    assert (paper.method, paper.side, paper.gamma, paper.prior, paper.vote, paper.nms) == ("c-mwp", 300, 0.5, 0, 0, 0.7)
    (thinned,), (voted,) = scene.ground(["a woman"], vote=0), scene.ground(["a woman"])
    assert len(voted.boxes) == 100
    assert voted.scores.sum() <= 1 + 1e-6  # scores are shares of a probability
    assert thinned.scores.tolist() == sorted(thinned.scores.tolist(), reverse=True)
    (full,) = scene.ground(["a woman"], vote=0, method="c-mwp")
    np.testing.assert_array_equal(full.map, voted.map)  # the map of the focus


def test_the_point_after_a_vote_is_covered_by_the_largest_mass(scene):
    (answer,) = scene.ground(["a woman"])
    x, y = answer.point

    def mass_at(x, y):
        inside = (
            (answer.boxes[:, 0] <= x) & (x < answer.boxes[:, 2]) & (answer.boxes[:, 1] <= y) & (y < answer.boxes[:, 3])
        )
        return answer.scores[inside].sum()

    everywhere = [mass_at(i, j) for i in range(2, 512, 8) for j in range(2, 512, 8)]
    assert mass_at(x, y) >= max(everywhere) - 0.02  # a box may end inside a cell
    (thinned,) = scene.ground(["a woman"], vote=0)
    peak = np.unravel_index(thinned.map.argmax(), thinned.map.shape)
    height, width = thinned.map.shape
    assert thinned.point == ((peak[1] + 0.5) * 512 / width, (peak[0] + 0.5) * 512 / height)


def test_the_map_of_a_phrase_is_the_average_of_its_words(scene):
    (answer,) = scene.ground(["woman smiling"], vote=0)
    np.testing.assert_allclose(answer.map, (scene.attend(["woman"])[0] + scene.attend(["smiling"])[0]) / 2)


def test_without_rivalry_phrases_do_not_affect_each_other(grounder, astronaut):
    together = grounder.look(astronaut).ground(["a woman", "a flag", "a woman"], rivalry=0)
    alone = [grounder.look(astronaut).ground([text])[0] for text in ("a woman", "a flag")]
    for answer, expected in zip(together, [*alone, alone[0]], strict=True):
        np.testing.assert_allclose(answer.scores[:10], expected.scores[:10], rtol=1e-4)


def test_a_heatmap_has_the_size_of_the_photo_and_keeps_its_mass(scene):
    (answer,) = scene.ground(["a woman"])
    assert answer.heatmap.shape == (512, 512)
    assert answer.heatmap.sum() == pytest.approx(answer.map.sum())
    assert answer.heatmap.min() >= 0


@pytest.mark.parametrize("shape", [(40, 60), (28, 28), (7, 9)])
def test_resizing_keeps_mass(shape):
    maps = torch.rand(3, 20, 30, dtype=torch.float64) ** 4
    maps[2] = 0
    resized = resize_mass(maps, shape)
    assert resized.shape == (3, *shape)
    assert resized.min() >= 0
    torch.testing.assert_close(resized.sum((1, 2)), maps.sum((1, 2)))


def test_another_gamma_needs_no_other_pass(scene):
    (paper,) = scene.ground(["a woman"], gamma=0.5)
    (dense,) = scene.ground(["a woman"], gamma=1)
    (whole,) = scene.ground(["a woman"], gamma=0)
    np.testing.assert_array_equal(paper.map, dense.map)
    area = [np.prod(a.boxes[0, 2:] - a.boxes[0, :2]) for a in (whole, paper, dense)]
    assert area[0] > area[2]


def test_another_setting_integrates_nothing_and_equals_a_fresh_scene(grounder, astronaut, monkeypatch):
    scene = grounder.look(astronaut)
    phrases, calls, integrate = ["a woman", "an orange suit"], [], scene.proposals.integrate
    monkeypatch.setattr(scene.proposals, "integrate", lambda maps: calls.append(len(maps)) or integrate(maps))
    scene.ground(phrases)
    first = len(calls)
    with ThreadPool(4) as threads:
        asked = [{"gamma": 0.25}, {"prior": 0}, {"vote": 0, "nms": 0.3}, {"gamma": 0, "prior": 1, "vote": 9}] * 3
        answers = threads.map(lambda settings: scene.ground(phrases, **settings), asked)
    assert first == len(calls) == 3 * len(phrases)  # once for each phrase and method
    for settings, found in zip(asked[:4], answers, strict=False):
        monkeypatch.setattr(grounder, "settings", Settings(side=224, **settings))
        for answer, fresh in zip(found, grounder.look(astronaut).ground(phrases), strict=True):
            for name in ("boxes", "scores", "map"):
                np.testing.assert_array_equal(getattr(answer, name), getattr(fresh, name))


def test_another_method_shares_the_proposals_and_equals_a_fresh_scene(scene, astronaut):
    fresh = Grounder.load("googlenet", method="cam", side=224).look(astronaut).ground(["a woman"])[0]
    before, other = scene.ground(["a woman"])[0], scene.ground(["a woman"], method="cam")[0]
    np.testing.assert_allclose(other.map, fresh.map, atol=1e-8)  # the values of another pass, which rounds differently
    np.testing.assert_array_equal(other.boxes[:5], fresh.boxes[:5])
    assert not np.array_equal(before.map, other.map)
    np.testing.assert_array_equal(scene.ground(["a woman"])[0].map, before.map)
    with pytest.raises(InputError, match="no attention method 'magic'"):
        scene.ground(["a woman"], method="magic")


def test_the_boxes_are_ranked_by_the_mean_of_three_methods(scene):
    settings, phrase = Settings(rivalry=0), "a woman"
    scene.ground([phrase])
    masses, proposals = scene._masses.__wrapped__, scene.proposals
    parsed = tuple((r.tags, r.weights) for r in Phrase.parse(phrase, scene._tagger.vocabulary).readings)
    chances = []
    for method, gamma in (("c-mwp-partial", 0.55), ("c-mwp", 0.44), ("cam", 0.44)):
        scores = rescore(masses(method, parsed, False), proposals.areas, gamma, proposals.scores, settings.prior)
        chances.append(winning(scores, settings.vote)[0])
    overlaps, mean = vote_overlaps(proposals.boxes), np.mean(chances, 0)
    order, won = vote(overlaps, mean, first_box(overlaps, mean))
    (answer,) = scene.ground([phrase], rivalry=0)
    np.testing.assert_array_equal(answer.boxes, proposals.boxes[order])
    np.testing.assert_allclose(answer.scores, won)


def test_each_word_of_a_phrase_has_the_same_mass_in_the_partners_map(scene):
    scene.ground(["an orange suit"])
    words = tuple((r.tags, r.weights) for r in Phrase.parse("an orange suit", scene._tagger.vocabulary).readings)
    masses = scene._masses.__wrapped__
    alone = [masses("cam", (word,), True) for word in words]
    assert len(words) == 2
    np.testing.assert_allclose(masses("cam", words, True), np.mean(alone, 0))
    sums = [masses("cam", (word,), False).sum() for word in words]
    assert max(sums) > 10 * min(sums)  # otherwise one word decides


def test_a_method_without_mass_has_no_say(scene):
    phrase = "a dog"  # no cell of this photo has a positive value for it
    parsed = Phrase.parse(phrase, scene._tagger.vocabulary)
    alone = scene.ground([phrase], rivalry=0)[0]
    assert not scene._masses.__wrapped__("cam", tuple((r.tags, r.weights) for r in parsed.readings), True).any()
    contrasts = GroundingScene(
        scene.image, scene.proposals, scene._source, scene._tagger, scene._topdown, Settings(side=224, partner="none")
    )
    np.testing.assert_array_equal(alone.boxes, contrasts.ground([phrase], rivalry=0)[0].boxes)


def test_a_fractional_vote_accepts_boxes_whose_mass_is_rounded_below_zero(scene, monkeypatch):
    integrate = scene.proposals.integrate
    monkeypatch.setattr(scene.proposals, "integrate", lambda maps: integrate(maps) - 1e-12)
    (answer,) = scene.ground(["a red helmet"], vote=2.5)
    assert np.isfinite(answer.scores).all()


def test_the_methods_that_rank_the_boxes(grounder):
    tagger, other = grounder.tagger, TagClassifier("cnn_s", grounder.tagger.vocabulary)
    assert Settings().methods(tagger) == ("c-mwp-partial", "c-mwp", "cam")
    assert Settings(partner="none").methods(tagger) == Settings().methods(other) == ("c-mwp-partial", "c-mwp")
    assert Settings(vote=0).methods(tagger) == ("c-mwp-partial",)
    assert Settings(method="c-mwp", partner="mwp").methods(tagger) == ("c-mwp", "mwp")
    assert Settings(method="c-mwp", partner="c-mwp").methods(tagger) == ("c-mwp",)
    assert "cam" in Settings(partner="cam").methods(other)  # it was asked for, and will be refused
    for name in ("magic", "", "None"):
        with pytest.raises(InputError, match=r"partner=.* must be a method .* or 'none' for no other method"):
            Settings(partner=name)


def test_a_network_without_cam_answers_with_the_contrasts(grounder, astronaut):
    tagger = TagClassifier("cnn_s", grounder.tagger.vocabulary).eval()
    (answer,) = Grounder(tagger, settings=Settings(side=224)).ground(astronaut, ["a woman"])
    assert len(answer.boxes) and np.isfinite(answer.scores).all()
    with pytest.raises(InputError, match="CAM needs a classifier over averaged features"):
        Grounder(tagger, settings=Settings(side=224, partner="cam")).ground(astronaut, ["a woman"])


@pytest.mark.parametrize("partner", ["none", "mwp", "grad", "lrp"])
def test_another_partner(grounder, astronaut, monkeypatch, partner):
    both = grounder.look(astronaut).ground(["a woman"])[0]
    monkeypatch.setattr(grounder, "settings", Settings(side=224, partner=partner))
    scene = grounder.look(astronaut)
    asked, attend = [], scene._source.attend
    monkeypatch.setattr(
        scene._source, "attend", lambda signals, method: asked.append(method) or attend(signals, method)
    )
    answer = scene.ground(["a woman"])[0]
    assert asked == ["c-mwp-partial", "c-mwp"] + [partner] * (partner != "none")
    assert not np.array_equal(answer.scores, both.scores)


def test_settings_out_of_range_are_refused(scene):
    for settings in ({"gamma": -1}, {"prior": float("nan")}, {"vote": -1}, {"nms": 1.5, "vote": 0}):
        with pytest.raises(InputError, match=f"{next(iter(settings))}="):
            scene.ground(["a woman"], **settings)


def test_boxes_as_proposals(astronaut):
    (answer,) = Grounder.load(proposer=BoxProposer(count=50), method="c-mwp").look(astronaut).ground(["a woman"])
    assert 0 < len(answer.boxes) <= 50


@pytest.mark.parametrize("size", [(1, 6), (30, 30), (300, 900)])
def test_very_small_and_long_photos(grounder, size):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    (answer,) = grounder.look(pixels).ground(["a dog"])
    assert len(answer.boxes)
    assert (answer.boxes[:, 2:] <= (size[1], size[0])).all()


def test_a_grey_pil_image(grounder, astronaut):
    assert grounder.look(Image.open(astronaut).convert("L")).ground(["a woman"])[0].groundable


def test_invalid_phrases_are_refused(scene):
    for phrases, message in (([], "no phrase to ground"), ("a woman", "phrases must be a list")):
        with pytest.raises(InputError, match=message):
            scene.ground(phrases)
    with pytest.raises(InputError, match="a phrase is empty"):
        scene.ground(["a woman", "  "])
    with pytest.raises(InputError, match="the vocabulary has no tag"):
        scene.attend(["zorgophone"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"method": "saliency"}, "no attention method 'saliency'"), ({"side": 100}, "at least 224 pixels"),
     ({"target": "nowhere"}, "no layer 'nowhere'")],
)  # fmt: skip
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Grounder.load(**settings)


def test_the_step_writes_boxes_and_overlays(grounder, astronaut, tmp_path, capsys):
    ground(grounder, str(astronaut), ["a woman", "a zorgophone"], str(tmp_path))
    record = json.loads((tmp_path / "groundings.json").read_text())
    woman, unknown = record["groundings"]
    assert record["size"] == [512, 512]
    assert woman["groundable"]
    assert not unknown["groundable"]
    assert unknown["skipped"] == ["zorgophone"]
    assert len(woman["boxes"]) == len(woman["scores"]) == 10
    overlays = sorted(path.name for path in tmp_path.glob("*.png"))
    assert overlays == ["01-a-woman.png"]
    picture = np.asarray(Image.open(tmp_path / overlays[0]))
    assert picture.shape[1] == 512
    assert picture.std() > 20
    printed = capsys.readouterr().out
    assert "a zorgophone  not groundable" in printed


def test_conf_and_code_have_the_same_settings():
    with initialize_config_module("conf", version_base="1.3"):
        for overrides, own in (
            ([], Settings()),
            (["experiment=best"], Settings()),
            (["experiment=paper"], Settings.paper()),
        ):
            said = compose("config", overrides, return_hydra_config=False).grounder
            assert {name: said[name] for name in vars(own)} == vars(own)
            plain = own == Settings.paper()
            assert (said["lexicon"], said["plain_words"]) == (not plain, plain)


def test_the_map_of_a_repeated_plain_word_counts_twice(astronaut):
    scene = Grounder.load(lexicon=False, plain_words=True, **vars(Settings.paper())).look(astronaut)
    phrase, once = "a woman with a woman in a suit", ["woman", "suit"]
    woman, suit = scene.attend(once)
    np.testing.assert_allclose(scene.ground([phrase])[0].map, (2 * woman + suit) / 3)


def test_the_partial_contrast_subtracts_a_share_of_the_mass_of_the_dual(grounder, astronaut):
    """The dual of a tag is a tag of negated weights; at 224 x 224 the classifier has one position."""
    negated = TagClassifier.load("googlenet")
    negated.classifier.weight.data.neg_()
    negated.classifier.bias.data.neg_()
    image = grounder.tagger.prepare(np.asarray(Image.open(astronaut).convert("RGB")), [224, 224])
    unit = grounder.topdown.look(image).attend([3, 50], "mwp")
    dual = grounder.settings.top_down(negated).look(image).attend([3, 50], "mwp")
    partial = grounder.topdown.look(image).attend([3, 50], "c-mwp-partial")
    torch.testing.assert_close(partial, (unit - 0.65 * dual).clamp(min=0), atol=1e-6, rtol=1e-3)
    assert 0.1 < partial.sum() < 2


@pytest.mark.parametrize("name", ["gamma", "prior", "vote", "rivalry"])
def test_an_exponent_out_of_range_is_refused_when_the_settings_are_made(name):
    for value in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=rf"{name}={value} must be a number >= 0; "):
            Settings(**{name: value})


@pytest.mark.parametrize(
    ("phrases", "settings", "message"),
    [
        (["a dog"], {"gamma": -1}, "gamma=-1 must be a number >= 0"),
        (["a dog"], {"nms": 2}, "nms=2 must be in 0..1"),
        (["a dog", " "], {}, "empty"),
        ([], {}, "no phrase"),
    ],
)
def test_what_is_refused_costs_no_look_at_the_image(tiny_grounder, phrases, settings, message):
    with pytest.raises(InputError, match=message):
        tiny_grounder.ground("missing.jpg", phrases, **settings)


def test_the_default_reads_maps_at_the_coarse_target_and_the_paper_at_its_own():
    grounder = Grounder.load("googlenet")
    assert grounder.topdown.default_target == "pool3" == pickle.loads(pickle.dumps(grounder)).topdown.default_target  # noqa: S301  what this test made
    paper = Grounder(grounder.tagger, settings=Settings.paper())
    assert (grounder.target, paper.target, paper.topdown.default_target) == ("pool3", "pool2", "pool2")
    for target in (None, "pool2"):
        assert Grounder(grounder.tagger, settings=Settings(method="cam", target=target)).target == "averaged"
    photo = np.zeros((224, 224, 3), np.uint8)
    scene = grounder.topdown.look(grounder.tagger.prepare(photo, [224]), "c-mwp-partial")
    maps = [scene.attend([0], method).shape[2:] for method in ("c-mwp-partial", "c-mwp", "mwp")]
    assert maps == [(14, 14)] * 3  # the focus and other methods have the map of the same layer


def test_a_target_that_is_given_replaces_the_default():
    grounder = Grounder.load("googlenet", target="pool2")
    assert grounder.target == "pool2"
    scene = grounder.topdown.look(grounder.tagger.prepare(np.zeros((224, 224, 3), np.uint8), [224]), "c-mwp-partial")
    assert scene.attend([0], "c-mwp-partial").shape[2:] == (28, 28)


def test_an_unknown_default_target_is_refused():
    tagger = Grounder.load("googlenet").tagger
    with pytest.raises(InputError, match=r"the model has no layer 'pol3'; similar names: .*pool3"):
        TopDown(tagger, default_target="pol3")


def test_another_target_shares_the_captured_network(grounder, astronaut):
    topdown, image = grounder.topdown, grounder.tagger.prepare(np.asarray(Image.open(astronaut).convert("RGB")), [224])
    topdown.look(image)
    captures = topdown.networks.count
    for name in ("pool2", "inception_5b"):
        maps = topdown.at(name).look(image, "mwp").attend([0], "mwp")
        torch.testing.assert_close(maps, TopDown(grounder.tagger, name).look(image, "mwp").attend([0], "mwp"))
    assert topdown.networks.count == captures
    with pytest.raises(InputError, match="the model has no layer 'nothing'"):
        topdown.at("nothing")

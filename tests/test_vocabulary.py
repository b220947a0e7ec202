import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import FUNCTION_WORDS, base_forms, caption_tags, normalize, words
from proposals.errors import InputError

# words of captions, and the tag that must be found for each when the vocabulary has only that tag
FORMS = """
people=person men=man women=woman children=child firemen=fireman fishermen=fisherman stuntmen=stuntman
businesspeople=businessperson grandchildren=grandchild passersby=passerby leaves=leaf lives=life wives=wife knives=knife
loaves=loaf shelves=shelf calves=calf halves=half thieves=thief scarves=scarf hooves=hoof wolves=wolf elves=elf
roofs=roof cliffs=cliff geese=goose mice=mouse feet=foot teeth=tooth oxen=ox cacti=cactus sheep=sheep deer=deer
fishes=fish buses=bus busses=bus lenses=lens glasses=glass dresses=dress babies=baby ladies=lady skies=sky skis=ski
taxis=taxi bikinis=bikini potatoes=potato tomatoes=tomato torsos=torso pianos=piano buffaloes=buffalo churches=church
benches=bench matches=match boxes=box axes=axe horses=horse houses=house vases=vase shoes=shoe canoes=canoe toes=toe
ties=tie cookies=cookie hoodies=hoodie puppies=puppy huskies=husky monkeys=monkey jerseys=jersey berries=berry
stairs=stair headphones=headphone binoculars=binoculars sunglasses=sunglasses shorts=shorts pants=pants tights=tights
overalls=overalls trousers=trousers scissors=scissors goggles=goggles jeans=jeans wakeboarders=wakeboarder
skateboarders=skateboarder hotdogs=hotdog selfies=selfie running=run smiling=smile striped=stripe
"""


@pytest.mark.parametrize("pair", FORMS.split())
def test_inflected_forms_give_their_tag(pair):
    written, tag = pair.split("=")
    for text in (written, written.capitalize(), f"two {written.upper()}"):
        phrase = Phrase.parse(text, Vocabulary((tag, "two")))
        assert phrase.tags == (("two",) if text.startswith("two") else ()) + (tag,)
        assert phrase.skipped == ()


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        *[("shorts", "short"), ("leaves", "leave"), ("sunglasses", "sunglass"), ("tights", "tight"), ("was", "be")],
        *[("bus", "bu"), ("grass", "gras"), ("clothes", "cloth"), ("news", "new"), ("skies", "ski")],
    ],
)
def test_forms_with_another_meaning_are_not_used(word, wrong):
    assert Phrase.parse(word, Vocabulary((wrong,))).skipped == (word,)


def test_the_word_itself_comes_before_its_base_form():
    vocabulary = Vocabulary(("short", "shorts", "person", "people"))
    assert [vocabulary.tag_of(word) for word in ("shorts", "people")] == ["shorts", "people"]


def test_tags_and_indices():
    vocabulary = Vocabulary(["dog", "hot dog", "t-shirt"])
    assert vocabulary.tags == tuple(vocabulary) == ("dog", "hot dog", "t-shirt")
    assert len(vocabulary) == 3
    assert all(vocabulary[vocabulary.index(tag)] == tag for tag in vocabulary)
    assert "hot dog" in vocabulary
    assert "hot" not in vocabulary
    assert vocabulary == Vocabulary(("dog", "hot dog", "t-shirt"))
    assert hash(vocabulary) == hash(Vocabulary(("dog", "hot dog", "t-shirt")))
    with pytest.raises(IndexError):
        vocabulary[3]


def test_a_vocabulary_is_immutable():
    given_tags = ["dog", "cat"]
    vocabulary = Vocabulary(given_tags)
    given_tags.append("bird")
    assert vocabulary.tags == ("dog", "cat")
    with pytest.raises(AttributeError):
        vocabulary.tags = ("bird",)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([], "at least one tag"),
        ("dog", "list of tags"),
        (["dog", "cat", "dog"], "'dog' is given 2 times"),
        (["dog", ""], "tag 1 '' has no word"),
        (["Dog"], "tag 0 'Dog' is not normalised: write 'dog'"),
        (["hot  dog"], "not normalised: write 'hot dog'"),
        (["dog", 3], "tag 1 is 3, not text"),
        (["!!"], "has no word"),
    ],
)
def test_unusable_tags_are_refused(tags, message):
    with pytest.raises(InputError, match=message):
        Vocabulary(tags)


def test_an_unknown_tag_has_no_index():
    with pytest.raises(InputError, match="no tag 'cat'"):
        Vocabulary(["dog"]).index("cat")


def test_words_are_counted_once_for_each_photo_and_sorted_by_count():
    photos = [["A dog runs.", "The dog, a dog"], ["dog and cat", "bird"], ["cat bird DOG"], ["a zebra"]]
    assert Vocabulary.from_captions(photos, minimum=2).tags == ("dog", "bird", "cat")
    assert Vocabulary.from_captions(photos, minimum=3).tags == ("dog",)
    assert Vocabulary.from_captions(iter(photos), minimum=1).tags == ("dog", "bird", "cat", "runs", "zebra")


def test_too_few_captions_give_an_error():
    with pytest.raises(InputError, match="10 photos: use a lower minimum"):
        Vocabulary.from_captions([["a dog"]])


def test_caption_tags_are_surface_words_without_function_words():
    assert caption_tags("The man's two DOGS are in a blue-striped T\u2011shirt.") == (
        {"man", "two", "dogs", "blue-striped", "blue", "striped", "t-shirt", "shirt"}
    )
    assert caption_tags("of the") == caption_tags("") == caption_tags(" . ") == set()


def test_tags_of_several_words_in_captions_hide_the_words_inside():
    vocabulary = Vocabulary(("dog", "hot", "hot dog", "t-shirt", "shirt", "red"))
    assert vocabulary.tags_in("A hot dog on a red T-shirt") == {"hot dog", "t-shirt", "shirt", "red"}
    assert vocabulary.tags_in("a hotdog, a hot-dog") == {"hot dog"}
    assert vocabulary.tags_in("a hot red dog") == {"hot", "red", "dog"}
    assert vocabulary.tags_in("dogs") == set()


@given(st.lists(st.lists(st.text("ab cdé'-.T", max_size=20), min_size=1, max_size=3), min_size=1, max_size=5))
def test_tags_in_captions_are_exactly_the_counted_words(photos):
    counted = {word for captions in photos for caption in captions for word in caption_tags(caption)}
    if counted:
        vocabulary = Vocabulary.from_captions(photos, minimum=1)
        assert set(vocabulary) == counted
        assert set().union(*(vocabulary.tags_in(caption) for captions in photos for caption in captions)) == counted


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1))
def test_tags_of_any_caption_are_valid_in_a_vocabulary(captions):
    tags = set().union(*map(caption_tags, [*captions, "\ufe35 dog"]))
    assert set(Vocabulary(sorted(tags))) == tags


@given(st.text(max_size=40))
def test_normalisation_is_idempotent_and_ignores_case_and_composition(text):
    once = normalize(text)
    assert normalize(once) == once
    assert normalize(unicodedata.normalize("NFD", text)) == once
    assert normalize(text.casefold()) == once


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Straße", "strasse"),
        ("CAFE\u0301", "café"),
        ("ﬁsh", "fish"),
        ("the\u2019 ` man", "the' ' man"),
        ("  a \n b ", "a b"),
    ],
)
def test_normal_forms(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A man's blue-striped T-shirt, 2 dogs!", ["A", "man", "blue-striped", "T-shirt", "2", "dogs"]),
        ("a man 's hat; the dogs' bone", ["a", "man", "hat", "the", "dogs", "bone"]),
        ("the MAN\u2019S hat", ["the", "MAN", "hat"]),
        ("o'neill's isn't", ["o'neill", "isn't"]),
        ("- -- 'a' -b-", ["a", "b"]),
        ("rock&roll\u3000寿司、犬", ["rock", "roll", "寿司", "犬"]),
        ("नमस्ते e\u0301te\u0301", ["नमस्ते", "e\u0301te\u0301"]),
        ("\u200f\u200bכלב\u200e", ["כלב"]),
        ("", []),
    ],
)
def test_splitting_into_words(text, cut):
    assert words(text) == cut


def test_function_words_are_normalised_and_contain_no_nouns():
    assert all(normalize(word) == word and words(word) == [word] for word in FUNCTION_WORDS)
    assert {"a", "the", "of", "in", "and", "is", "her", "their"} <= FUNCTION_WORDS
    assert not FUNCTION_WORDS & {"man", "two", "red", "front", "#", "comment"}


@given(st.text(min_size=1, max_size=12).map(normalize).filter(bool))
def test_base_forms_never_fail(word):
    assert all(isinstance(form, str) for form in base_forms(word))

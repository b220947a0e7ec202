"""Every member of the zoo is read to the same samples as the plain reference, or refused with the cure."""

from collections import Counter

import pytest
from zoo import CAPTIONS, PHOTOS, TAGS, Given, Member
from zoo_tables import TABLES
from zoo_tars import TARS

from grounding.runtime.ledger import Ledger
from proposals.errors import InputError
from training.sample_text import SampleText
from training.sources import count_samples, find_source

TEXTS = [*TABLES, *TARS]


def read_samples(given: Given) -> tuple[dict[int, SampleText], Counter[str]]:
    """The texts of each photo, which is recognised by its bytes; and how many samples are skipped for each reason."""
    found: dict[int, SampleText] = {}
    skipped: Counter[str] = Counter()
    source = find_source(given.path, given.second)
    ledger = Ledger("samples", source.name)
    for unit in source.units():
        count_samples(unit, ledger)
        for sample in unit.samples():
            if sample.reason:
                skipped[sample.reason.partition(":")[0]] += 1
                continue
            number = PHOTOS.index(sample.photo.read())
            assert number not in found, sample
            found[number] = sample.text
    ledger.check()
    ledger.require_kept()
    assert (len(found), skipped) == (ledger.kept, ledger.reasons)
    return found, skipped


def reference(member: Member) -> dict[int, SampleText]:
    if member.kind == "tags":
        return {number: SampleText(tags=tags) for number, tags in enumerate(TAGS)}
    texts = dict(enumerate(CAPTIONS)) if member.texts is None else member.texts
    return {number: SampleText(captions=captions) for number, captions in texts.items()}


@pytest.mark.parametrize("member", [m for m in TEXTS if not m.refused], ids=lambda m: m.tool)
def test_texts_are_read(tmp_path, member):
    found, skipped = read_samples(member.write(tmp_path))
    sort = member.tool.startswith("Kaggle's Flickr8k")  # its rows are shuffled
    assert {n: SampleText(t.tags, tuple(sorted(t.captions)) if sort else t.captions) for n, t in found.items()} == {
        n: SampleText(t.tags, tuple(sorted(t.captions)) if sort else t.captions) for n, t in reference(member).items()
    }
    assert skipped == member.skipped


@pytest.mark.parametrize("member", [m for m in TEXTS if m.refused], ids=lambda m: m.tool)
def test_texts_that_cannot_be_read_are_refused_with_the_cure(tmp_path, member):
    with pytest.raises(InputError, match=member.refused) as caught:
        read_samples(member.write(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_zoo_has_no_member_twice():
    assert max(Counter(member.tool for member in TEXTS).values()) == 1

"""Every member of the zoo is read to the same samples as the plain reference, or refused with the cure."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from zoo import CAPTIONS, HEIGHT, OBJECTS, PHOTOS, TAGS, WIDTH, Boxes, Given, Member
from zoo_annotations import ANNOTATIONS
from zoo_folders import FOLDERS
from zoo_tables import TABLES
from zoo_tars import TARS

from eval.coco import Coco, CocoImage
from eval.voc import Ilsvrc, Voc
from grounding.photos import find_photos, photo_shards
from grounding.runtime.ledger import Ledger
from grounding.text.words import caption_tags
from proposals.errors import InputError
from training.sample_text import SampleText
from training.sharding import shard
from training.sources import count_samples, find_source
from training.survey import TrainingPhotos

TEXTS = [*TABLES, *TARS]
READERS = {"coco2017": Coco, "voc2012": Voc, "imagenet": Ilsvrc}
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "formats.md"


def kept(members: Iterable[Member]) -> list[Member]:
    return [member for member in members if not member.refused]


def refused(members: Iterable[Member]) -> list[Member]:
    return [member for member in members if member.refused]


def tool(member: Member) -> str:
    return member.tool


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


@pytest.mark.parametrize("member", kept(TEXTS), ids=tool)
def test_texts_are_read(tmp_path, member):
    found, skipped = read_samples(member.write(tmp_path))
    sort = member.tool.startswith("Kaggle's Flickr8k")  # its rows are shuffled
    assert {n: SampleText(t.tags, tuple(sorted(t.captions)) if sort else t.captions) for n, t in found.items()} == {
        n: SampleText(t.tags, tuple(sorted(t.captions)) if sort else t.captions) for n, t in reference(member).items()
    }
    assert skipped == member.skipped


@pytest.mark.parametrize("member", kept(TEXTS), ids=tool)
def test_the_step_check_counts_the_same(tmp_path, member, capsys):
    given = member.write(tmp_path)
    survey = TrainingPhotos(str(given.path), given.second and str(given.second), min_images=1).survey()
    assert (survey.ledger.kept, survey.ledger.reasons) == (3, member.skipped)


@pytest.mark.parametrize("member", [m for m in kept(TEXTS) if m.kind == "captions" and m.texts is None], ids=tool)
def test_shards_have_the_same_vocabulary(tmp_path, member, capsys):
    """The same bytes for all data sets with the same captions: nothing of a table gets into a tag."""
    (tmp_path / "data").mkdir()
    given = member.write(tmp_path / "data")
    output, captions = tmp_path / "out", given.second and str(given.second)
    shard(str(given.path), str(output), captions, min_images=1, held_out=0, workers=0)
    photos = Counter(tag for texts in CAPTIONS for tag in set().union(*map(caption_tags, texts)))
    lines = (output / "vocabulary.txt").read_text("utf-8").splitlines()
    assert dict(line.split("\t") for line in lines) == {tag: str(count) for tag, count in photos.items()}
    skipped = [json.loads(line)["reason"] for line in (output / "skipped.jsonl").read_text().splitlines()]
    assert Counter(skipped) == member.skipped


@pytest.mark.parametrize("member", refused(TEXTS), ids=tool)
def test_texts_that_cannot_be_read_are_refused_with_the_cure(tmp_path, member):
    with pytest.raises(InputError, match=member.message) as caught:
        read_samples(member.write(tmp_path))
    assert "\n" not in str(caught.value)


def read_objects(given: Given) -> Boxes:
    """Photo, class and rounded box of each object."""
    found: Boxes = set()
    settings = {name: value for name, value in given.second.items() if name != "data"}
    for photo in READERS[given.second["data"]](given.path, **{"split": ""} | settings):
        number = PHOTOS.index(photo.path.read_bytes())
        for thing in photo.objects:
            name = thing.category if isinstance(photo, CocoImage) else thing.name
            found.add((number, name, tuple(int(side) for side in np.rint(thing.box))))
            np.testing.assert_allclose(thing.box, np.rint(thing.box), atol=1e-3)
        assert photo.size == (HEIGHT, WIDTH)
    return found


@pytest.mark.parametrize("member", kept(ANNOTATIONS), ids=tool)
def test_objects_are_read(tmp_path, member):
    assert read_objects(member.write(tmp_path)) == set(OBJECTS)


@pytest.mark.parametrize("member", refused(ANNOTATIONS), ids=tool)
def test_objects_that_cannot_be_read_are_refused_with_the_cure(tmp_path, member):
    with pytest.raises(InputError, match=member.message) as caught:
        read_objects(member.write(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("member", kept(FOLDERS), ids=tool)
def test_photos_are_found(tmp_path, member):
    given = member.write(tmp_path)
    found, ledger = find_photos(str(given.path)), Ledger("files")
    (shard,) = photo_shards(given.path, left_out=ledger)
    for paths in (found.paths, [photo.path for photo in shard.photos()]):
        assert sorted(PHOTOS.index(Path(path).read_bytes()) for path in paths) == [0, 1, 2]
    assert found.left_out.reasons == ledger.reasons == member.skipped


@pytest.mark.parametrize("member", refused(FOLDERS), ids=tool)
def test_folders_without_photos_are_refused_with_the_cure(tmp_path, member):
    given = member.write(tmp_path)
    for find in (find_photos, photo_shards):
        with pytest.raises(InputError, match=member.message):
            find(str(given.path))


def test_the_page_lists_every_member(tmp_path):
    rows = []
    for number, member in enumerate([*TEXTS, *ANNOTATIONS, *FOLDERS]):
        (tmp_path / str(number)).mkdir()
        rows.append(member.row(tmp_path / str(number)))
    read, _, _ = PAGE.read_text("utf-8").partition("## Answers that are written")
    listed = [line for line in read.splitlines() if "`" in line and line.startswith("| ")]
    assert listed == rows, "\n".join(rows)


def test_the_zoo_is_large_and_has_no_member_twice():
    everything = [*TEXTS, *ANNOTATIONS, *FOLDERS]
    assert len(everything) >= 40
    assert max(Counter(member.tool for member in everything).values()) == 1

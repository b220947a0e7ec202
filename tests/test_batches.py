"""Photos that go through the network together: the answers of one photo at a time, in order and in bounded memory."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from grounding import Grounder
from grounding.attention.topdown import TopDown
from grounding.batch.groups import grouped, in_turn
from grounding.batch.together import AHEAD, ON_A_GPU, WAITING, batch_size
from grounding.runtime.ranks import cores
from grounding.runtime.workers import one_threaded
from grounding.steps.ground import ground
from proposals import BoxProposer, Proposals, SegmentProposer
from proposals.errors import InputError, SkippedError

PHRASES = ["a cup", "a dog on a table", "a zorgophone"]
SIZES = [(80, 60), (60, 80), (80, 60), (90, 60), (80, 60), (60, 80), (120, 90), (80, 60), (64, 64)]
FORMS = pytest.mark.parametrize("together", [False, True])


@given(st.lists(st.sampled_from("abcde"), max_size=40), st.integers(1, 5), st.integers(0, 12))
def test_each_item_is_in_one_group_of_its_kind_and_does_not_wait_for_long(kinds, size, window):
    come = []

    def items():
        for number, kind in enumerate(kinds):
            come.append(number)
            yield kind

    found = []
    for group in grouped(items(), str, size, window):
        numbers = [number for number, _ in group]
        assert 1 <= len(group) <= size and numbers == sorted(numbers) and len({kind for _, kind in group}) == 1
        assert len(come) <= numbers[0] + window + 2
        found += group
    assert sorted(found) == list(enumerate(kinds))


def test_full_groups_leave_at_once_and_old_ones_after_the_window():
    groups = [[number for number, _ in group] for group in grouped("abbcbbbbbbb", str, 3, 6)]
    assert groups == [[1, 2, 4], [0], [5, 6, 7], [3], [8, 9, 10]]


@given(st.permutations(range(12)))
def test_results_come_in_turn(order):
    assert list(in_turn((number, str(number)) for number in order)) == list(map(str, range(12)))
    numbered = ((number, number) for number in order)
    assert next(in_turn(numbered)) == 0
    assert list(numbered) == [(number, number) for number in order[order.index(0) + 1 :]]  # 0 waited for no other


def pictures(count: int = len(SIZES)) -> list[np.ndarray]:
    """Photos of several sizes, of which some share the size that the network sees."""
    random = np.random.default_rng(0)
    small = [random.integers(0, 256, (6, 6, 3), np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(one).resize(SIZES[n % len(SIZES)])) for n, one in enumerate(small)]


@pytest.fixture
def tiny(tiny_grounder):
    """The same tagger, whose top-down attention a test may change."""
    return Grounder(tiny_grounder.tagger, BoxProposer(50, 64), tiny_grounder.settings)


def ask(grounder: Grounder, images, phrases=PHRASES, **settings):
    batch = grounder.ground_batch(images, phrases, progress=False, **settings)
    return list(batch), list(map(str, batch.skipped)), batch.done


def assert_same_answers(found, expected, tolerance=1e-4):
    assert [answers.image for answers in found] == [answers.image for answers in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.size == theirs.size and len(ours.groundings) == len(theirs.groundings)
        for one, other in zip(ours.groundings, theirs.groundings, strict=True):
            assert one.phrase == other.phrase and one.groundable == other.groundable
            if one.groundable:
                np.testing.assert_allclose(one.map, other.map, rtol=tolerance, atol=tolerance * other.map.max())
                np.testing.assert_allclose(one.scores, other.scores, rtol=tolerance)
                np.testing.assert_allclose(one.boxes, other.boxes)
                assert one.point == pytest.approx(other.point)
            assert one.present == other.present
            if other.presence is None:
                assert one.presence is None
            else:
                assert one.presence == pytest.approx(other.presence, rel=tolerance)


@FORMS
@pytest.mark.parametrize("batch", [2, 3, 8])
def test_answers_are_those_of_one_photo_at_a_time(tiny, together, batch):
    expected = ask(tiny, pictures(), batch=1)
    tiny.topdown.together = together
    found = ask(tiny, pictures(), batch=batch)
    assert_same_answers(found[0], expected[0])
    assert found[1:] == expected[1:] == ([], len(SIZES))


@FORMS
def test_answers_of_the_embedded_tagger_are_those_of_one_photo_at_a_time(astronaut, coffee, together):
    """With the default methods, presence, and words with several tags, which each photo weighs."""
    grounder = Grounder.load(proposer=SegmentProposer(count=60, side=100), side=224)
    astronaut, coffee = (np.asarray(Image.open(path).convert("RGB").resize((96, 80))) for path in (astronaut, coffee))
    images, phrases = [astronaut, coffee, coffee[:, ::-1]], [["a person"], ["a bottle", "a cup", "a zorg"], ["a drink"]]
    assert any(len(reading.tags) > 1 for own in phrases for reading in grounder.ground(coffee, own)[0].phrase.readings)
    expected = ask(grounder, images, phrases, batch=1)
    grounder.topdown.together = together
    assert_same_answers(ask(grounder, images, phrases, batch=4)[0], expected[0], 1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_answers_on_a_gpu_are_those_of_one_photo_at_a_time():
    grounder = Grounder.load(device="cuda", proposer=SegmentProposer(count=60, side=100), side=224)
    expected, found = (ask(grounder, pictures(), batch=batch)[0] for batch in (1, None))
    assert_same_answers(found, expected, 1e-2)


@FORMS
def test_unusable_photos_and_phrases_are_skipped_as_one_at_a_time(tiny, together, tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    good = pictures(4)
    images = [tmp_path / "gone.jpg", *good[:2], np.zeros((3, 3, 3, 3)), tmp_path / "text.jpg", *good[2:], good[0]]
    phrases = [[" "], ["a zorg"], [" "], ["a cup"], ["a cup"], [], ["a dog", "a cup"], ["a cup"]]
    expected = ask(tiny, images, phrases, batch=1)
    tiny.topdown.together = together
    found = ask(tiny, images, phrases, batch=3)
    assert_same_answers(found[0], expected[0])
    assert found[1:] == expected[1:]
    assert [answers.image for answers in found[0]] == ["image 1", "image 6", "image 7"] and len(found[1]) == 5


def test_photos_that_the_network_refuses_are_skipped(tiny, monkeypatch):
    look = TopDown.look

    def refuses(self, images, method="c-mwp"):
        if images.shape[2] > images.shape[3]:
            raise InputError("too high")
        return look(self, images, method)

    monkeypatch.setattr(TopDown, "look", refuses)
    expected, found = (ask(tiny, pictures(), batch=batch) for batch in (1, 3))
    assert_same_answers(found[0], expected[0])
    assert found[1:] == expected[1:] and len(found[1]) == 2


def test_photos_of_one_size_share_a_pass(tiny, monkeypatch):
    passes, look = [], TopDown.look

    def counted(self, images, method="c-mwp"):
        passes.append(tuple(images.shape))
        return look(self, images, method)

    monkeypatch.setattr(TopDown, "look", counted)
    assert len(ask(tiny, pictures(), batch=3)[0]) == len(SIZES)
    assert sum(shape[0] for shape in passes) == len(SIZES)  # no photo is looked at twice
    # (80, 60) and (120, 90) have one size for the network
    assert passes[0] == (3, 3, 224, 298) and sorted(shape[0] for shape in passes) == [1, 1, 2, 2, 3]


def test_the_photos_in_memory_are_bounded(tiny):
    """No two photos have one size, so each waits as long as it may."""
    alive: list[weakref.ref] = []
    most: list[int] = []
    bound = WAITING * 2 + 2 * AHEAD * cores() + 2

    def images():
        for number in range(bound + 10):
            image = np.full((60, 80 + number, 3), 100 + number, np.uint8)
            alive.append(weakref.ref(image))
            yield image
            del image
            most.append(sum(ref() is not None for ref in alive))

    gc.disable()
    try:
        kept = ask(tiny, images(), ["a cup"], batch=2)[0]
    finally:
        gc.enable()
    assert max(most) <= bound
    assert len(kept) == bound + 10


class Noting(BoxProposer):
    """Notes the photos whose proposals are computed, by the value of their first pixel."""

    def __init__(self) -> None:
        super().__init__(50, 64)
        self.seen = {number: threading.Event() for number in (100, 101, 102)}

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        self.seen[int(image[0, 0, 0])].set()
        return super().__call__(image, name)

    def __deepcopy__(self, memo) -> "Noting":
        return self  # the copy of a test's proposer would note for itself


def test_the_next_photos_are_read_while_the_network_works(tiny, monkeypatch):
    proposer, look = Noting(), TopDown.look
    grounder = Grounder(tiny.tagger, proposer, tiny.settings)

    def waits(self, images, method="c-mwp"):
        assert proposer.seen[102].wait(60)  # the first two photos are in this pass
        return look(self, images, method)

    monkeypatch.setattr(TopDown, "look", waits)
    images = [np.full((60, 80, 3), number, np.uint8) for number in proposer.seen]
    assert len(ask(grounder, images, ["a cup"], batch=2)[0]) == 3


def test_a_batch_that_is_given_up_ends_its_threads(tiny):
    before = threading.active_count()
    batch = tiny.ground_batch(pictures(), PHRASES, progress=False, batch=2)
    assert next(batch).image == "image 0"
    del batch
    gc.collect()
    assert threading.active_count() == before


def test_open_files_and_images_on_request(tiny, tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "photo.png")

    def files():
        for _ in range(3):
            with (tmp_path / "photo.png").open("rb") as file:
                yield file

    batch = list(tiny.ground_batch(files(), ["a cup"], progress=False, batch=2, keep_images=True))
    assert [np.array_equal(answers.groundings[0].image, pictures(1)[0]) for answers in batch] == [True] * 3


def test_the_default_is_one_photo_on_a_cpu_and_eight_on_a_gpu(tiny):
    assert batch_size(None, tiny.topdown) == 1 and batch_size(5, tiny.topdown, 0) == 5
    tiny.topdown.together = True  # as on a GPU
    assert batch_size(None, tiny.topdown) == batch_size(None, tiny.topdown, 0) == ON_A_GPU
    assert batch_size(None, tiny.topdown, 2) == batch_size(1, tiny.topdown, 2) == 1


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "8"])
def test_an_invalid_batch_is_refused(tiny, batch):
    with pytest.raises(InputError, match=f"batch={batch} must be a whole number, 1 or more"):
        tiny.ground_batch(["a.jpg"], PHRASES, batch=batch)


def test_batches_and_worker_processes_are_refused(tiny):
    with pytest.raises(InputError, match="batch=8 needs workers=0, not 2"):
        tiny.ground_batch(["a.jpg"], PHRASES, batch=8, workers=2)


def test_a_proposer_has_one_thread_for_each_photo():
    several, nested = SegmentProposer(threads=3), BoxProposer(50)
    assert one_threaded(several).threads == one_threaded(nested).segments.threads == 1
    assert several.threads == 3 and one_threaded(len) is len


def test_the_step_grounds_a_folder_in_batches(tiny, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "3.png").write_bytes(b"broken")
    passes, look = [], TopDown.look

    def counted(self, images, method="c-mwp"):
        passes.append(len(images))
        return look(self, images, method)

    monkeypatch.setattr(TopDown, "look", counted)
    written = []
    for batch in (1, 4):
        out = tmp_path / f"by {batch}"
        with pytest.raises(SkippedError, match="9 files: 8 kept, 1 unusable"):
            ground(tiny, str(tmp_path / "photos"), PHRASES, str(out), "csv", pictures=None, batch=batch)
        rows = [row.split(",")[:2] for row in (out / "groundings.csv").read_text().splitlines()]
        written.append((rows, (out / "skipped.jsonl").read_text()))
    assert passes[:8] == [1] * 8 and len(passes[8:]) < 8 and sum(passes[8:]) == 8
    assert written[0] == written[1]

"""A grounder with many images, with several threads, and with the same question twice."""

import gc
import logging
import weakref
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grounding import Grounder, reproducible
from grounding.batch.images import NAMED, GroundingBatch
from proposals import Proposals, SegmentProposer
from proposals.errors import InputError

PHRASES = ["a woman in an orange suit", "a cup of coffee", "a zorgophone"]


class OncePerPhoto:
    """Computes the proposals of each photo once, because most of these tests need none in particular."""

    def __init__(self):
        self.made: dict[bytes, Proposals] = {}

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        key = image.tobytes()
        if key not in self.made:
            self.made[key] = SegmentProposer(count=100)(image)
        return self.made[key]


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(proposer=OncePerPhoto(), side=224)


@pytest.fixture(scope="module")
def small(astronaut, coffee, tmp_path_factory) -> list[Path]:
    """Small photos, for which the network is fast."""
    folder = tmp_path_factory.mktemp("small")
    for photo in (astronaut, coffee):
        picture = Image.open(photo).convert("RGB")
        picture.resize((96, 96 * picture.height // picture.width)).save(folder / photo.name)
    return [folder / astronaut.name, folder / coffee.name]


def bits(answers) -> list[bytes]:
    return [answer.boxes.tobytes() + answer.scores.tobytes() + np.asarray(answer.map).tobytes() for answer in answers]


def test_ground_equals_look_and_ask(grounder, small):
    settings = {"gamma": 0.25, "prior": 0, "nms": 0.3}
    asked = grounder.ground(small[0], PHRASES, **settings)
    assert bits(asked) == bits(grounder.look(small[0]).ground(PHRASES, **settings))


def test_the_same_question_gets_a_bit_identical_answer(small):
    first, second = (Grounder.load(side=224).ground(small[0], PHRASES) for _ in range(2))
    assert bits(first) == bits(second)


def test_reproducible_results_do_not_depend_on_the_number_of_threads(grounder, small):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with reproducible():
                found.append(bits(grounder.ground(small[0], PHRASES)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_threads_can_share_a_grounder(small):
    grounder = Grounder.load(side=224)
    with reproducible():
        alone = [bits(grounder.ground(path, PHRASES)) for path in small]
        with ThreadPool(4) as threads:
            together = threads.map(lambda i: bits(grounder.ground(small[i % 2], PHRASES)), range(4))
    assert together == [alone[i % 2] for i in range(4)]


def test_threads_can_share_a_scene(grounder, small):
    phrases = [["a woman"], ["a flag", "a woman"], ["an orange suit"]]
    with reproducible():
        scene = grounder.look(small[0])
        with ThreadPool(4) as threads:
            together = threads.map(scene.ground, phrases * 2)
        fresh = [grounder.look(small[0]).ground(asked) for asked in phrases]
    for answers, alone in zip(together, fresh * 2, strict=True):
        for answer, expected in zip(answers, alone, strict=True):
            np.testing.assert_allclose(answer.scores[:10], expected.scores[:10], rtol=1e-4)


def test_many_images_are_answered_in_order(grounder, small):
    images = [small[0], np.asarray(Image.open(small[1])), Image.open(small[0])]
    batch = list(grounder.ground_batch(iter(images), PHRASES))
    assert [answers.image for answers in batch] == [str(small[0]), "image 1", "image 2"]
    assert [answers.size for answers in batch] == [(96, 96), (64, 96), (96, 96)]
    for image, answers in zip(images, batch, strict=True):
        assert bits(answers.groundings) == bits(grounder.ground(image, PHRASES))
        assert all(answer.image is None for answer in answers.groundings)


def test_each_image_can_have_its_own_phrases(grounder, small):
    batch = grounder.ground_batch(small, [["a woman", "a flag"], ["a cup"]])
    assert [[a.phrase.text for a in answers.groundings] for answers in batch] == [["a woman", "a flag"], ["a cup"]]


def test_unreadable_images_are_skipped_and_named_at_the_end(grounder, small, tmp_path, caplog):
    (tmp_path / "text.jpg").write_text("no photo")
    images = [tmp_path / "gone.jpg", small[0], np.zeros((3, 3, 3, 3)), tmp_path / "text.jpg", small[1]]
    batch = grounder.ground_batch(images, ["a woman"])
    with caplog.at_level(logging.WARNING):
        assert [answers.image for answers in batch] == list(map(str, small))
    assert batch.done == 2
    assert [skipped.name for skipped in batch.skipped] == [
        str(tmp_path / "gone.jpg"),
        "image 2",
        str(tmp_path / "text.jpg"),
    ]
    (printed,) = caplog.messages
    assert printed == (
        f"5 images: 2 kept, 3 unusable: {tmp_path}/gone.jpg: no such image file; image 2: the array "
        f"(3, 3, 3, 3) float64 is a batch of 3 images: give one, or the list to ground_batch; "
        f"{tmp_path}/text.jpg cannot be read as an image: give a JPEG, PNG, WebP or TIFF"
    )


def test_an_invalid_list_of_phrases_skips_only_its_image(grounder, small):
    batch = grounder.ground_batch([*small, small[0]], [["a woman"], [" "], []])
    assert [answers.image for answers in batch] == [str(small[0])]
    assert ["a phrase is empty" in batch.skipped[0].detail, "no phrase" in batch.skipped[1].detail] == [True, True]


def test_the_warning_names_a_limited_number_of_images(grounder, caplog):
    batch = grounder.ground_batch([f"{i}.jpg" for i in range(NAMED + 3)], ["a woman"])
    assert not list(batch)
    assert len(batch.skipped) == NAMED + 3
    assert f"{NAMED - 1}.jpg: no such image file; and 3 more" in caplog.text


def test_images_are_released(grounder, small):
    """Memory is bounded: while an image is processed, at most the previous one is still in memory."""
    alive: list[weakref.ref] = []

    def images():
        pixels = np.asarray(Image.open(small[0]))
        for _ in range(5):
            image = pixels.copy()
            alive.append(weakref.ref(image))
            yield image
            del image
            assert sum(ref() is not None for ref in alive) <= 2

    gc.disable()
    try:
        kept = list(grounder.ground_batch(images(), ["a woman"]))
    finally:
        gc.enable()
    assert len(kept) == 5


def test_progress_is_shown_in_a_terminal(grounder, small, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    list(grounder.ground_batch(small, ["a woman"]))
    assert "2/2" in capsys.readouterr().err
    list(grounder.ground_batch(small, ["a woman"], progress=False))
    assert capsys.readouterr().err == ""


REFUSALS = {
    "none": ([], "no phrase to ground: give a list of at least one"),
    "text": ("a cat", r"phrases must be a list, such as \['a red mug'\], not 'a cat'"),
    "nothing": (None, "phrases must be a list"),
    "blank": (["a cat", " "], "a phrase is empty"),
    "number": ([7, 8], "a phrase must be text, not 7: put it in quotes"),
    "mixed": (["a cat", ["a dog"]], "phrases and lists of phrases are mixed"),
    "few": ([["a cat"]], "1 lists of phrases, but 2 images: give one list for all, or one for each image"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_invalid_phrases_are_refused_before_the_first_image(grounder, name):
    phrases, message = REFUSALS[name]
    with pytest.raises(InputError, match=message):
        grounder.ground_batch(["a.jpg", "b.jpg"], phrases)


def test_phrases_of_a_generator_or_an_array_are_asked_about_every_image(grounder, small):
    expected = [repr(answers.groundings) for answers in grounder.ground_batch(small, ["a woman", "a dog"])]
    for phrases in (iter(["a woman", "a dog"]), np.array(["a woman", "a dog"])):
        assert [repr(answers.groundings) for answers in grounder.ground_batch(small, phrases)] == expected


def test_a_single_path_is_refused(grounder):
    for path in ("a.jpg", Path("a.jpg")):
        with pytest.raises(
            InputError, match=r"a.jpg is one image, not a list of images: call ground for it, or give \["
        ):
            grounder.ground_batch(path, ["a cat"])


def test_too_few_lists_of_phrases_for_a_generator_are_refused(grounder, small):
    batch = grounder.ground_batch(iter(small), [["a woman"]])
    assert isinstance(batch, GroundingBatch)
    with pytest.raises(InputError, match="1 lists of phrases, but more images"):
        list(batch)


def test_devices(small):
    assert Grounder.load(device=torch.device("cpu"), side=224).ground(small[0], ["a woman"])[0].groundable
    with pytest.raises(InputError, match="device=tpu is not a PyTorch device: use cpu, cuda, or cuda:1"):
        Grounder.load(device="tpu")
    with pytest.raises(
        InputError, match=r"device=meta is not available on this machine \(it computes nothing\): use device=cpu"
    ):
        Grounder.load(device="meta")
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(InputError, match=rf"device={beyond} is not available on this machine \(.*\): use device=cpu"):
        Grounder.load(device=beyond)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_and_cpu_agree(grounder, small):
    on_gpu = Grounder.load(device="cuda")
    with reproducible():
        first, second = (on_gpu.ground(small[0], PHRASES) for _ in range(2))
    assert bits(first) == bits(second)
    for answer, expected in zip(first, grounder.ground(small[0], PHRASES), strict=True):
        np.testing.assert_allclose(answer.scores[:3], expected.scores[:3], rtol=1e-2)


def test_an_answer_prints_as_one_line_and_shows_its_overlay(grounder, small):
    woman, unknown = grounder.ground(small[0], ["a woman with a zorgophone", "a zorgophone"])
    box = ", ".join(f"{side:.0f}" for side in woman.boxes[0])
    numbers = " ".join(f"{side:.0f}" for side in woman.boxes[0])
    absent = "probably not in this photo: " if woman.absent else ""
    assert str(woman).startswith(
        f"a woman with a zorgophone: {absent}box {numbers}, score {woman.scores[0]:.2f}, presence "
    )
    assert str(woman).endswith("not known: zorgophone")
    assert repr(woman) == (
        f"Grounding('a woman with a zorgophone': {absent}box=({box}), score={woman.scores[0]:.3f}, "
        f"boxes={len(woman.boxes)}, presence={woman.presence:.2f}, skipped=('zorgophone',))"
    )  # fmt: skip
    assert repr(unknown) == "Grounding('a zorgophone': not groundable, skipped=('zorgophone',))"
    assert woman._repr_png_().startswith(b"\x89PNG")
    assert unknown._repr_png_() is None
    (answers,) = grounder.ground_batch(small[:1], ["a woman"])
    assert answers.groundings[0]._repr_png_() is None
    (answers,) = grounder.ground_batch(small[:1], ["a woman"], keep_images=True)
    assert answers.groundings[0]._repr_png_().startswith(b"\x89PNG")

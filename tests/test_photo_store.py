"""The limits of what the page's server keeps in memory: activations and photos."""

from types import SimpleNamespace

import numpy as np
import pytest
from page_server import LIMITS

from grounding.page.limits import Limits
from grounding.page.scenes import LazyScene, SceneCache
from grounding.page.store import PhotoStore
from grounding.runtime import memory
from grounding.runtime.memory import MemoryTrimmer


def test_activations_are_kept_for_the_last_photos_only():
    passes: list[str] = []
    topdown = SimpleNamespace(look=lambda _, method: passes.append(method) or SimpleNamespace())
    tagger = SimpleNamespace(prepare=lambda *_: None)
    cache = SceneCache(SimpleNamespace(settings=SimpleNamespace(side=300), tagger=tagger, topdown=topdown), size=2)
    first, second, third = (LazyScene(cache, np.zeros((30, 40, 3), np.uint8)) for _ in range(3))
    assert cache.activations(first, "c-mwp") is cache.activations(first, "mwp")
    cache.activations(second, "cam")
    cache.activations(first, "c-mwp")
    assert passes == ["c-mwp"] * 2
    cache.activations(third, "c-mwp")
    cache.activations(second, "c-mwp")
    assert passes == ["c-mwp"] * 4
    cache.activations(second, "grad")
    cache.activations(second, "c-mwp")
    assert passes[4:] == ["grad"] and len(cache._recent) == 2
    del first, second, third
    assert len(cache._recent) == 0


def scene(size: int) -> SimpleNamespace:
    return SimpleNamespace(nbytes=size, proposals=None)


def test_the_size_of_a_photo_has_its_file_its_maps_and_its_proposals():
    proposals = SimpleNamespace(boxes=np.zeros(4), size=(3, 4), inner=SimpleNamespace(cells=np.zeros(2)))
    photo = PhotoStore(Limits(**LIMITS)).add("a", SimpleNamespace(nbytes=100, proposals=proposals), b"12345")
    assert photo.nbytes == 100 + 5 + 6 * 8


def test_the_scores_of_a_photo_are_not_kept():
    topdown = SimpleNamespace(look=lambda *_: SimpleNamespace(score_maps=np.zeros(3)))
    tagger = SimpleNamespace(prepare=lambda *_: None)
    cache = SceneCache(SimpleNamespace(settings=SimpleNamespace(side=300), tagger=tagger, topdown=topdown), size=1)
    photo = LazyScene(cache, np.zeros((30, 40, 3), np.uint8))
    assert photo.score_maps.shape == (3,)
    assert not any(isinstance(value, np.ndarray) and value.size == 3 for value in vars(photo).values())


def test_unused_memory_is_given_back_at_most_twice_a_second(monkeypatch):
    now, calls = [0.0], []
    trimmer = MemoryTrimmer(lambda: now[0])
    monkeypatch.setattr(memory, "_malloc_trim", lambda: calls.append)
    done = []
    for now[0] in (0.3, 0.6, 0.9, 1.05, 1.2):
        done.append(trimmer())
    assert done == [False, True, False, False, True] and calls == [0, 0]
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)  # a system without it
    now[0] = 9
    assert not trimmer()


def test_a_client_finds_the_scenes_of_its_own_files_and_of_samples():
    photos = PhotoStore(Limits(**LIMITS), public=[b"sample"])
    own, sample = scene(1), scene(1)
    first = photos.add("a", own, b"own", "one").token
    photos.add("b", sample, b"sample", "one")
    assert photos.scene_of(b"own", "one") is own
    assert photos.scene_of(b"own", "two") is None and photos.scene_of(b"other", "one") is None
    assert photos.scene_of(b"sample", "one") is sample and photos.scene_of(b"sample", "two") is sample
    assert photos.add("a", own, b"own", "one").token == first
    others = {photos.add("c", own, b"own", "one").token, photos.add("a", sample, b"sample", "two").token}
    assert len(others | {first}) == 3 and len(photos) == 4
    for token in (first, *others):
        photos.remove(token)
    assert photos.scene_of(b"own", "one") is None


def test_a_sample_that_grows_takes_no_photo_of_a_client_away():
    bounds = LIMITS | {"client_photos": 2, "client_bytes": 100, "photos_bytes": 150}
    photos = PhotoStore(Limits(**bounds), public=[b"sample"])
    own, sample = photos.add("own", scene(20), b"own", "two").token, scene(1)
    held = [photos.add("s", sample, b"sample", client).token for client in ("one", "two", "three")]
    assert [photos.get(token).scene for token in held] == [sample] * 3  # one scene, so not more than two photos
    sample.nbytes = 101
    assert photos.get(own).client == "two" and len(photos) == 1
    assert photos.scene_of(b"sample", "one") is None


def test_photos_are_bounded_in_number_bytes_and_time():
    now = [0.0]
    photos = PhotoStore(Limits(**LIMITS | {"photos": 3, "photos_bytes": 100, "photo_seconds": 60}), lambda: now[0])
    first, second, third = (photos.add(name, scene(20)).token for name in "abc")
    assert photos.get(first).name == "a"
    photos.add("d", scene(20))
    with pytest.raises(KeyError):
        photos.get(second)
    photos.get(third).scene.nbytes = 70
    assert {photos.get(third).name} == {"c"} and len(photos) == 2
    photos.add("e", scene(101))
    assert len(photos) == 0
    last = photos.add("f", scene(1)).token
    now[0] = 61
    photos.evict()
    with pytest.raises(KeyError):
        photos.get(last)
    assert len({photos.add("g", scene(1)).token for _ in range(100)}) == 100


def test_a_file_that_is_processed_twice_at_the_same_time_has_one_scene():
    photos = PhotoStore(Limits(**LIMITS), public=[b"sample"])
    first, second = scene(1), scene(1)
    tokens = {photos.add("a", first, b"own", "one").token, photos.add("a", second, b"own", "one").token}
    assert len(tokens) == 1 and photos.scene_of(b"own", "one") is first
    for client in ("one", "two"):
        for computed in (scene(1), scene(1)):
            photos.add("a", computed, b"sample", client)
    assert len(photos) == 3  # one of the file, and one of the sample for each client
    assert photos.add("a", second, b"own", "two").scene is second  # never that of another client

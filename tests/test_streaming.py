"""``step=train`` straight from tars: the loss is that of the local training, and no photo is used twice in an epoch."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from faulty_server import serving
from made_shards import make_shards
from made_tars import photo, write_tar
from safetensors.torch import load_file
from training_runs import RECIPE, last_step, losses, same, start_training, tiny_trainings

from grounding.shards.fetching import FetchOptions
from proposals.errors import InputError
from training.distributed import RankGroup
from training.feeds import StreamDataset, StreamedPhotos
from training.order import WINDOW
from training.progress import Progress
from training.recipe import Recipe
from training.streaming import StreamedShards, StreamOptions, StreamPlace, is_streamed
from training.train import train


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), train=5)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory) -> Iterator[None]:
    with tiny_trainings(tmp_path_factory.mktemp("init")):
        yield


@pytest.fixture
def options(tmp_path) -> StreamOptions:
    return StreamOptions(buffer=WINDOW, fetch=FetchOptions(cache=str(tmp_path / "cache"), attempts=3, pause=0.01))


def test_a_training_from_a_server_with_faults_ends_with_the_weights_of_the_local_one(shards, options, tmp_path):
    recipe = RECIPE | {"ema_decay": 0.5, "micro_batch": 3}
    local = train(str(shards), str(tmp_path / "local"), epochs=3, **recipe)
    slow = replace(options, fetch=replace(options.fetch, timeout=0.5, gigabytes=0))
    faults = {"train-000000.tar": ["503"], "train-000001.tar": ["cut", "long"], "train-000002.tar": ["slow"]}
    with serving(shards, faults) as server:
        streamed = train(server.url, str(tmp_path / "web"), epochs=3, stream=slow, **recipe)
    assert streamed.read_bytes() != local.read_bytes()  # it says what it was trained on
    one, two = load_file(streamed), load_file(local)
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert losses(tmp_path / "web") == losses(tmp_path / "local")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(shards, tmp_path):
    arguments = {"epochs": 12, "save_minutes": 0, "validate_every": 30, **RECIPE}
    with serving(shards) as server:
        arguments["root"] = f"{server.url}/train-{{000000..000004}}.tar"
        stream = StreamOptions(words(shards), f"{server.url}/val-000000.tar", buffer=6)
        whole = train(output=str(tmp_path / "whole"), stream=stream, **arguments)
        process = start_training(arguments | {"output": str(tmp_path / "killed"), "stream": asdict(stream)})
        while last_step(tmp_path / "killed" / "checkpoints") < 12:
            time.sleep(0.01)
            assert process.poll() is None
        process.kill()
        process.communicate()
        assert 12 <= last_step(tmp_path / "killed" / "checkpoints") < 5 * 12
        assert same(train(output=str(tmp_path / "killed"), stream=stream, **arguments), whole)


def words(shards: Path) -> str:
    return str(shards / "vocabulary.txt")


def feed(root, options, rank=0, ranks=1, **recipe) -> StreamedPhotos:
    shards = StreamedShards(root, options, RECIPE["init"])
    return StreamedPhotos(shards, Recipe.of(**{"batch": 2, "workers": 0} | recipe), RankGroup(rank, ranks, _CPU))


_CPU = torch.device("cpu")


def names(source: StreamedPhotos, monkeypatch, progress: Progress) -> Iterator[tuple[tuple[str, ...], StreamPlace]]:
    """The photos of each batch, and the place after them."""
    used = []
    plain = StreamDataset.__getitem__

    def recorded(dataset, requests):
        used.append((tuple(request.photo.name for request in requests), requests[-1].place))
        return plain(dataset, requests)

    with monkeypatch.context() as patched:
        patched.setattr(StreamDataset, "__getitem__", recorded)
        for _ in source.epoch(progress):
            yield used.pop()


def test_no_photo_is_used_twice_in_an_epoch_and_no_shard_fetched_twice(shards, options, monkeypatch):
    seen = Counter()
    with serving(shards) as server:
        root = f"{server.url}/train-{{000000..000003}}.tar"
        chosen = replace(options, validation=f"{server.url}/val-000000.tar", vocabulary=words(shards), buffer=6)
        for rank in (0, 1):
            for photos, _ in names(feed(root, chosen, rank, 2), monkeypatch, Progress("")):
                seen.update(photos)
        assert len(seen) == 16
        assert set(seen.values()) == {1}
        assert {server.requests[f"train-00000{i}.tar"] for i in range(4)} == {1}


def test_an_epoch_continues_at_every_place(shards, options, monkeypatch):
    root = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    chosen = replace(options, validation=str(shards / "val-000000.tar"), vocabulary=words(shards), buffer=6)
    source = feed(root, chosen)
    whole = list(names(source, monkeypatch, Progress("")))
    assert len(whole) == 10
    assert [place.shard for _, place in whole] == [0] * 4 + [2] * 4 + [4] * 2
    for step in (1, 3, 4, 7, 9):
        progress = Progress("", epoch_steps=step, places=[list(whole[step - 1][1])])
        assert list(names(source, monkeypatch, progress)) == whole[step:]
    later = [photos for photos, _ in names(source, monkeypatch, Progress("", epoch=1))]
    assert later != [photos for photos, _ in whole]
    assert sorted(sum(later, ())) == sorted(sum((photos for photos, _ in whole), ()))


def test_a_crawl_is_trained_on_and_what_cannot_be_used_is_counted(options, tmp_path, caplog):
    good = [
        {"__key__": str(n), "jpg": photo(n), "json": json.dumps({"tags": ["zebra", "cup"]}).encode()} for n in range(6)
    ]
    odd = [
        {"__key__": "a", "jpg": photo(8)},
        {"__key__": "b", "jpg": photo(9), "txt": b"nothing known"},
        {"__key__": "c", "jpg": photo(9), "json": b"{"},
        {"__key__": "d", "jpg": b"no photo", "txt": b"a cat"},
    ]
    write_tar(tmp_path / "0.tar", good + odd)
    write_tar(tmp_path / "val.tar", [{"__key__": "1", "jpg": photo(1), "txt": b"a cat and a zebra"}])
    chosen = replace(options, validation=str(tmp_path / "val.tar"))
    with caplog.at_level(logging.INFO):
        train([str(tmp_path / "0.tar")], str(tmp_path / "out"), epochs=1, stream=chosen, **RECIPE | {"batch": 7})
    left = {"without text": 1, "without a tag of the vocabulary": 1, "with broken JSON": 1}
    found = next(line for line in caplog.messages if "left out in epoch 1" in line)
    assert json.loads(found.partition("epoch 1: ")[2]) == left
    assert any(line.startswith("skipped d of ") for line in caplog.messages)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["validations"][0]["epoch"] == 1


def test_a_micro_batch_of_broken_photos_is_left_out(options, tmp_path, caplog):
    text = json.dumps({"tags": ["zebra", "cup"]}).encode()
    good = [{"__key__": str(n), "jpg": photo(n), "json": text} for n in range(7)]
    write_tar(tmp_path / "0.tar", [*good, {"__key__": "b", "jpg": b"no photo", "json": text}])
    write_tar(tmp_path / "val.tar", good[:1])
    chosen = replace(options, validation=str(tmp_path / "val.tar"))
    train([str(tmp_path / "0.tar")], str(tmp_path / "out"), epochs=1, stream=chosen, **RECIPE | {"micro_batch": 1})
    assert [line for line in caplog.messages if line.startswith("skipped b of ")]
    assert last_step(tmp_path / "out" / "checkpoints") == 2


def test_broken_photos_for_validation_are_left_out(options, tmp_path, caplog):
    text = json.dumps({"tags": ["zebra", "cup"]}).encode()
    good = [{"__key__": str(n), "jpg": photo(n), "json": text} for n in range(4)]
    write_tar(tmp_path / "0.tar", good)
    broken = {"jpg": b"no photo", "json": text}
    write_tar(tmp_path / "val.tar", [{"__key__": "a"} | broken, *good, {"__key__": "b"} | broken])
    chosen = replace(options, validation=str(tmp_path / "val.tar"))
    train([str(tmp_path / "0.tar")], str(tmp_path / "out"), epochs=1, stream=chosen, **RECIPE | {"micro_batch": 1})
    assert [line.split()[2] for line in caplog.messages if line.startswith("skipped validation")] == ["a", "b"]
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 1


def test_an_epoch_may_use_the_first_tags_only(options, tmp_path):
    text = json.dumps({"tags": ["cup", "zebra", "cat"]}).encode()
    write_tar(tmp_path / "0.tar", [{"__key__": str(n), "jpg": photo(n), "json": text} for n in range(2)])
    write_tar(tmp_path / "val.tar", [{"__key__": "1", "jpg": photo(1), "txt": b"a cat"}])
    chosen = replace(options, validation=str(tmp_path / "val.tar"))
    first = [
        feed(str(tmp_path / "0.tar"), chosen, tags_per_image=1, count_unknown_tags=unknown) for unknown in (False, True)
    ]
    (known,), (all_tags,) = (list(source.epoch(Progress(""))) for source in first)
    assert known.columns.tolist() == [1, 1]  # zebra
    assert all_tags.columns.tolist() == []


@pytest.mark.parametrize(
    ("root", "changed", "message"),
    [
        ("{f}/train-*.tar", {}, "tars have no list of photos for validation: set step.stream.validation= to a tar"),
        ("{f}/*.tar", {"validation": "{f}/val-000000.tar"}, "is given for training and for validation: take it out"),
        ("{f}/train-*.tar", {"validation": "{f}"}, None),
        ("{f}/train-*.tar", {"validation": "{f}/none"}, "validation=.*none names no tar file"),
        (
            "{f}/train-*.tar",
            {"validation": "{f}/val-000000.tar", "vocabulary": "/none"},
            "vocabulary=/none cannot be read",
        ),
        ("http://127.0.0.1:9/x", {"vocabulary": "v.txt"}, "is a folder of step=shards, which has a vocabulary"),
        ("http://127.0.0.1:9/x", {}, r"x/shards\.json cannot be fetched \(tried 3 times\)"),
    ],
)
def test_what_is_missing_is_said(shards, options, root, changed, message):
    changed = {name: value.format(f=shards) for name, value in changed.items()}
    if message is None:
        message = "is given for training and for validation"  # a folder of tars: all of them
    with pytest.raises(InputError, match=message):
        StreamedShards(root.replace("{f}", str(shards)), replace(options, **changed), RECIPE["init"])


def test_a_folder_beside_a_url_is_refused_with_a_cure_for_streams(shards, options):
    root = [str(shards), "http://127.0.0.1:9/0.tar"]
    with pytest.raises(InputError, match=rf"has {shards}, a folder, .*: name the tars .*{shards}/train-\*\.tar"):
        StreamedShards(root, options, RECIPE["init"])
    with pytest.raises(InputError, match=r"has http://127\.0\.0\.1:9/shards, a folder, beside tars"):
        StreamedShards(["http://127.0.0.1:9/0.tar", "http://127.0.0.1:9/shards"], options, RECIPE["init"])
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/shards/shards\.json cannot be fetched"):
        StreamedShards(["http://127.0.0.1:9/shards"], options, RECIPE["init"])


def test_no_photo_for_validation_is_said_with_a_cure_for_streams(options, tmp_path):
    text = json.dumps({"tags": ["zebra", "cup"]}).encode()
    write_tar(tmp_path / "0.tar", [{"__key__": str(n), "jpg": photo(n), "json": text} for n in range(4)])
    write_tar(tmp_path / "val.tar", [{"__key__": "a", "jpg": b"no photo", "json": text}])
    chosen = replace(options, validation=str(tmp_path / "val.tar"))
    cure = r"could be read: set step\.stream\.validation= \(now .*val\.tar\) to tars of photos"
    with pytest.raises(InputError, match=cure):
        train([str(tmp_path / "0.tar")], str(tmp_path / "out"), epochs=1, stream=chosen, **RECIPE)


def test_wrong_settings_are_refused(shards, options, tmp_path):
    with pytest.raises(InputError, match=r"step\.stream\.buffer=0 must be 1 or more"):
        StreamOptions(buffer=0)
    with pytest.raises(InputError, match="init=torchvision has no tags"):
        StreamedShards(
            f"{shards}/train-*.tar", replace(options, validation=str(shards / "val-000000.tar")), "torchvision"
        )
    chosen = replace(options, validation=str(shards / "val-000000.tar"))
    root = str(shards / "train-000000.tar")
    with pytest.raises(InputError, match="repeat= is for folders of shards"):
        train(root, str(tmp_path), repeat=[2], stream=chosen, **RECIPE)
    with pytest.raises(InputError, match="has 1 tars for 2 ranks: use fewer ranks"):
        feed(root, chosen, 0, 2)
    with pytest.raises(InputError, match=r"has fewer than step\.batch=5 photos with a known tag on a rank"):
        train(root, str(tmp_path), stream=chosen, **RECIPE | {"batch": 5})


def test_a_shard_of_another_size_ends_the_training(shards, options, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.iterdir():
        data = path.read_bytes()
        (copy / path.name).write_bytes(data[:-512] if path.name == "train-000003.tar" else data)
    with serving(copy) as server, pytest.raises(InputError, match=r"train-000003\.tar has \d+ bytes instead of \d+"):
        train(server.url, str(tmp_path / "out"), epochs=1, stream=options, **RECIPE)


def test_a_tar_that_cannot_be_fetched_ends_the_training_with_a_checkpoint(shards, options, tmp_path):
    chosen = replace(options, buffer=4)
    with serving(shards, {f"train-00000{i}.tar": [] for i in range(5)} | {"train-000002.tar": ["404"]}) as server:
        with pytest.raises(InputError, match=r"train-000002\.tar cannot be fetched: HTTP 404"):
            train(server.url, str(tmp_path / "out"), epochs=1, stream=chosen, **RECIPE)
        assert last_step(tmp_path / "out" / "checkpoints") >= 0
        train(server.url, str(tmp_path / "out"), epochs=1, stream=chosen, **RECIPE)  # it is there now
        whole = train(server.url, str(tmp_path / "whole"), epochs=1, stream=chosen, **RECIPE)
    assert same(tmp_path / "out" / "tagger.safetensors", whole)


def test_ranks_must_be_as_many_within_an_epoch(shards, options, tmp_path):
    from training.train import _check_ranks

    progress = Progress("", places=[[0, 0, 1], [0, 0, 1]])
    with pytest.raises(InputError, match="within an epoch of streamed photos by 2 ranks: use as many again"):
        _check_ranks(progress, RankGroup(0, 1, _CPU), tmp_path)


def test_what_is_streamed(shards, tmp_path):
    assert not is_streamed(str(shards))
    assert not is_streamed([str(shards)])
    assert not is_streamed(str(tmp_path / "none"))
    (tmp_path / "list.txt").write_text(f"{shards}/train-000000.tar\n")
    for root in ("s3://bucket/x", "crawl/*.tar", "crawl/{0..3}.tar", ["a.tar"], str(tmp_path / "list.txt")):
        assert is_streamed(root)

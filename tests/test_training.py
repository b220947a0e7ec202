"""The step ``train``: what is learned, what is published, and what is refused."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_shards import TAGS, make_shards
from omegaconf import OmegaConf
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from training_runs import RECIPE, ROOT, last_step, losses, tiny_trainings

from grounding import TagClassifier
from proposals.errors import InputError
from training.model import TrainableTagger
from training.recipe import Recipe
from training.shards import Shards, index_path
from training.train import train


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), train=3)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory) -> Iterator[None]:
    with tiny_trainings(tmp_path_factory.mktemp("init")):
        yield


def test_a_frozen_trunk_does_not_change(shards, tmp_path):
    start = TagClassifier.load(RECIPE["init"]).state_dict()
    for rate in (0.0, 0.001):
        path = train(str(shards), str(tmp_path / str(rate)), epochs=1, **(RECIPE | {"trunk_lr": rate}))
        trained = load_file(path)
        trunk = [name for name in trained if name.startswith("trunk.")]
        assert all(torch.equal(trained[name].float(), start[name]) for name in trunk) == (rate == 0)


@pytest.mark.parametrize("rate", [0.0, 0.001])
def test_inherited_tags_are_kept(shards, tmp_path, rate):
    path = train(str(shards), str(tmp_path), epochs=1, distillation_weight=1.0, **(RECIPE | {"trunk_lr": rate}))
    known, tagger = TagClassifier.load(RECIPE["init"]), TagClassifier.load(path)
    spare = [tag for tag in known.vocabulary if tag not in Shards(shards).vocabulary]
    assert list(tagger.vocabulary)[-len(spare) :] == spare
    theirs = known.classifier.weight[[known.vocabulary.index(tag) for tag in spare]]
    moved = (tagger.classifier.weight[-len(spare) :] - theirs).abs().max().item()
    assert moved == 0 if rate == 0 else 0 < moved < 0.1
    measured = json.loads((tmp_path / "metrics.json").read_text())["validations"][-1]
    assert ("names_kept" in measured) == (rate > 0)


@pytest.mark.parametrize("factor", [0.5, 1])
def test_a_plateau_lowers_the_learning_rates_unless_the_factor_is_1(shards, tmp_path, factor):
    train(str(shards), str(tmp_path), epochs=20, lr_factor=factor, **(RECIPE | {"tag_lr": 30.0}))  # no loss gets better
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    rates = [line["tag_lr"] for line in lines if "tag_lr" in line]
    assert len(rates) == 3
    assert min(rates) < 30 if factor < 1 else rates == [30] * 3


def test_the_averaged_weights_are_published(shards, tmp_path, monkeypatch):
    seen = []
    plain = TrainableTagger.after_step

    def stepped(network):
        seen.append(network.tagger.classifier.bias.detach().clone())
        plain(network)

    monkeypatch.setattr(TrainableTagger, "after_step", stepped)
    path = train(str(shards), str(tmp_path), epochs=1, **(RECIPE | {"tag_lr": 1.0, "ema_decay": 0.9}))
    average = seen[0]
    for bias in seen[1:]:
        average = 0.9 * average + 0.1 * bias
    torch.testing.assert_close(TagClassifier.load(path).classifier.bias, average, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(seen[-1], average, atol=2e-3, rtol=1e-3)


def test_bfloat16_gives_similar_losses(shards, tmp_path):
    train(str(shards), str(tmp_path / "bf"), epochs=1, precision="bfloat16", **RECIPE)
    train(str(shards), str(tmp_path / "f"), epochs=1, **RECIPE)
    assert losses(tmp_path / "bf") == pytest.approx(losses(tmp_path / "f"), rel=0.1)


def test_only_the_first_tags_of_a_photo_are_used(shards, tmp_path, monkeypatch):
    most = []
    plain = TrainableTagger.loss

    def loss(network, batch, *where):
        most.append(torch.bincount(batch.rows).max().item())
        return plain(network, batch, *where)

    monkeypatch.setattr(TrainableTagger, "loss", loss)
    train(str(shards), str(tmp_path), epochs=1, tags_per_image=2, **RECIPE)
    assert max(most) == 2 < max(map(len, TAGS.values()))


def test_broken_photos_are_skipped_and_reported(tmp_path, caplog):
    root = make_shards(tmp_path / "shards")
    shards = Shards(root)
    index = shards.index("train-000000.tar")
    with (root / "train-000000.tar").open("r+b") as file:
        file.seek(int(index.offsets[1]))
        file.write(bytes(int(index.sizes[1])))
    train(str(root), str(tmp_path / "out"), epochs=1, **RECIPE)
    assert "skipped photo 1 of train-000000.tar" in caplog.text
    assert "1 broken photos were skipped" in (tmp_path / "out" / "report.md").read_text()


def test_a_shard_of_broken_photos_ends_the_training(tmp_path):
    root = make_shards(tmp_path / "shards", train=1)
    index = Shards(root).index("train-000000.tar")
    with (root / "train-000000.tar").open("r+b") as file:
        for offset, size in zip(index.offsets, index.sizes, strict=True):
            file.seek(int(offset))
            file.write(bytes(int(size)))
    with pytest.raises(InputError, match="broken photos in a row: make the shards again"):
        train(str(root), str(tmp_path / "out"), epochs=1, **RECIPE)


def test_incomplete_shards_are_refused(shards, tmp_path):
    with pytest.raises(InputError, match=r"shards\.json is missing"):
        train(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"has 12 photos for training, and step\.batch=64: lower step\.batch="):
        train(str(shards), str(tmp_path / "out"))
    message = r"has no photo for validation \(made with held_out=0\): make the shards with a larger step\.held_out="
    with pytest.raises(InputError, match=message):
        train(str(make_shards(tmp_path / "none", val=0)), str(tmp_path / "out"), **RECIPE)
    root = make_shards(tmp_path / "missing")
    (root / "train-000001.tar").unlink()
    with pytest.raises(InputError, match=r"train-000001\.tar is missing"):
        train(str(root), str(tmp_path / "out"), **RECIPE)
    index_path(root / "train-000000.tar").unlink()
    make_shards(root, train=1)
    (root / "train-000000.tar").write_bytes((root / "train-000000.tar").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train-000000\.tar is truncated"):
        train(str(root), str(tmp_path / "out"), **RECIPE)


@pytest.mark.parametrize(
    ("keep", "message"),
    [(2, r"remove the checkpoints after .*step-\d+\.safetensors, and"), (1, "remove the checkpoints, and")],
)
def test_a_validation_loss_that_is_not_finite_says_how_to_start_again(shards, tmp_path, monkeypatch, keep, message):
    monkeypatch.setattr("training.train.validate", lambda *_: {"loss": math.nan})
    with pytest.raises(InputError, match=rf"the validation loss is not finite: .*, {message} start again"):
        train(str(shards), str(tmp_path), epochs=1, **(RECIPE | {"save_minutes": 0, "keep_checkpoints": keep}))


def test_a_loss_that_is_not_finite_ends_the_training_and_saves_the_batch(shards, tmp_path):
    message = (
        r"the loss of step \d+ is not finite .*lower step\.trunk_lr or step.tag_lr; .*\d\.safetensors is from before"
    )
    with pytest.raises(InputError, match=message):
        train(str(shards), str(tmp_path), epochs=50, save_minutes=0, **(RECIPE | {"tag_lr": 1e38}))
    with safe_open(tmp_path / "not-finite-0.safetensors", "pt") as file:
        assert file.get_tensor("0.images").shape == (4, 3, 224, 224)
        stopped = int(file.metadata()["step"])
    assert stopped == last_step(tmp_path / "checkpoints")
    with pytest.raises(InputError, match=r"lower step\.trunk_lr or step\.tag_lr; there is no checkpoint yet$"):
        train(str(shards), str(tmp_path / "new"), epochs=50, save_minutes=99, **(RECIPE | {"tag_lr": 1e38}))


def test_an_output_folder_that_cannot_be_written_is_refused(shards, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be written"):
        train(str(shards), str(tmp_path / "out"), epochs=1, **RECIPE)


def test_settings_out_of_range_are_refused():
    wrong = {
        "batch": 0,
        "tags_per_image": 0,
        "tag_lr": -1,
        "seed": -1,
        "ema_decay": 1,
        "lr_factor": 0,
        "crop": 223,
        "pooling": 0.001,
    }
    wrong |= {"precision": "float16"}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=f"step.{name}={value}"):
            Recipe.of(**{name: value})
    for quality in ([0, 95], [30, 96], [90, 30]):
        message = f"step.jpeg_quality={quality} must be two qualities in 1..95, such as [30,95]"
        with pytest.raises(InputError, match=re.escape(message)):
            Recipe.of(jpeg_quality=quality)
    with pytest.raises(InputError, match=r"step\.count_unknown_tags=true needs step\.tags_per_image=, such as 5"):
        Recipe.of(count_unknown_tags=True)
    assert not {"count_unknown_tags", "jpeg_quality"} & Recipe().identity().keys()
    with pytest.raises(InputError, match="step=train has no setting speed"):
        Recipe.of(speed=1)
    with pytest.raises(InputError, match="decay was renamed: use weight_decay"):
        Recipe.of(decay=0.1)
    with pytest.raises(InputError, match=re.escape("step.batch=64 photos cannot be split over 3 ranks")):
        Recipe().share(3)


def test_the_configuration_has_the_defaults_of_the_recipe():
    settings = OmegaConf.load(ROOT / "conf" / "step" / "train.yaml")
    fields = {name: value for name, value in vars(Recipe()).items() if name != "seed"}  # which is that of all steps
    assert {name: settings[name] for name in fields} == fields


def test_tensorboard_gets_scalars_and_maps(shards, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: .venv/bin/pip install -e '.[watch]'")
    train(str(shards), str(tmp_path), tensorboard=True, epochs=1, **RECIPE)
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_the_picture_shows_a_photo_and_a_map_per_tag(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    with Image.open(next((tmp_path / "maps").iterdir())) as picture:
        assert picture.size == (224 * (1 + len(TAGS["astronaut"])), 224)

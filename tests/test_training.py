"""The training step on shards made of photos that scikit-image ships."""

import io
import json
import random
import tarfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from grounding import TagClassifier, Vocabulary
from grounding.googlenet import CAFFE_BRANCHES, CAFFE_LAYERS, INCEPTIONS, googlenet
from proposals.errors import InputError
from training.data import Photos, collate, crop, find_shards, positives, shard_captions, square
from training.loss import tag_loss
from training.start import initial_tagger, set_frequencies
from training.train import train

CAPTIONS = {
    "astronaut": ["A smiling woman in an orange suit .", "A woman beside a flag ."],
    "chelsea": ["A cat looks up .", "The face of a cat ."],
    "coffee": ["A cup of coffee on a table .", "A cup and a spoon ."],
    "rocket": ["A rocket starts at night .", "A rocket and a tower ."],
}


def photo(name: str) -> bytes:
    path = next(Path(str(files("skimage.data"))).glob(f"{name}.*"))
    buffer = io.BytesIO()
    image = Image.open(path).convert("RGB")
    image.thumbnail((160, 160))
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def write_shard(path: Path, samples: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in samples.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for number in range(3):
        samples: dict[str, bytes] = {}
        for name, captions in CAPTIONS.items():
            samples[f"{number}{name}.jpg"] = photo(name)
            samples[f"{number}{name}.json"] = json.dumps({"captions": captions}).encode()
        write_shard(root / f"train-{number}.tar", samples)
    return root


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 10**6))
def test_the_sparse_loss_is_the_dense_one(batch, tags, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, tags, generator=rng) * 8
    logits.requires_grad_()
    dense = (torch.rand(batch, tags, generator=rng) < 0.3).float()
    rows, columns = dense.nonzero().T
    sparse = tag_loss(logits, rows, columns)
    plain = F.binary_cross_entropy_with_logits(logits, dense, reduction="sum") / batch
    torch.testing.assert_close(sparse, plain)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (sparse, plain))
    torch.testing.assert_close(ours, theirs)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(1, 30))
def test_mirror_padding_makes_any_photo_square(height, width):
    image = np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)
    assert square(image).size == (256, 256)


def test_mirror_padding_mirrors():
    image = np.zeros((2, 4, 3), np.uint8)
    image[0], image[1] = 50, 200
    padded = np.asarray(square(image, 4))[:, 0, 0]
    np.testing.assert_array_equal(padded, [50, 50, 200, 200])


def test_crops_are_the_centre_or_at_random():
    image = square(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    centre = crop(image, None)
    assert centre.shape == (3, 224, 224)
    np.testing.assert_array_equal(centre.permute(1, 2, 0).numpy(), np.asarray(image)[16:240, 16:240])
    rng = random.Random(0)
    drawn = {crop(image, rng).numpy().tobytes() for _ in range(20)}
    assert len(drawn) == 20


def test_an_epoch_is_a_permutation_that_its_seed_decides(shards):
    vocabulary = Vocabulary.of_captions(shard_captions(find_shards(shards)), 1)

    def order(seed, epoch):
        return [(image.sum().item(), tuple(tags.tolist())) for image, tags in
                Photos(find_shards(shards), vocabulary, seed, epoch)]  # fmt: skip

    plain = [tuple(tags.tolist()) for _, tags in Photos(find_shards(shards), vocabulary)]
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(tags for _, tags in order(0, 0)) == sorted(plain)


def test_positives_are_the_captions_words():
    vocabulary = Vocabulary(["cat", "cup", "hot dog", "spoon", "dog"])
    assert positives(["A cup and a spoon .", "Two cats with a hot dog"], vocabulary) == [1, 2, 3]


def test_batches_say_where_the_positives_are():
    samples = [(torch.zeros(3, 2, 2), torch.tensor([4, 7])), (torch.zeros(3, 2, 2), torch.tensor([], dtype=torch.long)),
               (torch.zeros(3, 2, 2), torch.tensor([1]))]  # fmt: skip
    images, rows, columns = collate(samples)
    assert images.shape == (3, 3, 2, 2)
    assert rows.tolist() == [0, 0, 2]
    assert columns.tolist() == [4, 7, 1]


RECIPE = {"batch": 4, "minimum": 1, "trunk_rate": 0.0, "tag_rate": 0.01, "workers": 0}


def test_training_learns_and_resumes_bit_equal(shards, tmp_path):
    whole = train(str(shards), str(tmp_path / "whole"), epochs=3, **RECIPE)
    history = json.loads((tmp_path / "whole" / "metrics.json").read_text())["epochs"]
    assert history[-1]["loss"] < history[0]["loss"]
    train(str(shards), str(tmp_path / "parts"), epochs=1, **RECIPE)
    parts = train(str(shards), str(tmp_path / "parts"), epochs=3, **RECIPE)
    ours, theirs = load_file(parts), load_file(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len(json.loads((tmp_path / "parts" / "metrics.json").read_text())["epochs"]) == 3
    tagger = TagClassifier.load(parts)
    assert {"cat", "coffee", "rocket"} <= set(tagger.vocabulary)


def test_a_trained_trunk_moves_and_a_frozen_one_does_not(shards, tmp_path):
    start = TagClassifier.load().state_dict()
    for rate in (0.0, 0.001):
        path = train(str(shards), str(tmp_path / str(rate)), epochs=1, **(RECIPE | {"trunk_rate": rate}))
        trained = load_file(path)
        trunk = [name for name in trained if name.startswith("trunk.")]
        assert all(torch.equal(trained[name].float(), start[name]) for name in trunk) == (rate == 0)


def test_a_run_of_another_recipe_is_not_continued(shards, tmp_path):
    train(str(shards), str(tmp_path), epochs=1, **RECIPE)
    with pytest.raises(InputError, match="belongs to another recipe"):
        train(str(shards), str(tmp_path), epochs=2, **(RECIPE | {"tag_rate": 0.5}))
    save_file({"a": torch.zeros(1)}, tmp_path / "last.safetensors")
    with pytest.raises(InputError, match="is no checkpoint"):
        train(str(shards), str(tmp_path), epochs=2, **RECIPE)


def test_a_broken_photo_is_skipped_and_a_broken_shard_is_told(shards, tmp_path, caplog):
    captions = json.dumps({"captions": ["a cat"]}).encode()
    samples = {"a.jpg": b"", "a.json": captions, "b.jpg": photo("chelsea"), "b.json": captions}
    write_shard(tmp_path / "0.tar", samples)
    assert len(list(Photos(find_shards(tmp_path), Vocabulary(["cat"])))) == 1
    assert "skipped a" in caplog.text
    whole = (tmp_path / "0.tar").read_bytes()
    for content in (whole[:700], whole[:1024], whole[:3000], b"", b"text" * 1000):
        (tmp_path / "1.tar").write_bytes(content)
        with pytest.raises(InputError, match=r"1\.tar is truncated or no tar file"):
            list(shard_captions(find_shards(tmp_path)))


@pytest.mark.parametrize("content", [b"[", b"{}", b'{"captions": 3}', b'{"captions": [3]}'])
def test_broken_captions_are_told(tmp_path, content):
    write_shard(tmp_path / "0.tar", {"a.json": content})
    with pytest.raises(InputError, match=r"a\.json"):
        list(shard_captions(find_shards(tmp_path)))


def test_wrong_folders_and_recipes_are_told(shards, tmp_path):
    with pytest.raises(InputError, match=r"holds no \.tar shards"):
        train(str(tmp_path), str(tmp_path))
    with pytest.raises(InputError, match="held_out=3 of 3 shards"):
        train(str(shards), str(tmp_path), held_out=3)
    with pytest.raises(InputError, match="no word occurs in the captions of 99 photos"):
        train(str(shards), str(tmp_path), minimum=99)
    with pytest.raises(InputError, match="no longer finite"):
        train(str(shards), str(tmp_path), epochs=50, **(RECIPE | {"tag_rate": 1e30}))


def caffe_file(path: Path) -> dict[str, torch.Tensor]:
    """Random weights under Caffe's names."""
    names = dict(CAFFE_LAYERS)
    for block in INCEPTIONS:
        names |= {f"{block}/{theirs}": f"{block}.{ours}.conv" for theirs, ours in CAFFE_BRANCHES.items()}
    state = googlenet().state_dict()
    kinds = ("weight", "bias")
    tensors = {f"{theirs}.{k}": state[f"{ours}.{k}"].half() for theirs, ours in names.items() for k in kinds}
    save_file(tensors, path)
    return tensors


def test_caffes_tensors_fill_the_trunk(tmp_path):
    tensors = caffe_file(tmp_path / "caffe.safetensors")
    tagger = initial_tagger(str(tmp_path / "caffe.safetensors"), Vocabulary(["dog"]))
    assert torch.equal(tagger.trunk.conv1.conv.weight, tensors["conv1/7x7_s2.weight"].float())
    assert torch.equal(tagger.trunk.inception_4d.five_reduce.conv.bias, tensors["inception_4d/5x5_reduce.bias"].float())
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith("inception_5b/1x1")}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(InputError, match=r"inception_5b/1x1\.weight is missing"):
        initial_tagger(str(tmp_path / "lacking.safetensors"), Vocabulary(["dog"]))
    save_file(tensors | {"conv2/3x3.bias": torch.zeros(5)}, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"conv2.conv.bias is \(5,\), should be \(192,\)"):
        initial_tagger(str(tmp_path / "odd.safetensors"), Vocabulary(["dog"]))


def test_known_tags_keep_their_weights():
    known = TagClassifier.load()
    tagger = initial_tagger("embedded", Vocabulary(["xylophone", "dog"]))
    assert torch.equal(tagger.classifier.weight[1], known.classifier.weight[known.vocabulary.index("dog")])
    assert torch.equal(tagger.trunk.conv1.conv.weight, known.trunk.conv1.conv.weight)


def test_biases_are_the_log_odds():
    tagger = initial_tagger("embedded", Vocabulary(["xylophone", "dog"]))
    set_frequencies(tagger, torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(tagger.classifier.bias.sigmoid(), torch.tensor([0.25, 1e-6]))

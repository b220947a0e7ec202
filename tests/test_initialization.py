"""The initial tagger: its trunk, the tags that it knows already, and the tags that it inherits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from grounding import TagClassifier, Vocabulary
from grounding.tagger.googlenet import CAFFE_BRANCHES, CAFFE_LAYERS, INCEPTIONS, googlenet
from proposals.errors import InputError
from training.initialization import CLASSES, initial_tagger, set_frequencies
from training.teacher import Teacher, calibrate


def caffe_file(path: Path, classes: int = 0) -> dict[str, torch.Tensor]:
    """Writes random weights with Caffe's names."""
    names = dict(CAFFE_LAYERS)
    for block in INCEPTIONS:
        names |= {f"{block}/{theirs}": f"{block}.{ours}.conv" for theirs, ours in CAFFE_BRANCHES.items()}
    state = googlenet().state_dict()
    kinds = ("weight", "bias")
    tensors = {f"{theirs}.{k}": state[f"{ours}.{k}"].half() for theirs, ours in names.items() for k in kinds}
    if classes:
        tensors |= {f"{CLASSES}.weight": torch.randn(classes, 1024), f"{CLASSES}.bias": torch.randn(classes)}
    save_file(tensors, path)
    return tensors


def test_the_trunk_gets_the_tensors_of_caffe(tmp_path):
    tensors = caffe_file(tmp_path / "caffe.safetensors")
    tagger = initial_tagger(str(tmp_path / "caffe.safetensors"), Vocabulary(["dog"]))
    assert torch.equal(tagger.trunk.conv1.conv.weight, tensors["conv1/7x7_s2.weight"].float())
    assert torch.equal(tagger.trunk.inception_4d.five_reduce.conv.bias, tensors["inception_4d/5x5_reduce.bias"].float())
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith("inception_5b/1x1")}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(InputError, match=r"inception_5b/1x1\.weight is missing"):
        initial_tagger(str(tmp_path / "lacking.safetensors"), Vocabulary(["dog"]))
    save_file(tensors | {"conv2/3x3.bias": torch.zeros(5)}, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"conv2.conv.bias has shape \(5,\), not \(192,\)"):
        initial_tagger(str(tmp_path / "odd.safetensors"), Vocabulary(["dog"]))


NAMES = """n02123045 tabby, tabby cat
n02012849 crane
n03126707 crane
n04356056 sunglasses, dark glasses, shades
n02085620 Chihuahua
"""


def test_classes_are_inherited_with_their_first_free_name(tmp_path):
    tensors = caffe_file(tmp_path / "caffe.safetensors", classes=5)
    (tmp_path / "names.txt").write_text(NAMES)
    arguments = str(tmp_path / "caffe.safetensors"), Vocabulary(["dog", "sunglasses"]), "googlenet"
    tagger = initial_tagger(*arguments, tmp_path / "names.txt", inherit=True)
    assert list(tagger.vocabulary) == ["dog", "sunglasses", "tabby", "crane", "dark glasses", "chihuahua"]
    assert torch.equal(tagger.classifier.weight[2:, :, 0, 0], tensors[f"{CLASSES}.weight"][[0, 1, 3, 4]])
    assert torch.equal(tagger.classifier.bias[2:], tensors[f"{CLASSES}.bias"][[0, 1, 3, 4]])
    (tmp_path / "more.txt").write_text(NAMES + "zebra\n")
    with pytest.raises(InputError, match=r"loss3/classifier has shape \(5, 1024\), but names= has 6 classes"):
        initial_tagger(*arguments, tmp_path / "more.txt", inherit=True)
    with pytest.raises(InputError, match="the names of the classes are missing"):
        initial_tagger(*arguments, None, inherit=True)
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        initial_tagger(*arguments, tmp_path / "none.txt", inherit=True)
    with pytest.raises(InputError, match="the classes of init=torchvision have no names"):
        initial_tagger("torchvision", Vocabulary(["dog"]), inherit=True)


def test_the_names_of_imagenet(data):
    folder = data / "bvlc_googlenet"
    weights, names = str(folder / "bvlc_googlenet.fp16.safetensors"), folder / "synset_words.txt"
    tagger = initial_tagger(weights, Vocabulary(["dog"]), names=names, inherit=True)
    assert len(tagger.vocabulary) > 990
    assert {"tabby", "espresso", "missile", "egyptian cat", "golden retriever"} <= set(tagger.vocabulary)


def test_known_tags_keep_their_weights():
    known = TagClassifier.load()
    tagger = initial_tagger("embedded", Vocabulary(["xylophone", "dog"]))
    assert list(tagger.vocabulary) == ["xylophone", "dog"]
    assert torch.equal(tagger.classifier.weight[1], known.classifier.weight[known.vocabulary.index("dog")])
    assert torch.equal(tagger.trunk.conv1.conv.weight, known.trunk.conv1.conv.weight)


def test_biases_are_log_odds():
    tagger = initial_tagger("embedded", Vocabulary(["xylophone", "dog"]))
    set_frequencies(tagger, torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(tagger.classifier.bias.sigmoid(), torch.tensor([0.25, 1e-6]))


def test_the_teacher_does_not_change():
    tagger = initial_tagger("embedded", Vocabulary(["dog"]), inherit=True).eval()
    images = tagger.preprocessing(torch.randint(0, 255, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        before = tagger(images).flatten(1)[:, 1:]
    calibrate(tagger, images, 1)
    teacher = Teacher(tagger, 1)
    with torch.no_grad():
        after = tagger(images).flatten(1)[:, 1:]
        torch.testing.assert_close(after.softmax(1), before.softmax(1))
        torch.testing.assert_close(after.logsumexp(1).mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
        tagger.trunk.conv1.conv.weight.zero_()
        torch.testing.assert_close(teacher(images), after)

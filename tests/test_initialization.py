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


NAMES = """n02012849 crane
n02085620 Chihuahua
n02123045 tabby, tabby cat
n03126707 crane
n04356056 sunglasses, dark glasses, shades
"""


def test_classes_are_inherited_with_their_first_free_name(tmp_path):
    tensors = caffe_file(tmp_path / "caffe.safetensors", classes=5)
    (tmp_path / "names.txt").write_text(NAMES)
    arguments = str(tmp_path / "caffe.safetensors"), Vocabulary(["dog", "sunglasses"]), "googlenet"
    tagger = initial_tagger(*arguments, tmp_path / "names.txt", inherit=True)
    assert list(tagger.vocabulary) == ["dog", "sunglasses", "crane", "chihuahua", "tabby", "dark glasses"]
    assert torch.equal(tagger.classifier.weight[2:, :, 0, 0], tensors[f"{CLASSES}.weight"][[0, 1, 2, 4]])
    assert torch.equal(tagger.classifier.bias[2:], tensors[f"{CLASSES}.bias"][[0, 1, 2, 4]])
    with pytest.raises(InputError, match="the names of the classes are missing"):
        initial_tagger(*arguments, None, inherit=True)
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        initial_tagger(*arguments, tmp_path / "none.txt", inherit=True)
    with pytest.raises(InputError, match="the classes of init=torchvision have no names"):
        initial_tagger("torchvision", Vocabulary(["dog"]), inherit=True)


NUMBERED = "0 crane\n1: Chihuahua\n2,tabby, tabby cat\n3\tcrane\n4 sunglasses, dark glasses, shades"


@pytest.mark.parametrize(
    "text", ["\ufeff" + NAMES, NAMES.replace("\n", "\r\n"), NUMBERED, "\ufeff" + NUMBERED + "\n\n"]
)
def test_a_byte_order_mark_and_numbers_do_not_change_the_classes(tmp_path, text):
    tensors = caffe_file(tmp_path / "caffe.safetensors", classes=5)
    (tmp_path / "names.txt").write_bytes(text.encode())
    arguments = str(tmp_path / "caffe.safetensors"), Vocabulary(["dog"]), "googlenet"
    tagger = initial_tagger(*arguments, tmp_path / "names.txt", inherit=True)
    assert list(tagger.vocabulary) == ["dog", "crane", "chihuahua", "tabby", "sunglasses"]
    assert torch.equal(tagger.classifier.bias[1:], tensors[f"{CLASSES}.bias"][[0, 1, 2, 4]])


LINES = NAMES.splitlines()
UNMATCHED = {
    "first line missing": (LINES[1:], "has 4 lines, but the network has 5 classes: give the file that belongs"),
    "one line more": ([*LINES, "n04356057 zebra"], "has 6 lines, but the network has 5 classes"),
    "any text": (["Lorem ipsum", "dolor"], "has 2 lines, but the network has 5 classes"),
    "nothing": ([], "has 1 lines, but the network has 5 classes"),
    "bare names": (["crane", "Chihuahua", "tabby", "crane", "shades"], "line 1 'crane' cannot be matched with a class: "
                   "begin each line with its WordNet id, as in synset_words.txt"),
    "one bare name": ([*LINES[:4], "shades"], "line 5 'shades' cannot be matched"),
    "a blank line": ([*LINES[:2], "", *LINES[3:]], "line 3 '' cannot be matched"),
    "no name": ([*LINES[:4], "n04356056"], "line 5 'n04356056' cannot be matched"),
    "two lines swapped": ([LINES[1], LINES[0], *LINES[2:]], "line 2 n02012849 comes after n02085620: the WordNet ids"),
    "a line twice": ([*LINES[1:], LINES[4]], "line 5 n04356056 comes after n04356056"),
    "numbers from 1": ([f"{i} name" for i in range(1, 6)], "line 1 begins with 1, not 0: number the classes from 0"),
    "a number twice": ([f"{i} name" for i in (0, 1, 1, 2, 3)], "line 3 begins with 1, not 2"),
    "numbers and ids": (["0 crane", *LINES[1:]], "line 2 begins with n02085620, not 1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", UNMATCHED)
def test_names_that_cannot_be_matched_row_for_row_are_refused(tmp_path, fault):
    lines, message = UNMATCHED[fault]
    caffe_file(tmp_path / "caffe.safetensors", classes=5)
    (tmp_path / "names.txt").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(InputError, match=message) as caught:
        initial_tagger(
            str(tmp_path / "caffe.safetensors"), Vocabulary(["dog"]), names=tmp_path / "names.txt", inherit=True
        )
    assert "\n" not in str(caught.value)


def test_a_network_without_an_output_layer_has_nothing_to_inherit(tmp_path):
    caffe_file(tmp_path / "caffe.safetensors")
    (tmp_path / "names.txt").write_text(NAMES)
    with pytest.raises(InputError, match=r"no tags can be inherited: loss3/classifier of .* has weight \(0,\)"):
        initial_tagger(str(tmp_path / "caffe.safetensors"), Vocabulary(["a"]), "", tmp_path / "names.txt", True)


def test_the_names_of_imagenet(data):
    folder = data / "bvlc_googlenet"
    weights, names = str(folder / "bvlc_googlenet.fp16.safetensors"), folder / "synset_words.txt"
    tagger = initial_tagger(weights, Vocabulary(["dog"]), names=names, inherit=True)
    assert len(tagger.vocabulary) > 990
    assert {"tabby", "espresso", "missile", "egyptian cat", "golden retriever"} <= set(tagger.vocabulary)


def test_known_tags_keep_their_weights():
    known = TagClassifier.load("googlenet")
    tagger = initial_tagger("googlenet", Vocabulary(["zorgophone", "dog"]))
    assert list(tagger.vocabulary) == ["zorgophone", "dog"]
    assert torch.equal(tagger.classifier.weight[1], known.classifier.weight[known.vocabulary.index("dog")])
    assert torch.equal(tagger.trunk.conv1.conv.weight, known.trunk.conv1.conv.weight)


def test_biases_are_log_odds():
    tagger = initial_tagger("googlenet", Vocabulary(["zorgophone", "dog"]))
    set_frequencies(tagger, torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(tagger.classifier.bias.sigmoid(), torch.tensor([0.25, 1e-6]))


def test_only_new_tags_begin_with_their_frequencies():
    known = TagClassifier.load("googlenet")
    tagger = initial_tagger("googlenet", Vocabulary(["zorgophone", "dog"]), frequencies=torch.tensor([0.25, 0.5]))
    new, old = tagger.classifier.bias
    torch.testing.assert_close(new.sigmoid(), torch.tensor(0.25))
    assert old == known.classifier.bias[known.vocabulary.index("dog")]


def test_the_tags_of_photos_begin_with_their_frequencies_beside_classes(data):
    folder = data / "bvlc_googlenet"
    weights, names = str(folder / "bvlc_googlenet.fp16.safetensors"), folder / "synset_words.txt"
    vocabulary, frequencies = Vocabulary(["dog", "a man"]), torch.tensor([0.25, 0.5])
    tagger = initial_tagger(weights, vocabulary, names=names, inherit=True, frequencies=frequencies)
    torch.testing.assert_close(tagger.classifier.bias[:2].sigmoid(), frequencies)


def test_the_teacher_does_not_change():
    tagger = initial_tagger("googlenet", Vocabulary(["dog"]), inherit=True).eval()
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
        torch.testing.assert_close(teacher(images).flatten(1), after)

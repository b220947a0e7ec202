"""Another tagger as teacher, and photos without tags."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from made_shards import jpeg, make_shards, tiny_tagger

from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError
from training.loss import soft_tag_loss, tag_loss, tagged_loss
from training.sharding import shard
from training.shards import Shards
from training.teacher import FileTeacher
from training.train import train

QUICK = {"batch": 4, "epochs": 1, "workers": 0}


def test_photos_without_a_tag_do_not_count_as_photos_without_every_tag():
    logits = torch.randn(4, 5, requires_grad=True)
    rows, columns = torch.tensor([0, 0, 2]), torch.tensor([1, 4, 0])
    loss = tagged_loss(logits, rows, columns, 4)
    expected = tag_loss(logits[[0, 2]], torch.tensor([0, 0, 1]), columns, 4)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None and not logits.grad[[1, 3]].any() and logits.grad[[0, 2]].all()


def test_the_loss_without_any_tag_is_0():
    none = torch.zeros(0, dtype=torch.long)
    assert float(tagged_loss(torch.randn(3, 5), none, none, 3)) == 0


def test_the_soft_loss_is_smallest_where_the_student_equals_the_teacher():
    taught = torch.randn(3, 4, dtype=torch.float64)
    student = taught.clone().float().requires_grad_()
    soft_tag_loss(student, taught, 3).backward()
    assert student.grad is not None and student.grad.abs().max() < 1e-6


def test_a_teacher_predicts_the_shared_tags_as_its_own_network_does(tmp_path):
    student = TagClassifier.load(tiny_tagger(tmp_path / "student.safetensors", ["dog", "cat", "zebra", "cup"]))
    path = tiny_tagger(tmp_path / "teacher.safetensors", ["cup", "zebra", "boat", "cat"])
    teacher = TagClassifier.load(path)
    images = torch.randint(0, 255, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        logits = teacher(teacher.preprocessing(images)).flatten(1)
    guide = FileTeacher(student, TagClassifier.load(path), known=2)
    tags, inherited = guide(images)
    assert (guide.columns.tolist(), guide.inherited.tolist()) == ([1], [2, 3])
    torch.testing.assert_close(tags, logits[:, [3]])
    torch.testing.assert_close(inherited, logits[:, [1, 0]])


def test_a_teacher_must_know_the_inherited_tags_and_at_least_one(tmp_path):
    student = TagClassifier.load(tiny_tagger(tmp_path / "student.safetensors", ["dog", "cat"]))
    other = tiny_tagger(tmp_path / "teacher.safetensors", ["boat"])
    with pytest.raises(InputError, match=r"step\.teacher= lacks 1 of the tags that init= adds, such as 'cat'"):
        FileTeacher(student, TagClassifier.load(other), known=1)
    with pytest.raises(InputError, match="has none of the tags of the training photos"):
        FileTeacher(student, TagClassifier.load(other), known=2)


def crawl(path: Path) -> None:
    """A tar with two photos with a text and two without."""
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(("chelsea", "coffee", "rocket", "astronaut")):
            files = {"jpg": jpeg(name)}
            if number < 2:
                files["json"] = json.dumps({"tags": [name, "photo"]}).encode()
            for suffix, data in files.items():
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def test_photos_without_tags_are_kept_on_request(tmp_path):
    (tmp_path / "crawl").mkdir()
    crawl(tmp_path / "crawl" / "0.tar")
    given = str(tmp_path / "crawl")
    skipped = shard(given, str(tmp_path / "a"), min_images=1, held_out=0, workers=0)
    kept = shard(given, str(tmp_path / "b"), min_images=1, held_out=0, workers=0, untagged=True)
    assert (skipped["skipped"], kept["skipped"]) == ({"without text": 2}, {})
    index = Shards(tmp_path / "b").index("train-000000.tar")
    assert (index.starts[1:] - index.starts[:-1]).tolist() == [2, 2, 0, 0]


def test_a_teacher_without_a_weight_is_refused(tmp_path):
    root = make_shards(tmp_path / "shards", train=1, val=1)
    teacher = tiny_tagger(tmp_path / "teacher.safetensors")
    with pytest.raises(InputError, match=r"step\.teacher= teaches nothing with step\.distillation_weight=0"):
        train(str(root), str(tmp_path / "out"), init=teacher, teacher=teacher, **QUICK)


def test_a_training_learns_from_a_teacher(tmp_path):
    root = make_shards(tmp_path / "shards", train=1, val=1)
    teacher = tiny_tagger(tmp_path / "teacher.safetensors", ["quagga", "cat", "zebra"])
    init = tiny_tagger(tmp_path / "init.safetensors", ["cat", "zebra", "quagga"])
    settings = {**QUICK, "distillation_weight": 1.0}
    taught = train(str(root), str(tmp_path / "a"), init=init, teacher=teacher, **settings)
    alone = train(str(root), str(tmp_path / "b"), init=init, **settings)
    a, b = (TagClassifier.load(path).classifier.weight for path in (taught, alone))
    assert not torch.equal(a, b)
    assert "teacher.safetensors" in json.loads((tmp_path / "a" / "metrics.json").read_text())["recipe"]["teacher"]

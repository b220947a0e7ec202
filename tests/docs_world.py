"""A folder with small stand-ins for all that the command lines of the documentation name."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from entities_folder import BOX, XML, copy_photo, write_entities
from everyday import write_coco
from made_shards import jpeg, make_shards
from made_tars import crawl, photo, write_tar
from made_voc import write_photos
from scipy.io import savemat
from test_initialization import NAMES, caffe_file
from test_lexicon import wordnet
from torch import nn

from grounding import TagClassifier, Vocabulary
from grounding.tagger.architectures import ARCHITECTURES, Architecture
from grounding.tagger.preprocessing import TORCHVISION

TAGS = ("cat", "dog", "cup", "person", "woman", "suit", "flag", "tv", "bottle", "red", "kite", "mug",
        "smiling", "n02123045")  # fmt: skip
ENTITIES = "flickr30k_entities"
CAPTIONS = ["a cat and a dog", "a red cup beside a bottle", "a woman with a flag", "a person in a suit with a kite"]
OBJECT = f"<object><name>n02123045</name><difficult>0</difficult>{BOX}</object>"


def trunk(pretrained: bool = False) -> nn.Sequential:
    """One convolution, and the names of GoogLeNet's layers that the documentation mentions."""
    layers = OrderedDict(conv1=nn.Conv2d(3, 16, 7, stride=8), relu1=nn.ReLU())
    layers |= {name: nn.MaxPool2d(3, 1, 1) for name in ("pool1", "pool2", "pool3", "inception_5b")}
    return nn.Sequential(layers | {"pool5": nn.AvgPool2d(28)})


def register() -> None:
    """Makes ``small`` an architecture of taggers, in this process."""
    ARCHITECTURES["small"] = Architecture(trunk, 16, TORCHVISION, "pool2")


def small_tagger(path: Path) -> str:
    """Writes a tagger with random weights."""
    register()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        TagClassifier("small", Vocabulary(TAGS)).save(path)
    return str(path)


def make_world(root: Path) -> Path:
    """Writes the photos, data sets, shards and weights that the documentation names, each a small one."""
    for name in ("small", "own", "strong"):
        small_tagger(root / f"{name}.safetensors")
    _write_photos(root)
    _write_data_sets(root)
    _write_tables(root)
    make_shards(root / "SHARDS")
    (root / "wordnet").mkdir()
    wordnet(root / "wordnet")
    caffe_file(root / "bvlc_googlenet.safetensors", classes=5)
    (root / "synset_words.txt").write_text(NAMES)
    (root / "site").mkdir()  # for processes of their own, which have to know the architecture, too
    (root / "site" / "sitecustomize.py").write_text("import docs_world\ndocs_world.register()\n")
    return root


def _write_photos(root: Path) -> None:
    for name in ("photo.jpg", "one.jpg", "two.jpg", "PHOTO", "shop/1.jpg", "shop/hats/2.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg("coffee"))
    for name in ("PHOTOS", "FOLDER"):
        (root / name).mkdir()
        for number in range(12):
            (root / name / f"{number}.jpg").write_bytes(photo(number))
    crawl(root / "crawl", 1, 1)
    for number in range(1, 4):
        (root / f"crawl/{number:05d}.tar").hardlink_to(root / "crawl/00000.tar")
    texts = [json.dumps({"captions": [CAPTIONS[number % 4]] * 2}).encode() for number in range(12)]
    both = [{"__key__": f"{number}", "jpg": photo(number), "json": text} for number, text in enumerate(texts)]
    for name in ("TARS", "FLICKR8K", "flickr8k"):
        write_tar(root / name / "00000.tar", both)
    tags = [json.dumps({"tags": CAPTIONS[number % 4].split()}).encode() for number in range(12)]
    tagged = [sample | {"json": text} for sample, text in zip(both, tags, strict=True)]
    write_tar(root / "TAGGED" / "00000.tar", tagged)


def _write_data_sets(root: Path) -> None:
    (root / ENTITIES).mkdir()
    write_entities(root / ENTITIES)
    copy_photo(root / ENTITIES, ["8", "9"])
    (root / ENTITIES / "val.txt").write_text("7\n8\n9\n")
    (root / "mcg").mkdir()
    for name in ("7", "8", "9"):
        _write_regions(root / "mcg" / f"{name}.mat")
    write_photos(root / "voc2012", 7)  # the eighth would be a broken one
    (root / "voc2012/ImageSets/Main/toy.txt").rename(root / "voc2012/ImageSets/Main/val.txt")
    write_coco(root / "coco2017", split="val")
    (root / "coco2017/val").rename(root / "coco2017/val2017")
    path = root / "coco2017/annotations/instances_val.json"
    path = path.rename(path.with_stem("instances_val2017"))
    _write_training_photos(root / "coco2017", json.loads(path.read_text())["categories"])
    for folder in ("Data", "Annotations"):
        (root / "ILSVRC" / folder / "CLS-LOC/val").mkdir(parents=True)
    for number in range(6):
        (root / f"ILSVRC/Data/CLS-LOC/val/{number}.JPEG").write_bytes(photo(number))
        text = XML.format(id=number, w=64, h=48, objects=OBJECT.format(1, 1, 30 + number, 40))
        (root / f"ILSVRC/Annotations/CLS-LOC/val/{number}.xml").write_text(text)


def _write_training_photos(root: Path, categories: list[dict[str, object]]) -> None:
    """The split train2017 of COCO: eight photos of a dog and a television."""
    numbers = range(10, 18)
    (root / "train2017").mkdir()
    for number in numbers:
        (root / f"train2017/{number}.jpg").write_bytes(photo(number))
    boxes = [(number, category, 5 + 20 * (category - 2), 5) for number in numbers for category in (2, 3)]
    things = [
        {"id": i, "image_id": number, "category_id": category, "bbox": [x, y, 20, 20], "iscrowd": 0,
         "segmentation": [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]}
        for i, (number, category, x, y) in enumerate(boxes)
    ]  # fmt: skip
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48} for number in numbers]
    content = {"images": images, "categories": categories, "annotations": things}
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))


def _write_regions(path: Path) -> None:
    superpixels = np.arange(8000).reshape(80, 100) // 1000 + 1
    labels = np.empty(3, object)
    labels[:] = [np.array([1]), np.array([1, 2, 3]), np.array([5, 6])]
    savemat(path, {"superpixels": superpixels.astype(np.uint16), "labels": labels, "scores": np.ones((3, 1))})


def _write_tables(root: Path) -> None:
    (root / "phrases.txt").write_text("a cat\na red mug\n")
    (root / "captions.txt").write_text("".join(f"{caption}\n" for caption in CAPTIONS))
    rows = "".join(f"{number}.jpg,{CAPTIONS[number % 4]}\n" for number in range(12))
    (root / "table.csv").write_text("path,caption\n" + rows)
    marked = [(image, sentence, phrase) for image in (7, 8, 9) for sentence, phrase in ((0, 0), (0, 2), (1, 1), (1, 2))]
    lines = [f"{image} {sentence + 1} {phrase + 1} 1 two dogs\n" for image, sentence, phrase in marked]
    (root / "phraseList.txt").write_text("".join(lines))
    answers = {"boxes": [[1, 1, 30, 40]], "scores": [0.7]}
    for name, asked in (("entities", _phrases_of_entities()), ("voc", _phrases_of_voc())):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(each | answers) + "\n" for each in asked))


def _phrases_of_entities() -> list[dict[str, object]]:
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]
    return [{"image": image, "sentence": s, "phrase": p} for image in "789" for s, p in places]


def _phrases_of_voc() -> list[dict[str, object]]:
    named = [{"cup", "dog", "zebra", "cat"}] * 7
    return [{"image": f"{number:05d}", "phrase": name} for number, names in enumerate(named) for name in sorted(names)]

"""The readers that ``fuzz`` gives changed files to, each with small valid files."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import torch
from fuzz_commands import compose, read_command
from fuzz_requests import ask
from PIL import Image
from safetensors.torch import save

from eval.coco import Coco
from eval.flickr30k import read_boxes
from eval.phrase_list import phrase_label, read_phrase_list
from eval.predictions import read_predictions
from eval.voc import read_objects
from grounding.images import read_image
from grounding.shards.addresses import find_shards
from grounding.tagger.tagger import FORMAT, TagClassifier
from grounding.text.captions import read_captions
from grounding.text.chunks import noun_phrases
from grounding.text.markup import parse_sentence
from grounding.text.vocabulary import Vocabulary
from proposals.matfile import MatFile
from training.table_readers import read_table
from training.tar_reader import tar_samples

BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        seeds: the inputs that are changed; at least one is valid, except for ``tagger``.
        read: reads an input from a file of its own, or from bytes.
        suffix: of the file; "" for a reader of bytes.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[Path], object] | Callable[[bytes], object]
    suffix: str = ""


def _image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("1.jpg", _image("JPEG")), ("1.json", b'{"caption": "a cat"}'), ("2.txt", b"a dog")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _mat() -> bytes:
    cells = np.empty(2, object)
    cells[:] = [np.array([[1.0, 2, 3, 4]]), np.array([[5.0, 6, 7, 8]])]
    file = io.BytesIO()
    scipy.io.savemat(file, {"boxes": cells, "scores": np.ones((3, 1))}, do_compression=True)
    return file.getvalue()


def _coco_bytes() -> bytes:
    thing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0,
             "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]}  # fmt: skip
    crowd = thing | {"id": 2, "iscrowd": 1, "segmentation": {"size": [12, 16], "counts": [0, 20, 172]}}
    photo = {"id": 1, "file_name": "1.jpg", "width": 16, "height": 12}
    listed = {"images": [photo], "annotations": [thing, crowd], "categories": [{"id": 1, "name": "cat"}]}
    return json.dumps(listed).encode()


def _coco(path: Path) -> None:
    data = Coco(path.parent, "split", path, path.parent)
    for name in data.ids:
        for thing in data.read(name).objects:
            thing.check_mask()
            thing.mask()


def _matrices(data: bytes) -> None:
    file = MatFile(data, "fuzz.mat", 1 << 20)
    file.cells("boxes")
    file.matrix("scores")


def _text(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for phrase in noun_phrases(text):
        phrase_label(phrase)
    phrase_label(text)
    parse_sentence(text)


def _vocabulary(data: bytes) -> None:
    Vocabulary(tuple(data.decode("utf-8", "replace").split("\n")))


def _tagger() -> bytes:
    mean = {"mean": [0, 0, 0], "std": [1, 1, 1], "bgr": False}
    notes = {
        "format": FORMAT,
        "architecture": "bvlc_googlenet",
        "vocabulary": '["cat"]',
        "preprocessing": json.dumps(mean),
    }
    return save({"classifier.weight": torch.zeros(1, 2, 1, 1)}, notes)


VOC = (
    f"<annotation><size><width>16</width><height>12</height></size><object><name>cat</name>{BOX}</object></annotation>"
)
PREDICTION = b'{"image": "1", "sentence": 0, "phrase": 1, "boxes": [[1, 1, 5, 5]], "scores": [0.5]}\n'
SENTENCE = b"[/EN#1/people/other Two dogs] and [/EN#5/other a ghost] on 3 red cars in the sky .\n"
CAPTION = b'{"image": "1.jpg", "captions": ["a cat", "a dog"]}\n'
COCO_CAPTIONS = b'{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "a cat"}]}'
SHARD_TABLE = b"url,photos\na.tar,3\nb-{0..3}.tar,4\n"
TO_PHOTO = b"POST /api/photos/TOKEN/%s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\r\n%s"
QUESTION = b'{"phrases": ["a cat", "a zebra"], "method": "c-mwp", "gamma": 0.5, "boxes": 3}'
GET = b"GET %s HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\nx-forwarded-for: 1.2.3.4\r\n\r\n"
UPLOAD = b"POST /api/%s HTTP/1.1\r\nhost: localhost:80\r\ncontent-type: image/png\r\n\r\n"
REQUESTS = (
    *(TO_PHOTO % (kind, QUESTION) for kind in (b"ground", b"exports/json", b"exports/svg")),
    TO_PHOTO % (b"ground", b'{"caption": "A cat and two dogs."}'),
    TO_PHOTO % (b"words", b'{"box": [10, 20.5, 120, 80], "count": 5}'),
    *(GET % path for path in (b"/api/photos/TOKEN/heat.png?phrase=a+cat&method=mwp", b"/api/about", b"/")),
    UPLOAD % b"photos?name=a.png" + _image("PNG"),
    UPLOAD % b"ground?phrase=a+cat&phrase=her%20dog&gamma=0.3" + _image("PNG"),
)
COMMANDS = (
    b"photo.jpg\na woman's hat\nher dog\ngamma=0.3\nstep.pictures=svg",
    b"one.jpg\ntwo.jpg\n--\na cat",
    b"image=photo.jpg\nphrases=[a cat, 'a dog']\nattention=mwp\n~tagger.presence\n+new=1",
    b"evaluate\ndata.split=val\nproposals=boxes\nstep.proposers={a: 1}",
    b"serve\nstep.port=0\nstep.limits.photos=5\nstep.hosts=[a,b]",
    b"-m\nphoto.jpg\na cat\ngamma=0.25,range(0,1,0.5)\nexperiment=paper",
)
TARGETS = {
    "images": Target(tuple(map(_image, ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"))), read_image),
    "voc": Target((VOC.encode(),), read_objects, ".xml"),
    "entities": Target((VOC.encode(),), read_boxes, ".xml"),
    "coco": Target((_coco_bytes(),), _coco, ".json"),
    "predictions": Target((PREDICTION * 2, PREDICTION), lambda path: list(read_predictions(path)), ".jsonl"),
    "phrase-list": Target((b"1 1 1 1 two dogs\n2 1 1 0 a cat\n",), read_phrase_list, ".txt"),
    "sentences": Target((SENTENCE,), _text),
    "captions": Target((CAPTION, COCO_CAPTIONS, SENTENCE), lambda path: list(read_captions(path)), ".txt"),
    "captions-csv": Target((b"path,caption\n1.jpg,a cat\n2.jpg,\"a, dog\"\n",), lambda p: list(read_table(p)), ".csv"),
    "captions-jsonl": Target((b'{"path": "1.jpg", "caption": "a cat"}\n',), lambda p: list(read_table(p)), ".jsonl"),
    "vocabulary": Target((b"cat\ndog",), _vocabulary),
    "tagger": Target((_tagger(),), TagClassifier.load, ".safetensors"),
    "tars": Target((_tar(),), lambda path: list(tar_samples(path)), ".tar"),
    "shard-table": Target((SHARD_TABLE,), lambda path: find_shards(str(path)), ".csv"),
    "mat": Target((_mat(),), _matrices),
    "requests": Target(REQUESTS, ask),
    "command-line": Target(COMMANDS, read_command),
    "overrides": Target(COMMANDS, compose),
}  # fmt: skip

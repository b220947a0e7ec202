"""Fuzzing of the readers: changed copies of small valid files must be read, or refused with an InputError.

    make fuzz                    # 60 seconds a target
    make fuzz FUZZ_SECONDS=600
    python tests/fuzz/fuzz.py --seconds 10 --targets voc,coco --seed 3

Prints the number of executions of each target, and of the refusals among them. Any other exception is printed with the
bytes that caused it, and the exit status is 1.
"""

import argparse
import io
import json
import random
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import torch
from PIL import Image
from safetensors.torch import save

from eval.coco import Coco
from eval.flickr30k import read_boxes
from eval.phrase_list import phrase_label, read_phrase_list
from eval.predictions import read_predictions
from eval.voc import read_objects
from grounding.images import read_image
from grounding.tagger.tagger import FORMAT, TagClassifier
from grounding.text.chunks import noun_phrases
from grounding.text.markup import parse_sentence
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from proposals.matfile import MatFile
from training.table_readers import read_table
from training.tar_reader import tar_samples

PIECES = (b"0", b"-1", b"9" * 5000, b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"\0", b"\xff", b"\n",
          b"<", b"&", b"]", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"[" * 2000, "\u0661\u00b2".encode())  # fmt: skip
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        seeds: valid inputs.
        read: reads an input from a file of its own.
        suffix: of the file.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    suffix: str


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to four changes: bytes flipped, cut, repeated or replaced by awkward pieces."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice((1, 2, 8, 40)))
        kind = rng.randrange(5)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end] * rng.randint(1, 3)
        elif kind == 3:
            changed[start : end if rng.random() < 0.5 else start] = rng.choice(PIECES)
        else:
            del changed[start:]
    return bytes(changed)


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


def _matrices(path: Path) -> None:
    file = MatFile(path.read_bytes(), "fuzz.mat", 1 << 20)
    file.cells("boxes")
    file.matrix("scores")


def _text(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    for phrase in noun_phrases(text):
        phrase_label(phrase)
    phrase_label(text)
    parse_sentence(text)


def _vocabulary(path: Path) -> None:
    Vocabulary(tuple(path.read_bytes().decode("utf-8", "replace").split("\n")))


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
TARGETS = {
    "images": Target(tuple(map(_image, ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"))), read_image, ".jpg"),
    "voc": Target((VOC.encode(),), read_objects, ".xml"),
    "entities": Target((VOC.encode(),), read_boxes, ".xml"),
    "coco": Target((_coco_bytes(),), _coco, ".json"),
    "predictions": Target((PREDICTION * 2, PREDICTION), lambda path: list(read_predictions(path)), ".jsonl"),
    "phrase-list": Target((b"1 1 1 1 two dogs\n2 1 1 0 a cat\n",), read_phrase_list, ".txt"),
    "sentences": Target((SENTENCE,), _text, ".txt"),
    "captions-csv": Target((b"path,caption\n1.jpg,a cat\n2.jpg,\"a, dog\"\n",), lambda p: list(read_table(p)), ".csv"),
    "captions-jsonl": Target((b'{"path": "1.jpg", "caption": "a cat"}\n',), lambda p: list(read_table(p)), ".jsonl"),
    "vocabulary": Target((b"cat\ndog\n",), _vocabulary, ".txt"),
    "tagger": Target((_tagger(),), TagClassifier.load, ".safetensors"),
    "tars": Target((_tar(),), lambda path: list(tar_samples(path)), ".tar"),
    "mat": Target((_mat(),), _matrices, ".mat"),
}  # fmt: skip


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Endless changed inputs of a target, the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        yield mutate(rng.choice(target.seeds), rng)


def execute(target: Target, data: bytes, folder: Path) -> bool:
    """Reads one input. Returns whether it was refused with an InputError; any other exception is passed on."""
    path = folder / f"fuzz{target.suffix}"
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except InputError:
        return True
    return False


def fuzz(name: str, seconds: float, seed: int) -> bool:
    """Fuzzes one target for some seconds and prints the counts. Returns whether nothing crashed."""
    end, done, refused, crashes = time.monotonic() + seconds, 0, 0, set()
    with tempfile.TemporaryDirectory() as folder:
        for data in inputs(TARGETS[name], seed):
            if time.monotonic() > end:
                break
            done += 1
            try:
                refused += execute(TARGETS[name], data, Path(folder))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                if (place := (type(error), last.filename, last.lineno)) not in crashes:
                    crashes.add(place)
                    print(f"{name}: {type(error).__name__}: {str(error)[:200]} at {last.filename}:{last.lineno} of "
                          f"{data[:300]!r}", flush=True)  # fmt: skip
    print(f"{name:16}{done:10,} executions{refused:10,} refused{len(crashes):4} crashes", flush=True)
    return not crashes


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="seconds for each target")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, joined by commas")
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    whole = [fuzz(name, chosen.seconds, chosen.seed) for name in chosen.targets.split(",")]
    return 0 if all(whole) else 1


if __name__ == "__main__":
    sys.exit(main())

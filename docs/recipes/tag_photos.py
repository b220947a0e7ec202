"""Gives each photo of tars a list of tags, the most trustworthy first, and writes tars for step=shards.

    python tag_photos.py bvlc_googlenet.safetensors synset_words.txt tagged crawl/ unlabelled/

The tags of a photo are

1. the words of its captions, and pairs of neighbouring words that the captions of two photos or more have. First those
   in which most captions agree, then nouns, then single words, then those that are said first;
2. if these are fewer than five: all names of the ImageNet classes that GoogLeNet finds probable, the most probable
   class first.

The paper trains on the first five tags of a photo, so more names would not be used.
"""

import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import torch

from grounding.images import read_image
from grounding.runtime.artefacts import atomic_path
from grounding.tagger.googlenet import from_caffe
from grounding.tagger.tagger import TagClassifier
from grounding.tagger.tensors import read_tensors
from grounding.text.chunks import word_classes
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import caption_tags, normalize
from proposals.errors import InputError
from training.sample_text import FIRST
from training.samples import MISSING_TEXT, SourceSample, read_photo
from training.sources import WorkUnit, find_source

PROBABLE = 0.05  # of a class of ImageNet
NOUNS = ("NN", "NNS", "LOC")


def pairs(caption: str) -> dict[str, bool]:
    """The pairs of neighbouring words of a caption without function words, and whether each ends with a noun."""
    tags, tokens = caption_tags(caption), word_classes(caption)
    return {f"{a} {b}": kind in NOUNS for (a, _), (b, kind) in pairwise(tokens) if a in tags and b in tags}


def caption_order(captions: Iterable[str], frequent: set[str]) -> list[str]:
    """The tags of the captions of a photo, the most trustworthy first; of the pairs, those in ``frequent``."""
    agree: Counter[str] = Counter()
    nouns: dict[str, bool] = {}  # in the order in which the tags are said
    for caption in captions:
        classes = {word: kind in NOUNS for word, kind in word_classes(caption)}
        tags = caption_tags(caption)
        said = {word: noun for word, noun in classes.items() if word in tags}
        said |= dict.fromkeys(sorted(tags - said.keys()), True)  # parts of hyphenated words
        said |= {pair: noun for pair, noun in pairs(caption).items() if pair in frequent}
        agree.update(said.keys())
        for tag, noun in said.items():
            nouns.setdefault(tag, noun)
    return sorted(nouns, key=lambda tag: (-agree[tag], not nouns[tag], " " in tag))


def frequent_pairs(units: Iterable[WorkUnit]) -> set[str]:
    """The pairs of words that the captions of two photos or more have."""
    counts: Counter[str] = Counter()
    for unit in units:
        for sample in unit.samples():
            counts.update(set().union(*map(pairs, sample.text.captions)))
    return {pair for pair, count in counts.items() if count > 1}


def imagenet(path: str) -> TagClassifier:
    """The BVLC GoogLeNet with its 1,000 classes; their tags are their numbers."""
    tensors = {name: tensor.float() for name, tensor in read_tensors(path)[1].items()}
    tagger = TagClassifier("bvlc_googlenet", Vocabulary(tuple(map(str, range(1000)))))
    tagger.trunk.load_state_dict(from_caffe(tensors))
    weight, bias = (tensors[f"loss3/classifier.{kind}"] for kind in ("weight", "bias"))
    tagger.classifier.load_state_dict({"weight": weight.reshape(1000, -1, 1, 1), "bias": bias})
    return tagger.eval()


@torch.inference_mode()
def class_names(tagger: TagClassifier, names: list[list[str]], photo: bytes) -> list[str]:
    """The names of the probable classes of a photo, the most probable class first."""
    probabilities = tagger(tagger.prepare(read_image(photo), [224, 224])).flatten().softmax(0)
    rows = probabilities.argsort(descending=True)[: int((probabilities >= PROBABLE).sum())]
    return [name for row in rows for name in names[row]]


def tagged(
    samples: Iterable[SourceSample], frequent: set[str], tagger: TagClassifier, names: list[list[str]]
) -> Iterator[tuple[str, bytes, list[str]]]:
    """Key, photo and tags of each sample that has a photo, with or without captions."""
    for sample in samples:
        tags = caption_order(sample.text.captions, frequent)
        try:
            if not sample.photo or sample.reason not in ("", MISSING_TEXT):
                raise InputError(sample.reason)
            photo = read_photo(sample.photo)
            found = class_names(tagger, names, photo) if len(tags) < FIRST else []
        except InputError as error:
            print(f"{sample.key} is left out: {error}", file=sys.stderr)
            continue
        yield sample.key, photo, list(dict.fromkeys(tags + found))


def write_tar(path: Path, samples: Iterable[tuple[str, bytes, list[str]]]) -> None:
    """Writes a tar of photos and JSON files with their tags, completely or not at all."""
    with atomic_path(path) as part, tarfile.open(part, "w") as tar:
        for key, photo, tags in samples:
            for name, data in ((f"{key}.jpg", photo), (f"{key}.json", json.dumps({"tags": tags}).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main(network: str, classes: str, output: str, sources: list[str]) -> None:
    """Writes ``output/00000.tar`` and so on, one for each tar of the sources; those that are there are kept."""
    units = [unit for source in sources for unit in find_source(source).units()]
    lines = Path(classes).read_text("utf-8").splitlines()
    names = [[normalize(name) for name in line.partition(" ")[2].split(",")] for line in lines]
    tagger, frequent = imagenet(network), frequent_pairs(units)
    Path(output).mkdir(parents=True, exist_ok=True)
    for number, unit in enumerate(units):
        path = Path(output, f"{number:05}.tar")
        if not path.exists():
            write_tar(path, tagged(unit.samples(), frequent, tagger, names))
        print(path, unit.source, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:4], sys.argv[4:])
    except InputError as error:
        sys.exit(str(error))

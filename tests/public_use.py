"""What a program with strict types does with the public names: mypy --strict must find nothing in it (make lint)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from grounding import Grounder, Grounding, Phrase, TagClassifier, TopDown, Vocabulary, reproducible


def ask(path: str) -> list[str]:
    grounder = Grounder.load(device="cpu", gamma=0.5)
    with reproducible():
        answers: list[Grounding] = grounder.ground(path, ["a dog"])
    scene = grounder.look(path)
    answers += scene.ground(["a cat"], gamma=0.3)
    box: NDArray[np.float64] = answers[0].boxes[0]
    phrase: Phrase = answers[0].phrase
    for result in grounder.ground_batch([path], ["a dog"]):
        answers += result.groundings
    words: list[tuple[str, float]] = scene.words((0, 0, 9, 9))
    heat: NDArray[np.float64] | None = answers[0].heatmap
    return [phrase.text, *phrase.tags, str(box), words[0][0], str(heat is None)]


def attend(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    scene = TopDown(model, target="layer3", classifier="fc").look(images)
    maps = scene.attend([281], method="c-mwp")
    assert isinstance(maps, torch.Tensor)
    return maps + scene.logits


def tags(path: str) -> Vocabulary:
    tagger = TagClassifier.load(path)
    tagger.save(path, by="me")
    return tagger.vocabulary

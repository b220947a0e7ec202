"""The time of each stage from a photo of 640 x 480 pixels to its boxes, in units of the tagger's plain forward pass."""

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from eval.benchmark_phrases import OTHER_PHRASES, PHRASES
from eval.benchmark_table import Row
from eval.connections import winning_connections
from eval.machine import matrix_rate
from grounding.grounder import Grounder
from grounding.runtime.timing import Work, interleaved
from grounding.scene import GroundingScene
from grounding.text.phrases import Phrase

SIZE = (640, 480)
FORWARD = "plain forward pass"


def stages(grounder: Grounder, photo: np.ndarray, rounds: int, peers: Mapping[str, Work]) -> list[Row]:
    """Measures the stages in turns, so that their ratios hold on a busy machine, too.

    Args:
        grounder: the settings to measure.
        photo: ``(H, W, 3)`` uint8 RGB; it is resized to ``SIZE``.
        rounds: number of measurements; the median counts.
        peers: other programs, measured in turns with the stages.

    Returns:
        For each stage and peer its seconds and the ratio to a plain forward pass at the size that the network sees. The
        last row is the lower bound of the top-down pass of 5 phrases: the multiply-adds between winners, for the units
        and the duals of all words, at the machine's best rate.
    """
    tagger, topdown, settings = grounder.tagger, grounder.topdown, grounder.settings
    pixels = np.asarray(Image.fromarray(photo).resize(SIZE))
    image, proposals = tagger.prepare(pixels, [settings.side]), grounder.proposer(pixels)

    def answer(phrases: list[str]) -> object:
        scene = topdown.look(image, settings.method)
        return GroundingScene(pixels, proposals, scene, tagger, topdown, settings).ground(phrases)

    works: dict[str, Work] = {
        FORWARD: torch.inference_mode()(lambda: tagger(image)),
        "proposals": lambda: grounder.proposer(pixels),
        "look": lambda: topdown.look(image, settings.method),
        "look, attend and rank, 5 phrases": lambda: answer(PHRASES),
        "all, 5 phrases": lambda: grounder.ground(pixels, PHRASES),
        "all, 15 phrases": lambda: grounder.ground(pixels, PHRASES + OTHER_PHRASES),
        **peers,
    }
    seconds = interleaved(works, rounds)
    parsed = [Phrase.parse(text, tagger.vocabulary) for text in PHRASES]
    words = {(reading.tags, reading.weights) for phrase in parsed for reading in phrase.readings}
    connections = 2 * len(words) * winning_connections(topdown, image)
    seconds["floor of the top-down pass, 5 phrases"] = connections / matrix_rate()
    return [{"stage": name, "seconds": s, "forward passes": s / seconds[FORWARD]} for name, s in seconds.items()]

"""The time from a photo's pixels to the boxes of its phrases: our settings beside the paper's, and stage by stage.

grounding step=benchmark benchmark=grounding
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

from skimage import data

from eval.benchmark_phrases import OTHER_PHRASES, PHRASES
from eval.benchmark_stages import SIZE, stages
from eval.benchmark_table import Row
from eval.checks import check_counts
from eval.detector_peers import DETECTORS
from grounding.grounder import Grounder
from grounding.runtime.timing import Work, interleaved
from grounding.settings import Settings
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError

log = logging.getLogger(__name__)


def measure(rounds: int = 7, detectors: Sequence[str] = tuple(DETECTORS)) -> tuple[list[Row], dict]:
    """Measures the paper's settings with its network, each of our changes to them alone, and our settings and tagger.

    Args:
        rounds: number of measurements; the median counts.
        detectors: names in ``eval.detector_peers.DETECTORS``, with random weights; left out if transformers is missing.

    Returns:
        For each of these a row with the seconds from a photo of 512 x 512 pixels to the boxes of 15 phrases, and the
        ratio to the paper's settings; and the phrases. Then a row for each stage of our settings, see
        ``eval.benchmark_stages``; and for each detector.

    Raises:
        InputError: ``rounds`` is below 1, or a detector is unknown.
    """
    check_counts(1, rounds=rounds)
    peers = _peers(detectors)
    paper, ours, photo = Settings.paper(), Settings(), data.astronaut()
    phrases = PHRASES + OTHER_PHRASES
    settings = {
        "paper": paper,
        "paper, partial contrast": replace(paper, method=ours.method),
        "paper, larger photo": replace(paper, side=ours.side),
        "paper, vote": replace(paper, vote=ours.vote, prior=ours.prior),
        "ours": ours,
    }
    googlenet, default = TagClassifier.load("googlenet"), TagClassifier.load()
    grounders = {
        name: Grounder(default if name == "ours" else googlenet, settings=chosen) for name, chosen in settings.items()
    }
    works = {name: lambda g=g: g.ground(photo, phrases) for name, g in grounders.items()}
    seconds = interleaved(works, rounds)
    rows: list[Row] = [{"settings": n, "seconds": s, "times paper's": s / seconds["paper"]} for n, s in seconds.items()]
    return rows + stages(grounders["ours"], photo, rounds, peers), {"phrases": phrases}


def _peers(detectors: Sequence[str]) -> dict[str, Work]:
    """The detectors with 5 phrases, ready to be timed."""
    for name in detectors:
        if name not in DETECTORS:
            raise InputError(f"unknown detector {name!r}: choose one of {', '.join(DETECTORS)}")
    if detectors and not find_spec("transformers"):
        log.warning("the detectors are left out: run .venv/bin/pip install -e '.[bench]'")
        return {}
    return {f"{name}, 5 phrases": DETECTORS[name](SIZE, PHRASES) for name in detectors}

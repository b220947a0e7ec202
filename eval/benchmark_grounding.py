"""The time from a photo's pixels to the boxes of its phrases: our settings beside the paper's, and stage by stage.

grounding step=benchmark benchmark=grounding
"""

from dataclasses import replace

from skimage import data

from eval.benchmark_phrases import OTHER_PHRASES, PHRASES
from eval.benchmark_stages import stages
from eval.benchmark_table import Row
from eval.checks import check_counts
from grounding.grounder import Grounder
from grounding.runtime.timing import interleaved
from grounding.settings import Settings
from grounding.tagger.tagger import TagClassifier


def measure(rounds: int = 7) -> tuple[list[Row], dict]:
    """Measures the paper's settings, each of our changes to them alone, and our settings.

    Args:
        rounds: number of measurements; the median counts.

    Returns:
        For each of these a row with the seconds from a photo of 512 x 512 pixels to the boxes of 15 phrases, and the
        ratio to the paper's settings; and the phrases. Then a row for each stage of our settings, see
        ``eval.benchmark_stages``.

    Raises:
        InputError: ``rounds`` is below 1.
    """
    check_counts(1, rounds=rounds)
    paper, ours, tagger, photo = Settings.paper(), Settings(), TagClassifier.load(), data.astronaut()
    phrases = PHRASES + OTHER_PHRASES
    settings = {
        "paper": paper,
        "paper, partial contrast": replace(paper, method=ours.method),
        "paper, larger photo": replace(paper, side=ours.side),
        "paper, vote": replace(paper, vote=ours.vote, prior=ours.prior),
        "ours": ours,
    }
    grounders = {name: Grounder(tagger, settings=chosen) for name, chosen in settings.items()}
    works = {name: lambda g=g: g.ground(photo, phrases) for name, g in grounders.items()}
    seconds = interleaved(works, rounds)
    rows: list[Row] = [{"settings": n, "seconds": s, "times paper's": s / seconds["paper"]} for n, s in seconds.items()]
    return rows + stages(grounders["ours"], photo, rounds), {"phrases": phrases}

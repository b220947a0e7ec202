"""Why a phrase is not correct at rank 1. Each phrase has one reason, the first that applies:

out of vocabulary   no word of the phrase has a tag
no proposal         no proposal overlaps the union box with an IoU of 0.5
wrong place         the answer's point lies in none of the phrase's boxes
wrong extent        it lies in one, but none of the first ten predicted boxes is correct
ranked low          one of the first ten predicted boxes is correct
"""

from eval.localization import DEPTHS

REASONS = ("right", "ranked low", "wrong extent", "wrong place", "no proposal", "out of vocabulary")


def reason_of(phrase: dict) -> str:
    """The reason of a phrase's result.

    Args:
        phrase: its line in ``phrases.jsonl``.

    Returns:
        One of ``REASONS``; "right" if the phrase is correct at rank 1.
    """
    if phrase["rank"] == 1:
        return "right"
    if not phrase["covered"]:
        return "out of vocabulary"
    if not phrase["reachable"]:
        return "no proposal"
    if not phrase["pointed"]:
        return "wrong place"
    return "ranked low" if phrase["rank"] and phrase["rank"] <= DEPTHS[-1] else "wrong extent"

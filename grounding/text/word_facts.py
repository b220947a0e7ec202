"""Facts about English words that WordNet lacks, for ``grounding.text.derivation``."""

from importlib.resources import files

SEXES = {  # words of WordNet's definitions and of the names of wider meanings -> tags
    **{"woman": ("woman",), "kinswoman": ("woman",), "wife": ("woman",), "man": ("man",), "kinsman": ("man",)},
    **{"girl": ("girl",), "boy": ("boy",), "female": ("woman", "girl"), "male": ("man", "boy")},
}
COLOURS = {
    *("black", "white", "grey", "gray", "red", "green", "blue", "yellow", "orange"),
    *("brown", "pink", "purple", "golden", "silver", "beige", "tan", "teal"),
}
VAGUE = {
    *("thing", "things", "object", "something", "item", "items", "piece", "structure", "equipment", "device"),
    *("part", "group", "unit", "whole", "body", "male", "female", "young", "way", "individuals", "giant"),
    *("adult", "defenders", "container"),
}
NOT_KINDS = {"slide rule", "rain barrel", "punching bag"}  # computers, pools and balls for WordNet only


def english_words() -> tuple[dict[str, str], dict[str, str]]:
    """Reads ``lexicon_words.txt``.

    Returns:
        word -> another name of the same thing, and word -> the name of its meaning in photos.
    """
    same: dict[str, str] = {}
    preferred: dict[str, str] = {}
    for line in (files("grounding.text") / "lexicon_words.txt").read_text("utf-8").splitlines():
        word, sign, other = line.partition(" = ") if " = " in line else line.partition(": ")
        if sign and not line.startswith("#"):
            (same if sign == " = " else preferred)[word.strip()] = other.strip()
    return same, preferred

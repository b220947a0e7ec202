"""Finds what a phrase names in a photo, with a network that was trained without boxes."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grounding.answers import Grounding
    from grounding.attention.topdown import TopDown
    from grounding.grounder import Grounder
    from grounding.runtime.device import reproducible
    from grounding.tagger.tagger import TagClassifier
    from grounding.text.phrases import Phrase
    from grounding.text.vocabulary import Vocabulary

__all__ = ["Grounder", "Grounding", "Phrase", "TagClassifier", "TopDown", "Vocabulary", "reproducible"]
HOMES = {
    "Grounder": "grounder",
    "Grounding": "answers",
    "Phrase": "text.phrases",
    "TagClassifier": "tagger.tagger",
    "TopDown": "attention.topdown",
    "Vocabulary": "text.vocabulary",
    "reproducible": "runtime.device",
}


def __getattr__(name: str) -> object:
    # Names are imported when they are first used: PyTorch takes seconds and hundreds of megabytes, which proposals and
    # the error messages of the command line do not need
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"grounding.{HOMES[name]}"), name)

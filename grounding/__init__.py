"""Grounding: finds in a photo what a phrase names, with a network that never saw a box."""

from grounding.grounder import Grounder, Grounding
from grounding.phrases import Phrase
from grounding.tagger import TagClassifier
from grounding.topdown import TopDown
from grounding.vocabulary import Vocabulary

__all__ = ["Grounder", "Grounding", "Phrase", "TagClassifier", "TopDown", "Vocabulary"]

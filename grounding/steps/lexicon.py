"""The step ``lexicon``: derives from WordNet which tags stand for words that are not tags.

grounding step=lexicon tagger.path=runs/train/tagger.safetensors step.wordnet=/usr/share/wordnet
"""

import logging
from pathlib import Path

from grounding.runtime.artefacts import atomic_path
from grounding.tagger.packaged import tagger_path
from grounding.text.derivation import Derivation
from grounding.text.lexicon import encode, lexicon_path
from grounding.text.vocabulary import Vocabulary
from grounding.text.wordnet import WordNet

log = logging.getLogger(__name__)


def write_lexicon(vocabulary: Vocabulary, tagger: str | Path | None, wordnet: str | Path) -> Path:
    """Writes the lexicon of a tagger beside its file. Equal inputs give equal bytes.

    Args:
        vocabulary: the tags of the tagger.
        tagger: the tagger's file, or the name of one of the package; None for its default one.
        wordnet: the folder of WordNet 3.x, with ``data.noun`` and the other files of wndb(5WN).

    Returns:
        The path of the lexicon.

    Raises:
        InputError: the folder has no WordNet, one of its files is malformed, or the lexicon cannot be written.
    """
    path = lexicon_path(tagger_path(tagger))
    database = WordNet(wordnet)
    lexicon = Derivation(database, vocabulary.tags).lexicon()
    with atomic_path(path) as temporary:
        temporary.write_text(encode(lexicon, database.licence), "utf-8")
    log.info("%s: %d words for %d tags", path, len(lexicon.meanings), len(vocabulary))
    return path

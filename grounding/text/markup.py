"""The markup of phrases in Flickr30k Entities: ``A cat on [/EN#8/clothing/other a red hat] .``"""

import re
from typing import NamedTuple

from proposals.errors import InputError

START = "[/EN#"  # begins a marked phrase

_MARKUP = re.compile(r"\[/EN#([0-9]+)/([^\s\[\]]+)\s([^\[\]]+)\]")


class Markup(NamedTuple):
    """A marked phrase.

    Attributes:
        chain: number of the coreference chain, which links the phrase to its boxes; ``"0"`` for none.
        types: its types, such as ``people`` or ``clothing``.
        text: the words of the phrase.
    """

    chain: str
    types: tuple[str, ...]
    text: str


def parse_sentence(line: str) -> list[Markup]:
    """The marked phrases of a sentence, in order.

    >>> parse_sentence("A cat on [/EN#8/clothing/other a red hat] .")
    [Markup(chain='8', types=('clothing', 'other'), text='a red hat')]

    Args:
        line: a sentence with markup.

    Returns:
        One entry for each marked phrase.

    Raises:
        InputError: a bracket is not closed or is nested, or it has no chain, no type or no words.
    """
    found = [Markup(chain, tuple(types.split("/")), text.strip()) for chain, types, text in _MARKUP.findall(line)]
    broken = re.search(r"[\[\]].{,30}", _MARKUP.sub("", line))
    if broken or not all(markup.text and all(markup.types) for markup in found):
        at = f" at {broken[0]!r}" if broken else ""
        raise InputError(f"broken markup{at}: write [/EN#CHAIN/TYPE words], close each bracket and do not nest them")
    return found


def plain_sentence(line: str) -> str:
    """A sentence without its markup.

    >>> plain_sentence("A cat on [/EN#8/clothing/other a red hat] .")
    'A cat on a red hat .'

    Args:
        line: a sentence with markup.

    Returns:
        Its words.
    """
    return _MARKUP.sub(r"\3", line)

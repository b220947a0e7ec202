"""The JSON of the HTTP API: requests and responses, as its OpenAPI description shows them."""

import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from grounding.answers import Grounding
from grounding.exports import as_record
from grounding.page.limits import Limits
from grounding.text.chunks import noun_phrases
from proposals.errors import InputError

# control characters, characters that change the direction of text, and surrogates
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Box = tuple[float, float, float, float]
Number = Annotated[float, Field(strict=True)]  # false is no number


class Question(BaseModel):
    """What to find: phrases, or a caption, from which the noun phrases are extracted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    phrases: list[str] | None = Field(default=None, examples=[["a woman in an orange suit", "a flag"]])
    caption: str | None = Field(default=None, examples=[None])
    method: str | None = Field(
        default=None, description="an attention method from /api/about; null: the server's default"
    )
    gamma: float | None = Field(
        default=None,
        ge=0,
        le=4,
        allow_inf_nan=False,
        description="exponent of the area in S_R / A_R^gamma; null: the server's default",
    )
    boxes: int = Field(default=10, ge=1, description="maximum number of boxes for each phrase")


class Region(BaseModel):
    """A box in a photo."""

    model_config = ConfigDict(extra="forbid")

    box: tuple[Number, Number, Number, Number] = Field(
        description="(x1, y1, x2, y2), half-open, in pixels of the photo", examples=[[40, 30, 120, 180]]
    )
    count: int = Field(default=10, ge=1, le=50, strict=True, description="maximum number of words")


class PhotoInfo(BaseModel):
    """A photo that the server has in memory."""

    token: str = Field(description="identifies the photo; everyone who knows it can send requests for the photo")
    name: str
    width: int
    height: int
    seconds: float = Field(description="seconds for which the photo stays in memory after the last request for it")


class Answer(BaseModel):
    """The answer for one phrase."""

    phrase: str = Field(description="the text of the client, unchanged")
    groundable: bool = Field(description="whether the vocabulary has any of its words; if not, there are no boxes")
    tags: list[str] = Field(description="the tags of the vocabulary for the phrase")
    skipped: list[str] = Field(description="the words that are not in the vocabulary")
    read_as: str = Field(
        description="how words were read that are no tags themselves; several are separated by '; '",
        examples=["elephant -> african elephant, indian elephant"],
    )
    presence: float | None = Field(
        ge=0, le=1, description="probability that the photo shows what the phrase names; null if it is unknown"
    )
    present: bool | None = Field(
        description="whether the presence reaches the threshold in /api/about; null if the presence is unknown. An "
        "answer with false has boxes, too"
    )
    boxes: list[Box] = Field(description="(x1, y1, x2, y2), half-open, in pixels of the photo, best first")
    scores: list[float] = Field(
        description="scores of the boxes: the probability in the vote, or attention inside / area^gamma without a "
        "vote; comparable within a phrase only"
    )
    point: tuple[float, float] | None = Field(description="(x, y) of the most likely point, in pixels of the photo")
    heat: str | None = Field(description="path of the heat map, a PNG to lay over the photo")

    @classmethod
    def of(cls, answer: Grounding, boxes: int, token: str, method: str) -> "Answer":
        """Converts an answer of the grounder.

        Args:
            answer: the answer.
            boxes: maximum number of boxes.
            token: token of the photo.
            method: the attention method.

        Returns:
            The answer as JSON.
        """
        query = urlencode({"phrase": answer.phrase.text, "method": method})
        return cls(
            **as_record(answer, boxes),
            point=answer.point,
            heat=f"/api/photos/{token}/heat.png?{query}" if answer.groundable else None,
        )


class Reply(BaseModel):
    """The answers to a question, in the order of the phrases."""

    photo: PhotoInfo
    method: str
    gamma: float
    answers: list[Answer]


class Word(BaseModel):
    """A word of the vocabulary, and the share of its attention that is inside the box."""

    word: str
    share: float


class Words(BaseModel):
    """Words that may describe a box, best first."""

    words: list[Word]


class SampleInfo(BaseModel):
    """A sample photo of the server, and phrases for it."""

    name: str
    title: str
    picture: str = Field(description="path of the photo")
    phrases: list[str]


class About(BaseModel):
    """What the server offers."""

    methods: list[str]
    method: str
    gamma: float
    presence: float = Field(description="answers with a lower presence have present = false")
    samples: list[SampleInfo]
    colours: list[str] = Field(description="the colours of the phrases, in turn, as in the exports")
    exports: dict[str, str] = Field(description="titles of the file types for export, by file ending")
    limits: dict[str, float]


class Problem(BaseModel):
    """What is wrong and what to do, in one line."""

    error: str


def phrases_of(question: Question, limits: Limits) -> list[str]:
    """The phrases of a question.

    Args:
        question: the request.
        limits: ``phrases``, ``phrase_length``, ``caption_length`` and ``boxes`` are used.

    Returns:
        The phrases of the request, or the noun phrases of its caption without repetitions.

    Raises:
        InputError: there are no phrases or too many, or a text is too long or not a phrase.
    """
    if (question.phrases is None) == (question.caption is None):
        raise InputError("give either phrases or a caption")
    if question.boxes > limits.boxes:
        raise InputError(f"boxes={question.boxes} is more than {limits.boxes}: ask for fewer boxes")
    if question.caption is None:
        return _checked(question.phrases or [], limits)
    (caption,) = _checked_texts([question.caption], limits.caption_length, "the caption")
    found = [phrase for phrase in dict.fromkeys(noun_phrases(caption)) if _has_letters(phrase)]
    if not found:
        raise InputError("the caption has no noun phrase: give phrases instead")
    return _checked(found[: limits.phrases], limits)


def _checked(phrases: Sequence[str], limits: Limits) -> list[str]:
    if len(phrases) > limits.phrases:
        raise InputError(f"{len(phrases)} phrases are more than {limits.phrases}: send several requests")
    return _checked_texts(phrases, limits.phrase_length, "a phrase")


def _checked_texts(texts: Sequence[str], max_length: int, name: str) -> list[str]:
    for text in texts:
        if len(text) > max_length:
            raise InputError(f"{name} has more than {max_length} characters: shorten it")
        if HIDDEN.search(text):
            raise InputError(f"{name} has a control character: write plain text on one line")
        if not _has_letters(text):
            raise InputError(f"{name} has no word: write what to find, such as 'a red mug'")
    return list(texts)


def _has_letters(text: str) -> bool:
    return any(map(str.isalnum, text))

"""What goes over the wire as JSON: questions and answers, as the OpenAPI description tells them."""

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from grounding.answers import Grounding
from grounding.exports import as_record
from grounding.page.limits import Limits
from grounding.text.chunks import noun_phrases
from proposals.errors import InputError

# control characters, those that turn the direction of text around, and halves of characters
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Box = tuple[float, float, float, float]


class Question(BaseModel):
    """What to find: phrases, or a caption whose noun phrases are taken."""

    model_config = ConfigDict(extra="forbid")

    phrases: list[str] | None = Field(None, examples=[["a woman in an orange suit", "a flag"]])
    caption: str | None = Field(None, examples=[None])
    method: str | None = Field(None, description="an attention method that /api/about lists; null: the server's own")
    gamma: float | None = Field(
        None, ge=0, le=4, allow_inf_nan=False, description="the price of area in S_R / A_R^gamma; null: the server's"
    )
    boxes: int = Field(10, ge=1, description="of each phrase, at most")


class Region(BaseModel):
    """A box on a photo."""

    model_config = ConfigDict(extra="forbid")

    box: Box = Field(description="(x1, y1, x2, y2), half-open, in pixels of the photo", examples=[[40, 30, 120, 180]])
    count: int = Field(10, ge=1, le=50, description="of words, at most")


class PhotoInfo(BaseModel):
    """A photo that the server keeps."""

    token: str = Field(description="its secret name: whoever has it may ask about the photo")
    name: str
    width: int
    height: int
    seconds: float = Field(description="how long it is kept after the last request for it")


class Answer(BaseModel):
    """The answer to one phrase, in the order asked."""

    phrase: str = Field(description="the client's text, unchanged")
    groundable: bool = Field(description="whether any of its words is in the dictionary; if not, there are no boxes")
    tags: list[str] = Field(description="the words of the dictionary that stand for it")
    skipped: list[str] = Field(description="the words that the dictionary does not have")
    boxes: list[Box] = Field(description="(x1, y1, x2, y2), half-open, in pixels of the photo, best first")
    scores: list[float] = Field(description="of the boxes: mass inside over area^gamma; they compare within a phrase")
    point: tuple[float, float] | None = Field(description="(x, y) of the map's maximum")
    heat: str | None = Field(description="where the heat map is: a PNG to lay over the photo")

    @classmethod
    def of(cls, answer: Grounding, boxes: int, token: str, method: str) -> "Answer":
        """A grounder's answer, with so many boxes."""
        query = urlencode({"phrase": answer.phrase.text, "method": method})
        return cls(
            **as_record(answer, boxes),
            point=answer.point,
            heat=f"/api/photos/{token}/heat.png?{query}" if answer.groundable else None,
        )


class Reply(BaseModel):
    """The answers to a question."""

    photo: PhotoInfo
    method: str
    gamma: float
    answers: list[Answer]


class Word(BaseModel):
    """A word of the dictionary, and the share of its map's mass that lies in the box."""

    word: str
    share: float


class Words(BaseModel):
    """What a box may hold, best first."""

    words: list[Word]


class SampleInfo(BaseModel):
    """A photo that the server has, and phrases to try on it."""

    name: str
    title: str
    phrases: list[str]


class About(BaseModel):
    """What the server offers."""

    methods: list[str]
    method: str
    gamma: float
    samples: list[SampleInfo]
    colours: list[str] = Field(description="of phrases, in turn, as the exports have them")
    exports: dict[str, str] = Field(description="kinds of files, by their endings")
    limits: dict[str, float]


class Problem(BaseModel):
    """Why there is no answer, in one line."""

    error: str


def phrases_of(question: Question, limits: Limits) -> list[str]:
    """The phrases of a question, checked; of a caption its noun phrases, each once.

    Raises:
        InputError: none, too many, too long ones, or text that is no phrase.
    """
    if (question.phrases is None) == (question.caption is None):
        raise InputError("give either phrases or a caption")
    if question.boxes > limits.boxes:
        raise InputError(f"boxes={question.boxes} is more than {limits.boxes}")
    if question.caption is None:
        return _checked(question.phrases or [], limits)
    (caption,) = _texts([question.caption], limits.caption_length, "the caption")
    found = [phrase for phrase in dict.fromkeys(noun_phrases(caption)) if _has_letters(phrase)]
    if not found:
        raise InputError("no noun phrase was found in the caption; give phrases")
    return _checked(found[: limits.phrases], limits)


def _checked(phrases: Sequence[str], limits: Limits) -> list[str]:
    if len(phrases) > limits.phrases:
        raise InputError(f"{len(phrases)} phrases are more than {limits.phrases}: ask in parts")
    return _texts(phrases, limits.phrase_length, "a phrase")


def _texts(texts: Sequence[str], most: int, what: str) -> list[str]:
    for text in texts:
        if len(text) > most:
            raise InputError(f"{what} has more than {most} characters; shorten it")
        if HIDDEN.search(text):
            raise InputError(f"{what} holds a control character; write plain text on one line")
        if not _has_letters(text):
            raise InputError(f"{what} has no word: say what to find, such as 'a red mug'")
    return list(texts)


def _has_letters(text: str) -> bool:
    return any(map(str.isalnum, text))

"""The HTTP API.

    POST   /api/photos?name=photo.jpg             a photo's bytes -> a token
    POST   /api/photos/{token}/ground             {"phrases": [...]} or {"caption": "..."} -> boxes, scores, skipped
    GET    /api/photos/{token}/heat.png?phrase=   a heat map, to lay over the photo
    POST   /api/photos/{token}/words              {"box": [x1, y1, x2, y2]} -> the words that it stands for
    POST   /api/photos/{token}/exports/{kind}     a question -> a file
    DELETE /api/photos/{token}
    POST   /api/ground?phrase=...&phrase=...      a photo's bytes -> token and answers in one request

A photo is the plain body of its request: no form has to be taken apart, and no temporary file is written.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Query, Request, Response

from grounding.answers import Grounding
from grounding.attention.methods import METHODS
from grounding.grounder import Grounder
from grounding.page.desk import Busy, Desk
from grounding.page.downloads import DOWNLOADS
from grounding.page.gate import Refused
from grounding.page.limits import Limits
from grounding.page.messages import (
    About,
    Answer,
    PhotoInfo,
    Problem,
    Question,
    Region,
    Reply,
    SampleInfo,
    Word,
    Words,
    phrases_of,
)
from grounding.page.photos import FORMATS, Glancer, Kept, Photos, check_name, decode, slow
from grounding.page.pictures import heat
from grounding.page.samples import Sample
from grounding.scene import GroundingScene
from grounding.svg import COLOURS
from grounding.text.phrases import Phrase
from proposals.errors import InputError

log = logging.getLogger(__name__)

TIDY_SECONDS = 30  # between two looks at what is too old
REFUSALS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (403, 404, 408, 413, 415, 422, 503)}
BINARY = {"schema": {"type": "string", "format": "binary"}}
PHOTO_BODY = {"requestBody": {"required": True, "content": dict.fromkeys(FORMATS, BINARY)}}
CACHED = {"cache-control": "private, max-age=600"}
Result = TypeVar("Result")


class Picture(Response):
    """A picture, for the description."""

    media_type = "image/png"


class Api:
    """The routes; each method's docstring is its description in OpenAPI."""

    def __init__(
        self,
        grounder: Grounder,
        limits: Limits,
        methods: Sequence[str],
        samples: Mapping[str, Mapping[str, Any]],
    ):
        unknown = [name for name in methods if name not in METHODS]
        if unknown:
            raise InputError(f"step.methods: there is no {unknown[0]!r}; choose among {', '.join(METHODS)}")
        self._grounder, self._limits = grounder, limits
        self._methods = list(dict.fromkeys([grounder.settings.method, *methods]))
        self._samples = {name: Sample(name, **given) for name, given in samples.items()}
        self._photos, self._desk = Photos(limits), Desk(limits.workers, limits.queue)
        self._glancer = Glancer(grounder, limits.scenes)
        for sample in [*self._samples.values()][:1]:
            log.info("trying a photo first: on a new machine this compiles for some seconds")
            self._ask(self._glancer.look(decode(sample.data, limits)), Question(phrases=sample.phrases))

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """From start to end: drops photos that nobody asks for."""
        tidying = asyncio.ensure_future(self._tidy())
        yield
        tidying.cancel()
        self._desk.close()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._photos.tidy()

    def routes(self) -> APIRouter:
        """What there is under /api."""
        router = APIRouter(prefix="/api", responses=REFUSALS)
        photo = "/photos/{token}"
        router.add_api_route("/about", self.about, methods=["GET"])
        router.add_api_route("/samples/{name}.jpg", self.sample, methods=["GET"], response_class=Picture)
        router.add_api_route("/photos", self.keep, methods=["POST"], openapi_extra=PHOTO_BODY)
        router.add_api_route(photo, self.forget, methods=["DELETE"], status_code=204)
        router.add_api_route(f"{photo}/ground", self.ground, methods=["POST"])
        router.add_api_route(f"{photo}/heat.png", self.heat, methods=["GET"], response_class=Picture)
        router.add_api_route(f"{photo}/words", self.words, methods=["POST"])
        router.add_api_route(f"{photo}/exports/{{kind}}", self.export, methods=["POST"], response_class=Response)
        router.add_api_route("/ground", self.ground_once, methods=["POST"], openapi_extra=PHOTO_BODY)
        return router

    async def about(self) -> About:
        """What the server offers: methods, defaults, samples, limits."""
        settings, samples = self._grounder.settings, self._samples.values()
        return About(
            methods=self._methods,
            method=settings.method,
            gamma=settings.gamma,
            samples=[SampleInfo(name=s.name, title=s.title, phrases=s.phrases) for s in samples],
            colours=list(COLOURS),
            exports={kind: download.title for kind, download in DOWNLOADS.items()},
            limits=vars(self._limits),
        )

    async def sample(self, name: str) -> Response:
        """A photo to try, as scikit-image ships it."""
        if name not in self._samples:
            raise Refused(404, "there is no such sample; /api/about lists them")
        return Response(self._samples[name].data, media_type=self._samples[name].media_type, headers=CACHED)

    async def keep(self, request: Request, name: str = "photo") -> PhotoInfo:
        """Takes a photo (its bytes are the body; `name` is what it is called in exports) and keeps it for a while."""
        data = await _photo(request, check_name(name))
        scene = await self._do(lambda: self._glancer.look(decode(data, self._limits)))
        return self._info(self._photos.keep(name, scene))

    async def forget(self, token: str) -> None:
        """Drops a photo."""
        self._photos.forget(token)

    async def ground(self, token: str, question: Question) -> Reply:
        """Finds phrases in a photo. Asking again under another gamma repeats no pass of the network."""
        kept = self._find(token)
        return self._answers(kept, question, await self._do(lambda: self._ask(kept.scene, question)))

    async def ground_once(
        self,
        request: Request,
        phrase: Annotated[list[str] | None, Query(description="repeated, one for each phrase")] = None,
        caption: str | None = None,
        method: str | None = None,
        gamma: Annotated[float | None, Query(ge=0, le=4, allow_inf_nan=False)] = None,
        boxes: Annotated[int, Query(ge=1)] = 10,
        name: str = "photo",
    ) -> Reply:
        """Finds phrases in the photo that is the body: `curl -T photo.jpg -X POST '.../api/ground?phrase=a+cat'`."""
        question = Question(phrases=phrase, caption=caption, method=method, gamma=gamma, boxes=boxes)
        data = await _photo(request, check_name(name))

        def work() -> tuple[GroundingScene, list[Grounding]]:
            scene = self._glancer.look(decode(data, self._limits))
            return scene, self._ask(scene, question)

        scene, answers = await self._do(work)
        return self._answers(self._photos.keep(name, scene), question, answers)

    async def heat(self, token: str, phrase: str, method: str | None = None) -> Response:
        """A phrase's heat map: a PNG of the photo's proportions, clear where there is no mass."""
        kept, question = self._find(token), Question(phrases=[phrase], method=method)

        def work() -> bytes:
            (answer,) = self._ask(kept.scene, question)
            if answer.map is None:
                raise Refused(404, "the phrase is not groundable: it has no heat map")
            return heat(answer.map)

        return Response(await self._do(work), media_type="image/png", headers=CACHED)

    async def words(self, token: str, region: Region) -> Words:
        """The words whose attention is most concentrated in a box. The first box of a photo takes a few seconds."""
        scene = self._find(token).scene
        found = await self._do(lambda: scene.words(region.box, region.count))
        return Words(words=[Word(word=word, share=share) for word, share in found])

    async def export(self, token: str, kind: str, question: Question) -> Response:
        """The answers to a question as a file."""
        kept = self._find(token)
        if kind not in DOWNLOADS:
            raise Refused(404, f"there is no such export; choose one of {', '.join(DOWNLOADS)}")
        download = DOWNLOADS[kind]
        content = await self._do(lambda: download.make(kept, self._ask(kept.scene, question), question.boxes))
        stem = kept.name.rpartition(".")[0] or kept.name
        disposition = f"attachment; filename*=UTF-8''{quote(f'{stem}.{kind}', safe='')}"
        return Response(content, media_type=download.media_type, headers={"content-disposition": disposition})

    async def _do(self, work: Callable[[], Result]) -> Result:
        try:
            return await self._desk.do(work)
        except Busy as busy:
            message = "busy: all places are taken; come back later"
            raise Refused(503, message, self._limits.retry_seconds) from busy

    def _find(self, token: str) -> Kept:
        try:
            return self._photos.find(token)
        except KeyError as error:
            raise Refused(404, "there is no such photo here, or not any more: send it again") from error

    def _ask(self, scene: GroundingScene, question: Question) -> list[Grounding]:
        phrases, vocabulary = phrases_of(question, self._limits), self._grounder.tagger.vocabulary
        method = question.method or self._grounder.settings.method
        if method not in self._methods:
            raise InputError(f"there is no such method here; choose one of {', '.join(self._methods)}")
        tags = {tag for text in phrases for tag in Phrase.parse(text, vocabulary).tags}
        most = self._limits.slow_words if slow(method) else self._limits.words
        if len(tags) > most:
            raise InputError(f"the phrases have more than {most} different words for {method}: ask in parts")
        return scene.ground(phrases, gamma=question.gamma, method=method)

    def _info(self, kept: Kept) -> PhotoInfo:
        width, height = kept.size
        seconds = self._limits.photo_seconds
        return PhotoInfo(token=kept.token, name=kept.name, width=width, height=height, seconds=seconds)

    def _answers(self, kept: Kept, question: Question, answers: Sequence[Grounding]) -> Reply:
        settings = self._grounder.settings
        method = question.method or settings.method
        return Reply(
            photo=self._info(kept),
            method=method,
            gamma=settings.gamma if question.gamma is None else question.gamma,
            answers=[Answer.of(answer, question.boxes, kept.token, method) for answer in answers],
        )


async def _photo(request: Request, name: str) -> bytes:
    """The body of a request, which must not say that it is something else than a photo.

    Raises:
        Refused: it does.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(("image/", "multipart/", "text/")) and kind not in FORMATS:
        raise Refused(
            415, f"send the bytes of the photo as the body, as {', '.join(FORMATS)}: curl -T {name} -X POST URL"
        )
    return await request.body()

"""The HTTP API.

    POST   /api/photos?name=photo.jpg             the bytes of a photo -> a token
    POST   /api/photos/{token}/ground             {"phrases": [...]} or {"caption": "..."} -> boxes, scores, skipped
    GET    /api/photos/{token}/file               the photo as it was uploaded
    GET    /api/photos/{token}/heat.png?phrase=   a heat map to lay over the photo
    POST   /api/photos/{token}/words              {"box": [x1, y1, x2, y2]} -> words that may describe the box
    POST   /api/photos/{token}/exports/{kind}     a question -> a file
    DELETE /api/photos/{token}
    POST   /api/ground?phrase=...&phrase=...      the bytes of a photo -> token and answers in one request

A photo is the plain body of its request, so that no form has to be parsed and no temporary file is written.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response

from grounding.answers import Grounding
from grounding.attention.atlas import check_box
from grounding.attention.methods import METHODS
from grounding.grounder import Grounder
from grounding.page.decoder import PhotoDecoder
from grounding.page.downloads import DOWNLOADS
from grounding.page.heatmaps import heat_png
from grounding.page.limits import Limits
from grounding.page.middleware import RequestRefused, client_of
from grounding.page.samples import SamplePhoto
from grounding.page.scenes import SceneCache, max_words
from grounding.page.schemas import (
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
from grounding.page.store import PhotoStore, StoredPhoto
from grounding.page.uploads import FORMATS, check_name, media_type
from grounding.page.workers import QueueFull, WorkerPool
from grounding.pictures.svg import COLOURS
from grounding.scene import GroundingScene
from grounding.text.phrases import Phrase
from proposals.errors import InputError

log = logging.getLogger(__name__)

EVICT_SECONDS = 30  # between two checks for old photos
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 431, 500, 503)
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
PHOTO_BODY = {"requestBody": {"required": True, "content": dict.fromkeys(FORMATS, BINARY)}}
PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(FORMATS, BINARY)}}
HEAT: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": BINARY}}}
FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {download.media_type.partition(";")[0]: BINARY for download in DOWNLOADS.values()}}
}
CACHED = {"cache-control": "private, max-age=600"}
Result = TypeVar("Result")


class Api:
    """The routes. The docstring of each method is its description in OpenAPI.

    Args:
        grounder: finds the phrases.
        limits: the bounds of the server.
        methods: attention methods that clients may use, besides the grounder's own.
        samples: see :func:`grounding.page.serve.serve`.

    Raises:
        InputError: a sample or a method does not exist.
    """

    def __init__(
        self,
        grounder: Grounder,
        limits: Limits,
        methods: Sequence[str],
        samples: Mapping[str, Mapping[str, Any]],
    ) -> None:
        unknown = [name for name in methods if name not in METHODS]
        if unknown:
            raise InputError(f"step.methods: unknown method {unknown[0]!r}: choose among {', '.join(METHODS)}")
        self._grounder, self._limits = grounder, limits
        self._methods = list(dict.fromkeys([grounder.settings.method, *methods]))
        chosen = [SamplePhoto(name, **given) for name, given in samples.items()]
        self._samples = {sample.path: sample for sample in chosen}
        public = [sample.data for sample in chosen]
        self._photos, self._workers = PhotoStore(limits, public=public), WorkerPool(limits.workers, limits.queue)
        # words of boxes take seconds, so they have one thread of their own, and never hold up phrases
        self._word_workers = WorkerPool(1, limits.queue)
        # answers without a pass of the network take milliseconds, so each connection may wait for one
        self._ready_workers = WorkerPool(1, limits.connections)
        self._scenes, self._decoder = SceneCache(grounder, limits.scenes), PhotoDecoder(limits)
        if samples:
            sample = next(iter(self._samples.values()))
            log.info("grounding a sample photo; on a new machine this compiles functions for some seconds")
            self._workers.warm_up(lambda: self._warm_up(sample))

    def _warm_up(self, sample: SamplePhoto) -> None:
        """Does once what is slow at the first time: in the process, in each thread, and for a second size of photos,
        after which a network is known to be the same for all.
        """
        pixels, question = self._decoder.decode(sample.data), Question(phrases=list(sample.phrases))
        for part in (pixels, pixels[: len(pixels) * 3 // 4]):
            for answer in self._ground(self._scenes.look(part), question):
                if answer.map is not None:
                    heat_png(answer.map)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Runs from the start of the server to its end, and removes old photos."""
        eviction = asyncio.ensure_future(self._evict_regularly())
        yield
        eviction.cancel()
        self._decoder.close()
        for workers in (self._workers, self._word_workers, self._ready_workers):
            workers.close()

    async def _evict_regularly(self) -> None:
        while True:
            await asyncio.sleep(EVICT_SECONDS)
            self._photos.evict()

    def routes(self) -> APIRouter:
        """The routes under /api."""
        router = APIRouter(prefix="/api", responses=ERRORS)
        photo = "/photos/{token}"
        router.add_api_route("/about", self.about, methods=["GET"])
        picture: dict[str, Any] = {"methods": ["GET"], "response_class": Response}
        question: dict[str, Any] = {"methods": ["POST"], "dependencies": [Depends(_is_json)]}
        router.add_api_route("/samples/{name}", self.sample, responses=PICTURE, **picture)
        router.add_api_route("/photos", self.upload, methods=["POST"], openapi_extra=PHOTO_BODY)
        router.add_api_route(photo, self.delete, methods=["DELETE"], status_code=204)
        router.add_api_route(f"{photo}/file", self.file, responses=PICTURE, **picture)
        router.add_api_route(f"{photo}/ground", self.ground, **question)
        router.add_api_route(f"{photo}/heat.png", self.heat, responses=HEAT, **picture)
        router.add_api_route(f"{photo}/words", self.words, **question)
        exports = f"{photo}/exports/{{kind}}"
        router.add_api_route(exports, self.export, responses=FILES, response_class=Response, **question)
        router.add_api_route("/ground", self.upload_and_ground, methods=["POST"], openapi_extra=PHOTO_BODY)
        return router

    async def about(self) -> About:
        """Returns what the server offers: methods, defaults, sample photos, limits."""
        settings, samples = self._grounder.settings, self._samples.values()
        return About(
            methods=self._methods,
            method=settings.method,
            gamma=settings.gamma,
            presence=settings.presence,
            samples=[
                SampleInfo(name=s.name, title=s.title, picture=f"/api/samples/{s.path}", phrases=list(s.phrases))
                for s in samples
            ],
            colours=list(COLOURS),
            exports={kind: download.title for kind, download in DOWNLOADS.items()},
            limits=vars(self._limits),
        )

    async def sample(self, name: str) -> Response:
        """Returns a sample photo. `/api/about` lists them."""
        if name not in self._samples:
            raise RequestRefused(404, "there is no sample with this name: choose one from /api/about")
        return Response(self._samples[name].data, media_type=self._samples[name].media_type, headers=CACHED)

    async def upload(self, request: Request, name: str = "photo") -> PhotoInfo:
        """Uploads a photo. The body is the bytes of the file; `name` is its file name in exports. The photo stays in
        memory for a while. The same photo with the same name, sent again, has the same token."""
        data = await _photo_bytes(request, check_name(name))
        client = client_of(request.scope)
        scene = self._photos.scene_of(data, client)
        if scene is None:
            scene = await self._run(lambda: self._look(data, client))
        return self._info(self._photos.add(name, scene, data, client))

    async def delete(self, token: str) -> None:
        """Deletes a photo."""
        self._photos.remove(token)

    async def file(self, token: str) -> Response:
        """Returns the file of a photo as it was uploaded."""
        data = self._photo(token).data
        return Response(data, media_type=media_type(data))

    async def ground(self, token: str, question: Question) -> Reply:
        """Finds phrases in a photo. Repeating the request with another gamma needs no further pass of the network."""
        photo = self._photo(token)
        workers = await self._workers_for(photo.scene, question)
        return self._reply(photo, question, await self._run(lambda: self._ground(photo.scene, question), workers))

    async def upload_and_ground(
        self,
        request: Request,
        phrase: Annotated[list[str] | None, Query(description="repeat it for each phrase")] = None,
        caption: str | None = None,
        method: str | None = None,
        gamma: Annotated[float | None, Query(ge=0, le=4, allow_inf_nan=False)] = None,
        boxes: Annotated[int, Query(ge=1)] = 10,
        name: str = "photo",
    ) -> Reply:
        """Uploads a photo and finds phrases in it: `curl -T photo.jpg -X POST '.../api/ground?phrase=a+cat'`."""
        question = Question(phrases=phrase, caption=caption, method=method, gamma=gamma, boxes=boxes)
        data, client = await _photo_bytes(request, check_name(name)), client_of(request.scope)

        def work() -> tuple[GroundingScene, list[Grounding]]:
            scene = self._look(data, client)
            return scene, self._ground(scene, question)

        scene, answers = await self._run(work)
        photo = self._photos.add(name, scene, data, client)
        return self._reply(photo, question, answers)

    def _look(self, data: bytes, client: str) -> GroundingScene:
        """The scene of a photo's file; perhaps it was sent again while the request was in the queue."""
        return self._photos.scene_of(data, client) or self._scenes.look(self._decoder.decode(data))

    async def heat(self, token: str, phrase: str, method: str | None = None) -> Response:
        """Returns the heat map of a phrase, a PNG with the aspect ratio of the photo. Pixels without attention are
        transparent."""
        photo, question = self._photo(token), Question(phrases=[phrase], method=method)

        def work() -> bytes:
            (answer,) = self._ground(photo.scene, question)
            if answer.map is None:
                raise RequestRefused(404, "the phrase has no heat map: none of its words is in the vocabulary")
            return heat_png(answer.map)

        content = await self._run(work, await self._workers_for(photo.scene, question))
        return Response(content, media_type="image/png", headers=CACHED)

    async def words(self, token: str, region: Region) -> Words:
        """Returns the words whose attention is most concentrated in a box. The first request for a photo takes a few
        seconds."""
        scene = self._photo(token).scene
        check_box(region.box, scene.image.shape[:2])
        found = await self._run(lambda: scene.words(region.box, region.count), self._word_workers)
        return Words(words=[Word(word=word, share=share) for word, share in found])

    async def export(self, token: str, kind: str, question: Question) -> Response:
        """Returns the answers to a question as a file."""
        photo = self._photo(token)
        if kind not in DOWNLOADS:
            raise RequestRefused(404, f"there is no such file type: choose one of {', '.join(DOWNLOADS)}")
        download = DOWNLOADS[kind]
        content = await self._run(lambda: download.make(photo, self._ground(photo.scene, question), question.boxes))
        stem = photo.name.rpartition(".")[0] or photo.name
        disposition = f"attachment; filename*=UTF-8''{quote(f'{stem}.{kind}', safe='')}"
        return Response(content, media_type=download.media_type, headers={"content-disposition": disposition})

    async def _workers_for(self, scene: GroundingScene, question: Question) -> WorkerPool:
        """The threads for a question: those for quick answers if the maps of all words are known."""
        if not question.phrases or question.method not in (None, *self._methods):
            return self._workers  # a caption is parsed there, and a wrong method refused
        phrases = phrases_of(question, self._limits)
        # not in the thread of the connections: parsing 20 long phrases takes 50 ms
        new = await self._run(lambda: scene.needs_pass(phrases, question.method), self._ready_workers)
        return self._workers if new else self._ready_workers

    async def _run(self, work: Callable[[], Result], workers: WorkerPool | None = None) -> Result:
        try:
            return await (workers or self._workers).run(work)
        except QueueFull as full:
            message = "the server is busy: try again later"
            raise RequestRefused(503, message, self._limits.retry_seconds) from full

    def _photo(self, token: str) -> StoredPhoto:
        try:
            return self._photos.get(token)
        except KeyError as error:
            message = "there is no photo with this token (photos are deleted after a while): send it again"
            raise RequestRefused(404, message) from error

    def _ground(self, scene: GroundingScene, question: Question) -> list[Grounding]:
        phrases, vocabulary = phrases_of(question, self._limits), self._grounder.tagger.vocabulary
        method = question.method or self._grounder.settings.method
        if method not in self._methods:
            raise InputError(f"method is unknown: choose one of {', '.join(self._methods)}")
        tags = {tag for text in phrases for tag in Phrase.parse(text, vocabulary).tags}
        most = max_words(method, self._limits)
        if len(tags) > most:
            raise InputError(f"the phrases have more than {most} different words for {method}: send several requests")
        return scene.ground(phrases, gamma=question.gamma, method=method)

    def _info(self, photo: StoredPhoto) -> PhotoInfo:
        width, height = photo.size
        seconds = self._limits.photo_seconds
        return PhotoInfo(token=photo.token, name=photo.name, width=width, height=height, seconds=seconds)

    def _reply(self, photo: StoredPhoto, question: Question, answers: Sequence[Grounding]) -> Reply:
        settings = self._grounder.settings
        method = question.method or settings.method
        return Reply(
            photo=self._info(photo),
            method=method,
            gamma=settings.gamma if question.gamma is None else question.gamma,
            answers=[Answer.of(answer, question.boxes, photo.token, method) for answer in answers],
        )


def _is_json(request: Request) -> None:
    """Refuses a question whose content type does not say that it is JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestRefused(
            415, "this content type is not accepted: send the header content-type: application/json (curl --json)"
        )


async def _photo_bytes(request: Request, name: str) -> bytes:
    """The body of a request, unless its content type says that it is not a photo."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(("image/", "multipart/", "text/")) and kind not in FORMATS:
        formats = ", ".join(FORMATS)
        raise RequestRefused(
            415,
            f"this content type is not accepted: send the photo as the body ({formats}): curl -T {name} -X POST URL",
        )
    return await request.body()

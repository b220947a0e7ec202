"""The application: the API, the page's own files by name, errors as JSON, and the gate before them."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from grounding.grounder import Grounder
from grounding.page.api import Api
from grounding.page.gate import FAULT, Gate, Refused
from grounding.page.limits import Limits
from proposals.errors import InputError

SHORT = 300  # characters of an error message
PAGE = {"/": "index.html"} | {
    f"/{name}": name for name in ("page.css", "page.js", "asking.js", "common.js", "drawing.js", "icon.svg")
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def build(
    grounder: Grounder,
    limits: Limits,
    methods: Sequence[str],
    samples: Mapping[str, Mapping[str, Any]],
    hosts: Sequence[str],
) -> Gate:
    """The server's application, behind its gate; one sample has been answered, so that what compiles has compiled.

    Args:
        grounder, limits, methods, samples, hosts: see ``grounding.page.serve.serve``.

    Raises:
        InputError: there is no such sample or method.
    """
    api = Api(grounder, limits, methods, samples)
    app = FastAPI(
        title="grounding",
        description="Finds in a photo what a phrase names.",
        version="1",
        docs_url=None,  # FastAPI's pages load their programs from elsewhere
        redoc_url=None,
        lifespan=api.lifespan,
    )
    app.include_router(api.routes())
    for path, name in PAGE.items():
        app.add_api_route(path, _page(name), include_in_schema=False)
    app.add_exception_handler(Refused, lambda _, refused: _told(refused.status, str(refused), refused.retry))
    app.add_exception_handler(InputError, lambda _, error: _told(422, str(error)))
    app.add_exception_handler(RequestValidationError, lambda _, error: _told(422, _first(error)))
    app.add_exception_handler(HTTPException, lambda _, error: _told(error.status_code, error.detail))
    app.add_exception_handler(Exception, lambda _, error: _told(500, FAULT))
    return Gate(app, limits, hosts, {"/api/photos", "/api/ground"})


def _page(name: str) -> Callable[[], Response]:
    content = (files("grounding.page") / "static" / name).read_bytes()
    return lambda: Response(content, media_type=TYPES[name.rpartition(".")[2]])


def _told(status: int, message: str, retry: int | None = None) -> Response:
    headers = None if retry is None else {"retry-after": str(retry)}
    # escaped: what a client sent may be no text that UTF-8 has
    return Response(json.dumps({"error": message}), status, headers, "application/json")


def _first(invalid: RequestValidationError) -> str:
    error = invalid.errors()[0]
    return f"{'.'.join(map(str, error['loc']))[:SHORT]}: {error['msg'][:SHORT]}"

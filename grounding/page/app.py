"""The web application: the API, the files of the page, and errors as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from grounding.grounder import Grounder
from grounding.page.api import Api
from grounding.page.clients import ClientGate
from grounding.page.limits import Limits
from grounding.page.middleware import INTERNAL_ERROR, CheckRequests, RequestRefused
from proposals.errors import InputError

MAX_MESSAGE = 300  # characters of each part of an error message
STATIC = files("grounding.page") / "static"
PAGE = {"/": "index.html"} | {f"/{file.name}": file.name for file in STATIC.iterdir() if file.name != "index.html"}
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def build_app(
    grounder: Grounder,
    limits: Limits,
    methods: Sequence[str],
    samples: Mapping[str, Mapping[str, Any]],
    hosts: Sequence[str],
    token: str | None = None,
    proxies: Sequence[str] = (),
) -> CheckRequests:
    """Builds the application. It grounds one sample first, so that all functions are compiled before the first request.

    Args:
        grounder: finds the phrases.
        limits: the bounds of the server.
        methods: attention methods that clients may use.
        samples: see :func:`grounding.page.serve.serve`.
        hosts: accepted host names, without ports.
        token: the token that clients have to send; None for none.
        proxies: addresses of proxies whose header ``X-Forwarded-For`` is believed.

    Returns:
        The application, with the checks of its requests.

    Raises:
        InputError: a sample or a method does not exist, or an address of a proxy is none.
    """
    gate = ClientGate(limits.client_requests, token, proxies)
    api = Api(grounder, limits, methods, samples)
    app = FastAPI(
        title="grounding",
        description="Finds in a photo what a phrase names.",
        version="1",
        docs_url=None,  # the documentation pages of FastAPI load scripts from other sites
        redoc_url=None,
        lifespan=api.lifespan,
    )
    app.include_router(api.routes())
    for path, name in PAGE.items():
        app.add_api_route(path, _static_file(name), include_in_schema=False)
    _add_error_handlers(app)
    _declare_bounds(app, limits)
    return CheckRequests(app, limits, hosts, {"/api/photos", "/api/ground"}, gate)


def _declare_bounds(app: FastAPI, limits: Limits) -> None:
    """Writes the limits of a question into the OpenAPI description."""
    fields = app.openapi()["components"]["schemas"]["Question"]["properties"]
    phrases = next(kind for kind in fields["phrases"]["anyOf"] if kind["type"] == "array")
    phrases |= {"minItems": 1, "maxItems": limits.phrases}
    phrases["items"] |= {"minLength": 1, "maxLength": limits.phrase_length}
    next(kind for kind in fields["caption"]["anyOf"] if kind["type"] == "string")["maxLength"] = limits.caption_length
    fields["boxes"]["maximum"] = limits.boxes


def _add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(
        RequestRefused, lambda _, refused: _error(refused.status, str(refused), refused.retry_after)
    )
    app.add_exception_handler(InputError, lambda _, error: _error(422, str(error)))
    app.add_exception_handler(RequestValidationError, lambda _, error: _error(422, _first_message(error)))
    app.add_exception_handler(
        HTTPException, lambda _, error: _error(error.status_code, error.detail, headers=error.headers)
    )
    app.add_exception_handler(Exception, lambda _, error: _error(500, INTERNAL_ERROR))


def _static_file(name: str) -> Callable[[], Response]:
    content = (STATIC / name).read_bytes()
    return lambda: Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]])


def _error(
    status: int, message: str, retry_after: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    headers = dict(headers or {}) | ({} if retry_after is None else {"retry-after": str(retry_after)})
    # escaped as ASCII, because the text of a client may not be encodable as UTF-8
    return Response(json.dumps({"error": message}), status, headers, "application/json")


def _first_message(invalid: RequestValidationError) -> str:
    error = invalid.errors()[0]
    return f"{'.'.join(map(str, error['loc']))[:MAX_MESSAGE]}: {error['msg'][:MAX_MESSAGE]}"

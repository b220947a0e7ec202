"""Clients of the server: the client's address, its rate of requests, and the token that a server may ask for."""

import base64
import binascii
import hmac
import ipaddress
import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from grounding.page.middleware import RequestRefused, Scope, request_headers
from proposals.errors import InputError

TOKEN_VARIABLE = "GROUNDING_TOKEN"
MIN_TOKEN = 16  # characters
MAX_CLIENTS = 10_000  # whose rates are remembered
TOKEN = re.compile(r"[!-~]+")  # what a header can hold
NETWORK_BITS = 64  # an IPv6 client has all addresses of a network


def read_token(token: str | None, file: str | None) -> str | None:
    """The token that clients have to send.

    Args:
        token: the token itself; other users of this machine may see it in the list of processes.
        file: a file with the token.

    Returns:
        The token, that of the file, or that of the variable ``GROUNDING_TOKEN``; None if there is none.

    Raises:
        InputError: the token is too short or has characters that a header cannot hold, or the file cannot be read.
    """
    if file is not None:
        try:
            token = Path(file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"step.token_file={file} cannot be read: {getattr(error, 'strerror', error)}") from error
    token = os.environ.get(TOKEN_VARIABLE) if token is None else str(token)
    if token is not None and (len(token) < MIN_TOKEN or not TOKEN.fullmatch(token)):
        raise InputError(
            f"the token must have {MIN_TOKEN} or more letters, digits and signs, without spaces: openssl rand -hex 16"
        )
    return token


class ClientGate:
    """Refuses clients that ask too often or without the token, before their bodies are read.

    Each client has a budget of ``per_minute`` requests, which fills up within a minute. The files of the page cost
    nothing, but a wrong token does.

    Args:
        per_minute: number of requests of a client.
        token: the token that clients have to send; None for none.
        proxies: addresses of proxies whose header ``X-Forwarded-For`` is believed.
        clock: returns the time in seconds; it never goes backwards.

    Raises:
        InputError: the address of a proxy is not an IP address.
    """

    def __init__(
        self,
        per_minute: float,
        token: str | None = None,
        proxies: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute, self._token, self._clock = per_minute, token, clock
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was
        try:
            self._proxies = {ipaddress.ip_address(proxy) for proxy in proxies}
        except ValueError as error:
            raise InputError(f"step.proxies: {error}: give addresses such as 127.0.0.1") from error

    def __call__(self, scope: Scope) -> str:
        """Admits a request.

        Args:
            scope: the scope of ASGI.

        Returns:
            The name of the client: its address, or its network.

        Raises:
            RequestRefused: there were too many requests (429), or the token is missing or wrong (401).
        """
        client, known = self._client(scope), self._has_token(request_headers(scope).get("authorization", ""))
        if scope["path"].startswith("/api") or not known:
            self._spend(client)
        if not known:
            message = "this server needs a token: send the header authorization: Bearer TOKEN (curl -u :TOKEN)"
            raise RequestRefused(401, message)
        return client

    def _spend(self, client: str) -> None:
        now = self._clock()
        left, then = self._budgets.pop(client, (self._per_minute, now))
        left = min(self._per_minute, left + (now - then) * self._per_minute / 60)
        self._budgets[client] = (left - 1 if left >= 1 else left, now)
        while len(self._budgets) > MAX_CLIENTS:
            self._budgets.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) * 60 / self._per_minute)
            raise RequestRefused(429, f"too many requests from this address: try again in {seconds} s", seconds)

    def _has_token(self, authorization: str) -> bool:
        """Whether a header has the token, as Bearer, or as password of Basic, for which browsers ask."""
        if self._token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":
            with suppress(binascii.Error, UnicodeDecodeError):
                given = base64.b64decode(given.strip(), validate=True).decode("utf-8").partition(":")[2]
        elif scheme.lower() != "bearer":
            given = ""
        # takes the same time for each wrong token
        return hmac.compare_digest(given.strip().encode("utf-8"), self._token.encode("utf-8"))

    def _client(self, scope: Scope) -> str:
        """The last address before this server that is not one of our proxies."""
        peer = (scope.get("client") or ("",))[0]
        # some proxies add a line of their own, so all lines count, in their order
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        way = [part.strip() for part in ",".join(lines).split(",") if part.strip()]
        for name in [peer, *reversed(way)]:
            try:
                address = ipaddress.ip_address(name)
            except ValueError:
                break
            peer = name
            if address not in self._proxies:
                break
        return _network(peer)


def _network(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), NETWORK_BITS), strict=False))
    return str(address)

"""Strangers at the page's server: tokens, rates, budgets of kept photos, and photos that break the decoder."""

import base64
import os
import re
import signal
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from page_server import LIMITS, STEP, ask, encoded, served
from PIL import Image

from grounding.page import decoder as decoding
from grounding.page.app import build_app
from grounding.page.clients import MAX_CLIENTS, ClientGate, read_token
from grounding.page.decoder import PhotoDecoder
from grounding.page.limits import Limits
from grounding.page.middleware import RequestRefused
from grounding.page.store import PhotoStore
from grounding.page.uploads import decode
from proposals.errors import InputError

SECRET = "0123456789abcdef"


def scope(path: str = "/api/about", peer: str = "10.0.0.1", **headers: str) -> dict:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "GET", "path": path, "client": (peer, 1), "headers": lines}


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", f"bearer {SECRET}", basic(SECRET)])
def test_the_token_is_a_bearer_or_a_password(header):
    assert ClientGate(10, SECRET)(scope(authorization=header)) == "10.0.0.1"


@pytest.mark.parametrize(
    "header", ["", "Bearer", f"Bearer {SECRET}x", basic(""), basic(SECRET[1:]), "Basic %%%", f"Digest {SECRET}", SECRET,
               "Basic /w==", "Bearer \u00ff"]
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/api/about", "/openapi.json"])
def test_a_wrong_token_is_refused(header, path):
    with pytest.raises(RequestRefused, match="this server needs a token") as refused:
        ClientGate(10, SECRET)(scope(path, authorization=header))
    assert refused.value.status == 401


def test_where_the_token_comes_from(tmp_path, monkeypatch):
    monkeypatch.delenv("GROUNDING_TOKEN", raising=False)
    assert read_token(None, None) is None
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert read_token(None, str(tmp_path / "token")) == read_token(SECRET, None) == SECRET
    monkeypatch.setenv("GROUNDING_TOKEN", SECRET[::-1])
    assert (read_token(None, None), read_token(SECRET, None)) == (SECRET[::-1], SECRET)
    for wrong in ("", "short", f"{SECRET} {SECRET}", "ü" * 20):
        with pytest.raises(InputError, match="16 or more letters, digits and signs, without spaces: openssl rand"):
            read_token(wrong, None)
    with pytest.raises(InputError, match=r"step.token_file=.*none cannot be read: No such file"):
        read_token(None, str(tmp_path / "none"))


def test_a_client_that_asks_too_often_waits():
    now = [0.0]
    gate = ClientGate(60, clock=lambda: now[0])
    for _ in range(60):
        gate(scope())
    with pytest.raises(RequestRefused, match="too many requests from this address: try again in 1 s") as refused:
        gate(scope())
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    assert gate(scope(peer="10.0.0.2")) == "10.0.0.2"
    assert gate(scope("/page.js")) == "10.0.0.1"
    now[0] = 1.01
    assert gate(scope()) == "10.0.0.1"
    with pytest.raises(RequestRefused):
        gate(scope())


def test_wrong_tokens_are_tried_slowly():
    gate = ClientGate(5, SECRET)
    statuses = []
    for guess in range(7):
        with pytest.raises(RequestRefused) as refused:
            gate(scope("/", authorization=f"Bearer {guess:016d}"))
        statuses.append(refused.value.status)
    assert statuses == [401] * 5 + [429] * 2


def test_few_clients_are_remembered():
    gate = ClientGate(5)
    for number in range(MAX_CLIENTS + 10):
        gate(scope(peer=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
    assert len(gate._budgets) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("peer", "way", "client"),
    [
        ("10.0.0.1", "1.2.3.4", "10.0.0.1"),  # no proxy of ours: the header may be made up
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "9.9.9.9, 1.2.3.4", "1.2.3.4"),  # the first one is what the client says
        ("127.0.0.1", "1.2.3.4, 10.9.9.9", "1.2.3.4"),
        ("127.0.0.1", "<script>", "127.0.0.1"),
        ("2001:db8::1:2", "", "2001:db8::/64"),
        ("::ffff:1.2.3.4", "", "1.2.3.4"),
    ],
)
def test_who_the_client_is(peer, way, client):
    assert ClientGate(10, proxies=["127.0.0.1", "10.9.9.9"])(scope(peer=peer, x_forwarded_for=way)) == client


def test_each_proxy_may_add_a_line():
    asked = scope(peer="127.0.0.1")
    asked["headers"] = [(b"x-forwarded-for", way) for way in (b"9.9.9.9, 1.2.3.4", b"10.9.9.9")]
    assert ClientGate(10, proxies=["127.0.0.1", "10.9.9.9"])(asked) == "1.2.3.4"


def test_a_proxy_is_an_address():
    with pytest.raises(InputError, match=r"step.proxies: 'nginx' does not appear .*: give addresses such as 127.0.0.1"):
        ClientGate(10, proxies=["nginx"])


def test_the_server_asks_for_the_token(page_grounder):
    with served(build_app(page_grounder, Limits(**LIMITS), [], {}, list(STEP.hosts), SECRET)) as site:
        refused = ask(site, "GET", "/")
        assert refused.status == 401 and refused.json["error"].startswith("this server needs a token")
        assert refused.headers.get_all("www-authenticate")[0].startswith("Basic realm=")
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert ask(site, "GET", "/", authorization=basic(SECRET)).status == 200
        sent = ask(site, "POST", "/api/photos?name=a.png", encoded("PNG"), authorization=f"Bearer {SECRET}")
        assert sent.status == 200


def scene(size: int) -> SimpleNamespace:
    return SimpleNamespace(nbytes=size, proposals=None)


@pytest.mark.parametrize("limits", [{"client_photos": 3}, {"client_bytes": 60}, {"photos": 4}, {"photos_bytes": 90}])
def test_a_client_with_many_photos_loses_its_own(limits):
    photos = PhotoStore(Limits(**LIMITS | limits))
    theirs = photos.add("theirs", scene(20), client="a").token
    ours = [photos.add(str(number), scene(20), client="b").token for number in range(8)]
    assert photos.get(theirs).name == "theirs"
    assert photos.get(ours[-1]).name == "7" and len(photos) == 4
    with pytest.raises(KeyError):
        photos.get(ours[0])


@pytest.fixture
def decoder():
    made = PhotoDecoder(Limits(**LIMITS))
    yield made
    made.close()


def test_the_other_process_decodes_the_same(decoder):
    for kind in ("PNG", "JPEG", "WEBP"):
        photo = encoded(kind, (90, 60))
        np.testing.assert_array_equal(decoder.decode(photo), decode(photo, Limits(**LIMITS)))
    assert decoder.decode(photo).flags.writeable
    for broken in (b"", b"GIF89a", encoded("PNG")[:60], encoded("PNG", (400, 10))):
        with pytest.raises(InputError) as ours:
            decode(broken, Limits(**LIMITS))
        with pytest.raises(InputError) as theirs:
            decoder.decode(broken)
        assert str(theirs.value) == str(ours.value)


def test_a_crash_ends_the_decoder_only(decoder, monkeypatch):
    photo = encoded("PNG")
    decoder.decode(photo)
    first = decoder._process

    def crashing(process, data):
        os.kill(process.pid, signal.SIGSEGV)
        return exchange(process, data)

    exchange = decoding._exchange
    monkeypatch.setattr(decoding, "_exchange", crashing)
    with pytest.raises(InputError, match="the photo cannot be decoded: save it again as JPEG or PNG"):
        decoder.decode(photo)
    monkeypatch.undo()
    assert first.returncode == -signal.SIGSEGV
    assert decoder.decode(photo).shape == (30, 40, 3)
    decoder._process.kill()  # as the system does if memory is short
    decoder._process.wait()
    assert decoder.decode(photo).shape == (30, 40, 3)


def test_a_reply_that_is_not_read_is_never_that_of_the_next_photo(decoder, monkeypatch):
    read, counts = decoding._read, []

    def short_of_memory(pipe, count):
        counts.append(count)
        if len(counts) == 2:  # the pixels
            raise MemoryError
        return read(pipe, count)

    monkeypatch.setattr(decoding, "_read", short_of_memory)
    with pytest.raises(MemoryError):
        decoder.decode(encoded("PNG", (90, 60)))
    photo = encoded("PNG")
    np.testing.assert_array_equal(decoder.decode(photo), decode(photo, Limits(**LIMITS)))


def test_a_photo_that_takes_too_long_or_too_much_memory():
    photo = encoded("PNG")
    slow = PhotoDecoder(Limits(**LIMITS | {"decode_seconds": 0.001}))
    with pytest.raises(InputError, match=r"the photo takes more than 0.001 s to decode: send a smaller one"):
        slow.decode(photo)
    small = PhotoDecoder(Limits(**LIMITS))
    small.decode(photo)
    status = Path(f"/proc/{small._process.pid}/status").read_text()
    used = 1024 * int(re.search(r"VmSize:\s+(\d+)", status)[1])
    small.close()
    small = PhotoDecoder(Limits(**LIMITS | {"decode_bytes": used + 20_000_000}))
    Image.new("RGB", (5000, 5000)).save(large := BytesIO(), "PNG")
    with pytest.raises(InputError, match=r"more than \d+ bytes of memory: send a smaller one|truncated or corrupt"):
        small.decode(large.getvalue())
    assert small.decode(photo).shape == (30, 40, 3)
    small.close()


def test_a_warm_decoder_is_fast(decoder):
    photo = encoded("JPEG", (640, 480))
    decoder.decode(photo)
    begin = time.perf_counter()
    for _ in range(10):
        decoder.decode(photo)
    assert (time.perf_counter() - begin) / 10 < 1

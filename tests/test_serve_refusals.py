"""The page's server refuses invalid and hostile requests quickly, each with a message."""

import struct
import time
import zlib

import pytest
from page_server import ask, encoded

from grounding.tagger.tagger import load_vocabulary


@pytest.fixture(scope="module")
def token(site, astronaut) -> str:
    return ask(site, "POST", "/api/photos?name=astronaut.png", astronaut.read_bytes()).json["token"]


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with one bit for each pixel, whose header says a size and whose pixel data is too short."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(bytes(1000))),
    ]
    crc = lambda name, data: struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + crc(n, d) for n, d in [*parts, (b"IEND", b"")]
    )


WORD_LIST = [word for word in load_vocabulary() if word.isalpha()]
MANY = [" ".join(WORD_LIST[i : i + 5]) for i in range(0, 100, 5)]
JSON = {"content_type": "application/json"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PHOTO, GROUND, WORDS = "/api/photos", "/api/photos/TOKEN/ground", "/api/photos/TOKEN/words"
ANOTHER, EXPORT = "/api/photos/AAAAAAAAAAAAAAAAAAAAAA/ground", "/api/photos/TOKEN/exports/..%2f..%2fpasswd"
BOMB = png(40, 30, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)))
SCANS = encoded("JPEG").replace(b"\xff\xda", b"\xff\xda\x00\x02" * 1000 + b"\xff\xda", 1)

# name: method, path, body, headers, expected status, expected part of the message
HOSTILE = {
    "text as a photo": ("POST", PHOTO, b"no photo", {}, 422, "send a JPEG, PNG or WebP"),
    "nothing as a photo": ("POST", PHOTO, b"", {}, 422, "send a JPEG, PNG or WebP"),
    "a pickle as a photo": ("POST", PHOTO, b"\x80\x04\x95cposix\nsystem\n", {}, 422, "send a JPEG"),
    "20,000 x 20,000 pixels": ("POST", PHOTO, png(20000, 20000), {}, 422, "more than 25000000 pixels"),
    "one row of pixels too many": ("POST", PHOTO, png(5000, 5001), {}, 422, "more than 25000000 pixels"),
    "2 billion pixels wide": ("POST", PHOTO, png(2**31 - 1, 1), {}, 422, "pixels"),
    "too few pixels": ("POST", PHOTO, png(900, 900), {}, 422, "truncated or corrupt"),
    "text that unpacks to 200 MB": ("POST", PHOTO, BOMB, {}, 422, "truncated or corrupt"),
    "a JPEG of 1000 scans": ("POST", PHOTO, SCANS, {}, 422, "more than 20 scans"),
    "half a JPEG": ("POST", PHOTO, encoded("JPEG", (90, 90))[:2000], {}, 422, "truncated or corrupt"),
    "a photo of 1:200": ("POST", PHOTO, encoded("PNG", (200, 1)), {}, 422, "aspect ratio is above 32:1"),
    "a gif": ("POST", PHOTO, encoded("GIF"), {"content_type": "image/gif"}, 415, "image/webp"),
    "a gif that says JPEG": ("POST", PHOTO, encoded("GIF"), {"content_type": "image/jpeg"}, 422, "send a JPEG"),
    "a tiff": ("POST", PHOTO, encoded("TIFF"), {}, 422, "send a JPEG"),
    "an svg with a script": ("POST", PHOTO, SVG, {"content_type": "image/svg+xml"}, 415, "image/webp"),
    "an svg that says PNG": ("POST", PHOTO, SVG, {"content_type": "image/png"}, 422, "send a JPEG"),
    "a form": ("POST", PHOTO, b"--x--", {"content_type": "multipart/form-data; boundary=x"}, 415, "as the body"),
    "a name with ..": ("POST", f"{PHOTO}?name=../../etc/passwd", encoded("PNG"), {}, 422, "plain file name"),
    "a name with a null byte": ("POST", f"{PHOTO}?name=a%00.png", encoded("PNG"), {}, 422, "plain file name"),
    "a declared body of 1 GB": ("POST", PHOTO, b"", {"content_length": "1000000000"}, 413, "more than 20000000 bytes"),
    "an endless body": ("POST", PHOTO, iter([bytes(1 << 20)] * 40), {}, 413, "more than 20000000 bytes"),
    "a phrase of 10 MB": ("POST", GROUND, {"phrases": ["a" * 10_000_000]}, {}, 413, "more than 65536 bytes"),
    "a phrase of 60 KB": ("POST", GROUND, {"phrases": ["cat " * 15_000]}, {}, 422, "more than 200 characters"),
    "a caption of 60 KB": ("POST", GROUND, {"caption": "cat " * 15_000}, {}, 422, "more than 1000 characters"),
    "a thousand phrases": ("POST", GROUND, {"phrases": ["a cat"] * 1000}, {}, 422, "1000 phrases are more than 20"),
    "too many words": ("POST", GROUND, {"phrases": MANY}, {}, 422, "more than 60 different words"),
    "slow words": ("POST", GROUND, {"phrases": MANY[:5], "method": "grad"}, {}, 422, "more than 12 different words"),
    "no phrase": ("POST", GROUND, {"phrases": []}, {}, 422, "no phrase to ground"),
    "neither phrases nor caption": ("POST", GROUND, {}, {}, 422, "either phrases or a caption"),
    "null bytes": ("POST", GROUND, {"phrases": ["a cat\0"]}, {}, 422, "control character"),
    "reversed text": ("POST", GROUND, {"phrases": ["a \u202etac"]}, {}, 422, "control character"),
    "a surrogate": ("POST", GROUND, b'{"phrases": ["a cat \\ud800"]}', JSON, 422, "control character"),
    "a surrogate as a key": ("POST", GROUND, b'{"\\ud800": 1}', JSON, 422, "valid string"),
    "nothing but emoji": ("POST", GROUND, {"phrases": ["🐺🐺"]}, {}, 422, "has no word"),
    "nothing but space": ("POST", GROUND, {"phrases": ["\u3000 "]}, {}, 422, "has no word"),
    "a number as a phrase": ("POST", GROUND, {"phrases": [7]}, {}, 422, "phrases.0"),
    "broken JSON": ("POST", GROUND, b'{"phrases": [', JSON, 422, "JSON"),
    "deep JSON": ("POST", GROUND, b"[" * 60_000, JSON, 400, "body"),
    "a very long number": ("POST", GROUND, b'{"gamma": ' + b"9" * 6000 + b"}", JSON, 400, "body"),
    "gamma is NaN": ("POST", GROUND, b'{"phrases": ["a cat"], "gamma": NaN}', JSON, 422, "gamma"),
    "gamma below 0": ("POST", GROUND, {"phrases": ["a cat"], "gamma": -1}, {}, 422, "gamma"),
    "a million boxes": ("POST", GROUND, {"phrases": ["a cat"], "boxes": 10**6}, {}, 422, "more than 100"),
    "another method": ("POST", GROUND, {"phrases": ["a cat"], "method": "/etc/passwd"}, {}, 422, "method is unknown"),
    "a model in the request": ("POST", GROUND, {"phrases": ["a cat"], "tagger": "x.pt"}, {}, 422, "tagger"),
    "a box outside the photo": ("POST", WORDS, {"box": [0, 0, 1e9, 1e9]}, {}, 422, "leaves the image"),
    "a box of NaN": ("POST", WORDS, b'{"box": [NaN, NaN, NaN, NaN]}', JSON, 422, "box"),
    "another token": ("POST", ANOTHER, {"phrases": ["a cat"]}, {}, 404, "send it again"),
    "an export with ..": ("POST", EXPORT, {"phrases": ["a"]}, {}, 404, ""),
    "a path with ..": ("GET", "/../../../../etc/passwd", None, {}, 404, "Not Found"),
    "an escaped path": ("GET", "/..%2f..%2f..%2fetc%2fpasswd", None, {}, 404, "Not Found"),
    "a path behind a file": ("GET", "/page.css/../../serve.py", None, {}, 404, "Not Found"),
    "a path with a null byte": ("GET", "/page.css%00.html", None, {}, 404, "Not Found"),
    "a sample with ..": ("GET", "/api/samples/..%2f..%2fconf.jpg", None, {}, 404, ""),
    "another method of HTTP": ("PUT", "/", b"x", {}, 405, "Not Allowed"),
    "another host name": ("GET", "/", None, {"host": "evil.example"}, 403, "step.hosts"),
    "another site's page": ("POST", PHOTO, encoded("PNG"), {"origin": "https://evil.example"}, 403, "another site"),
    "an invalid origin": ("POST", PHOTO, encoded("PNG"), {"origin": "http://[evil"}, 403, "another site"),
    "a null origin": ("POST", PHOTO, encoded("PNG"), {"origin": "null"}, 403, "another site"),
    "a fetch across sites": ("POST", PHOTO, encoded("PNG"), {"sec_fetch_site": "cross-site"}, 403, "another site"),
    "another scheme": ("POST", PHOTO, b"", {"origin": "https://localhost", "host": "localhost"}, 403, "another"),
    "another port": ("POST", PHOTO, b"", {"origin": "http://localhost:1", "host": "localhost"}, 403, "another"),
    "gamma is false": ("POST", GROUND, {"phrases": ["a cat"], "gamma": False}, {}, 422, "gamma"),
    "boxes is text": ("POST", GROUND, {"phrases": ["a cat"], "boxes": "3"}, {}, 422, "boxes"),
    "a box of booleans": ("POST", WORDS, {"box": [False, False, True, True]}, {}, 422, "box"),
    "a form as a question": (
        "POST", GROUND, b"phrases=a", {"content_type": "application/x-www-form-urlencoded"}, 415, "application/json"
    ),
    "headers of 100 KB": ("GET", "/", None, {"x": "a" * 100_000}, 431, "the headers have more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_refused_within_a_second(site, token, name):
    method, path, body, headers, status, message = HOSTILE[name]
    begun = time.perf_counter()
    reply = ask(site, method, path.replace("TOKEN", token), body, **headers)
    spent = time.perf_counter() - begun
    assert reply.status == status
    assert message in reply.json["error"] and len(reply.json) == 1
    assert len(reply.body) < 800 and b"Traceback" not in reply.body and b".py" not in reply.body
    assert spent < 1


def test_errors_say_what_is_allowed_and_head_has_the_headers_of_get(site):
    assert ask(site, "PUT", "/api/about").headers["allow"] == "GET"
    assert ask(site, "GET", "/api/ground").headers["allow"] == "POST"
    for path in ("/", "/api/about", "/api/samples/astronaut.png"):
        head, full = ask(site, "HEAD", path), ask(site, "GET", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(full.body))


def test_openapi_declares_each_error_as_json_and_the_bounds_of_a_question(site):
    described = ask(site, "GET", "/openapi.json").json
    for operations in described["paths"].values():
        for operation in operations.values():
            for status in ("400", "405", "431", "500"):
                assert list(operation["responses"][status]["content"]) == ["application/json"]
    question = described["components"]["schemas"]["Question"]["properties"]
    phrases = question["phrases"]["anyOf"][0]
    assert (phrases["maxItems"], phrases["items"]["maxLength"], question["boxes"]["maximum"]) == (20, 200, 100)


def test_the_origin_of_a_proxy_with_tls_is_its_own(site):
    proxied = {"host": "localhost", "x_forwarded_proto": "https"}
    assert ask(site, "POST", PHOTO, encoded("PNG"), origin="https://localhost:443", **proxied).status == 200
    assert ask(site, "POST", PHOTO, encoded("PNG"), origin="http://localhost", **proxied).status == 403
    assert ask(site, "POST", f"{PHOTO}?name=Bild%2012:30:00.png", encoded("PNG")).json["name"] == "Bild 12:30:00.png"

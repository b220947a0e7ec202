"""The page's server: what it answers, what it refuses and how fast, and that nobody can hold it."""

import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from grounding import Grounder
from grounding.page.limits import Limits
from grounding.page.serve import listening, serve
from grounding.tagger.tagger import load_vocabulary
from proposals.errors import InputError

pytest.importorskip("fastapi", reason="no FastAPI: .venv/bin/pip install -e '.[demo]'")

from grounding.page.app import build
from grounding.page.photos import Glance, Glancer, Photos
from grounding.page.protocol import server

STEP = OmegaConf.load(Path(__file__).parents[1] / "conf" / "step" / "serve.yaml")
GIVEN = {name: value for name, value in STEP.limits.items() if name != "_target_"}
HASTY = {"header_seconds": 0.6, "body_seconds": 0.5, "send_seconds": 0.5, "connections": 40, "queue": 3, "workers": 1}
SAMPLES = {"astronaut": STEP.samples.astronaut}


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(method="c-mwp", side=300, gamma=0.4, prior=0)


@pytest.fixture(scope="module")
def site(grounder) -> Iterator[SimpleNamespace]:
    """A server with the step's own limits, but hasty: its gate, its port, a photo's token."""
    limits = Limits(**GIVEN | HASTY)
    gate = build(grounder, limits, list(STEP.methods), SAMPLES, list(STEP.hosts))
    with listening("127.0.0.1", 0) as listener:
        running = server(gate, limits)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        site = SimpleNamespace(gate=gate, port=port, limits=limits, connections=running.server_state.connections)
        yield site
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def token(site, astronaut) -> str:
    return ask(site, "POST", "/api/photos?name=astronaut.png", astronaut.read_bytes()).json["token"]


class Reply:
    """A response that was read."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


def ask(site, method: str, path: str, body: object = None, **headers: str) -> Reply:
    """One request; a body that is neither bytes nor a file is sent as JSON."""
    if body is not None and not isinstance(body, bytes | Iterator):
        body, headers = json.dumps(body).encode(), {"content-type": "application/json"} | headers
    connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return Reply(connection.getresponse())
    finally:
        connection.close()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one bit a pixel that says to be of a size, and whose pixels end at once."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(bytes(1000))),
    ]
    crc = lambda name, data: struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + crc(n, d) for n, d in [*parts, (b"IEND", b"")]
    )


def saved(kind: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_photo_is_kept_and_asked(site, token, grounder, astronaut):
    phrases = ["an orange suit", "a woman with a xylophone", "זְאֵב 🐺"]
    reply = ask(site, "POST", f"/api/photos/{token}/ground", {"phrases": phrases, "boxes": 3}).json
    assert reply["photo"] == {"token": token, "name": "astronaut.png", "width": 512, "height": 512, "seconds": 1800}
    assert (reply["method"], reply["gamma"]) == ("c-mwp", 0.4)
    expected = grounder.look(astronaut).ground(phrases)
    for answer, own in zip(reply["answers"], expected, strict=True):
        assert answer["phrase"] == own.phrase.text
        assert answer["groundable"] == own.groundable
        assert answer["skipped"] == list(own.phrase.skipped)
        assert answer["boxes"] == own.boxes[:3].round(2).tolist()
        assert answer["scores"] == pytest.approx(own.scores[:3].tolist())
    assert reply["answers"][2]["heat"] is None and reply["answers"][2]["boxes"] == []


def test_heat_maps_lie_on_the_photo(site, token, grounder, astronaut):
    (answer,) = ask(site, "POST", f"/api/photos/{token}/ground", {"phrases": ["an orange suit"]}).json["answers"]
    picture = np.asarray(Image.open(BytesIO(ask(site, "GET", answer["heat"]).body)), float)
    own = grounder.look(astronaut).ground(["an orange suit"])[0].map
    assert picture.shape == (*own.shape, 4)
    assert np.unravel_index(picture[..., 3].argmax(), own.shape) == np.unravel_index(own.argmax(), own.shape)
    assert picture[..., 3].min() == 0 and picture[..., 3].max() == 255
    assert ask(site, "GET", f"/api/photos/{token}/heat.png?phrase=a+xylophone").status == 404


def test_a_caption_gives_its_noun_phrases(site, token):
    question = {"caption": "A woman in an orange suit, and the woman's smile."}
    answers = ask(site, "POST", f"/api/photos/{token}/ground", question).json["answers"]
    assert [answer["phrase"] for answer in answers] == ["A woman", "an orange suit", "the woman's smile"]


def test_a_slider_takes_no_pass_and_a_method_has_its_own_maps(site, token, monkeypatch):
    asked = {"phrases": ["a smiling woman"]}
    before = ask(site, "POST", f"/api/photos/{token}/ground", asked).json["answers"][0]
    cam = ask(site, "POST", f"/api/photos/{token}/ground", asked | {"method": "cam"}).json["answers"][0]
    assert cam["boxes"] != before["boxes"] and "method=cam" in cam["heat"]
    monkeypatch.setattr("grounding.attention.topdown.TopDown.look", None)
    after = ask(site, "POST", f"/api/photos/{token}/ground", asked | {"gamma": 1}).json["answers"][0]
    area = [np.prod(np.subtract(a["boxes"][0][2:], a["boxes"][0][:2])) for a in (before, after)]
    assert area[0] > area[1]


def test_words_of_a_box(site, token):
    def words(*box: float) -> dict[str, float]:
        asked = {"box": box, "count": 50}
        return {w["word"]: w["share"] for w in ask(site, "POST", f"/api/photos/{token}/words", asked).json["words"]}

    whole, hers, corner = words(0, 0, 512, 512), words(50, 0, 320, 300), words(400, 0, 512, 300)
    assert len(whole) == 50 and all(share == pytest.approx(1, abs=1e-4) for share in whole.values())
    assert "smiling" in hers and "smiling" not in corner and max(hers.values()) < 1


def test_all_in_one_request_and_forgotten_at_will(site, astronaut):
    query = urlencode([("phrase", "a woman"), ("phrase", "her suit"), ("boxes", 1), ("gamma", 0.5)])
    reply = ask(site, "POST", f"/api/ground?{query}", astronaut.read_bytes()).json
    assert [len(answer["boxes"]) for answer in reply["answers"]] == [1, 1] and reply["gamma"] == 0.5
    place = f"/api/photos/{reply['photo']['token']}"
    assert ask(site, "DELETE", place).status == 204
    assert ask(site, "POST", f"{place}/ground", {"phrases": ["a woman"]}).status == 404


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_three_formats_whatever_the_type_says(site, kind):
    reply = ask(site, "POST", "/api/photos", saved(kind), content_type="application/octet-stream")
    assert (reply.status, reply.json["width"], reply.json["height"]) == (200, 40, 30)


def test_the_page_stands_alone(site):
    texts = ("/", "/page.css", "/page.js", "/asking.js", "/common.js", "/drawing.js")
    for path in (*texts, "/icon.svg", "/api/samples/astronaut.jpg"):
        reply = ask(site, "GET", path)
        assert reply.status == 200
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        if path in texts:
            outside = reply.body.replace(b"http://www.w3.org/2000/svg", b"").replace(b"https://arxiv.org", b"")
            assert b"://" not in outside and b'src="//' not in outside


def test_the_description_names_every_route(site):
    described = ask(site, "GET", "/openapi.json").json
    assert described["paths"].keys() == {
        "/api/about", "/api/samples/{name}.jpg", "/api/photos", "/api/photos/{token}", "/api/photos/{token}/ground",
        "/api/photos/{token}/heat.png", "/api/photos/{token}/words", "/api/photos/{token}/exports/{kind}",
        "/api/ground",
    }  # fmt: skip
    upload = described["paths"]["/api/photos"]["post"]["requestBody"]["content"]
    assert set(upload) == {"image/jpeg", "image/png", "image/webp"}
    question = described["components"]["schemas"]["Question"]
    assert question["additionalProperties"] is False and not {"model", "tagger", "path"} & question["properties"].keys()
    about = ask(site, "GET", "/api/about").json
    assert about["limits"]["phrases"] == site.limits.phrases and about["methods"] == list(STEP.methods)


WORD_LIST = [word for word in load_vocabulary() if word.isalpha()]
MANY = [" ".join(WORD_LIST[i : i + 5]) for i in range(0, 100, 5)]
JSON = {"content_type": "application/json"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PHOTO, GROUND, WORDS = "/api/photos", "/api/photos/TOKEN/ground", "/api/photos/TOKEN/words"
ANOTHER, EXPORT = "/api/photos/AAAAAAAAAAAAAAAAAAAAAA/ground", "/api/photos/TOKEN/exports/..%2f..%2fpasswd"
BOMB = png(40, 30, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)))
SCANS = saved("JPEG").replace(b"\xff\xda", b"\xff\xda\x00\x02" * 1000 + b"\xff\xda", 1)

# name: method, path, body, headers, status, a part of the message
HOSTILE = {
    "text as a photo": ("POST", PHOTO, b"no photo", {}, 422, "send a JPEG, PNG or WebP"),
    "nothing as a photo": ("POST", PHOTO, b"", {}, 422, "send a JPEG, PNG or WebP"),
    "a pickle as a photo": ("POST", PHOTO, b"\x80\x04\x95cposix\nsystem\n", {}, 422, "send a JPEG"),
    "20,000 x 20,000 pixels": ("POST", PHOTO, png(20000, 20000), {}, 422, "more than 25000000 pixels"),
    "a pixel row too many": ("POST", PHOTO, png(5000, 5001), {}, 422, "more than 25000000 pixels"),
    "2 billion pixels wide": ("POST", PHOTO, png(2**31 - 1, 1), {}, 422, "pixels"),
    "pixels that end": ("POST", PHOTO, png(900, 900), {}, 422, "truncated or corrupt"),
    "text that unpacks to 200 MB": ("POST", PHOTO, BOMB, {}, 422, "truncated or corrupt"),
    "a JPEG of 1000 scans": ("POST", PHOTO, SCANS, {}, 422, "more than 20 scans"),
    "half a JPEG": ("POST", PHOTO, saved("JPEG", (90, 90))[:2000], {}, 422, "truncated or corrupt"),
    "a photo of 1:200": ("POST", PHOTO, saved("PNG", (200, 1)), {}, 422, "differ more than 3:1"),
    "a gif": ("POST", PHOTO, saved("GIF"), {"content_type": "image/gif"}, 415, "image/webp"),
    "a gif that says JPEG": ("POST", PHOTO, saved("GIF"), {"content_type": "image/jpeg"}, 422, "send a JPEG"),
    "a tiff": ("POST", PHOTO, saved("TIFF"), {}, 422, "send a JPEG"),
    "an svg with a script": ("POST", PHOTO, SVG, {"content_type": "image/svg+xml"}, 415, "image/webp"),
    "an svg that says PNG": ("POST", PHOTO, SVG, {"content_type": "image/png"}, 422, "send a JPEG"),
    "a form": ("POST", PHOTO, b"--x--", {"content_type": "multipart/form-data; boundary=x"}, 415, "as the body"),
    "a name that climbs": ("POST", f"{PHOTO}?name=../../etc/passwd", saved("PNG"), {}, 422, "plain file name"),
    "a name with a null byte": ("POST", f"{PHOTO}?name=a%00.png", saved("PNG"), {}, 422, "plain file name"),
    "a body of 1 GB, it says": ("POST", PHOTO, b"", {"content_length": "1000000000"}, 413, "more than 20000000 bytes"),
    "a body without end": ("POST", PHOTO, iter([bytes(1 << 20)] * 40), {}, 413, "more than 20000000 bytes"),
    "a phrase of 10 MB": ("POST", GROUND, {"phrases": ["a" * 10_000_000]}, {}, 413, "more than 65536 bytes"),
    "a phrase of 60 KB": ("POST", GROUND, {"phrases": ["cat " * 15_000]}, {}, 422, "more than 200 characters"),
    "a caption of 60 KB": ("POST", GROUND, {"caption": "cat " * 15_000}, {}, 422, "more than 1000 characters"),
    "a thousand phrases": ("POST", GROUND, {"phrases": ["a cat"] * 1000}, {}, 422, "1000 phrases are more than 20"),
    "words without end": ("POST", GROUND, {"phrases": MANY}, {}, 422, "more than 60 different words"),
    "slow words": ("POST", GROUND, {"phrases": MANY[:5], "method": "grad"}, {}, 422, "more than 12 different words"),
    "no phrase": ("POST", GROUND, {"phrases": []}, {}, 422, "no phrase to ground"),
    "neither phrases nor caption": ("POST", GROUND, {}, {}, 422, "either phrases or a caption"),
    "null bytes": ("POST", GROUND, {"phrases": ["a cat\0"]}, {}, 422, "control character"),
    "text turned around": ("POST", GROUND, {"phrases": ["a \u202etac"]}, {}, 422, "control character"),
    "half a character": ("POST", GROUND, b'{"phrases": ["a cat \\ud800"]}', JSON, 422, "control character"),
    "half a character as a key": ("POST", GROUND, b'{"\\ud800": 1}', JSON, 422, "valid string"),
    "nothing but emoji": ("POST", GROUND, {"phrases": ["🐺🐺"]}, {}, 422, "has no word"),
    "nothing but space": ("POST", GROUND, {"phrases": ["\u3000 "]}, {}, 422, "has no word"),
    "no text": ("POST", GROUND, {"phrases": [7]}, {}, 422, "phrases.0"),
    "broken JSON": ("POST", GROUND, b'{"phrases": [', JSON, 422, "JSON"),
    "deep JSON": ("POST", GROUND, b"[" * 60_000, JSON, 400, "body"),
    "a number without end": ("POST", GROUND, b'{"gamma": ' + b"9" * 6000 + b"}", JSON, 400, "body"),
    "gamma that is none": ("POST", GROUND, b'{"phrases": ["a cat"], "gamma": NaN}', JSON, 422, "gamma"),
    "gamma below 0": ("POST", GROUND, {"phrases": ["a cat"], "gamma": -1}, {}, 422, "gamma"),
    "a million boxes": ("POST", GROUND, {"phrases": ["a cat"], "boxes": 10**6}, {}, 422, "more than 100"),
    "another method": ("POST", GROUND, {"phrases": ["a cat"], "method": "/etc/passwd"}, {}, 422, "no such method"),
    "a model of its own": ("POST", GROUND, {"phrases": ["a cat"], "tagger": "x.pt"}, {}, 422, "tagger"),
    "a box elsewhere": ("POST", WORDS, {"box": [0, 0, 1e9, 1e9]}, {}, 422, "leaves the image"),
    "a box of nothing": ("POST", WORDS, b'{"box": [NaN, NaN, NaN, NaN]}', JSON, 422, "box"),
    "another token": ("POST", ANOTHER, {"phrases": ["a cat"]}, {}, 404, "send it again"),
    "an export that climbs": ("POST", EXPORT, {"phrases": ["a"]}, {}, 404, ""),
    "a path that climbs": ("GET", "/../../../../etc/passwd", None, {}, 404, "Not Found"),
    "an escaped path": ("GET", "/..%2f..%2f..%2fetc%2fpasswd", None, {}, 404, "Not Found"),
    "a path behind a file": ("GET", "/page.css/../../serve.py", None, {}, 404, "Not Found"),
    "a path with a null byte": ("GET", "/page.css%00.html", None, {}, 404, "Not Found"),
    "a sample that climbs": ("GET", "/api/samples/..%2f..%2fconf.jpg", None, {}, 404, ""),
    "another method of HTTP": ("PUT", "/", b"x", {}, 405, "Not Allowed"),
    "another's name for us": ("GET", "/", None, {"host": "evil.example"}, 403, "step.hosts"),
    "another site's page": ("POST", PHOTO, saved("PNG"), {"origin": "https://evil.example"}, 403, "another site"),
    "an origin that is none": ("POST", PHOTO, saved("PNG"), {"origin": "http://[evil"}, 403, "another site"),
    "a page of nowhere": ("POST", PHOTO, saved("PNG"), {"origin": "null"}, 403, "another site"),
    "a fetch across sites": ("POST", PHOTO, saved("PNG"), {"sec_fetch_site": "cross-site"}, 403, "another site"),
    "a head of 100 KB": ("GET", "/", None, {"x": "a" * 100_000}, 431, "the head has more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_refused_at_once(site, token, name):
    method, path, body, headers, status, message = HOSTILE[name]
    begun = time.perf_counter()
    reply = ask(site, method, path.replace("TOKEN", token), body, **headers)
    spent = time.perf_counter() - begun
    assert reply.status == status
    assert message in reply.json["error"] and len(reply.json) == 1
    assert len(reply.body) < 800 and b"Traceback" not in reply.body and b".py" not in reply.body
    assert spent < 1


def raw(site, sent: bytes, wait: float = 3) -> bytes:
    """What comes back on a connection on which no more is sent."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=wait) as connection:
        connection.sendall(sent)
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts)


HEAD = b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"\r\nand then nothing", b"408"),
        (HEAD[:40], b"408"),
        (b"\x16\x03\x01 no HTTP at all\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
    ],
)
def test_slow_and_foreign_clients_are_told_within_a_second(site, sent, status):
    begun = time.perf_counter()
    reply = raw(site, sent)
    assert reply.startswith(b"HTTP/1.1 " + status) and b'{"error": "' in reply
    assert time.perf_counter() - begun < 1.6  # a status that does not close waits until the next head is late


def settled(condition, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_who_is_killed_holds_nothing(site):
    for sent in (b"", HEAD, HEAD + b"\r\n" + bytes(500)):
        connection = socket.create_connection(("127.0.0.1", site.port))
        connection.sendall(sent)
        connection.close()
    assert settled(lambda: site.gate._held == 0 and not site.connections)


def test_who_does_not_read_is_cut_off(site):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", site.port))
    with connection:
        request = b"GET /api/samples/astronaut.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request * 20)
        assert settled(lambda: len(site.connections) == 1)
        assert settled(lambda: not site.connections)


def test_too_many_connections_are_told_to_come_back(site):
    assert settled(lambda: not site.connections)
    held = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(site.limits.connections)]
    try:
        assert settled(lambda: len(site.connections) == site.limits.connections, 0.4)
        reply = raw(site, b"")
    finally:
        for connection in held:
            connection.close()
    assert reply.startswith(b"HTTP/1.1 503") and b"Retry-After: 2\r\n" in reply


def test_more_than_the_queue_are_told_to_come_back_and_the_rest_is_answered(site):
    photo = saved("JPEG")
    with ThreadPoolExecutor(12) as clients:
        replies = list(clients.map(lambda _: ask(site, "POST", "/api/ground?phrase=a+cup", photo), range(12)))
    assert {reply.status for reply in replies} == {200, 503}
    assert all(reply.headers["retry-after"] == "2" for reply in replies if reply.status == 503)
    assert sum(reply.status == 200 for reply in replies) >= 4
    assert ask(site, "POST", "/api/ground?phrase=a+cup", photo).status == 200


def test_who_leaves_the_queue_is_not_worked_for(site, coffee, monkeypatch):
    decoded, wait = [], threading.Event()
    monkeypatch.setattr("grounding.page.api.decode", lambda data, _: decoded.append(data) or (wait.wait(5) and None))
    sent = b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(3)]
    for number, client in enumerate(clients):
        client.sendall(sent + b"%d" % number)
        time.sleep(0.1)
    for client in clients:
        client.close()
    assert settled(lambda: not site.connections)
    wait.set()
    monkeypatch.undo()
    assert ask(site, "POST", "/api/photos", coffee.read_bytes()).status == 200
    assert decoded == [b"0"]


def test_answers_are_taken_away(site, token):
    def taken(kind: str, *phrases: str) -> Reply:
        return ask(site, "POST", f"/api/photos/{token}/exports/{kind}", {"phrases": phrases, "boxes": 2})

    asked = ("an orange suit", "a <xylophone>", "a smiling woman")
    assert [g["groundable"] for g in taken("json", *asked).json["groundings"]] == [True, False, True]
    coco = taken("coco.json", *asked)
    assert coco.headers["content-disposition"] == "attachment; filename*=UTF-8''astronaut.coco.json"
    assert [len(coco.json[name]) for name in ("images", "annotations", "not_groundable")] == [1, 4, 1]
    drawing = taken("svg", *asked)
    assert drawing.body.count(b"<g ") == 2 and "default-src 'none'" in drawing.headers["content-security-policy"]
    assert Image.open(BytesIO(taken("png", *asked).body)).width == 1024
    assert taken("png", "a xylophone").status == 422


def test_a_fault_of_ours_is_one_line(site, token, monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("secret of ours")

    monkeypatch.setattr("grounding.scene.GroundingScene.words", fails)
    reply = ask(site, "POST", f"/api/photos/{token}/words", {"box": [0, 0, 9, 9]})
    assert (reply.status, reply.json) == (500, {"error": "a fault of the server; its log says more"})
    assert settled(lambda: "secret of ours" in caplog.text)


def test_a_few_photos_need_no_pass_for_new_words_and_leave_nothing_behind():
    passes: list[str] = []
    topdown = SimpleNamespace(look=lambda _, method: passes.append(method) or SimpleNamespace())
    tagger = SimpleNamespace(prepare=lambda *_: None)
    glancer = Glancer(SimpleNamespace(settings=SimpleNamespace(side=300), tagger=tagger, topdown=topdown), scenes=2)
    first, second, third = (Glance(glancer, None) for _ in range(3))
    assert glancer.scene(first, "c-mwp") is glancer.scene(first, "mwp")
    glancer.scene(second, "cam")
    glancer.scene(first, "c-mwp")
    assert passes == ["c-mwp"] * 2
    glancer.scene(third, "c-mwp")
    glancer.scene(second, "c-mwp")
    assert passes == ["c-mwp"] * 4
    glancer.scene(second, "grad")
    glancer.scene(second, "c-mwp")
    assert passes[4:] == ["grad"] and len(glancer._recent) == 2
    del first, second, third
    assert len(glancer._recent) == 0


def scene(size: int) -> SimpleNamespace:
    return SimpleNamespace(nbytes=size)


def test_photos_are_bounded_in_number_bytes_and_time():
    now = [0.0]
    photos = Photos(Limits(**GIVEN | {"photos": 3, "photos_bytes": 100, "photo_seconds": 60}), lambda: now[0])
    first, second, third = (photos.keep(name, scene(20)).token for name in "abc")
    assert photos.find(first).name == "a"
    photos.keep("d", scene(20))
    with pytest.raises(KeyError):
        photos.find(second)
    photos.find(third).scene.nbytes = 70
    assert {photos.find(third).name} == {"c"} and len(photos) == 2
    photos.keep("e", scene(101))
    assert len(photos) == 0
    last = photos.keep("f", scene(1)).token
    now[0] = 61
    photos.tidy()
    with pytest.raises(KeyError):
        photos.find(last)
    assert len({photos.keep("g", scene(1)).token for _ in range(100)}) == 100


def test_what_cannot_be_served_is_told(grounder, monkeypatch):
    limits = Limits(**GIVEN)
    given = {"limits": limits, "methods": ["mwp"], "samples": {}, "hosts": []}
    with listening("127.0.0.1", 0) as taken, pytest.raises(InputError, match=r"say step\.port=ANOTHER"):
        serve(grounder, "127.0.0.1", taken.getsockname()[1], **given)
    with pytest.raises(InputError, match=r"step\.methods: there is no 'magic'"):
        serve(grounder, "127.0.0.1", 0, **given | {"methods": ["magic"]})
    away = {"samples": {"x": {"file": "../x.png", "title": "", "phrases": []}}}
    with pytest.raises(InputError, match=r"step\.samples\.x\.file=\.\./x\.png is no photo"):
        serve(grounder, "127.0.0.1", 0, **given | away)
    with pytest.raises(InputError, match=r"step\.limits\.queue=0 must be a number above 0"):
        Limits(**GIVEN | {"queue": 0})
    monkeypatch.setitem(sys.modules, "grounding.page.app", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "grounding.page.app")
    monkeypatch.delitem(sys.modules, "grounding.page.protocol")
    with pytest.raises(InputError, match=r"pip install -e '\.\[demo\]'"):
        serve(grounder, "127.0.0.1", 0, **given)

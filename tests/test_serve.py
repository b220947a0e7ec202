"""The HTTP API of the page: its answers, exports and files."""

import sys
from io import BytesIO
from urllib.parse import urlencode

import numpy as np
import pytest
from page_server import LIMITS, STEP, HttpReply, ask, encoded, settled
from PIL import Image

from eval.benchmark_serve import visit
from grounding.page.app import PAGE
from grounding.page.limits import Limits
from grounding.page.scenes import seen_size
from grounding.page.serve import listening, serve
from proposals.errors import InputError


@pytest.fixture(scope="module")
def token(site, astronaut) -> str:
    return ask(site, "POST", "/api/photos?name=astronaut.png", astronaut.read_bytes()).json["token"]


def test_grounding_a_stored_photo(site, token, page_grounder, astronaut):
    phrases = ["an orange suit", "a woman with a zorgophone", "זְאֵב 🐺"]
    reply = ask(site, "POST", f"/api/photos/{token}/ground", {"phrases": phrases, "boxes": 3}).json
    assert reply["photo"] == {"token": token, "name": "astronaut.png", "width": 512, "height": 512, "seconds": 1800}
    assert (reply["method"], reply["gamma"]) == ("c-mwp", 0.4)
    expected = page_grounder.look(astronaut).ground(phrases)
    for answer, own in zip(reply["answers"], expected, strict=True):
        assert answer["phrase"] == own.phrase.text
        assert answer["groundable"] == own.groundable
        assert answer["skipped"] == list(own.phrase.skipped)
        assert answer["boxes"] == own.boxes[:3].round(2).tolist()
        assert answer["scores"] == pytest.approx(own.scores[:3].tolist(), rel=1e-4)
    assert reply["answers"][2]["heat"] is None and reply["answers"][2]["boxes"] == []


def test_heat_maps_have_the_maximum_of_the_map(site, token, page_grounder, astronaut):
    (answer,) = ask(site, "POST", f"/api/photos/{token}/ground", {"phrases": ["an orange suit"]}).json["answers"]
    picture = np.asarray(Image.open(BytesIO(ask(site, "GET", answer["heat"]).body)), float)
    own = page_grounder.look(astronaut).ground(["an orange suit"])[0].map
    assert picture.shape == (*own.shape, 4)
    assert np.unravel_index(picture[..., 3].argmax(), own.shape) == np.unravel_index(own.argmax(), own.shape)
    assert picture[..., 3].min() == 0 and picture[..., 3].max() == 255
    assert ask(site, "GET", f"/api/photos/{token}/heat.png?phrase=a+zorgophone").status == 404


def test_grounding_the_noun_phrases_of_a_caption(site, token):
    question = {"caption": "A woman in an orange suit, and the woman's smile."}
    answers = ask(site, "POST", f"/api/photos/{token}/ground", question).json["answers"]
    assert [answer["phrase"] for answer in answers] == ["A woman", "an orange suit", "the woman's smile"]


def test_another_gamma_needs_no_pass_and_each_method_has_its_own_maps(site, token, monkeypatch):
    asked = {"phrases": ["a smiling woman"]}
    before = ask(site, "POST", f"/api/photos/{token}/ground", asked).json["answers"][0]
    cam = ask(site, "POST", f"/api/photos/{token}/ground", asked | {"method": "cam"}).json["answers"][0]
    assert cam["boxes"] != before["boxes"] and "method=cam" in cam["heat"]
    monkeypatch.setattr("grounding.attention.topdown.TopDown.look", None)
    after = ask(site, "POST", f"/api/photos/{token}/ground", asked | {"gamma": 1}).json["answers"][0]
    area = [np.prod(np.subtract(a["boxes"][0][2:], a["boxes"][0][:2])) for a in (before, after)]
    assert area[0] > area[1]


def test_a_file_that_is_sent_again_is_not_processed_again(site, token, astronaut, monkeypatch):
    monkeypatch.setattr("grounding.page.decoder.PhotoDecoder.decode", None)
    file, other = astronaut.read_bytes(), encoded("PNG", (30, 30))
    tokens = [ask(site, "POST", f"/api/photos?name={name}", file).json["token"] for name in ("astronaut.png", "b.png")]
    assert tokens[0] == token != tokens[1]
    assert ask(site, "POST", "/api/ground?phrase=a+woman&name=c.png", file).status == 200
    assert ask(site, "POST", "/api/photos", other).status == 500  # the decoder is needed for another file


def test_words_of_a_box(site, token):
    def words(*box: float) -> dict[str, float]:
        asked = {"box": box, "count": 50}
        return {w["word"]: w["share"] for w in ask(site, "POST", f"/api/photos/{token}/words", asked).json["words"]}

    whole, hers, corner = words(0, 0, 512, 512), words(50, 0, 320, 300), words(400, 0, 512, 300)
    assert len(whole) == 50 and all(share == pytest.approx(1, abs=1e-4) for share in whole.values())
    assert "smiling" in hers and "smiling" not in corner and max(hers.values()) < 1


def test_upload_and_ground_in_one_request_then_delete(site, astronaut):
    query = urlencode([("phrase", "a woman"), ("phrase", "her suit"), ("boxes", 1), ("gamma", 0.5)])
    reply = ask(site, "POST", f"/api/ground?{query}", astronaut.read_bytes()).json
    assert [len(answer["boxes"]) for answer in reply["answers"]] == [1, 1] and reply["gamma"] == 0.5
    place = f"/api/photos/{reply['photo']['token']}"
    file = ask(site, "GET", f"{place}/file")
    assert file.body == astronaut.read_bytes() and file.headers["content-type"] == "image/png"
    assert ask(site, "DELETE", place).status == 204
    assert ask(site, "POST", f"{place}/ground", {"phrases": ["a woman"]}).status == 404


@pytest.mark.slow
def test_the_benchmark_measures_each_action_of_a_visitor(site):
    rows = visit(f"127.0.0.1:{site.port}", 1)
    assert rows[0]["doing"] == "the first photo and five phrases" and len({row["doing"] for row in rows}) == 9
    assert all(0 < row["seconds"] <= row["most"] for row in rows)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_formats_are_recognised_by_content(site, kind):
    reply = ask(site, "POST", "/api/photos", encoded(kind), content_type="application/octet-stream")
    assert (reply.status, reply.json["width"], reply.json["height"]) == (200, 40, 30)


def test_the_page_loads_nothing_from_other_sites(site):
    texts = [path for path in PAGE if not path.endswith(".svg")]
    assert {"/", "/page.css", "/page.js", "/state.js"} <= set(texts)
    for path in (*PAGE, "/api/samples/astronaut.png"):
        reply = ask(site, "GET", path)
        assert reply.status == 200
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        if path in texts:
            outside = reply.body.replace(b"http://www.w3.org/2000/svg", b"").replace(b"https://arxiv.org", b"")
            assert b"://" not in outside and b'src="//' not in outside


def test_openapi_describes_every_route(site):
    described = ask(site, "GET", "/openapi.json").json
    assert described["paths"].keys() == {
        "/api/about", "/api/samples/{name}", "/api/photos", "/api/photos/{token}", "/api/photos/{token}/ground",
        "/api/photos/{token}/heat.png", "/api/photos/{token}/words", "/api/photos/{token}/exports/{kind}",
        "/api/ground", "/api/photos/{token}/file",
    }  # fmt: skip
    upload = described["paths"]["/api/photos"]["post"]["requestBody"]["content"]
    assert set(upload) == {"image/jpeg", "image/png", "image/webp"}
    question = described["components"]["schemas"]["Question"]
    assert question["additionalProperties"] is False and not {"model", "tagger", "path"} & question["properties"].keys()
    about = ask(site, "GET", "/api/about").json
    assert about["limits"]["phrases"] == site.limits.phrases and about["methods"] == list(STEP.methods)


def test_exports(site, token):
    def taken(kind: str, *phrases: str) -> HttpReply:
        return ask(site, "POST", f"/api/photos/{token}/exports/{kind}", {"phrases": phrases, "boxes": 2})

    asked = ("an orange suit", "a <zorgophone>", "a smiling woman")
    assert [g["groundable"] for g in taken("json", *asked).json["groundings"]] == [True, False, True]
    coco = taken("coco.json", *asked)
    assert coco.headers["content-disposition"] == "attachment; filename*=UTF-8''astronaut.coco.json"
    assert [len(coco.json[name]) for name in ("images", "annotations", "not_groundable")] == [1, 4, 1]
    drawing = taken("svg", *asked)
    assert drawing.body.count(b"<g ") == 2 and "default-src 'none'" in drawing.headers["content-security-policy"]
    picture = Image.open(BytesIO(taken("png", *asked).body))
    assert picture.width == 3 * 512 + 2 * 8  # the photo with all boxes, and a heat map of each phrase
    colours = set(map(tuple, np.asarray(picture).reshape(-1, 3).tolist()))
    assert {(230, 159, 0), (0, 192, 139)} <= colours and (86, 180, 233) not in colours  # as on the page
    assert taken("png", "a zorgophone").status == 422


def test_an_internal_error_has_a_short_message(site, token, monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("secret of ours")

    monkeypatch.setattr("grounding.scene.GroundingScene.words", fails)
    reply = ask(site, "POST", f"/api/photos/{token}/words", {"box": [0, 0, 9, 9]})
    assert (reply.status, reply.json) == (500, {"error": "internal error: see the log of the server"})
    assert settled(lambda: "secret of ours" in caplog.text)


def test_wrong_settings_and_missing_packages_give_a_message(page_grounder, monkeypatch):
    limits = Limits(**LIMITS)
    given = {"limits": limits, "methods": ["mwp"], "samples": {}, "hosts": []}
    with listening("127.0.0.1", 0) as taken, pytest.raises(InputError, match=r"use another step\.port"):
        serve(page_grounder, "127.0.0.1", taken.getsockname()[1], **given)
    with pytest.raises(InputError, match=r"step\.methods: unknown method 'magic'"):
        serve(page_grounder, "127.0.0.1", 0, **given | {"methods": ["magic"]})
    away = {"samples": {"x": {"file": "../x.png", "title": "", "phrases": []}}}
    with pytest.raises(InputError, match=r"step\.samples\.x\.file=\.\./x\.png is not a photo of scikit-image"):
        serve(page_grounder, "127.0.0.1", 0, **given | away)
    with pytest.raises(InputError, match=r"step\.limits\.queue=0 must be a number greater than 0"):
        Limits(**LIMITS | {"queue": 0})
    monkeypatch.setitem(sys.modules, "grounding.page.app", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "grounding.page.app")
    monkeypatch.delitem(sys.modules, "grounding.page.protocol")
    with pytest.raises(InputError, match=r"pip install -e '\.\[demo\]'"):
        serve(page_grounder, "127.0.0.1", 0, **given)


@pytest.mark.parametrize(("width", "height"), [(1280, 80), (60, 1800)])
def test_a_panorama_is_grounded_at_the_cost_of_a_photo_of_three_to_one(site, width, height):
    reply = ask(site, "POST", "/api/photos?name=long.png", encoded("PNG", (width, height)))
    assert (reply.json["width"], reply.json["height"]) == (width, height)
    asked = {"phrases": ["a woman"], "boxes": 1}
    (answer,) = ask(site, "POST", f"/api/photos/{reply.json['token']}/ground", asked).json["answers"]
    x1, y1, x2, y2 = answer["boxes"][0]
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@pytest.mark.parametrize("side", [224, 300, 420])
def test_the_network_never_sees_more_of_a_panorama_than_of_a_photo_of_three_to_one(side):
    assert seen_size((300, 900), side) == [side]
    for long in range(301, 3200, 97):
        size = seen_size((100, long), side)
        assert size == seen_size((long, 100), side)[::-1]
        assert np.prod(size) <= 3 * side**2 and 224 <= size[0] <= side and size[0] < size[1]

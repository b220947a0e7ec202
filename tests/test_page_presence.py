"""The page and its API show what is probably not in the photo, and how words were read."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from page_server import ask, running
from PIL import Image

from grounding.scene import GroundingScene
from grounding.text.phrases import Phrase

PRESENCE = {"a woman": 0.97, "a garage door": 0.034, "a flag": None, "a dog": 0.02}
ASKED = ["a garage door", "a woman", "a flag"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Read(Phrase):
    """A phrase with a word that was read as other words."""

    read_as = "elephant -> african elephant, indian elephant"


def with_presence(ground):
    def grounded(*given, **settings):
        answers = []
        for answer in ground(*given, **settings):
            presence = PRESENCE[answer.phrase.text]
            answer = replace(answer, presence=presence, present=None if presence is None else np.bool_(presence >= 0.1))
            if answer.phrase.text == "a dog":
                answer = replace(answer, phrase=Read(answer.phrase.text, answer.phrase.tags, answer.phrase.skipped))
            answers.append(answer)
        return answers

    return grounded


@pytest.fixture(scope="module")
def site(page_grounder) -> Iterator:
    """A running server whose answers have the presence of ``PRESENCE``."""
    with pytest.MonkeyPatch.context() as patch:
        known = PRESENCE | dict.fromkeys(["a smiling woman", "an orange suit", "a rocket"])  # of the sample photo
        patch.setitem(globals(), "PRESENCE", known)
        patch.setattr(GroundingScene, "ground", with_presence(GroundingScene.ground))
        with running(page_grounder) as site:
            yield site


@pytest.fixture(scope="module")
def token(site, astronaut) -> str:
    return ask(site, "POST", "/api/photos?name=astronaut.png", astronaut.read_bytes()).json["token"]


def test_each_answer_has_its_presence_and_absent_ones_have_boxes(site, token):
    answers = ask(site, "POST", f"/api/photos/{token}/ground", {"phrases": [*ASKED, "a dog"]}).json["answers"]
    assert [answer["presence"] for answer in answers] == [0.034, 0.97, None, 0.02]
    assert [answer["present"] for answer in answers] == [False, True, None, False]
    assert all(len(answer["boxes"]) == 10 and answer["heat"] for answer in answers)
    assert [answer["read_as"] for answer in answers][1:] == ["", "", Read.read_as]


def test_openapi_and_about_describe_the_presence(site, page_grounder):
    described = ask(site, "GET", "/openapi.json").json["components"]["schemas"]
    fields = described["Answer"]["properties"]
    assert {"presence", "present", "read_as"} <= fields.keys() and all(fields[n]["description"] for n in fields)
    assert "presence" in described["About"]["required"]
    assert ask(site, "GET", "/api/about").json["presence"] == page_grounder.settings.presence


def test_downloads_say_what_is_probably_absent(site, token):
    def taken(kind: str) -> bytes:
        return ask(site, "POST", f"/api/photos/{token}/exports/{kind}", {"phrases": ASKED, "boxes": 1}).body

    coco = json.loads(taken("coco.json"))
    assert [len(coco[name]) for name in ("categories", "annotations", "probably_absent")] == [3, 2, 1]
    assert [answer["present"] for answer in json.loads(taken("json"))["groundings"]] == [False, True, None]
    assert taken("svg").count(b"(probably not in this photo)") == 1
    sheet = Image.open(BytesIO(taken("png")))  # pictures of different heights do not cover each other
    assert sheet.width == 3 * 512 + 2 * 8 and sheet.height > 2 * 512


@pytest.fixture
def page(site) -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: .venv/bin/pip install -e '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(60_000)  # a machine with other work
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{site.port}")
        page.wait_for_selector("#samples button")
        yield page
        browser.close()
        assert errors == []


@pytest.mark.slow
def test_an_absent_phrase_is_grey_and_in_its_place(page, astronaut):
    page.set_input_files("#file", astronaut)
    page.fill("#text", "\n".join([*ASKED, "a dog"]))
    page.click("#find:enabled")
    page.wait_for_selector("#answers li:nth-child(4)")
    items = page.locator("#answers li")
    assert page.locator("#answers .phrase").all_inner_texts() == [*ASKED, "a dog"]
    texts = items.all_text_contents()
    assert ["probably not in this photo" in text for text in texts] == [True, False, False, True]
    assert ["presence" in text for text in texts] == [True, True, False, True] and "presence 0.97" in texts[1]
    assert "elephant → african elephant, indian elephant" in texts[3]
    assert (
        items.nth(0).get_attribute("class") == "absent"
        and page.locator("#answers li.on .phrase").inner_text() == "a woman"
    )
    colours = page.locator("#boxes .best").evaluate_all("all => all.map(r => getComputedStyle(r).stroke)")
    dashes = page.locator("#boxes .best").evaluate_all("all => all.map(r => getComputedStyle(r).strokeDasharray)")
    grey = "rgb(154, 154, 154)"
    assert [colour == grey for colour in colours] == [dash != "none" for dash in dashes] == [True, False, False, True]
    assert "a garage door: probably not in this photo" in page.locator("#labels span").all_inner_texts()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#advanced summary")
    with page.expect_download():
        page.click("#data >> text=COCO")
    page.wait_for_selector("text=2 of the phrases have no box in the file: probably not in this photo")

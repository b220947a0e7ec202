"""The page in a browser, with a server in a process of its own, as a user starts it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from itertools import combinations
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from page_server import encoded
from pycocotools.coco import COCO

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: .venv/bin/pip install -e '.[dev]'")
pytest.importorskip("fastapi", reason="no FastAPI: .venv/bin/pip install -e '.[demo]'")

pytestmark = pytest.mark.slow  # it starts a browser and a server
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The address of a server; at the end, the server must stop with status 0."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "grounding", "step=serve", "step.port=0"]
    folder = tmp_path_factory.mktemp("served")
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        first = next(line for line in process.stdout if line.startswith("open "))
        try:
            yield first.split()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(60_000)  # a machine with other work
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(address)
    page.wait_for_selector("#samples button")
    yield page
    page.close()
    assert [error for error in errors if "status of 422" not in error] == []  # one request is refused on purpose
    assert all(url.startswith((address, "blob:")) for url in urls)


def test_the_server_prints_its_address_and_stops_on_sigterm(address):
    with urlopen(f"{address}/api/about") as reply:
        assert reply.status == 200


def shown(page) -> list[list[float]]:
    """The boxes on the photo: x, y, width, height in its pixels."""
    read = "all => all.map(r => r.dataset.box.split(',').map(Number))"
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in page.locator("#boxes .best").evaluate_all(read)]


def until(page, condition) -> None:
    """Waits for a condition. Playwright's own function evaluates text, which the page's content policy forbids."""
    for _ in range(2400):
        if condition():
            return
        page.wait_for_timeout(25)
    raise AssertionError("the condition did not hold within 60 seconds")


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_upload_ground_change_settings_and_download(page, astronaut, tmp_path):
    page.set_input_files("#file", astronaut)
    page.fill("#text", "a smiling woman\nan orange suit")
    page.click("#find:enabled")
    page.wait_for_selector("#answers li:nth-child(2)")
    maps = page.locator(".thumb .heat")
    assert maps.count() == 2
    until(page, lambda: maps.evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 99)"))
    before = shown(page)
    assert len(before) == 2 and len({tuple(box) for box in before}) == 2
    assert page.locator("#labels span").all_inner_texts() == ["a smiling woman", "an orange suit"]
    first = page.locator("#heat").get_attribute("src")
    page.click("text=an orange suit >> nth=-1")
    assert first != page.locator("#heat").get_attribute("src")
    assert fits(page)

    page.locator("#gamma").fill("1")
    until(page, lambda: shown(page)[1][2] < before[1][2])
    page.locator("#count").fill("3")
    assert page.locator("#boxes .box").count() == 4  # three of the selected phrase, and the best of the other one
    page.locator("#opacity").fill("20")
    assert page.locator("#heat").evaluate("image => image.style.opacity") == "0.2"

    page.click("#advanced summary")
    with page.expect_download() as coming:
        page.click("#data >> text=COCO")
    assert coming.value.suggested_filename == "astronaut.coco.json"
    coming.value.save_as(tmp_path / "coco.json")
    with redirect_stdout(None):
        coco = COCO(tmp_path / "coco.json")
    assert [coco.cats[i]["name"] for i in coco.getCatIds()] == ["a smiling woman", "an orange suit"]
    assert coco.imgs[1]["file_name"] == "astronaut.png" and len(coco.getAnnIds()) == 6
    assert coco.loadAnns(coco.getAnnIds(catIds=2))[0]["bbox"] == pytest.approx(shown(page)[1], abs=0.02)


def test_sample_methods_words_of_a_box_caption_and_error(page, address):
    page.click("#samples button")
    page.wait_for_selector("#answers li:nth-child(3)")
    assert "rocket → missile" in page.locator("#answers li:nth-child(3)").text_content()
    assert len(shown(page)) == 3
    page.click("#advanced summary")
    page.click("label:has(input[value=cam])")
    until(page, lambda: "method=cam" in page.locator("#heat").get_attribute("src"))
    page.click("#compare")
    page.wait_for_selector("figure >> nth=4")
    assert page.locator("figcaption b").all_inner_texts() == ["c-MWP, partial", "c-MWP", "MWP", "Grad", "CAM"]

    frame = page.locator("#frame")
    page.click("#box")
    assert page.is_visible("#hint")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.1 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.6 * box["height"], steps=3)
    page.mouse.up()
    page.wait_for_selector("#found li >> nth=7", timeout=60_000)
    assert page.locator("#found li").count() == 8
    word = page.locator("#found button").first.inner_text()
    page.locator("#found button").first.click()
    page.wait_for_selector(f"#answers >> text={word}")

    page.click("label:has(input[value=caption])")
    page.fill("#text", "A woman in an orange suit smiles.")
    page.press("#text", "Control+Enter")
    page.wait_for_selector("#caption mark:nth-of-type(2)")
    assert page.locator("#caption mark").all_inner_texts() == ["A woman", "an orange suit"]
    page.fill("#text", "🐺")
    page.press("#text", "Control+Enter")
    page.wait_for_selector("#problem:visible")
    assert "no word" in page.inner_text("#problem")
    assert fits(page)


def test_a_slow_upload_never_replaces_a_later_photo_and_a_refused_one_keeps_the_answers(page, astronaut, tmp_path):
    held: list = []
    page.route("**/api/photos?name=astronaut.png", lambda route: held.append(route))
    page.set_input_files("#file", astronaut)
    until(page, lambda: held)
    page.click("#samples button >> nth=1")
    page.wait_for_selector("#answers li:nth-child(2)")
    phrases = page.locator("#answers .phrase").all_inner_texts()
    with suppress(sync_api.Error):  # the page has cancelled it
        held[0].continue_()
    page.wait_for_timeout(300)
    assert "motorcycle" in page.inner_text("#name")
    (tmp_path / "wide.png").write_bytes(encoded("PNG", (990, 30)))
    page.set_input_files("#file", tmp_path / "wide.png")
    page.wait_for_selector("#problem:visible")
    assert "aspect ratio" in page.inner_text("#problem") and "motorcycle" in page.inner_text("#name")
    assert page.locator("#answers .phrase").all_inner_texts() == phrases and page.is_hidden("#words")


def test_a_gif_is_sent_as_png_and_a_click_only_selects(page, tmp_path):
    (tmp_path / "Bild 12:30.gif").write_bytes(encoded("GIF", (300, 300)))
    page.set_input_files("#file", tmp_path / "Bild 12:30.gif")
    until(page, lambda: "300 × 300" in page.inner_text("#name"))
    assert page.inner_text("#name").startswith("Bild 12:30.gif.png")
    page.click("#frame")
    assert page.is_hidden("#words")


def test_a_link_restores_the_sample_and_its_phrases_and_keys_find_and_step(page, address):
    page.goto(f"{address}/?1#sample=astronaut&phrase=a+rocket&phrase=a+smiling+woman&gamma=0.7")
    page.wait_for_selector("#answers li:nth-child(2)")
    assert page.input_value("#text") == "a rocket\na smiling woman" and page.input_value("#gamma") == "0.7"
    assert page.locator("#answers li.on .phrase").inner_text() == "a rocket"
    page.locator("#answers .phrase").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#answers li.on .phrase").inner_text() == "a smiling woman"
    page.keyboard.press("ArrowDown")
    assert page.locator("#answers li.on .phrase").inner_text() == "a rocket"
    page.focus("#text")
    page.keyboard.press("Control+End")
    page.keyboard.press("Enter")  # begins a line, and finds
    page.keyboard.type("the zorbing")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers >> text=not groundable")
    assert page.evaluate("location.hash").count("phrase=") == 3
    page.click("[aria-label='remove the zorbing']")
    until(page, lambda: page.locator("#answers li").count() == 2)
    page.click("#link")
    page.wait_for_selector("#status >> text=opens this sample with the phrases")
    assert "zorbing" not in page.evaluate("location.href")


def test_a_reload_keeps_the_photo_and_the_phrases_and_the_link_has_no_photo(page, astronaut):
    page.set_input_files("#file", astronaut)
    page.fill("#text", "an orange suit")
    page.click("#find:enabled")
    page.wait_for_selector("#answers li")
    boxes, link = shown(page), page.evaluate("location.href")
    page.reload()
    page.wait_for_selector("#answers li")
    assert page.inner_text("#name").startswith("astronaut.png, 512") and shown(page) == boxes
    page.evaluate("sessionStorage.clear()")
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("#status >> text=choose a photo to find these phrases in")
    assert page.input_value("#text") == "an orange suit" and page.is_hidden("#view")


def test_labels_and_lines_never_hide_each_other(page):
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(0, 0.8, (5, 2)) * (390, 300)
        boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.2, (5, 2)) * (390, 300)], 1)
        boxes[4] = boxes[3]  # two phrases with the same box
        given = {"boxes": boxes.tolist(), "labels": [{"box": b, "size": [110, 20]} for b in boxes.tolist()]}
        read = "async g => { const m = await import('/labels.js'); const f = [390, 300]; "
        read += "return [m.placeLabels(g.labels, f, g.boxes), m.apart(g.boxes, f)]; }"
        places, lines = (np.array(found) for found in page.evaluate(read, given))
        assert places.shape == (5, 4) and places.min() >= 0 and (places[:, 2:] <= (390, 300)).all()
        for a, b in combinations(places, 2):
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])
        assert (np.abs(lines[4] - lines[3]) >= 4).all() or (lines[3][2:] - lines[3][:2]).min() < 40
        assert (lines[:, 2:] > lines[:, :2]).all()


def drawn(page) -> list[float]:
    """The sides of the box that the visitor draws, as shares of the frame."""
    size, box = page.locator("#frame").bounding_box(), page.locator("#boxes .drawn")
    names = (("x", "width"), ("y", "height"), ("width", "width"), ("height", "height"))
    return [float(box.get_attribute(name)) / size[side] for name, side in names]


def test_a_box_is_drawn_with_the_keyboard(page):
    page.click("#samples button >> nth=2")
    page.wait_for_selector("#answers li:nth-child(2)")
    page.focus("#box")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "frame"
    selected = page.locator("#answers .on .phrase").inner_text()
    page.keyboard.press("ArrowLeft")  # the first key shows the box
    assert drawn(page) == pytest.approx([0.35, 0.35, 0.3, 0.3], abs=0.01)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    assert drawn(page) == pytest.approx([0.33, 0.35, 0.3, 0.32], abs=0.01)
    assert page.inner_text("#hint").startswith("Box from 33 to 63 % of the width and from 35 to 67 % of the height.")
    for _ in range(60):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("ArrowUp")
    assert drawn(page) == pytest.approx([0.33, 0, 0.67, 0.32], abs=0.01)
    assert page.locator("#answers .on .phrase").inner_text() == selected
    page.keyboard.press("Enter")
    page.wait_for_selector("#found li >> nth=7", timeout=60_000)
    assert page.locator("#found").get_attribute("aria-live") == "polite"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "box" and page.inner_text("#hint") == ""
    page.keyboard.press("ArrowDown")
    assert page.locator("#answers .on .phrase").inner_text() != selected


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(page, width):
    axe = pytest.importorskip("axe_playwright_python", reason="no axe: .venv/bin/pip install -e '.[dev]'")
    script = Path(axe.__file__).with_name("axe.min.js").read_text()
    page.set_viewport_size({"width": width, "height": 900})

    def check() -> None:
        found = page.evaluate(f"async () => {{ {script}; return (await axe.run()).violations; }}")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

    check()
    page.click("#samples button >> nth=4")
    page.wait_for_selector("#answers li:nth-child(3)")
    page.click("#advanced summary")
    page.click("#box")
    check()
    page.keyboard.press("ArrowLeft")  # a box that is drawn, and its words
    page.keyboard.press("Enter")
    page.wait_for_selector("#found li >> nth=7")
    check()
    page.emulate_media(color_scheme="dark")
    check()

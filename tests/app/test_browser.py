"""The app in a browser: the main use of each page, its layout, and its requests.

FMNIST_FAST_SCREENSHOTS names a folder for screenshots.
"""

import io
import os
import re
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)
pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)

from app_server import served
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from real_data import REAL_FOLDER

from fmnist_fast.app.samples import SAMPLES, draw_sample
from fmnist_fast.training.presets import PRESETS
from fmnist_fast.vision.image_io import read_picture
from fmnist_fast.vision.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]

WIDE, PHONE = 1280, 390

# Limit of every wait for a condition, in milliseconds; costs nothing on a quick machine. On a
# slow one, Numba compiles for more than 5 minutes.
TIMEOUT = 900_000
expect.set_options(timeout=TIMEOUT)

# Pages that are open at once, and seconds from their uploads to all predictions, on two busy cores.
N_PAGES, MAX_SECONDS = 20, 60

# Addresses that a page may request: this machine, and its own data.
LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of the app, served from an empty folder."""
    changes = {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "FMNIST_FAST_DATA": str(REAL_FOLDER or ""),
    }
    with served(tmp_path_factory.mktemp("empty"), changes) as url:
        yield url


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Chromium with a simulated camera that shows a synthetic dress."""
    film = tmp_path_factory.mktemp("camera") / "dress.y4m"
    film.write_bytes(one_frame(draw_sample("Dress on a wall")))
    camera = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, address):
    """Opens pages, each with its own session; checks that no request left the machine, and that no
    error was logged.
    """
    contexts, urls, failures = [], [], []

    def failed(message):
        # Streamlit first tries its server below the address of the page.
        if message.type == "error" and "/_stcore/" not in message.location["url"]:
            failures.append(message.text)

    def new_pages(count=1, height=900):
        """Open pages of one browser window; each is a session of Streamlit."""
        context = chromium.new_context(
            viewport={"width": WIDE, "height": height}, reduced_motion="reduce"
        )
        context.set_default_timeout(TIMEOUT)
        context.on("request", lambda request: urls.append(request.url))
        context.on("console", failed)
        context.on("weberror", lambda error: failures.append(str(error.error)))
        contexts.append(context)
        pages = [context.new_page() for _ in range(count)]
        for page in pages:
            page.on("websocket", lambda connection: urls.append(connection.url))
        return pages

    def open_page(path):
        (page,) = new_pages()
        page.goto(f"{address}/{path}")
        settle(page)
        return page

    open_page.several = new_pages
    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in urls if not url.startswith(LOCAL)] == []
    assert urls
    assert failures == []


@pytest.fixture
def photograph():
    """Checks that a page fits on a wide screen and on a phone; takes screenshots, also of the dark
    theme, if FMNIST_FAST_SCREENSHOTS is set."""
    folder = os.environ.get("FMNIST_FAST_SCREENSHOTS")
    looks = [("phone", "light", PHONE), ("light", "light", WIDE)]
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        looks.insert(0, ("dark", "dark", WIDE))

    def take(page, name):
        settle(page)
        for look, scheme, width in looks:
            page.set_viewport_size({"width": width, "height": 900})
            if look != "light":
                page.emulate_media(color_scheme=scheme)
                expect(page.get_by_test_id("stApp")).to_have_css("color-scheme", scheme)
                page.evaluate("document.activeElement.blur()")
                # Charts keep the colours of the theme that the last run told the server.
                page.keyboard.press("r")
            settle(page)
            main = page.get_by_test_id("stMain")
            assert main.evaluate("main => main.scrollWidth - main.clientWidth") <= 0, look
            assert page.evaluate("document.documentElement.scrollWidth") <= width, look
            if folder:
                height = main.evaluate("main => main.scrollHeight")
                page.set_viewport_size({"width": width, "height": max(600, height)})
                page.wait_for_timeout(250)  # charts follow the width
                page.screenshot(path=Path(folder) / f"{name}-{look}.png")
        page.set_viewport_size({"width": WIDE, "height": 900})

    return take


def settle(page):
    """Wait until the page is drawn and its script has ended."""
    page.locator("h1").wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def upload(page, *files):
    """Each file is (name, content)."""
    page.locator("input[type=file]").set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    )


def one_frame(content: bytes) -> bytes:
    """Convert an image to a film of one frame, in the format YUV4MPEG2."""
    picture = Image.open(io.BytesIO(content)).convert("YCbCr").resize((640, 480))
    y, u, v = picture.split()
    planes = (y, u.reduce(2), v.reduce(2))
    head = b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\nFRAME\n"
    return head + b"".join(plane.tobytes() for plane in planes)


def bars(page):
    return page.get_by_test_id("stProgress")


def choose(page, label, option):
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def fill_in(page, label, text):
    box = page.get_by_label(label, exact=True).first
    box.fill(text)
    box.press("Enter")


def a_photograph() -> tuple[str, bytes]:
    """Return a real photograph if there are any, else a synthetic one."""
    folder = REAL_FOLDER.parent / "photos" if REAL_FOLDER else None
    found = sorted(folder.rglob("*.jpg")) if folder else []
    return ("photograph.jpg", found[0].read_bytes() if found else draw_sample("Dress on a wall"))


def test_classify_predicts_images(opened, photograph):
    page = opened("")
    photograph(page, "classify-empty")
    upload(page, a_photograph())
    expect(bars(page)).to_have_count(3)
    photograph(page, "classify-upload")
    page.get_by_text("Paste", exact=True).click()
    expect(page.get_by_placeholder("Paste an image")).to_be_visible()
    expect(bars(page)).to_have_count(0)
    photograph(page, "classify-paste")
    page.get_by_text("Samples", exact=True).click()
    expect(page.get_by_role("heading", name="T-shirt/top")).to_be_visible()
    expect(bars(page).first).to_contain_text("T-shirt/top: ")
    photograph(page, "classify-sample")


def test_classify_predicts_camera_image(opened, photograph):
    page = opened("")
    page.get_by_text("Camera", exact=True).click()
    page.locator("video").evaluate("film => new Promise(go => film.requestVideoFrameCallback(go))")
    button = page.get_by_role("button", name=re.compile("Take Photo|Clear photo"))
    # Before the browser has an image of the camera, a press does nothing, or takes a blank one that
    # the app refuses; the next press then clears it, and the one after takes another.
    for seconds in (30, 30, 60, 60, 120, 120, 240, 240):
        button.click()
        try:
            expect(bars(page)).to_have_count(3, timeout=1000 * seconds)
            break
        except AssertionError:
            print(button.inner_text(), page.get_by_test_id("stMain").inner_text(), sep="\n")
    expect(bars(page)).to_have_count(3, timeout=1000)
    expect(page.get_by_role("heading", name="Dress")).to_be_visible()
    photograph(page, "classify-camera")


def test_classify_bad_file_is_one_line(opened, photograph):
    page = opened("")
    upload(page, ("torn.png", draw_sample("Boot on tiles")[:2000]))
    message = page.get_by_text("torn.png: not an image, or a damaged one")
    expect(message).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)
    photograph(page, "classify-bad")


def test_train_makes_a_model_for_classify(opened, photograph):
    page = opened("train")
    photograph(page, "train")
    choose(page, "Preset", "fast")
    expect(page.get_by_label("Epochs", exact=True).first).to_have_value(str(PRESETS["fast"].epochs))
    fill_in(page, "Hidden layers", "16")
    fill_in(page, "Epochs", "2")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("button", name="Download the model").wait_for()
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(2)
    photograph(page, "train-done")
    page.get_by_role("link", name="Classify").click()
    page.get_by_text("Samples", exact=True).click()
    expect(bars(page)).to_have_count(3)
    page.get_by_role("button", name="Model").click()
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="1: fast, ").click()
    expect(page.get_by_text("Model: 1: fast, ")).to_be_visible()
    page.locator("h1").click()  # closes what the button opened
    photograph(page, "classify-trained")


def test_compare_races_backends(opened, photograph):
    page = opened("compare")
    photograph(page, "compare")
    fill_in(page, "Epochs each", "1")
    fill_in(page, "Threads each", "1")
    page.get_by_role("button", name="Start the race").click()
    expect(page.get_by_test_id("stTable")).to_be_visible()
    expect(page.get_by_test_id("stVegaLiteChart")).to_be_visible()
    photograph(page, "compare-done")


def test_explore_cell_shows_its_images(opened, photograph):
    page = opened("explore")
    page.set_viewport_size({"width": WIDE, "height": 1400})  # the head of the page covers nothing
    cells = page.locator("[data-testid=stVegaLiteChart] path[aria-label*='correct: true']")
    cells.nth(1).click(force=True)  # a number lies on it
    expect(page.get_by_text("of class Trouser classified as Trouser")).to_be_visible()
    shown = page.locator("img[alt='Trouser, classified as Trouser']")
    shown.first.wait_for()
    assert shown.first.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 28
    photograph(page, "explore-confusion")
    for name in ("Classes", "Confident mistakes", "Calibration", "First layer"):
        page.get_by_role("tab", name=name).click()
        photograph(page, f"explore-{name.split()[-1].lower()}")


@pytest.mark.alone
def test_classify_twenty_sessions_get_own_predictions(opened, address):
    recognizer, names = Recognizer(threads=1), list(SAMPLES)
    expected = []
    for name in names:
        _, label, p = recognizer.recognize(read_picture(io.BytesIO(draw_sample(name)))).top()[0]
        expected.append(f"{label}: {100 * p:.1f} %")
    pages = opened.several(N_PAGES, height=300)
    for page in pages:
        page.goto(f"{address}/", wait_until="commit")
    for page in pages:
        page.locator("input[type=file]").wait_for(state="attached")
    begin = time.monotonic()
    for number, page in enumerate(pages):
        name = names[number % len(names)]
        upload(page, (f"{number}.png", draw_sample(name)))
    for number, page in enumerate(pages):
        expect(bars(page)).to_have_count(3)
        expect(bars(page).first).to_contain_text(expected[number % len(names)])
        expect(page.get_by_text(f"{number}.png", exact=True)).not_to_have_count(0)
    assert time.monotonic() - begin < MAX_SECONDS

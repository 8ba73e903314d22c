"""The page Classify: predictions for images, and messages for what is not an image."""

import csv
import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from fmnist_fast import Ensemble, load_model, train
from fmnist_fast.data.fashion_mnist import CLASS_NAMES

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

from app_pages import open_page
from messages import assert_contains, assert_one_line

from fmnist_fast.app.classify import MAX_IMAGES, OWN_FILE, PRETRAINED, predictions_csv
from fmnist_fast.app.samples import SAMPLES, draw_sample
from fmnist_fast.vision.image_io import read_picture
from fmnist_fast.vision.recognizer import Recognizer


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def shirt() -> bytes:
    return draw_sample("T-shirt on boards")


def classify():
    """The page without images."""
    return open_page("classify")


def upload(page, *files):
    """Each file is (name, content)."""
    page.file_uploader(key="uploads").set_value([(*file, "image/png") for file in files]).run()
    assert not page.exception
    return page


def predictions(page) -> list[str]:
    """Texts of the bars of probabilities."""
    return [bar.proto.text for bar in page.get("progress")]


def captions(page) -> str:
    return "\n".join(caption.value for caption in page.caption)


def errors(page) -> list[str]:
    return [error.value for error in page.error]


def test_page_photograph_is_predicted_by_photo_model():
    page = upload(classify(), ("shirt.png", shirt()))
    assert not page.error
    assert len(predictions(page)) == 3
    assert predictions(page)[0].startswith("T-shirt/top: ")
    assert page.subheader[0].value == "T-shirt/top"
    assert_contains(captions(page), "photos.safetensors, trained on fashion-mnist")


def test_page_28x28_image_is_not_preprocessed(small_dataset):
    pixels = small_dataset.x_test[0]
    page = upload(classify(), ("x.png", encoded(Image.fromarray(pixels))))
    p_k = load_model().predict_proba(pixels[None])[0]
    assert predictions(page) == [
        f"{CLASS_NAMES[k]}: {100 * p_k[k]:.1f} %" for k in p_k.argsort()[::-1][:3]
    ]
    assert_contains(captions(page), "Model: fashion-mnist.safetensors")


def test_page_shows_low_confidence(small_dataset):
    model = load_model()
    confidence_n = model.predict_proba(small_dataset.x_test).max(1)
    row = int(confidence_n.argmin())
    assert confidence_n[row] < model.threshold
    page = upload(classify(), ("x.png", encoded(Image.fromarray(small_dataset.x_test[row]))))
    assert page.subheader[0].value.startswith("Low confidence: ")
    threshold = f"confidence threshold of {100 * model.threshold:.1f}\N{NO-BREAK SPACE}%"
    assert any(threshold in text.value for text in page.markdown)


def test_page_predicts_samples():
    page = classify()
    page.radio(key="source").set_value("Samples").run()
    assert not page.exception
    assert predictions(page)[0].startswith("T-shirt/top: ")
    page.button_group(key="sample").select("Boot on tiles").run()
    assert predictions(page)[0].startswith("Ankle boot: ")


def test_page_without_images_offers_samples():
    page = classify()
    page.button(key="try Boot on tiles").click().run()
    assert not page.exception
    assert page.radio(key="source").value == "Samples"
    assert predictions(page)[0].startswith("Ankle boot: ")
    assert "try Boot on tiles" not in {button.key for button in page.button}


def test_page_edit_options_change_prediction():
    page = upload(classify(), ("shirt.png", shirt()))
    before = predictions(page)
    key = page.select_slider[0].key.removeprefix("rotation-")
    page.select_slider(key=f"rotation-{key}").set_value(90).run()
    assert predictions(page) != before
    page.select_slider(key=f"rotation-{key}").set_value(0).run()
    assert predictions(page) == before
    page.selectbox(key=f"segmentation-{key}").set_value("none").run()
    assert predictions(page) != before
    page.selectbox(key=f"segmentation-{key}").set_value("auto").run()
    page.toggle(key=f"invert-{key}").set_value(True).run()
    assert predictions(page) != before
    page.toggle(key=f"invert-{key}").set_value(False)
    page.slider(key=f"crop-x-{key}").set_value((50, 50)).run()
    (message,) = errors(page)
    assert_one_line(message, "shirt.png: ", "nothing is left", "crop less")
    page.slider(key=f"crop-x-{key}").set_value((0, 100)).run()
    assert predictions(page) == before


def test_page_predicts_with_model_of_this_session(small_dataset):
    model = train(small_dataset, epochs=1, hidden=(8,), threads=1).model
    page = classify()
    page.session_state["trained_models"] = {"1: mine": model}
    page.run()
    page.selectbox(key="model").set_value("1: mine").run()
    upload(page, ("x.png", encoded(Image.fromarray(small_dataset.x_test[0]))))
    p_k = model.predict_proba(small_dataset.x_test[:1])[0]
    assert predictions(page)[0] == f"class {p_k.argmax()}: {100 * p_k.max():.1f} %"


def test_page_caches_predictions_of_session_model(small_dataset, monkeypatch):
    recognized = []
    recognize = Recognizer.recognize

    def counted(self, picture, *options):
        recognized.append(picture)
        return recognize(self, picture, *options)

    monkeypatch.setattr(Recognizer, "recognize", counted)
    model = train(small_dataset, epochs=1, hidden=(8,), threads=1).model
    page = classify()
    page.session_state["trained_models"] = {"1: mine": model}
    page.run()
    page.selectbox(key="model").set_value("1: mine").run()
    upload(page, ("x.png", shirt()))
    page.run()
    assert len(recognized) == 1
    page.selectbox(key="model").set_value(PRETRAINED).run()
    assert predictions(page)[0].startswith("T-shirt/top: ")


def test_page_checks_uploaded_model(small_dataset):
    page = classify()
    page.selectbox(key="model").set_value(OWN_FILE).run()
    assert "Choose a model file" in page.info[0].value
    model = train(small_dataset, epochs=1, hidden=(8,), threads=1).model
    for content, message in (
        (b"\x80\x04pickle", "the file is a pickle, which is never opened here"),
        (model.to_bytes()[:-4], "the file is damaged or not a safetensors file"),
    ):
        page.file_uploader(key="model_file").set_value(("m.safetensors", content, "")).run()
        assert not page.exception
        assert errors(page)[0].startswith(message)
        assert "/tmp" not in errors(page)[0]
    page.file_uploader(key="model_file").set_value(("m.safetensors", model.to_bytes(), "")).run()
    assert not page.error
    upload(page, ("x.png", encoded(Image.fromarray(small_dataset.x_test[0]))))
    assert predictions(page)[0].startswith("class ")


def test_page_explains_prediction_of_ensemble(small_dataset):
    options = {"epochs": 1, "hidden": (8,), "threads": 1}
    models = tuple(train(small_dataset, seed=seed, **options).model for seed in (0, 1))
    both = Ensemble(models)
    page = classify()
    page.selectbox(key="model").set_value(OWN_FILE).run()
    page.file_uploader(key="model_file").set_value(("e.safetensors", both.to_bytes(), "")).run()
    upload(page, ("x.png", encoded(Image.fromarray(small_dataset.x_test[0]))))
    p_k = both.predict_proba(small_dataset.x_test[:1])[0]
    assert predictions(page)[0] == f"class {p_k.argmax()}: {100 * p_k.max():.1f} %"
    assert_contains(captions(page), f"blue pixels support class {p_k.argmax()}")
    page.file_uploader(key="model_file").set_value(
        ("e.safetensors", both.to_bytes()[:-4], "")
    ).run()
    assert not page.exception
    assert errors(page)[0].startswith("the file is damaged or not a safetensors file")


def test_page_names_missing_model_file(monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_FAST_MODEL", str(tmp_path / "none.safetensors"))
    page = classify()
    assert "train one with 'fmnist-fast train'" in errors(page)[0]


def bomb() -> bytes:
    """Return a PNG of a few bytes whose header has 20,000 x 20,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">2I5B", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"?") + chunk(b"IEND", b"")


BAD = {
    "bomb": (bomb(), "megapixels"),
    "truncated": (shirt()[:3000], "not an image, or a damaged one"),
    "1x1": (encoded(Image.new("L", (1, 1))), "too small or too narrow"),
    "1x10000": (encoded(Image.new("L", (1, 10_000))), "too small or too narrow"),
    "white": (encoded(Image.new("RGB", (90, 90), "white")), "all of one colour"),
    "black": (encoded(Image.new("L", (90, 90))), "all of one colour"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "not an image, or a damaged one"),
    "too large": (shirt() + bytes(10_000_000), "larger than 10 MB"),
    "empty": (b"", "not an image, or a damaged one"),
}


@pytest.mark.parametrize("kind", BAD)
def test_page_bad_image_is_one_line_and_others_work(kind):
    content, words = BAD[kind]
    page = upload(classify(), ("bad.png", content), ("shirt.png", shirt()))
    (message,) = errors(page)
    assert_one_line(message, "bad.png: ", words)
    assert len(message) < 160
    assert len(predictions(page)) == 3


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("CMYK", "CMYK colours were converted"),
        ("16 bits", "more than 8 bits"),
        ("GIF", "several frames"),
    ],
)
def test_page_unusual_image_has_a_note(kind, note):
    image = Image.open(io.BytesIO(shirt())).convert("RGB")
    content = {
        "CMYK": lambda: encoded(image.convert("CMYK"), "JPEG"),
        "16 bits": lambda: encoded(
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        ),
        "GIF": lambda: encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
    }[kind]()
    page = upload(classify(), ("odd.png", content))
    assert len(predictions(page)) == 3
    assert_contains(captions(page), note)


def test_page_escapes_markup_in_names():
    page = upload(classify(), ("**<b>x</b>** [a](b).png", shirt()))
    (name,) = (m.value for m in page.markdown if "x" in m.value)
    assert "\\<b\\>" in name
    assert "\\[a\\]\\(b\\)" in name


def test_page_limits_number_of_images(monkeypatch):
    small = encoded(Image.open(io.BytesIO(shirt())).resize((60, 72)))
    files = [(f"{n}.png", small) for n in range(MAX_IMAGES + 2)]
    page = upload(classify(), *files)
    assert page.warning[0].value == f"The first {MAX_IMAGES} of {len(files)} images are shown."
    assert len(predictions(page)) == 3 * MAX_IMAGES


def test_predictions_csv_escapes_names_and_has_errors():
    prediction = Recognizer().recognize(read_picture(io.BytesIO(shirt())))
    text = predictions_csv([("=cmd()", prediction), ("b.png", "not an image")])
    head, first, second = csv.reader(io.StringIO(text))
    assert dict(zip(head, first))["file"] == "'=cmd()"
    assert dict(zip(head, first))["prediction"] == "T-shirt/top"
    assert dict(zip(head, second))["error"] == "not an image"


def test_page_upload_stays_in_memory_and_session(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    page = upload(classify(), ("shirt.png", shirt()))
    assert len(predictions(page)) == 3
    assert list(tmp_path.iterdir()) == []
    assert predictions(classify()) == []
    upload(page)
    assert predictions(page) == []


def test_recognizer_is_thread_safe():
    """Sessions share the recognizer; test_browser.py opens twenty pages."""
    recognizer = Recognizer(threads=1)
    pictures = [read_picture(io.BytesIO(draw_sample(name))) for name in SAMPLES]
    expected = [recognizer.recognize(picture).probability_k for picture in pictures]
    shared = Recognizer(threads=1)  # loads its models while all threads predict
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: shared.recognize(pictures[n % 5]), range(60)))
    for number, prediction in enumerate(found):
        np.testing.assert_array_equal(prediction.probability_k, expected[number % 5])


def memory() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_page_uploads_do_not_leak_memory():
    stream = np.random.default_rng(0)
    image = Image.open(io.BytesIO(shirt())).convert("RGB").resize((1200, 1500))

    def another():
        pixels = np.asarray(image).copy()
        pixels[:40, :40] = stream.integers(0, 256, (40, 40, 3))
        return encoded(Image.fromarray(pixels), "JPEG")

    page = classify()
    for _ in range(20):
        upload(page, ("x.jpg", another()))
    before = memory()
    for _ in range(200):
        upload(page, ("x.jpg", another()))
    assert memory() - before < 50e6

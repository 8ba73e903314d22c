"""The page Classify, as Streamlit draws it: pictures in, answers out, nothing breaks it."""

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

from fmnist_fast.app.classify import MOST_PICTURES
from fmnist_fast.app.samples import SAMPLES, draw_sample


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def shirt() -> bytes:
    return draw_sample("T-shirt on boards")


def classify():
    """The page without pictures."""
    return open_page("classify")


def upload(page, *files):
    """Each file is (name, content)."""
    page.file_uploader(key="uploads").set_value([(*file, "image/png") for file in files]).run()
    assert not page.exception
    return page


def answers(page) -> list[str]:
    """What the bars say."""
    return [bar.proto.text for bar in page.get("progress")]


def errors(page) -> list[str]:
    return [error.value for error in page.error]


def test_an_upload_gets_the_answer_of_the_model_for_photographs():
    page = upload(classify(), ("shirt.png", shirt()))
    assert not page.error
    assert len(answers(page)) == 3
    assert answers(page)[0].startswith("T-shirt/top: ")
    assert page.subheader[0].value == "T-shirt/top"
    captions = [caption.value for caption in page.caption]
    assert any("photos.safetensors, trained on fashion-mnist" in text for text in captions)


def test_28x28_gray_is_taken_as_it_is_by_the_other_model(small_dataset):
    pixels = small_dataset.x_test[0]
    page = upload(classify(), ("x.png", encoded(Image.fromarray(pixels))))
    p_k = load_model().predict_proba(pixels[None])[0]
    assert answers(page) == [
        f"{CLASS_NAMES[k]}: {100 * p_k[k]:.1f} %" for k in p_k.argsort()[::-1][:3]
    ]
    captions = [caption.value for caption in page.caption]
    assert any(text.startswith("Answered by fashion-mnist.safetensors") for text in captions)


def test_doubt_is_said(small_dataset):
    model = load_model()
    confidence_n = model.predict_proba(small_dataset.x_test).max(1)
    row = int(confidence_n.argmin())
    assert confidence_n[row] < model.threshold
    page = upload(classify(), ("x.png", encoded(Image.fromarray(small_dataset.x_test[row]))))
    assert page.subheader[0].value.startswith("Not sure. ")
    least = f"Below {100 * model.threshold:.1f} % it is wrong too often to be relied on"
    assert any(least in text.value for text in page.markdown)


def test_the_samples_are_answered():
    page = classify()
    page.radio(key="source").set_value("Samples").run()
    assert not page.exception
    assert answers(page)[0].startswith("T-shirt/top: ")
    page.button_group(key="sample").select("Boot on tiles").run()
    assert answers(page)[0].startswith("Ankle boot: ")


def test_an_empty_page_offers_the_samples():
    page = classify()
    page.button(key="try Boot on tiles").click().run()
    assert not page.exception
    assert page.radio(key="source").value == "Samples"
    assert answers(page)[0].startswith("Ankle boot: ")
    assert "try Boot on tiles" not in {button.key for button in page.button}


def test_turning_inverting_and_another_cut_out_change_the_answer():
    page = upload(classify(), ("shirt.png", shirt()))
    before = answers(page)
    helpers = [slider.key for slider in page.select_slider]
    key = helpers[0].removeprefix("turns-")
    page.select_slider(key=f"turns-{key}").set_value(90).run()
    turned = answers(page)
    assert turned != before
    page.select_slider(key=f"turns-{key}").set_value(0).run()
    assert answers(page) == before
    page.selectbox(key=f"segmentation-{key}").set_value("none").run()
    assert answers(page) != before
    page.selectbox(key=f"segmentation-{key}").set_value("auto").run()
    page.toggle(key=f"invert-{key}").set_value(True).run()
    assert answers(page) != before
    page.toggle(key=f"invert-{key}").set_value(False)
    page.slider(key=f"across-{key}").set_value((50, 50)).run()
    assert errors(page) == ["shirt.png: nothing is left of the image: crop less of it"]
    page.slider(key=f"across-{key}").set_value((0, 100)).run()
    assert answers(page) == before


def test_a_model_trained_here_can_answer(small_dataset):
    model = train(small_dataset, epochs=1, hidden=(8,), threads=1).model
    page = classify()
    page.session_state["trained_models"] = {"1: mine": model}
    page.run()
    page.selectbox(key="model").set_value("1: mine").run()
    upload(page, ("x.png", encoded(Image.fromarray(small_dataset.x_test[0]))))
    p_k = model.predict_proba(small_dataset.x_test[:1])[0]
    assert answers(page)[0] == f"class {p_k.argmax()}: {100 * p_k.max():.1f} %"


def test_answers_of_a_chosen_model_are_remembered(small_dataset):
    model = train(small_dataset, epochs=1, hidden=(8,), threads=1).model
    page = classify()
    page.session_state["trained_models"] = {"1: mine": model}
    page.run()
    page.selectbox(key="model").set_value("1: mine").run()
    upload(page, ("x.png", shirt()))
    (first,) = page.session_state["answers"].values()
    page.run()
    (again,) = page.session_state["answers"].values()
    assert again is first


def test_a_model_file_that_is_uploaded_is_checked(small_dataset):
    page = classify()
    page.selectbox(key="model").set_value("a file of yours").run()
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
    assert answers(page)[0].startswith("class ")


def test_an_ensemble_answers_and_says_why(small_dataset):
    options = {"epochs": 1, "hidden": (8,), "threads": 1}
    models = tuple(train(small_dataset, seed=seed, **options).model for seed in (0, 1))
    both = Ensemble(models)
    page = classify()
    page.selectbox(key="model").set_value("a file of yours").run()
    page.file_uploader(key="model_file").set_value(("e.safetensors", both.to_bytes(), "")).run()
    upload(page, ("x.png", encoded(Image.fromarray(small_dataset.x_test[0]))))
    p_k = both.predict_proba(small_dataset.x_test[:1])[0]
    assert answers(page)[0] == f"class {p_k.argmax()}: {100 * p_k.max():.1f} %"
    captions = [caption.value for caption in page.caption]
    assert f"Blue pixels spoke for class {p_k.argmax()}" in " ".join(captions)
    page.file_uploader(key="model_file").set_value(
        ("e.safetensors", both.to_bytes()[:-4], "")
    ).run()
    assert not page.exception
    assert errors(page)[0].startswith("the file is damaged or not a safetensors file")


def test_a_model_that_is_named_and_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_FAST_MODEL", str(tmp_path / "none.safetensors"))
    page = classify()
    assert "train one with 'fmnist-fast train'" in errors(page)[0]


def bomb() -> bytes:
    """A PNG of a few bytes that claims 20,000 x 20,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">2I5B", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"?") + chunk(b"IEND", b"")


BAD = {
    "bomb": (bomb(), "megapixels"),
    "truncated": (shirt()[:3000], "not an image, or a damaged one"),
    "1x1": (encoded(Image.new("L", (1, 1))), "nothing can be seen on it"),
    "1x10000": (encoded(Image.new("L", (1, 10_000))), "nothing can be seen on it"),
    "white": (encoded(Image.new("RGB", (90, 90), "white")), "all of one colour"),
    "black": (encoded(Image.new("L", (90, 90))), "all of one colour"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "not an image, or a damaged one"),
    "too large": (shirt() + bytes(10_000_000), "more than 10 MB"),
    "empty": (b"", "not an image, or a damaged one"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_pictures_get_a_message_and_the_page_goes_on(kind):
    content, words = BAD[kind]
    page = upload(classify(), ("bad.png", content), ("shirt.png", shirt()))
    (message,) = errors(page)
    assert message.startswith("bad.png: ")
    assert words in message
    assert len(message) < 160
    assert len(answers(page)) == 3


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("CMYK", "CMYK colours were converted"),
        ("16 bits", "more than 8 bits"),
        ("GIF", "several frames"),
    ],
)
def test_odd_pictures_are_answered_with_a_note(kind, note):
    image = Image.open(io.BytesIO(shirt())).convert("RGB")
    content = {
        "CMYK": lambda: encoded(image.convert("CMYK"), "JPEG"),
        "16 bits": lambda: encoded(
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        ),
        "GIF": lambda: encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
    }[kind]()
    page = upload(classify(), ("odd.png", content))
    assert len(answers(page)) == 3
    assert any(note in caption.value for caption in page.caption)


def test_names_are_never_markup():
    page = upload(classify(), ("**<b>x</b>** [a](b).png", shirt()))
    (name,) = (m.value for m in page.markdown if "x" in m.value)
    assert "\\<b\\>" in name
    assert "\\[a\\]\\(b\\)" in name


def test_more_pictures_than_fit_are_said(monkeypatch):
    small = encoded(Image.open(io.BytesIO(shirt())).resize((60, 72)))
    files = [(f"{n}.png", small) for n in range(MOST_PICTURES + 2)]
    page = upload(classify(), *files)
    assert page.warning[0].value == f"The first {MOST_PICTURES} of {len(files)} pictures are shown."
    assert len(answers(page)) == 3 * MOST_PICTURES


def test_the_answers_as_a_table():
    from fmnist_fast.app import classify as module
    from fmnist_fast.vision.image_io import read_picture
    from fmnist_fast.vision.recognizer import Recognizer

    answer = Recognizer().recognize(read_picture(io.BytesIO(shirt())))
    text = module._as_csv([("=cmd()", answer), ("b.png", "not an image")])
    head, first, second = csv.reader(io.StringIO(text))
    assert dict(zip(head, first))["file"] == "'=cmd()"
    assert dict(zip(head, first))["answer"] == "T-shirt/top"
    assert dict(zip(head, second))["error"] == "not an image"


def test_nothing_of_an_upload_reaches_the_disk_or_other_sessions(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    page = upload(classify(), ("shirt.png", shirt()))
    assert len(page.session_state["answers"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "answers" not in classify().session_state
    upload(page)
    assert page.session_state["answers"] == {}


def test_twenty_at_once_get_the_right_answers():
    """What sessions share is the recogniser; test_browser.py opens twenty pages."""
    from fmnist_fast.vision.image_io import read_picture
    from fmnist_fast.vision.recognizer import Recognizer

    recogniser = Recognizer(threads=1)
    pictures = [read_picture(io.BytesIO(draw_sample(name))) for name in SAMPLES]
    expected = [recogniser.recognize(picture).probability_k for picture in pictures]
    shared = Recognizer(threads=1)  # loads its models while all ask
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: shared.recognize(pictures[n % 5]), range(60)))
    for number, answer in enumerate(found):
        np.testing.assert_array_equal(answer.probability_k, expected[number % 5])


def memory() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_returns_after_many_uploads():
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

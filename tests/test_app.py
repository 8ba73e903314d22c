"""The page of the app, as Streamlit draws it."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fmnist_fast import train

streamlit_testing = pytest.importorskip(
    "streamlit.testing.v1", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

APP = str(Path(__file__).parent.parent / "app.py")


def page():
    return streamlit_testing.AppTest.from_file(APP, default_timeout=30)


def as_png(pixels) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def model(small_dataset, tmp_path, monkeypatch):
    model = train(small_dataset, epochs=1, hidden=(8,), threads=1).model
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setenv("FMNIST_FAST_MODEL", str(tmp_path / "m.safetensors"))
    return model


def test_without_a_model_it_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran = page().run()
    assert not ran.exception
    assert "train one with 'fmnist-fast train'" in ran.error[0].value


def test_an_image_gets_the_answer_of_the_model(model, small_dataset):
    ran = page().run()
    assert not ran.exception
    assert "trained on small" in ran.caption[0].value
    ran.file_uploader[0].set_value([("x.png", as_png(small_dataset.x_test[0]), "image/png")]).run()
    assert not ran.exception
    assert not ran.error
    p_k = model.predict_proba(small_dataset.x_test[:1])[0]
    texts = [bar.proto.text for bar in ran.get("progress")]
    assert texts == [
        f"{model.class_names[k]}: {100 * p_k[k]:.1f} %" for k in p_k.argsort()[::-1][:3]
    ]


def test_a_file_that_is_no_image_gets_a_message_and_the_page_goes_on(model, small_dataset):
    ran = page().run()
    ran.file_uploader[0].set_value(
        [
            ("notes.png", b"not an image", "image/png"),
            ("x.png", as_png(small_dataset.x_test[0]), "image/png"),
        ]
    ).run()
    assert not ran.exception
    assert ran.error[0].value == "notes.png: not an image, or a damaged one"
    assert len(ran.get("progress")) == 3

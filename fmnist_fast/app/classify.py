"""The page: images in, the three most probable classes of each out."""

import os
from io import BytesIO
from pathlib import Path

import streamlit as st

from fmnist_fast.errors import UserError
from fmnist_fast.modelfile import SHIPPED, Model, load_model
from fmnist_fast.photo import read_gray

__all__ = ["show"]

DEFAULT_MODEL = "model.safetensors"


def show() -> None:
    """Draw the page. The model is the file in $FMNIST_FAST_MODEL, else model.safetensors, else the
    one that comes with the package.
    """
    st.title("Which garment is it?")
    path = Path(os.environ.get("FMNIST_FAST_MODEL", DEFAULT_MODEL))
    if "FMNIST_FAST_MODEL" not in os.environ and not path.exists():
        path = SHIPPED
    try:
        model = load_model(path)
    except UserError as error:
        st.error(str(error))
        return
    size = "x".join(map(str, model.input_shape))
    st.caption(
        f"{path.name}, trained on {model.dataset_name}. It takes grayscale images of {size} "
        "pixels: the garment bright, on black."
    )
    for upload in st.file_uploader("Images", accept_multiple_files=True) or []:
        _show_answer(model, upload.name, upload.getvalue())


def _show_answer(model: Model, name: str, content: bytes) -> None:
    image, answer = st.columns([1, 3])
    height, width = model.input_shape
    try:
        pixels = read_gray(BytesIO(content), height, width)
    except UserError as error:
        answer.error(f"{name}: {error}")
        return
    image.image(pixels, caption=name, width=140)
    probability_k = model.predict_proba(pixels[None])[0]
    for k in probability_k.argsort()[::-1][:3]:
        share = float(probability_k[k])
        answer.progress(min(share, 1.0), f"{model.class_names[k]}: {100 * share:.1f} %")

"""The page Classify: images in; predictions and the steps of the preprocessing out."""

import csv
import io
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fmnist_fast.errors import ArgumentError, ModelFileError, UserError
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.load import load_model
from fmnist_fast.models.model import Model
from fmnist_fast.vision.image_io import read_picture
from fmnist_fast.vision.preprocessing import edit_picture
from fmnist_fast.vision.recognizer import Prediction, Recognizer, saliency_map
from fmnist_fast.vision.segmentation import METHODS, best_method

from .elements import percent
from .samples import SAMPLES, draw_sample
from .session import trained_models

DEFAULT_MODEL = "model.safetensors"

# Bytes of one image from any source; Streamlit refuses larger uploads too.
MAX_BYTES = 10_000_000

# Images on the page: a prediction takes 0.2 s.
MAX_IMAGES = 20

CSV_COLUMNS = (
    "file",
    "prediction",
    "probability",
    "confident",
    "second",
    "third",
    "model",
    "segmentation",
    "error",
)

TYPES = ["png", "jpg", "jpeg", "webp", "bmp", "gif"]

UPLOAD, PASTE, CAMERA, SAMPLE = "Upload", "Paste", "Camera", "Samples"

PRETRAINED, OWN_FILE = "the pretrained models", "your own file"

# Size of a stage and of the gap between two, in pixels; a multiple of 28 keeps pixels square.
SIDE, GAP = 224, 16

# Width of a sample button in CSS pixels: three fit beside each other on a phone.
SAMPLE_WIDTH = 108

# Labels of the segmentation methods.
METHOD_LABELS = {
    "auto": "automatic",
    "grabcut": "GrabCut",
    "histogram": "colour histogram",
    "none": "none: the whole image",
}

# Caption of the segmented stage, by method.
SEGMENTED_BY = {
    "grabcut": "segmented by GrabCut",
    "histogram": "segmented by colour",
    "transparency": "segmented by its transparency",
    "none": "the whole image",
}

_sample = st.cache_data(show_spinner=False)(draw_sample)

# Background of a segmented garment: white and black clothes stand out on it, in both themes.
BACKGROUND = (198, 202, 204)


class UploadedImage(NamedTuple):
    """An image file. key : identifies it on the page."""

    key: str
    name: str
    content: bytes


class EditOptions(NamedTuple):
    """Corrections below an image. quarter_turns : to the left. crop : left, top, right and bottom,
    as fractions. segmentation : method. invert : whether to exchange dark and light.
    """

    quarter_turns: int
    crop: tuple[float, float, float, float]
    segmentation: str
    invert: bool


def show() -> None:
    """Draw the page."""
    st.title("Which garment is it?")
    st.caption(
        "Upload a photograph of one piece of clothing, on any background. A grayscale image of "
        "28x28 pixels, bright on black, is used without preprocessing."
    )
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        source = st.radio(
            "Image source",
            [UPLOAD, PASTE, CAMERA, SAMPLE],
            horizontal=True,
            label_visibility="collapsed",
            key="source",
            width="content",
        )
        model_box = st.popover("Model", help="Model that predicts")
    images = _images(source)
    recognizer = _recognizer(model_box)
    if not images and source == UPLOAD:
        _show_sample_buttons()
    if not recognizer or not images:
        return
    if len(images) > MAX_IMAGES:
        st.warning(f"The first {MAX_IMAGES} of {len(images)} images are shown.")
        images = images[:MAX_IMAGES]
    results = [(image.name, _show_image(recognizer, image)) for image in images]
    st.download_button(
        "Download the predictions as CSV", predictions_csv(results), "predictions.csv", "text/csv"
    )


def _images(source: str) -> list[UploadedImage]:
    """Draw the input widget of the source, and return its images."""
    files: list[Any] = []
    if source == UPLOAD:
        files = st.file_uploader(
            "Images, up to 10 MB each", TYPES, accept_multiple_files=True, key="uploads"
        )
    elif source == PASTE:
        # Outside a container it would stick to the bottom of the window.
        pasted: Any = st.container().chat_input(
            "Paste an image, then press Enter",
            accept_file="multiple",
            file_type=TYPES,
            key="pasted",
        )
        if pasted:
            st.session_state["pasted_files"] = pasted.files
        files = st.session_state.get("pasted_files", [])
    elif source == CAMERA:
        taken = st.camera_input("Hold one garment in front of a plain wall", key="camera")
        files = [taken] if taken else []
    else:
        name = st.pills(
            "Drawn by this project", list(SAMPLES), default=next(iter(SAMPLES)), key="sample"
        )
        return [UploadedImage(name, name, _sample(name))] if name else []
    return [UploadedImage(file.file_id, file.name, file.getvalue()) for file in files]


def _show_sample_buttons() -> None:
    st.markdown("**Or try one of these**")
    with st.container(horizontal=True, gap="small"):
        for name in SAMPLES:
            with st.container(width=SAMPLE_WIDTH, gap="xsmall"):
                st.image(_sample(name), width=SAMPLE_WIDTH, alt=name)
                st.button(
                    name.split()[0],
                    key=f"try {name}",
                    help=name,
                    width="stretch",
                    on_click=st.session_state.update,
                    kwargs={"source": SAMPLE, "sample": name},
                )


def _recognizer(container: Any) -> Recognizer | None:
    """Return that of the selected model; None, with a message shown, if it cannot be used."""
    trained = dict(trained_models())
    model_path = os.environ.get("FMNIST_FAST_MODEL")
    local = Path(model_path or DEFAULT_MODEL)
    exists = local.is_file()
    if model_path and not exists:
        st.error(f"model file {local} does not exist: train one with 'fmnist-fast train'")
    choices = [PRETRAINED, *reversed(trained), *([local.name] if exists else []), OWN_FILE]
    default = choices.index(local.name) if model_path and exists else 0
    uploaded = None
    with container:
        chosen = st.selectbox("Model", choices, default, key="model")
        if chosen == OWN_FILE:
            uploaded = st.file_uploader("A .safetensors file", ["safetensors"], key="model_file")
    try:
        if chosen == PRETRAINED:
            return _pretrained_recognizer()
        if chosen in trained:
            return Recognizer(trained[chosen], chosen)
        if chosen != OWN_FILE:
            return Recognizer(_load_file(local, local.stat().st_mtime_ns), chosen)
        if uploaded:
            return Recognizer(_load_uploaded(uploaded.getvalue()), uploaded.name)
        st.info("Choose a model file written by 'fmnist-fast train'.")
    except UserError as error:
        st.error(str(error))
    return None


@st.cache_resource(show_spinner=False)
def _pretrained_recognizer() -> Recognizer:
    return Recognizer(threads=1)


@st.cache_resource(show_spinner=False, max_entries=1)
def _load_file(path: Path, modified: int) -> Model | Ensemble:
    """Load a model file; `modified`, its time of modification, is a part of the key."""
    return load_model(path, threads=1)


@st.cache_resource(scope="session", show_spinner=False, max_entries=1)
def _load_uploaded(content: bytes) -> Model | Ensemble:
    """Load an uploaded model, with all checks of a model file. Raises: ModelFileError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        try:
            return load_model(path, threads=1)
        except ModelFileError as error:
            raise ModelFileError(str(error).replace(str(path), "the file")) from error


def _show_image(recognizer: Recognizer, image: UploadedImage) -> Prediction | str:
    """Draw an image, its stages and its prediction; return the prediction or the error."""
    with st.container(border=True):
        st.markdown(f"**{_escape_markdown(image.name)}**")
        result = st.container()
        options = _edit_options(image.key)
        with result:
            try:
                prediction = _predict(recognizer, image.content, options)
            except UserError as error:
                st.error(f"{image.name}: {error}")
                return str(error)
            left, right = st.columns([5, 3], gap="medium")
            with left:
                _show_stages(prediction)
            with right:
                _show_probabilities(prediction)
            with st.container(horizontal=True, vertical_alignment="center"):
                _show_explanation(prediction)
        return prediction


def _model_id(recognizer: Recognizer) -> int:
    """Identify the model in the cache of predictions, which keep it alive."""
    return id(recognizer.data_model)


@st.cache_resource(
    scope="session", show_spinner=False, max_entries=MAX_IMAGES, hash_funcs={Recognizer: _model_id}
)
def _predict(recognizer: Recognizer, content: bytes, options: EditOptions) -> Prediction:
    if len(content) > MAX_BYTES:
        raise ArgumentError("larger than 10 MB: make it smaller")
    picture = read_picture(io.BytesIO(content), max_side=512, accepted=recognizer.size)
    if options.quarter_turns or options.crop != (0, 0, 1, 1):
        picture = edit_picture(picture, options.quarter_turns, options.crop)
    return recognizer.recognize(picture, options.segmentation, options.invert)


def _edit_options(key: str) -> EditOptions:
    """Draw controls for a garment that was not found, or is rotated; return their values."""
    with st.expander("Edit"):
        left, right = st.columns(2)
        rotation = left.select_slider(
            "Rotate to the left",
            [0, 90, 180, 270],
            format_func="{} degrees".format,
            key=f"rotation-{key}",
        )
        segmentation = right.selectbox(
            "Segmentation",
            ["auto", *(m for m in METHODS if m != "grabcut" or best_method() == m)],
            format_func=METHOD_LABELS.__getitem__,
            key=f"segmentation-{key}",
        )
        x = left.slider("Crop from left to right, %", 0, 100, (0, 100), key=f"crop-x-{key}")
        y = right.slider("Crop from top to bottom, %", 0, 100, (0, 100), key=f"crop-y-{key}")
        invert = st.toggle("Invert brightness", key=f"invert-{key}")
    crop = (x[0] / 100, y[0] / 100, x[1] / 100, y[1] / 100)
    return EditOptions(rotation // 90, crop, segmentation, invert)


def _show_stages(prediction: Prediction) -> None:
    stages = prediction.preprocessed
    height, width = stages.pixels.shape
    if stages.method == "as it is":
        network = _side_by_side([stages.pixels])
        st.image(
            network, caption="input of the network: the image without preprocessing", width=SIDE
        )
        return
    segmented = np.where(stages.mask[..., None], stages.rgb, np.array(BACKGROUND, np.uint8))
    tilt = f", rotated by {abs(stages.tilt):.0f} degrees" if stages.tilt else ""
    st.image(
        _side_by_side([stages.rgb, segmented, stages.pixels]),
        caption=f"original → {SEGMENTED_BY.get(stages.method, stages.method)}{tilt} → input of "
        f"the network, {width}x{height}",
        width="stretch",
        alt="The original, the segmented garment, and the input of the network",
    )
    for note in stages.notes:
        st.caption(f"Note: {note}.")
    if stages.method == "histogram" and best_method() == "histogram":
        st.caption("Segmented by colour alone: OpenCV, which segments better, is not installed.")


def _side_by_side(stages: list[NDArray[np.uint8]]) -> Image.Image:
    """Paste images into one, padded to squares, with transparent gaps.

    Streamlit would stack columns on a phone, each as wide as the page.
    """
    out = Image.new("RGBA", (len(stages) * (SIDE + GAP) - GAP, SIDE))
    for number, pixels in enumerate(stages):
        small = max(pixels.shape) < SIDE // 2  # pixels stay visible as squares
        resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        image = Image.fromarray(pixels).convert("RGB")
        square = ImageOps.pad(image, (SIDE, SIDE), resampling, BACKGROUND)
        out.paste(square, (number * (SIDE + GAP), 0))
    return out


def _show_probabilities(prediction: Prediction) -> None:
    label = prediction.top(1)[0][1]
    low_confidence = prediction.is_confident is False
    st.subheader(f"Low confidence: {label}?" if low_confidence else label, anchor=False)
    for _, name, probability in prediction.top():
        st.progress(min(probability, 1.0), f"{name}: {100 * probability:.1f} %")
    if low_confidence and prediction.model.threshold is not None:
        threshold = percent(prediction.model.threshold, 1)
        st.markdown(f":small[:orange[Below the confidence threshold of {threshold}.]]")


def _show_explanation(prediction: Prediction) -> None:
    """Draw the saliency map, and name the model."""
    with st.popover("Why?"):
        st.image(_saliency_image(prediction), width=280, output_format="PNG")
        st.caption(
            f"Saliency (gradient times input): blue pixels support {prediction.top()[0][1]}, "
            "orange ones oppose it."
        )
    st.caption(f"Model: {prediction.model_name}, trained on {prediction.model.dataset_name}.")


def _saliency_image(prediction: Prediction) -> NDArray[np.uint8]:
    """Return the pixels in gray, tinted by their saliency."""
    pixels = prediction.preprocessed.pixels
    saliency = saliency_map(prediction.model, pixels, prediction.label)
    strength = np.abs(saliency) / max(float(np.percentile(np.abs(saliency), 99)), 1e-9)
    strength = np.sqrt(strength.clip(0, 1))[..., None]
    tint = np.where(saliency[..., None] > 0, (60, 140, 255), (255, 140, 30))
    mixed = 0.75 * pixels[..., None] * (1 - strength) + tint * strength
    return np.kron(mixed.astype(np.uint8), np.ones((10, 10, 1), np.uint8))


def predictions_csv(results: list[tuple[str, Prediction | str]]) -> str:
    """Return a table of (file name, prediction or error)."""
    out = io.StringIO()
    table = csv.DictWriter(out, CSV_COLUMNS, restval="")
    table.writeheader()
    for name, result in results:
        row: dict[str, object] = {"file": name}
        if name[:1] in "=+-@":  # a spreadsheet would run it
            row["file"] = "'" + name
        if isinstance(result, str):
            row["error"] = result
        else:
            (_, first, p), (_, second, _), (_, third, _) = result.top()
            row.update(prediction=first, probability=f"{p:.4f}", confident=result.is_confident)
            row.update(second=second, third=third, model=result.model_name)
            row["segmentation"] = result.preprocessed.method
        table.writerow(row)
    return out.getvalue()


def _escape_markdown(name: str) -> str:
    """Escape a file name, so that none of it is markup."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-!|~:$" else c for c in name)

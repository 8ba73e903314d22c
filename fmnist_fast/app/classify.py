"""The page Classify: images in; predictions and the steps of the preprocessing out."""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from fmnist_fast.errors import ArgumentError, ModelFileError, UserError
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.load import load_model
from fmnist_fast.models.model import Model
from fmnist_fast.vision.image_io import read_picture
from fmnist_fast.vision.preprocessing import edit_picture
from fmnist_fast.vision.recognizer import Prediction, Recognizer, saliency_map
from fmnist_fast.vision.segmentation import METHODS, best_method

from .samples import SAMPLES, draw_sample
from .session import trained_models

__all__ = ["predictions_csv", "show"]

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

# Background of a segmented garment: white and black clothes stand out on it, in both themes.
BACKGROUND = np.array((198, 202, 204), np.uint8)


class UploadedImage(NamedTuple):
    """An image file. key : identifies it on the page."""

    key: str
    name: str
    content: bytes


class EditOptions(NamedTuple):
    """Corrections below an image. quarter_turns : to the left. crop : left, top, right and bottom,
    as fractions. segmentation : method. invert : whether to exchange dark and light.
    """

    quarter_turns: int = 0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    segmentation: str = "auto"
    invert: bool = False


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
        source = _source()
        model_box = st.popover("Model", help="Model that predicts")
    images = list(_images(source))
    recognizer = _recognizer(model_box)
    _evict_predictions({image.key for image in images})
    if not images and source == UPLOAD:
        _show_sample_buttons()
    if not recognizer or not images:
        return
    if len(images) > MAX_IMAGES:
        st.warning(f"The first {MAX_IMAGES} of {len(images)} images are shown.")
        images = images[:MAX_IMAGES]
    results = [(image.name, _show_image(recognizer, image)) for image in images]
    st.download_button(
        "Download the predictions as CSV",
        predictions_csv(results),
        "predictions.csv",
        "text/csv",
        key="csv",
    )


def _source() -> str:
    chosen: str = st.radio(
        "Image source",
        [UPLOAD, PASTE, CAMERA, SAMPLE],
        horizontal=True,
        label_visibility="collapsed",
        key="source",
        width="content",
    )
    return chosen


def _images(source: str) -> Iterator[UploadedImage]:
    """Draw the input widget of the source, and yield its images."""
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
            st.session_state["pasted_files"] = [(f.name, f.getvalue()) for f in pasted.files]
        for number, (name, content) in enumerate(st.session_state.get("pasted_files", [])):
            yield _uploaded_image(name, content, number)
    elif source == CAMERA:
        taken = st.camera_input("Hold one garment in front of a plain wall", key="camera")
        files = [taken] if taken else []
    else:
        chosen = st.pills(
            "Drawn by this project", list(SAMPLES), default=next(iter(SAMPLES)), key="sample"
        )
        if chosen:
            yield _uploaded_image(str(chosen), _sample(str(chosen)), 0)
    for number, file in enumerate(files or []):
        yield _uploaded_image(file.name, file.getvalue(), number)


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
                    on_click=_open_sample,
                    args=(name,),
                )


def _open_sample(name: str) -> None:
    st.session_state["source"], st.session_state["sample"] = SAMPLE, name


def _uploaded_image(name: str, content: bytes, number: int) -> UploadedImage:
    return UploadedImage(f"{number}-{sha256(content).hexdigest()[:16]}", name, content)


@st.cache_data(show_spinner=False)
def _sample(name: str) -> bytes:
    return draw_sample(name)


def _recognizer(container: Any) -> Recognizer | None:
    """Return that of the selected model; None, with a message shown, if it cannot be used."""
    trained = trained_models()
    model_path = os.environ.get("FMNIST_FAST_MODEL")
    local = Path(model_path or DEFAULT_MODEL)
    choices = [PRETRAINED, *reversed(trained), *([local.name] if local.is_file() else [])]
    if model_path and not local.is_file():
        st.error(f"model file {local} does not exist: train one with 'fmnist-fast train'")
    choices.append(OWN_FILE)
    default = choices.index(local.name) if model_path and local.is_file() else 0
    with container:
        chosen = st.selectbox("Model", choices, default, key="model")
        uploaded = None
        if chosen == OWN_FILE:
            uploaded = st.file_uploader("A .safetensors file", ["safetensors"], key="model_file")
    if chosen == PRETRAINED:
        return _pretrained_recognizer()
    try:
        if chosen in trained:
            return _session_recognizer(chosen, lambda: Recognizer(trained[chosen], chosen))
        if chosen != OWN_FILE:
            return _session_recognizer(
                (str(local), local.stat().st_mtime_ns), lambda: Recognizer(local, threads=1)
            )
        if uploaded is None:
            st.info("Choose a model file written by 'fmnist-fast train'.")
            return None
        content, name = uploaded.getvalue(), uploaded.name
        return _session_recognizer(
            uploaded.file_id, lambda: Recognizer(_load_uploaded(content), name)
        )
    except UserError as error:
        st.error(str(error))
        return None


def _session_recognizer(key: object, make: Callable[[], Recognizer]) -> Recognizer:
    """Return the recognizer of this session, made anew when the key changes: predictions are cached
    for one recognizer.
    """
    cached: tuple[object, Recognizer] | None = st.session_state.get("recognizer")
    if cached is None or cached[0] != key:
        cached = key, make()
        st.session_state["recognizer"] = cached
    return cached[1]


@st.cache_resource(show_spinner=False)
def _pretrained_recognizer() -> Recognizer:
    return Recognizer(threads=1)


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
        options = _edit_options(image.key)
        try:
            prediction = _predict(recognizer, image, options)
        except UserError as error:
            st.error(f"{image.name}: {error}")
            _show_edit_controls(image.key, options)
            return str(error)
        left, right = st.columns([5, 3], gap="medium")
        with left:
            _show_stages(prediction)
        with right:
            _show_probabilities(prediction)
        with st.container(horizontal=True, vertical_alignment="center"):
            _show_explanation(prediction)
        _show_edit_controls(image.key, options)
        return prediction


def _predict(recognizer: Recognizer, image: UploadedImage, options: EditOptions) -> Prediction:
    """Predict, or return the cached prediction of this session."""
    cache: dict[str, Any] = st.session_state.setdefault("predictions", {})
    cached = cache.get(image.key)
    if cached and cached[0] == options and cached[1] is recognizer:
        prediction: Prediction = cached[2]
        return prediction
    if len(image.content) > MAX_BYTES:
        raise ArgumentError("larger than 10 MB: make it smaller")
    picture = read_picture(io.BytesIO(image.content), max_side=512, accepted=recognizer.size)
    if options[:2] != EditOptions()[:2]:
        picture = edit_picture(picture, options.quarter_turns, options.crop)
    prediction = recognizer.recognize(picture, options.segmentation, options.invert)
    cache[image.key] = options, recognizer, prediction
    return prediction


def _evict_predictions(keys: set[str]) -> None:
    """Remove the cached predictions of images that are no longer on the page."""
    cache: dict[str, Any] = st.session_state.get("predictions", {})
    for key in set(cache) - keys:
        del cache[key]


def _edit_options(key: str) -> EditOptions:
    """Return the values of the controls below an image, which are drawn after its prediction."""
    state: Any = st.session_state
    left, right = state.get(f"crop-x-{key}", (0, 100))
    top, bottom = state.get(f"crop-y-{key}", (0, 100))
    return EditOptions(
        quarter_turns=state.get(f"rotation-{key}", 0) // 90,
        crop=(left / 100, top / 100, right / 100, bottom / 100),
        segmentation=state.get(f"segmentation-{key}", "auto"),
        invert=state.get(f"invert-{key}", False),
    )


def _show_edit_controls(key: str, options: EditOptions) -> None:
    """Draw controls for a garment that was not found, or is rotated."""
    with st.expander("Edit", expanded=options != EditOptions()):
        left, right = st.columns(2)
        left.select_slider(
            "Rotate to the left",
            [0, 90, 180, 270],
            format_func="{} degrees".format,
            key=f"rotation-{key}",
        )
        methods = ["auto", *(m for m in METHODS if m != "grabcut" or best_method() == m)]
        right.selectbox(
            "Segmentation",
            methods,
            format_func=METHOD_LABELS.__getitem__,
            key=f"segmentation-{key}",
        )
        left.slider("Crop from left to right, %", 0, 100, (0, 100), key=f"crop-x-{key}")
        right.slider("Crop from top to bottom, %", 0, 100, (0, 100), key=f"crop-y-{key}")
        st.toggle("Invert brightness", key=f"invert-{key}")


def _show_stages(prediction: Prediction) -> None:
    stages = prediction.preprocessed
    height, width = stages.pixels.shape
    if stages.method == "as it is":
        network = _side_by_side([stages.pixels])
        st.image(
            network, caption="input of the network: the image without preprocessing", width=SIDE
        )
        return
    segmented = np.where(stages.mask[..., None], stages.rgb, BACKGROUND)
    tilt = f", rotated by {abs(stages.tilt):.0f} degrees" if stages.tilt else ""
    st.image(
        _side_by_side([_pad_to_square(stages.rgb), _pad_to_square(segmented), stages.pixels]),
        caption=f"original → {SEGMENTED_BY.get(stages.method, stages.method)}{tilt} → input of "
        f"the network, {width}x{height}",
        width="stretch",
        alt="The original, the segmented garment, and the input of the network",
    )
    for note in stages.notes:
        st.caption(f"Note: {note}.")
    if stages.method == "histogram" and best_method() == "histogram":
        st.caption("Segmented by colour alone: OpenCV, which segments better, is not installed.")


def _side_by_side(stages: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join squares into one image, with transparent gaps.

    Streamlit would stack columns on a phone, each as wide as the page.
    """
    out = Image.new("RGBA", (len(stages) * (SIDE + GAP) - GAP, SIDE))
    for number, pixels in enumerate(stages):
        small = len(pixels) < SIDE // 2  # pixels stay visible as squares
        resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        image = Image.fromarray(pixels).convert("RGBA").resize((SIDE, SIDE), resampling)
        out.paste(image, (number * (SIDE + GAP), 0))
    return np.asarray(out)


def _pad_to_square(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Center the image in a square."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    out = np.full((side, side, 3), BACKGROUND, np.uint8)
    out[top : top + height, left : left + width] = rgb
    return out


def _show_probabilities(prediction: Prediction) -> None:
    label = prediction.top(1)[0][1]
    low_confidence = prediction.is_confident is False
    st.subheader(f"Low confidence: {label}?" if low_confidence else label, anchor=False)
    for _, name, probability in prediction.top():
        st.progress(min(probability, 1.0), f"{name}: {100 * probability:.1f} %")
    if low_confidence and prediction.model.threshold is not None:
        threshold = f"{100 * prediction.model.threshold:.1f} %"
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
        safe = "'" + name if name[:1] in "=+-@" else name  # a spreadsheet would run it
        if isinstance(result, str):
            table.writerow({"file": safe, "error": result})
            continue
        (_, first, p), (_, second, _), (_, third, _) = result.top()
        table.writerow(
            {
                "file": safe,
                "prediction": first,
                "probability": f"{p:.4f}",
                "confident": result.is_confident,
                "second": second,
                "third": third,
                "model": result.model_name,
                "segmentation": result.preprocessed.method,
            }
        )
    return out.getvalue()


def _escape_markdown(name: str) -> str:
    """Escape a file name, so that none of it is markup."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-!|~:$" else c for c in name)

"""The first page: pictures in; out come what is on them, and how the machine saw it."""

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
from fmnist_fast.vision.image_io import Picture, read_picture
from fmnist_fast.vision.preprocessing import edit_picture
from fmnist_fast.vision.recognizer import Prediction, Recognizer, grad_times_input
from fmnist_fast.vision.segmentation import METHODS, best_method

from .samples import SAMPLES, draw_sample
from .session import trained_models

__all__ = ["show"]

DEFAULT_MODEL = "model.safetensors"

# Bytes of one upload; Streamlit refuses more too, and this holds wherever a picture comes from.
MOST_BYTES = 10_000_000

# Pictures that are shown at once: an answer takes 0.2 s, and a page has an end.
MOST_PICTURES = 20

TYPES = ["png", "jpg", "jpeg", "webp", "bmp", "gif"]

UPLOAD, PASTE, CAMERA, SAMPLE = "Upload", "Paste", "Camera", "Samples"

IN_THE_BOX, OWN_FILE = "the two in the box", "a file of yours"

# Pixels of a stage, each way, and between two; a multiple of 28, so that its pixels stay alike.
SIDE, GAP = 224, 16

# Width of a sample to choose, in pixels of the page: three fit beside each other on a telephone.
SAMPLE_WIDTH = 108

CUTOUTS = {
    "auto": "automatic",
    "grabcut": "GrabCut",
    "histogram": "by colour",
    "none": "none: all of it is the garment",
}

# What the middle one of the stages shows, by how the garment was found.
FOUND = {
    "grabcut": "cut out by GrabCut",
    "histogram": "cut out by colour",
    "transparency": "cut out already",
    "none": "all of it",
}

# Behind what is cut out: white clothes and black ones are seen on it, in both themes.
BEHIND = np.array((198, 202, 204), np.uint8)


class Given(NamedTuple):
    """A picture as it came. key : tells it apart from the others on the page."""

    key: str
    name: str
    content: bytes


class Wish(NamedTuple):
    """What somebody did to help: quarter turns to the left, shares cut off, how to cut out."""

    turns: int = 0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    segmentation: str = "auto"
    invert: bool = False


def show() -> None:
    """Draw the page."""
    st.title("Which garment is it?")
    st.caption(
        "Give it a photograph of one piece of clothing, on any background. A grayscale image of "
        "28x28 pixels, bright on black, is taken as it is."
    )
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        source = _source()
        model = st.popover("Model", help="Which model answers")
    given = list(_given(source))
    recogniser = _recogniser(model)
    _forget({one.key for one in given})
    if not given and source == UPLOAD:
        _invite()
    if not recogniser or not given:
        return
    if len(given) > MOST_PICTURES:
        st.warning(f"The first {MOST_PICTURES} of {len(given)} pictures are shown.")
        given = given[:MOST_PICTURES]
    answered = [(one.name, _show_one(recogniser, one)) for one in given]
    st.download_button(
        "Download the answers as CSV", _as_csv(answered), "answers.csv", "text/csv", key="csv"
    )


def _source() -> str:
    chosen: str = st.radio(
        "Where the picture comes from",
        [UPLOAD, PASTE, CAMERA, SAMPLE],
        horizontal=True,
        label_visibility="collapsed",
        key="source",
        width="content",
    )
    return chosen


def _given(source: str) -> Iterator[Given]:
    """The pictures that are to be looked at."""
    files: list[Any] = []
    if source == UPLOAD:
        files = st.file_uploader(
            "Pictures, up to 10 MB each", TYPES, accept_multiple_files=True, key="uploads"
        )
    elif source == PASTE:
        # In a container, or it would stick to the lower end of the window.
        pasted: Any = st.container().chat_input(
            "Paste a picture, then press Enter",
            accept_file="multiple",
            file_type=TYPES,
            key="pasted",
        )
        if pasted:
            st.session_state["pasted_files"] = [(f.name, f.getvalue()) for f in pasted.files]
        for number, (name, content) in enumerate(st.session_state.get("pasted_files", [])):
            yield _as_given(name, content, number)
    elif source == CAMERA:
        taken = st.camera_input("Hold one garment before a plain wall", key="camera")
        files = [taken] if taken else []
    else:
        chosen = st.pills(
            "Drawn by this project", list(SAMPLES), default=next(iter(SAMPLES)), key="sample"
        )
        if chosen:
            yield _as_given(str(chosen), _sample(str(chosen)), 0)
    for number, file in enumerate(files or []):
        yield _as_given(file.name, file.getvalue(), number)


def _invite() -> None:
    """What somebody may do who has no picture at hand."""
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


def _as_given(name: str, content: bytes, number: int) -> Given:
    return Given(f"{number}-{sha256(content).hexdigest()[:16]}", name, content)


@st.cache_data(show_spinner=False)
def _sample(name: str) -> bytes:
    return draw_sample(name)


def _recogniser(place: Any) -> Recognizer | None:
    """By the model that is chosen in that place; None, with a message, if it cannot be used."""
    trained = trained_models()
    named = os.environ.get("FMNIST_FAST_MODEL")
    local = Path(named or DEFAULT_MODEL)
    choices = [IN_THE_BOX, *reversed(trained), *([local.name] if local.is_file() else [])]
    if named and not local.is_file():
        st.error(f"there is no model file {local}: train one with 'fmnist-fast train'")
    choices.append(OWN_FILE)
    default = choices.index(local.name) if named and local.is_file() else 0
    with place:
        chosen = st.selectbox("Answers are given by", choices, default, key="model")
        uploaded = None
        if chosen == OWN_FILE:
            uploaded = st.file_uploader("A .safetensors file", ["safetensors"], key="model_file")
    if chosen == IN_THE_BOX:
        return _in_the_box()
    try:
        if chosen in trained:
            return _kept(chosen, lambda: Recognizer(trained[chosen], chosen))
        if chosen != OWN_FILE:
            return _kept(
                (str(local), local.stat().st_mtime_ns), lambda: Recognizer(local, threads=1)
            )
        if uploaded is None:
            st.info("Choose a model file, one that 'fmnist-fast train' wrote.")
            return None
        content, name = uploaded.getvalue(), uploaded.name
        return _kept(uploaded.file_id, lambda: Recognizer(_model_of(content), name))
    except UserError as error:
        st.error(str(error))
        return None


def _kept(key: object, make: Callable[[], Recognizer]) -> Recognizer:
    """This session's, until another is chosen: answers are remembered as long as it is the same."""
    kept: tuple[object, Recognizer] | None = st.session_state.get("recogniser")
    if kept is None or kept[0] != key:
        kept = key, make()
        st.session_state["recogniser"] = kept
    return kept[1]


@st.cache_resource(show_spinner=False)
def _in_the_box() -> Recognizer:
    return Recognizer(threads=1)


def _model_of(content: bytes) -> Model | Ensemble:
    """What was uploaded, checked as every model file is. Raises: ModelFileError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        try:
            return load_model(path, threads=1)
        except ModelFileError as error:
            raise ModelFileError(str(error).replace(str(path), "the file")) from error


def _show_one(recogniser: Recognizer, given: Given) -> Prediction | str:
    """A picture, its stages and its answer; or the message why there is none."""
    with st.container(border=True):
        st.markdown(f"**{_plain(given.name)}**")
        wish = _wish(given.key)
        try:
            answer = _answer(recogniser, given, wish)
        except UserError as error:
            st.error(f"{given.name}: {error}")
            _helpers(given.key, wish)
            return str(error)
        seen, said = st.columns([5, 3], gap="medium")
        with seen:
            _show_stages(answer)
        with said:
            _show_answer(answer)
        with st.container(horizontal=True, vertical_alignment="center"):
            _explain(answer)
        _helpers(given.key, wish)
        return answer


def _answer(recogniser: Recognizer, given: Given, wish: Wish) -> Prediction:
    """From this session's memory if the same was asked before; other sessions never see it."""
    answers: dict[str, Any] = st.session_state.setdefault("answers", {})
    before = answers.get(given.key)
    if before and before[0] == wish and before[1] is recogniser:
        answer: Prediction = before[2]
        return answer
    if len(given.content) > MOST_BYTES:
        raise ArgumentError("it has more than 10 MB: make it smaller")
    picture = read_picture(io.BytesIO(given.content), max_side=512, accepted=recogniser.size)
    answer = recogniser.recognize(_helped(picture, wish), wish.segmentation, wish.invert)
    answers[given.key] = wish, recogniser, answer
    return answer


def _forget(kept: set[str]) -> None:
    """Everything about pictures that are no longer on the page."""
    answers: dict[str, Any] = st.session_state.get("answers", {})
    for key in set(answers) - kept:
        del answers[key]


def _helped(picture: Picture, wish: Wish) -> Picture:
    return picture if wish[:2] == Wish()[:2] else edit_picture(picture, wish.turns, wish.crop)


def _wish(key: str) -> Wish:
    """What the controls below a picture say; they are drawn after the answer."""
    state: Any = st.session_state
    left, right = state.get(f"across-{key}", (0, 100))
    top, bottom = state.get(f"down-{key}", (0, 100))
    return Wish(
        state.get(f"turns-{key}", 0) // 90,
        (left / 100, top / 100, right / 100, bottom / 100),
        state.get(f"segmentation-{key}", "auto"),
        state.get(f"invert-{key}", False),
    )


def _helpers(key: str, wish: Wish) -> None:
    """Controls for when the garment was not found, or lies on its side."""
    with st.expander("Help it", expanded=wish != Wish()):
        one, two = st.columns(2)
        one.select_slider(
            "Turn to the left",
            [0, 90, 180, 270],
            format_func="{} degrees".format,
            key=f"turns-{key}",
        )
        methods = ["auto", *(m for m in METHODS if m != "grabcut" or best_method() == m)]
        two.selectbox(
            "Cut-out", methods, format_func=CUTOUTS.__getitem__, key=f"segmentation-{key}"
        )
        one.slider("Crop from left to right, %", 0, 100, (0, 100), key=f"across-{key}")
        two.slider("Crop from top to bottom, %", 0, 100, (0, 100), key=f"down-{key}")
        st.toggle("Exchange dark and light", key=f"invert-{key}")


def _show_stages(answer: Prediction) -> None:
    stages = answer.preprocessed
    height, width = stages.pixels.shape
    if stages.method == "as it is":
        network = _side_by_side([stages.pixels])
        st.image(network, caption="what the network sees: the image as it is", width=SIDE)
        return
    cut = np.where(stages.mask[..., None], stages.rgb, BEHIND)
    tilt = f", turned by {abs(stages.tilt):.0f} degrees" if stages.tilt else ""
    st.image(
        _side_by_side([_squared(stages.rgb), _squared(cut), stages.pixels]),
        caption=f"the picture → {FOUND.get(stages.method, stages.method)}{tilt} → what the "
        f"network sees, {width}x{height}",
        width="stretch",
        alt="The picture, the garment cut out of it, and what the network sees",
    )
    for note in stages.notes:
        st.caption(f"Note: {note}.")
    if stages.method == "histogram" and best_method() == "histogram":
        st.caption("Cut out by colour alone; OpenCV, which does it better, is not installed.")


def _side_by_side(stages: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Squares as one picture; what is between them is transparent.

    Columns of a page would lie below each other on a telephone, each as wide as the page.
    """
    out = Image.new("RGBA", (len(stages) * (SIDE + GAP) - GAP, SIDE))
    for number, pixels in enumerate(stages):
        few = len(pixels) < SIDE // 2  # then each is seen as a square
        how = Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS
        image = Image.fromarray(pixels).convert("RGBA").resize((SIDE, SIDE), how)
        out.paste(image, (number * (SIDE + GAP), 0))
    return np.asarray(out)


def _squared(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """In the middle of a square."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    out = np.full((side, side, 3), BEHIND, np.uint8)
    out[top : top + height, left : left + width] = rgb
    return out


def _show_answer(answer: Prediction) -> None:
    best, *_ = answer.top()
    if answer.is_confident is False:
        st.subheader(f"Not sure. {best[1]}?", anchor=False)
    else:
        st.subheader(best[1], anchor=False)
    for _, name, probability in answer.top():
        st.progress(min(probability, 1.0), f"{name}: {100 * probability:.1f} %")
    if answer.is_confident is False and answer.model.threshold is not None:
        least = 100 * answer.model.threshold
        st.markdown(f":small[:orange[Below {least:.1f} % it is wrong too often to be relied on.]]")


def _explain(answer: Prediction) -> None:
    """Who answered, and why so."""
    with st.popover("Why?"):
        st.image(_overlaid(answer), width=280, output_format="PNG")
        st.caption(
            f"Blue pixels spoke for {answer.top()[0][1]}, orange ones against it: gradient times "
            "input."
        )
    st.caption(f"Answered by {answer.model_name}, trained on {answer.model.dataset_name}.")


def _overlaid(answer: Prediction) -> NDArray[np.uint8]:
    """The pixels in gray, tinted by what they said about the answer."""
    pixels = answer.preprocessed.pixels
    said = grad_times_input(answer.model, pixels, answer.label)
    strength = np.abs(said) / max(float(np.percentile(np.abs(said), 99)), 1e-9)
    strength = np.sqrt(strength.clip(0, 1))[..., None]
    tint = np.where(said[..., None] > 0, (60, 140, 255), (255, 140, 30))
    mixed = 0.75 * pixels[..., None] * (1 - strength) + tint * strength
    return np.kron(mixed.astype(np.uint8), np.ones((10, 10, 1), np.uint8))


def _as_csv(answered: list[tuple[str, Prediction | str]]) -> str:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(
        [
            "file",
            "answer",
            "probability",
            "confident",
            "second",
            "third",
            "model",
            "cut-out",
            "error",
        ]
    )
    for name, answer in answered:
        safe = "'" + name if name[:1] in "=+-@" else name  # a spreadsheet would run it
        if isinstance(answer, str):
            table.writerow([safe, *[""] * 7, answer])
            continue
        (_, first, p), (_, second, _), (_, third, _) = answer.top()
        chosen = [first, f"{p:.4f}", answer.is_confident, second, third]
        table.writerow([safe, *chosen, answer.model_name, answer.preprocessed.method, ""])
    return out.getvalue()


def _plain(name: str) -> str:
    """A file's name, of which nothing is markup."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-!|~:$" else c for c in name)

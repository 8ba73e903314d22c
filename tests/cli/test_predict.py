"""The command `predict`, and what it is made of: from picture files to answers."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_fast import load_model, train
from fmnist_fast.app.samples import SAMPLES, draw_sample
from fmnist_fast.cli import predict as command
from fmnist_fast.cli.main import main
from fmnist_fast.errors import DataError
from fmnist_fast.models.load import PRETRAINED, PRETRAINED_PHOTOS
from fmnist_fast.vision.image_io import read_picture
from fmnist_fast.vision.recognizer import Recognizer, saliency_map

PHOTOS = Path(os.environ.get("FMNIST_FAST_DATA", "/nowhere")).resolve().parent / "photos"


@pytest.fixture
def samples(tmp_path):
    """Drawn photographs as files, in a folder of folders."""
    paths = {}
    for number, name in enumerate(SAMPLES):
        folder = tmp_path / "photos" / str(number)
        folder.mkdir(parents=True)
        paths[name] = folder / "a picture.png"
        paths[name].write_bytes(draw_sample(name))
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return paths


def picture(content: bytes):
    return read_picture(io.BytesIO(content))


def asked(capsys, *arguments):
    code = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_photographs_get_the_model_for_them_and_28x28_the_other(samples, tmp_path, capsys):
    gray = tmp_path / "gray.png"
    Image.fromarray(np.tri(28, dtype=np.uint8) * 99).save(gray)
    shirt = samples["T-shirt on boards"]
    code, out, _ = asked(capsys, "--json", shirt, gray)
    assert code == 0
    photograph, plain = json.loads(out)
    assert (photograph["model"], plain["model"]) == (PRETRAINED_PHOTOS.name, PRETRAINED.name)
    assert photograph["name"] == "T-shirt/top"
    assert photograph["segmentation"] in ("grabcut", "histogram")
    assert plain["segmentation"] == "as it is"


def test_a_folder_is_all_pictures_in_it(samples, tmp_path, capsys):
    code, out, _ = asked(capsys, "--json", "--segmentation", "histogram", tmp_path / "photos")
    answers = json.loads(out)
    assert code == 0
    assert [answer["path"] for answer in answers] == sorted(map(str, samples.values()))
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    code, out, _ = asked(capsys, "--json", "--segmentation", "histogram", tmp_path / "photos")
    (error,) = (answer for answer in json.loads(out) if "error" in answer)
    assert (code, Path(error["path"]).name) == (1, "gone.png")
    (tmp_path / "empty").mkdir()
    code, _, err = asked(capsys, tmp_path / "empty")
    assert code == 2
    assert "is a folder without images" in err


def test_one_that_cannot_be_read_costs_its_own_answer_only(samples, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing")
    shirt = samples["T-shirt on boards"]
    code, out, _ = asked(capsys, "--json", bad, shirt, tmp_path / "none.png")
    assert code == 1
    first, second, third = json.loads(out)
    assert first == {"path": str(bad), "error": "not an image, or a damaged one"}
    assert second["name"] == "T-shirt/top"
    assert third["error"] == "No such file or directory"
    code, out, err = asked(capsys, bad, shirt)
    assert code == 1
    assert err == f"{bad}: not an image, or a damaged one\n"
    assert out.startswith(f"{shirt}: ")


@pytest.mark.parametrize(
    ("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")]
)
def test_what_telephones_make_is_named(brand, kind, tmp_path, capsys):
    content = b"\0\0\0\x18ftyp" + brand + bytes(16)
    (tmp_path / "a.heic").write_bytes(content)
    code, out, _ = asked(capsys, "--json", tmp_path)
    assert code == 1
    assert json.loads(out)[0]["error"] == f"{kind} images cannot be read: save it as JPEG or PNG"
    with pytest.raises(DataError, match=f"{kind} images cannot be read"):
        picture(content)


def test_answers_that_nobody_can_read_are_not_made(samples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["predict", str(samples["T-shirt on boards"])]) == 2


@pytest.mark.parametrize(
    ("model", "said"), [("", "is a folder: give"), ("/dev/null", "is not a file: give")]
)
def test_what_is_no_model_file_is_said(model, said, samples, capsys):
    code, _, err = asked(capsys, "--model", model, samples["T-shirt on boards"])
    assert code == 2
    assert said in err


@pytest.mark.parametrize("level", [0, 99, 255])
def test_a_28x28_image_of_one_gray_is_nothing(level, tmp_path, capsys):
    Image.fromarray(np.full((28, 28), level, np.uint8)).save(tmp_path / "flat.png")
    code, out, _ = asked(capsys, "--json", tmp_path / "flat.png")
    assert code == 1
    assert json.loads(out)[0]["error"].startswith("the image is all of one colour")


def test_an_interrupted_list_of_answers_is_still_json(samples, monkeypatch, capsys):
    def first_then_stop(*_):
        yield {"path": "a", "label": 0}
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "predict_files", first_then_stop)
    code, out, _ = asked(capsys, "--json", "a", "b")
    assert code == 130
    assert json.loads(out) == [{"path": "a", "label": 0}]


def test_names_that_no_file_can_have_cost_their_own_answer_only(samples, capsys):
    shirt = samples["T-shirt on boards"]
    code, out, _ = asked(capsys, "--json", "a" * 300 + ".jpg", "", shirt)
    first, second, third = json.loads(out)
    assert code == 1
    assert "error" in first
    assert "error" in second
    assert third["name"] == "T-shirt/top"


def test_names_stay_on_one_line_and_leave_the_terminal_alone(capsys):
    code, _, err = asked(capsys, "new\nline\x1b[2J.png")
    assert code == 1
    assert err == "new\\nline\\x1b[2J.png: No such file or directory\n"


def test_without_opencv_it_says_that_the_cut_out_is_the_plain_one(samples, capsys, monkeypatch):
    monkeypatch.setattr("fmnist_fast.vision.segmentation._has_opencv", lambda: False)
    shirt = samples["T-shirt on boards"]
    code, out, err = asked(capsys, "--json", shirt, shirt)
    assert code == 0
    assert {answer["segmentation"] for answer in json.loads(out)} == {"histogram"}
    assert err.count("OpenCV is not installed") == 1
    _, _, err = asked(capsys, "--segmentation", "histogram", shirt)
    assert err == ""


def test_a_model_of_ones_own_answers_everything(small_dataset, samples, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    train(small_dataset, epochs=1, hidden=(8,), threads=1).model.save(path)
    code, out, _ = asked(capsys, "--json", "--model", path, samples["T-shirt on boards"])
    (answer,) = json.loads(out)
    assert (code, answer["model"]) == (0, "own.safetensors")
    assert answer["name"].startswith("class ")


def test_inverting_a_gray_image_undoes_the_negative(small_dataset, tmp_path, capsys):
    for name, pixels in (("a", small_dataset.x_test[0]), ("b", 255 - small_dataset.x_test[0])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    _, plain, _ = asked(capsys, "--json", tmp_path / "a.png")
    _, inverted, _ = asked(capsys, "--json", "--invert", tmp_path / "b.png")
    assert json.loads(plain)[0]["top"] == json.loads(inverted)[0]["top"]


def test_few_pictures_are_held_at_a_time(samples, monkeypatch):
    """However many files there are: answers leave before the next files are read."""
    read = []

    def predict_file(recognizer, path, segmentation, invert):
        read.append(path)
        return {"path": path}

    monkeypatch.setattr(command, "predict_file", predict_file)
    paths = [str(number) for number in range(1000)]
    for number, found in enumerate(command.predict_files(Recognizer(), paths, "auto", False, 2)):
        assert found["path"] == str(number)
        assert len(read) <= number + 2 + command.QUEUED_PER_THREAD * 2


def test_a_closed_pipe_ends_it(samples, tmp_path):
    command = [sys.executable, "-m", "fmnist_fast", "predict", str(tmp_path / "photos")]
    line = f"{shlex.join(command)} | head -1"
    ran = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert "Traceback" not in ran.stderr


def test_real_images_saved_and_read_back_are_answered_as_they_were(real_dataset, tmp_path):
    """Ten thousand of them, by the path that photographs take too."""
    recogniser = Recognizer(threads=1)
    labels = []
    for pixels in real_dataset.x_test:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", compress_level=1)
        content.seek(0)
        labels.append(recogniser.recognize(read_picture(content)).label)
    plain = load_model().predict(real_dataset.x_test)
    accuracy = {
        name: (found == real_dataset.y_test).mean()
        for name, found in (("plain", plain), ("read back", np.array(labels)))
    }
    assert accuracy["read back"] >= accuracy["plain"] - 0.003


def test_models_that_take_no_images_are_refused(small_dataset):
    from dataclasses import replace

    table = replace(
        small_dataset,
        x_train=small_dataset.x_train.reshape(-1, 784),
        x_test=small_dataset.x_test.reshape(-1, 784),
    )
    model = train(table, epochs=1, hidden=(4,), threads=1).model
    with pytest.raises(DataError, match="not images"):
        Recognizer(model)


def test_evidence_adds_up_to_the_logit(small_dataset):
    """ReLU is linear where it is not 0: without biases the sum is the logit itself."""
    from dataclasses import replace

    from fmnist_fast.kernels.interface import Params

    model = load_model()
    weights, biases = model.network.params
    no_bias = Params(weights, tuple(np.zeros_like(b) for b in biases))
    bare = replace(model, network=replace(model.network, params=no_bias))
    pixels = small_dataset.x_test[3]
    h = pixels.reshape(-1) / 255
    for w_io in weights[:-1]:
        h = np.maximum(h @ w_io, 0)
    for label in (0, 7):
        found = saliency_map(bare, pixels, label)
        assert found.shape == (28, 28)
        assert found.sum() == pytest.approx(float(h @ weights[-1][:, label]), rel=1e-4)
        assert not found[pixels == 0].any()


def test_the_model_for_photographs_was_trained_by_its_preset(real_dataset):
    from fmnist_fast.training.config import TrainingConfig
    from fmnist_fast.training.presets import PRESETS
    from fmnist_fast.training.train_data import resolve_config

    assert PRETRAINED_PHOTOS.stat().st_size < 500_000
    training = dict(load_model(PRETRAINED_PHOTOS).training)
    assert training.pop("backend") == "cython"
    training.pop("instruction_set")
    config = TrainingConfig.from_dict(training)
    assert config.difference(resolve_config(PRESETS["photos"], real_dataset)) is None


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="there are no photographs beside the data set")
@pytest.mark.parametrize("segmentation", ["auto", "histogram"])
def test_photographs_are_recognised_as_often_as_they_must_be(segmentation, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import photo_table

    photos = photo_table.recognize_all(PHOTOS, None, segmentation)
    metrics = photo_table.PhotoMetrics.from_photos(photos)
    if segmentation == "auto":
        assert metrics.meets_limits(), metrics
    assert metrics.accuracy >= photo_table.MIN_ACCURACY, metrics

"""The command `predict` with the pretrained models, and the recognizer behind it."""

import io
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_fast import load_model, train
from fmnist_fast.app.samples import SAMPLES, draw_sample
from fmnist_fast.cli import predict as command
from fmnist_fast.cli.main import main
from fmnist_fast.errors import DataError
from fmnist_fast.kernels.interface import Params
from fmnist_fast.models.load import PRETRAINED, PRETRAINED_PHOTOS
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.presets import PRESETS
from fmnist_fast.training.train_data import resolve_config
from fmnist_fast.vision.image_io import read_picture
from fmnist_fast.vision.recognizer import Recognizer, saliency_map

PHOTOS = Path(os.environ.get("FMNIST_FAST_DATA", "/nowhere")).resolve().parent / "photos"


@pytest.fixture
def samples(tmp_path):
    """Synthetic photographs as files, in a folder of folders."""
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


def predict(capsys, *arguments):
    code = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_predict_chooses_model_by_kind_of_image(samples, tmp_path, capsys):
    gray = tmp_path / "gray.png"
    Image.fromarray(np.tri(28, dtype=np.uint8) * 99).save(gray)
    shirt = samples["T-shirt on boards"]
    code, out, _ = predict(capsys, "--json", shirt, gray)
    assert code == 0
    photograph, plain = json.loads(out)
    assert (photograph["model"], plain["model"]) == (PRETRAINED_PHOTOS.name, PRETRAINED.name)
    assert photograph["name"] == "T-shirt/top"
    assert photograph["segmentation"] in ("grabcut", "histogram")
    assert plain["segmentation"] == "as it is"


def test_predict_folder_takes_all_images_in_it(samples, tmp_path, capsys):
    code, out, _ = predict(capsys, "--json", "--segmentation", "histogram", tmp_path / "photos")
    results = json.loads(out)
    assert code == 0
    assert [entry["path"] for entry in results] == sorted(map(str, samples.values()))
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    code, out, _ = predict(capsys, "--json", "--segmentation", "histogram", tmp_path / "photos")
    (error,) = (entry for entry in json.loads(out) if "error" in entry)
    assert (code, Path(error["path"]).name) == (1, "gone.png")
    (tmp_path / "empty").mkdir()
    code, _, err = predict(capsys, tmp_path / "empty")
    assert code == 2
    assert "is a folder without images" in err


def test_predict_unreadable_file_affects_no_other(samples, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing")
    shirt = samples["T-shirt on boards"]
    code, out, _ = predict(capsys, "--json", bad, shirt, tmp_path / "none.png")
    assert code == 1
    first, second, third = json.loads(out)
    assert first == {"path": str(bad), "error": "not an image, or a damaged one"}
    assert second["name"] == "T-shirt/top"
    assert third["error"] == "No such file or directory"
    code, out, err = predict(capsys, bad, shirt)
    assert code == 1
    assert err == f"{bad}: not an image, or a damaged one\n"
    assert out.startswith(f"{shirt}: ")


@pytest.mark.parametrize(
    ("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")]
)
def test_predict_names_unsupported_image_formats(brand, kind, tmp_path, capsys):
    content = b"\0\0\0\x18ftyp" + brand + bytes(16)
    (tmp_path / "a.heic").write_bytes(content)
    code, out, _ = predict(capsys, "--json", tmp_path)
    assert code == 1
    assert json.loads(out)[0]["error"] == f"{kind} images cannot be read: save it as JPEG or PNG"
    with pytest.raises(DataError, match=f"{kind} images cannot be read"):
        picture(content)


def test_predict_rejects_closed_stdout(samples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["predict", str(samples["T-shirt on boards"])]) == 2


@pytest.mark.parametrize(
    ("model", "part"), [("", "is a folder: give"), ("/dev/null", "is not a file: give")]
)
def test_predict_rejects_path_without_model(model, part, samples, capsys):
    code, _, err = predict(capsys, "--model", model, samples["T-shirt on boards"])
    assert code == 2
    assert part in err


@pytest.mark.parametrize("level", [0, 99, 255])
def test_predict_rejects_28x28_image_of_one_gray(level, tmp_path, capsys):
    Image.fromarray(np.full((28, 28), level, np.uint8)).save(tmp_path / "flat.png")
    code, out, _ = predict(capsys, "--json", tmp_path / "flat.png")
    assert code == 1
    assert json.loads(out)[0]["error"].startswith("the image is all of one colour")


def test_predict_interrupted_json_is_valid(samples, monkeypatch, capsys):
    def first_then_stop(*_):
        yield {"path": "a", "label": 0}
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "predict_files", first_then_stop)
    code, out, _ = predict(capsys, "--json", "a", "b")
    assert code == 130
    assert json.loads(out) == [{"path": "a", "label": 0}]


def test_predict_invalid_file_name_affects_no_other(samples, capsys):
    shirt = samples["T-shirt on boards"]
    code, out, _ = predict(capsys, "--json", "a" * 300 + ".jpg", "", shirt)
    first, second, third = json.loads(out)
    assert code == 1
    assert "error" in first
    assert "error" in second
    assert third["name"] == "T-shirt/top"


def test_predict_escapes_control_characters_in_names(capsys):
    code, _, err = predict(capsys, "new\nline\x1b[2J.png")
    assert code == 1
    assert err == "new\\nline\\x1b[2J.png: No such file or directory\n"


def test_predict_without_opencv_warns_once(samples, capsys, monkeypatch):
    monkeypatch.setattr("fmnist_fast.vision.segmentation.has_opencv", lambda: False)
    shirt = samples["T-shirt on boards"]
    code, out, err = predict(capsys, "--json", shirt, shirt)
    assert code == 0
    assert {entry["segmentation"] for entry in json.loads(out)} == {"histogram"}
    assert err.count("OpenCV is not installed") == 1
    _, _, err = predict(capsys, "--segmentation", "histogram", shirt)
    assert err == ""


def test_predict_own_model_takes_all_images(small_dataset, samples, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    train(small_dataset, epochs=1, hidden=(8,), threads=1).model.save(path)
    code, out, _ = predict(capsys, "--json", "--model", path, samples["T-shirt on boards"])
    (result,) = json.loads(out)
    assert (code, result["model"]) == (0, "own.safetensors")
    assert result["name"].startswith("class ")


def test_predict_invert_undoes_the_negative(small_dataset, tmp_path, capsys):
    for name, pixels in (("a", small_dataset.x_test[0]), ("b", 255 - small_dataset.x_test[0])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    _, plain, _ = predict(capsys, "--json", tmp_path / "a.png")
    _, inverted, _ = predict(capsys, "--json", "--invert", tmp_path / "b.png")
    assert json.loads(plain)[0]["top"] == json.loads(inverted)[0]["top"]


def test_predict_files_reads_few_images_ahead(samples, monkeypatch):
    """Results are yielded before the next files are read, for any number of files."""
    read = []

    def predict_file(recognizer, path, segmentation, invert):
        read.append(path)
        return {"path": path}

    monkeypatch.setattr(command, "predict_file", predict_file)
    paths = [str(number) for number in range(1000)]
    for number, found in enumerate(command.predict_files(Recognizer(), paths, "auto", False, 2)):
        assert found["path"] == str(number)
        assert len(read) <= number + 2 + command.QUEUED_PER_THREAD * 2


def test_predict_ends_at_closed_pipe(samples, tmp_path):
    command = [sys.executable, "-m", "fmnist_fast", "predict", str(tmp_path / "photos")]
    line = f"{shlex.join(command)} | head -1"
    ran = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert "Traceback" not in ran.stderr


def test_recognizer_accuracy_on_saved_real_images(real_dataset, tmp_path):
    """All 10,000 test images, by the same path as photographs."""
    recognizer = Recognizer(threads=1)
    labels = []
    for pixels in real_dataset.x_test:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", compress_level=1)
        content.seek(0)
        labels.append(recognizer.recognize(read_picture(content)).label)
    plain = load_model().predict(real_dataset.x_test)
    accuracy = {
        name: (found == real_dataset.y_test).mean()
        for name, found in (("plain", plain), ("read back", np.array(labels)))
    }
    assert accuracy["read back"] >= accuracy["plain"] - 0.003


def test_recognizer_rejects_model_of_tables(small_dataset):
    table = replace(
        small_dataset,
        x_train=small_dataset.x_train.reshape(-1, 784),
        x_test=small_dataset.x_test.reshape(-1, 784),
    )
    model = train(table, epochs=1, hidden=(4,), threads=1).model
    with pytest.raises(DataError, match="not images"):
        Recognizer(model)


def test_saliency_map_sums_to_the_logit(small_dataset):
    """ReLU is piecewise linear: without biases the contributions sum to the logit."""
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


def test_photo_model_config_is_that_of_preset(real_dataset):
    assert PRETRAINED_PHOTOS.stat().st_size < 500_000
    training = dict(load_model(PRETRAINED_PHOTOS).training)
    assert training.pop("backend") == "cython"
    training.pop("instruction_set")
    config = TrainingConfig.from_dict(training)
    assert config.difference(resolve_config(PRESETS["photos"], real_dataset)) is None


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="there are no photographs beside the data set")
@pytest.mark.parametrize("segmentation", ["auto", "histogram"])
def test_photo_model_accuracy_is_above_minimum(segmentation, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import photo_table

    photos = photo_table.recognize_all(PHOTOS, None, segmentation)
    metrics = photo_table.PhotoMetrics(photos)
    if segmentation == "auto":
        assert metrics.meets_limits(), metrics
    assert metrics.accuracy >= photo_table.MIN_ACCURACY, metrics

"""Metadata of model files: files of every earlier format version are read and translated.

`old_files/` holds a file of each version, written by the code of its time for the network 6-5-3 on
`tiny.npz`, and the probabilities of its 30 test rows in `probabilities.npz`. Version 2 was
distilled; version 3 is an ensemble of two.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from messages import assert_one_line

from fmnist_fast import Ensemble, load_dataset, load_model, train
from fmnist_fast.cli.main import main
from fmnist_fast.errors import ModelFileError
from fmnist_fast.models.ensemble import members_of
from fmnist_fast.models.metadata import FORMAT_VERSION, upgrade_metadata
from fmnist_fast.models.safetensors_io import check_replaceable, load_file
from fmnist_fast.training.config import TrainingConfig

OLD_FILES = Path(__file__).parent / "old_files"
TINY = OLD_FILES / "tiny.npz"
VERSIONS = (1, 2, 3)


@pytest.fixture(params=VERSIONS, ids=lambda version: f"version {version}")
def version(request) -> int:
    return request.param


@pytest.fixture
def old_file(version) -> Path:
    path = OLD_FILES / f"version{version}.safetensors"
    assert load_file(path)[0]["format_version"] == version
    return path


def test_load_old_file_predicts_recorded_probabilities(old_file, version):
    model = load_model(old_file, "numpy")
    assert isinstance(model, Ensemble) is (version == 3)
    found_nk = model.predict_proba(load_dataset(TINY).x_test)
    with np.load(OLD_FILES / "probabilities.npz") as recorded:
        expected_nk = recorded[f"version{version}"]
    assert found_nk.dtype == expected_nk.dtype
    np.testing.assert_allclose(found_nk, expected_nk, rtol=1e-5)


def test_save_of_old_file_writes_current_version(old_file, tmp_path):
    model = load_model(old_file, "numpy")
    model.save(tmp_path / "new.safetensors")
    metadata, tensors = load_file(tmp_path / "new.safetensors")
    assert metadata["format_version"] == FORMAT_VERSION == 4
    assert metadata == model.metadata() == upgrade_metadata(load_file(old_file)[0])
    members = metadata.get("members", [metadata])
    assert [member["format_version"] for member in members] == [4] * len(members)
    old_tensors = load_file(old_file)[1]
    assert tensors.keys() == old_tensors.keys()
    for name, array in tensors.items():
        assert array.tobytes() == old_tensors[name].tobytes()


def test_load_old_file_renames_training_keys(old_file):
    for member in members_of(load_model(old_file, "numpy")):
        entries = dict(member.training)
        assert entries.pop("backend") == "numpy"
        entries.pop("instruction_set", None)
        config = TrainingConfig.from_dict(entries)
        assert entries.items() <= config.to_dict().items()
        config.check(90, 3)


def test_upgrade_metadata_renames_keys_of_teachers():
    training = load_model(OLD_FILES / "version2.safetensors", "numpy").training
    assert training["hflip"] is True
    assert (training["ema_epochs"], training["target_precision"]) == (2, 0.9)
    distillation = training["distillation"]
    assert (distillation["alpha"], distillation["n_teachers"]) == (0.6, 2)
    assert distillation["teacher"]["hflip"] is False
    assert distillation["teacher"]["ema_epochs"] == 1


def test_upgrade_metadata_adds_calibration_to_version_1():
    model = load_model(OLD_FILES / "version1.safetensors", "numpy")
    assert (model.temperature, model.threshold) == (1.0, None)


def test_upgrade_metadata_keeps_current_and_newer():
    for version in (4, 5, None):
        metadata = {"format_version": version, "dataset": {"name": "garments"}}
        assert upgrade_metadata(metadata) == metadata


@pytest.mark.parametrize("part", ["dataset", "training", "members"])
def test_upgrade_metadata_keeps_parts_of_wrong_type(part):
    upgraded = upgrade_metadata({"format_version": 3, part: 3})
    assert upgraded == {"format_version": 4, part: 3}


def test_upgrade_metadata_does_not_change_its_argument():
    metadata = load_file(OLD_FILES / "version3.safetensors")[0]
    before = json.dumps(metadata)
    upgrade_metadata(metadata)
    assert json.dumps(metadata) == before


def test_load_old_file_renames_data_set_to_synthetic(old_file, version):
    assert load_model(old_file).dataset_name == ("tiny" if version == 1 else "synthetic")


def test_check_replaceable_accepts_old_file_of_same_data(old_file, tmp_path):
    dataset = replace(load_dataset(TINY), name="synthetic")
    check_replaceable(old_file, dataset.name, dataset.checksum)
    with pytest.raises(ModelFileError) as caught:
        check_replaceable(old_file, "other", "0" * 64)
    assert_one_line(
        str(caught.value), f"trained on {load_model(old_file).dataset_name},", "--force"
    )
    copy = tmp_path / "old.safetensors"
    copy.write_bytes(old_file.read_bytes())
    model = train(dataset, hidden=(4,), epochs=1, backend="numpy", threads=1).model
    model.save(copy)
    assert copy.read_bytes() == model.to_bytes()


@pytest.mark.filterwarnings("error")
def test_evaluate_accepts_old_file(old_file, capsys):
    options = ["--dataset", str(TINY), "--backend", "numpy", "--json"]
    assert main(["evaluate", str(old_file), *options]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["accuracy"] > 0.9
    assert (measured["selective_accuracy"] is None) is (load_model(old_file).threshold is None)


def test_evaluate_old_file_loads_renamed_data_set(capsys, monkeypatch):
    names = []

    def load_named(name, data_dir):
        names.append(name)
        return replace(load_dataset(TINY), name=name)

    monkeypatch.setattr("fmnist_fast.cli.evaluate.load_dataset", load_named)
    path = OLD_FILES / "version2.safetensors"
    assert main(["evaluate", str(path), "--backend", "numpy", "--json"]) == 0
    assert names == ["synthetic"]
    assert json.loads(capsys.readouterr().out)["dataset"] == "synthetic"


def test_train_accepts_old_file_as_teacher(old_file, tmp_path):
    out = tmp_path / "student.safetensors"
    options = ["--dataset", str(TINY), "--hidden", "4", "--epochs", "2", "--backend", "numpy"]
    assert main(["train", *options, "--teacher", str(old_file), "--out", str(out)]) == 0
    assert load_model(out).training["distillation"]["teacher"].startswith("sha256:")


def test_export_accepts_old_file(old_file, version, tmp_path, capsys):
    out = tmp_path / "network.npz"
    code = main(["export", str(old_file), "--to", "npz", "--out", str(out)])
    if version == 3:  # an ensemble has no single network
        assert code != 0
        assert_one_line(capsys.readouterr().err, "ensemble of 2 models")
        return
    assert code == 0
    network = load_model(old_file, "numpy").calibrated_network
    with np.load(out, allow_pickle=False) as arrays:
        for depth, w_io in enumerate(network.params.weights):
            assert np.array_equal(arrays[f"weights_{depth}"], w_io)

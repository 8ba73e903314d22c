"""The command `predict` with a model of the user."""

import json

import pytest
from cli_runs import save_image

from fmnist_fast import load_model


def test_predict_keeps_order_and_reports_errors(run, trained, small_dataset):
    good = save_image(trained.parent / "good.png", small_dataset.x_test[0])
    bad = trained.parent / "bad.png"
    bad.write_text("not an image")
    code, out, _ = run("predict", "--model", trained, "--json", good, bad, "missing.png", good)
    results = json.loads(out)
    assert code == 1
    assert [result["path"] for result in results] == [str(good), str(bad), "missing.png", str(good)]
    assert "error" in results[1]
    assert results[2]["error"] == "No such file or directory"
    assert results[0] == results[3]
    p_k = load_model(trained).predict_proba(small_dataset.x_test[:1])[0]
    assert results[0]["label"] == p_k.argmax()
    assert results[0]["name"] == str(p_k.argmax())
    assert results[0]["probability"] == pytest.approx(float(p_k.max()))
    assert results[0]["confident"] is None
    assert [entry["label"] for entry in results[0]["top"]] == p_k.argsort()[::-1][:3].tolist()


def test_predict_prints_a_line_per_image(run, trained, small_dataset):
    good = save_image(trained.parent / "good.png", small_dataset.x_test[0])
    code, out, err = run("predict", "--model", trained, good)
    assert (code, err) == (0, "")
    assert out.startswith(f"{good}: ")
    assert out.count(" %") == 3
    code, out, err = run("predict", "--model", trained, "missing.png")
    assert (code, out, err) == (1, "", "missing.png: No such file or directory\n")


def test_predict_with_ensemble(run, trained, ensemble, small_dataset):
    image = save_image(trained.parent / "x.png", small_dataset.x_test[0])
    one, several = (
        run("predict", "--model", path, "--json", image) for path in (trained, ensemble)
    )
    assert (several[0], several[2]) == (0, "")
    (result,) = json.loads(several[1])
    assert result.keys() == json.loads(one[1])[0].keys()
    p_k = load_model(ensemble).predict_proba(small_dataset.x_test[:1])[0]
    assert (result["label"], result["probability"]) == (p_k.argmax(), p_k.max())
    assert result["model"] == "ensemble.safetensors"

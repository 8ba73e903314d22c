"""The command `export`."""

from pathlib import Path

from messages import assert_contains, assert_one_line


def test_export_and_evaluate_name_pretrained_model(folder, run, real_folder):
    for arguments in (["export", "--to", "c"], ["evaluate", "--data-dir", real_folder]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert_contains(out, "the pretrained model")
    Path("model.safetensors").touch()
    for arguments in (["export", "--to", "c", "--force"], ["evaluate", "--data-dir", real_folder]):
        code, _, err = run(*arguments)
        assert code == 0
        assert_one_line(err, "the pretrained model of the package", "name model.safetensors")


def test_export_rejects_ensemble(run, ensemble):
    code, out, err = run("export", ensemble, "--to", "c", "--out", "x.c")
    assert (code, out) == (2, "")
    assert_one_line(
        err,
        f"{ensemble} is an ensemble of 2 models, and export needs one network",
        f"'fmnist-fast train --teacher {ensemble}'",
    )
    assert not Path("x.c").exists()

"""The command `export`."""

from pathlib import Path

from messages import assert_one_line


def test_export_rejects_ensemble(run, ensemble):
    code, out, err = run("export", ensemble, "--to", "c", "--out", "x.c")
    assert (code, out) == (2, "")
    assert_one_line(
        err,
        f"{ensemble} is an ensemble of 2 models, and export needs one network",
        f"'fmnist-fast train --teacher {ensemble}'",
    )
    assert not Path("x.c").exists()

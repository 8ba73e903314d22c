"""The command `export`."""

from pathlib import Path


def test_export_rejects_ensemble(run, ensemble):
    code, out, err = run("export", ensemble, "--to", "c", "--out", "x.c")
    assert (code, out) == (2, "")
    assert err == (
        f"fmnist-fast: {ensemble} is an ensemble of 2 models, and export needs one network: "
        f"distil it with 'fmnist-fast train --teacher {ensemble}'\n"
    )
    assert not Path("x.c").exists()

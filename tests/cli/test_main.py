"""Help, errors and exit codes of the command line."""

import subprocess
import sys

import pytest
from messages import assert_one_line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "missing"], "there is no model file missing: train one"),
        (["predict", "--model", "missing", "a.png"], "there is no model file missing"),
        (["info", "missing"], "there is no model file missing"),
        (["no-such-command"], "No such command 'no-such-command'"),
    ],
)
def test_main_rejects_bad_arguments_in_one_line(run, folder, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, message)


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "predict", "export", "info", "data", "data fetch"]
)
def test_main_help_of_every_command(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert out.startswith("Usage: fmnist-fast")
    assert len(out.splitlines()) > 5


def test_main_without_command_prints_help(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: fmnist-fast")
    assert err.count("\n") > 10


def test_main_runs_as_module():
    ran = subprocess.run(
        [sys.executable, "-m", "fmnist_fast", "--version"], capture_output=True, text=True
    )
    assert ran.stdout.startswith("fmnist-fast, version ")

"""Help, errors and exit codes of the command line."""

import re
import subprocess
import sys

import pytest
from messages import assert_one_line

from fmnist_fast.cli.commands.train import GROUPS
from fmnist_fast.cli.commands.train import train as command
from fmnist_fast.training.presets import preset


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


def test_main_help_summaries_are_not_cut(run):
    assert "..." not in run("--help")[1].partition("Commands:")[2]


def test_train_help_shows_groups_and_values_of_default_preset(run):
    """The values are written in the help, which does not load NumPy."""
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(param.name for param in command.params)
    out = " ".join(run("train", "--help")[1].split())
    assert all(f" {heading}: --" in out for heading in GROUPS)
    standard = preset("standard")
    for param in command.params:
        shown = re.search(r"\[default: ([^ ]+)\]$", param.help)
        if shown and hasattr(standard, param.name) and param.name not in ("hflip", "validation"):
            value = getattr(standard, param.name)
            text = (
                ",".join(map(str, value))
                if param.name == "hidden"
                else f"{value or 0:g}"
                if isinstance(value, float)
                else str(value).lower()
            )
            assert shown[1] == text, param.name

"""The command `app`: options of Streamlit, and error messages."""

import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.request import urlopen

import pytest
from app_server import served

from fmnist_fast.app.settings import OPTIONS, SCRIPT, as_flags
from fmnist_fast.cli import app as command
from fmnist_fast.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch):
    """Run the command without starting Streamlit; return the options passed to it."""
    cli = pytest.importorskip("streamlit.web.cli", reason="Streamlit is not installed")
    calls = []
    monkeypatch.setattr(cli, "main", lambda arguments, **_: calls.append(arguments))

    def start(*arguments):
        assert main(["app", *arguments]) == 0
        (call,) = calls
        assert call[0] == "run"
        assert call[-1] == str(SCRIPT)
        return dict(zip(call[1:-1:2], call[2:-1:2]))

    return start


def flat(table, prefix=""):
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_options_equal_streamlit_configuration_file():
    with open(ROOT / ".streamlit" / "config.toml", "rb") as file:
        assert dict(flat(tomllib.load(file))) == OPTIONS


def test_options_are_known_to_streamlit():
    config = pytest.importorskip("streamlit.config")
    assert OPTIONS.keys() <= config.get_config_options().keys()


def test_app_listens_on_loopback_by_default(started):
    flags = started()
    assert flags["--server.address"] == "127.0.0.1"
    assert flags["--server.maxUploadSize"] == "10"
    assert flags["--server.enableXsrfProtection"] == "true"
    assert flags["--server.enableCORS"] == "true"
    assert flags["--client.showErrorDetails"] == "none"
    assert flags["--browser.gatherUsageStats"] == "false"
    assert "--server.port" not in flags
    assert "--server.headless" not in flags


def test_app_passes_options_to_streamlit(started):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = started("--port", port, "--address", "localhost", "--no-browser")
    assert flags["--server.port"] == port
    assert flags["--server.address"] == "localhost"
    assert flags["--server.headless"] == "true"


def test_as_flags_formats_lists_and_booleans_as_json():
    assert as_flags({"a.b": [1, "x"], "c.d": True, "e.f": "g", "h.i": 3}) == [
        *("--a.b", '[1, "x"]', "--c.d", "true", "--e.f", "g", "--h.i", "3")
    ]


def test_app_without_streamlit_names_extra(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["fmnist-fast: the app needs Streamlit: pip install 'fmnist-fast[app]'"]


def test_app_unusable_port_or_address_is_one_line(capsys):
    pytest.importorskip("streamlit")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["app", "--port", port]) == 2
        assert f"cannot listen at 127.0.0.1, port {port}: " in capsys.readouterr().err
    assert main(["app", "--address", "192.0.2.1"]) == 2
    err = capsys.readouterr().err
    assert "cannot listen at 192.0.2.1: " in err
    assert err.count("\n") == 1


def test_app_serves_from_any_folder(tmp_path):
    pytest.importorskip("streamlit")
    with served(tmp_path) as url, urlopen(url, timeout=5) as response:
        assert b"<html" in response.read()


def test_app_help_does_not_load_streamlit():
    code = (
        "import sys; from fmnist_fast.cli.main import main; main(['app', '--help']);"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--no-browser" in ran.stdout
    assert "streamlit" not in json.loads(ran.stdout.splitlines()[-1])

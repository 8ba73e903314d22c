"""Download of Fashion-MNIST from loopback servers, some of which fail."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from idx_sets import FILE_NAMES, constants_for, random_arrays, same, write_folder

from fmnist_fast.data import fashion_mnist
from fmnist_fast.data.cache import cache_folder
from fmnist_fast.data.datasets import load_dataset
from fmnist_fast.errors import DataError

CLOSED = "http://127.0.0.1:1/"  # a port where nothing listens
PUBLISHED = fashion_mnist.SOURCES


class Source(ThreadingHTTPServer):
    """Serve `files`, and record the requested names in `requests`."""

    daemon_threads = True
    behaviour = "whole"

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Source

    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requests.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        behaviour = self.server.behaviour
        if behaviour == "no response":
            self.server.closing.wait()
            return
        self.send_response(200)
        if behaviour != "cut, length unknown":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if behaviour == "whole" else content[: len(content) // 2])
        self.wfile.flush()
        if behaviour == "stalls":
            self.server.closing.wait()

    def log_message(self, *_):
        pass


@pytest.fixture
def arrays():
    return random_arrays(size=(28, 28))


@pytest.fixture
def files(tmp_path, arrays, monkeypatch) -> dict[str, bytes]:
    """Served files, by name; their checksums replace those of Fashion-MNIST."""
    folder = write_folder(tmp_path / "served", arrays)
    for name, value in constants_for(folder, arrays).items():
        monkeypatch.setattr(fashion_mnist, name, value)
    return {name: (folder / name).read_bytes() for name in FILE_NAMES}


@pytest.fixture
def serve(monkeypatch):
    """Start servers with the given files, and make them the sources."""
    servers = []

    def start(*contents: dict[str, bytes]) -> list[Source]:
        for content in contents:
            server = Source(content)
            servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(fashion_mnist, "SOURCES", tuple(s.url for s in servers))
        return servers

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SOURCES", (CLOSED,))
    monkeypatch.setattr(fashion_mnist, "TIMEOUT", (5, 5))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "fetched"


def content_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def failure(folder) -> str:
    """Return the error message; check that it is one line and names the remedy."""
    with pytest.raises(fashion_mnist.DatasetUnavailable) as caught:
        fashion_mnist.fetch(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "--data-dir or FMNIST_FAST_DATA" in message
    return message


def test_sources_has_several_urls_https_first():
    schemes = [url.partition(":")[0] for url in PUBLISHED]
    assert len(schemes) > 1
    assert schemes[0] == "https"
    assert schemes == sorted(schemes, reverse=True)


def test_fetch_downloads_four_files(files, folder, serve):
    (server,) = serve(files)
    assert fashion_mnist.fetch(folder) == folder
    assert content_of(folder) == files
    assert server.requests == list(FILE_NAMES)


def test_load_dataset_downloads_missing_set_once(arrays, files, serve):
    (server,) = serve(files)
    for _ in range(2):
        dataset = load_dataset("fashion-mnist")
        assert same((dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test), arrays)
    assert server.requests == list(FILE_NAMES)
    assert fashion_mnist.find_folder() is not None


def test_fetch_tries_next_source_after_connection_error(files, folder, serve, monkeypatch):
    (server,) = serve(files)
    monkeypatch.setattr(fashion_mnist, "SOURCES", (CLOSED, server.url))
    fashion_mnist.fetch(folder)
    assert content_of(folder) == files


def test_fetch_does_not_retry_failed_source(files, folder, serve):
    first, second = serve({}, files)
    fashion_mnist.fetch(folder)
    assert content_of(folder) == files
    assert first.requests == [FILE_NAMES[0]]
    assert second.requests == list(FILE_NAMES)


def test_fetch_tries_next_source_for_missing_file(files, folder, serve):
    first, second = serve({name: files[name] for name in FILE_NAMES[:2]}, files)
    fashion_mnist.fetch(folder)
    assert content_of(folder) == files
    assert first.requests == list(FILE_NAMES[:3])
    assert second.requests == list(FILE_NAMES[2:])


def test_fetch_error_names_failure_of_each_source(files, folder, serve, monkeypatch):
    (server,) = serve({})
    monkeypatch.setattr(fashion_mnist, "SOURCES", (CLOSED, server.url))
    message = failure(folder)
    assert "(127.0.0.1: ConnectionError; 127.0.0.1: HTTP status 404)" in message
    assert content_of(folder) == {}


def test_fetch_names_file_with_wrong_checksum(files, folder, serve):
    serve(files | {FILE_NAMES[2]: files[FILE_NAMES[0]]})
    assert f"{FILE_NAMES[2]} came with the wrong checksum" in failure(folder)
    assert content_of(folder) == {name: files[name] for name in FILE_NAMES[:2]}


def test_fetch_tries_next_source_after_wrong_checksum(files, folder, serve):
    serve(dict.fromkeys(FILE_NAMES, b"<html>sign in</html>"), files)
    fashion_mnist.fetch(folder)
    assert content_of(folder) == files


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("cut", "ChunkedEncodingError"),
        ("cut, length unknown", "wrong checksum"),
        ("no response", "ReadTimeout"),
        ("stalls", "ConnectionError"),
    ],
)
def test_fetch_interrupted_transfer_leaves_no_file(
    files, folder, serve, monkeypatch, behaviour, words
):
    monkeypatch.setattr(fashion_mnist, "TIMEOUT", (5, 0.3))
    (server,) = serve(files)
    server.behaviour = behaviour
    began = time.monotonic()
    assert words in failure(folder)
    assert time.monotonic() - began < 20  # without its limit the transfer would take 30
    assert content_of(folder) == {}


def test_fetch_resumes_with_missing_files_only(files, folder, serve):
    first, second = serve({name: files[name] for name in FILE_NAMES[:3]}, {})
    failure(folder)
    second.files = files
    first.requests.clear()
    second.requests.clear()
    fashion_mnist.fetch(folder)
    assert content_of(folder) == files
    assert first.requests == second.requests == [FILE_NAMES[3]]


def test_fetch_of_complete_folder_sends_no_request(files, folder, serve):
    (server,) = serve(files)
    fashion_mnist.fetch(folder)
    server.requests.clear()
    fashion_mnist.fetch(folder)
    assert server.requests == []


def test_load_dataset_replaces_damaged_cached_file(arrays, files, serve):
    (server,) = serve(files)
    fashion_mnist.fetch()
    (cache_folder() / FILE_NAMES[1]).write_bytes(files[FILE_NAMES[1]][:-1])
    server.requests.clear()
    dataset = load_dataset("fashion-mnist")
    assert server.requests == [FILE_NAMES[1]]
    assert same((dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test), arrays)


def test_load_dataset_does_not_use_damaged_cache_offline(files, serve):
    serve(files)[0].files = {}
    cache_folder().mkdir()
    for name in FILE_NAMES:
        (cache_folder() / name).write_bytes(files[name][:-1])
    with pytest.raises(DataError, match="HTTP status 404"):
        load_dataset("fashion-mnist")


@pytest.mark.filterwarnings("error")
def test_fetch_is_thread_safe(files, folder, serve):
    serve(files)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fashion_mnist.fetch, [folder] * 4)) == [folder] * 4
    assert content_of(folder) == files


def test_fetch_rejects_folder_that_cannot_be_created(tmp_path, files):
    (tmp_path / "file").touch()
    with pytest.raises(fashion_mnist.DatasetUnavailable, match="cannot be made: Not a directory"):
        fashion_mnist.fetch(tmp_path / "file" / "below")


def test_fetch_rejects_folder_at_path_of_file(files, folder, serve):
    serve(files)
    (folder / FILE_NAMES[0]).mkdir(parents=True)
    with pytest.raises(fashion_mnist.DatasetUnavailable, match="cannot be written"):
        fashion_mnist.fetch(folder)
    assert os.listdir(folder) == [FILE_NAMES[0]]


def test_fetch_progress_goes_to_stderr(files, folder, serve, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal
    serve(files)
    fashion_mnist.fetch(folder)
    out, err = capsys.readouterr()
    assert out == ""
    for name in FILE_NAMES:
        assert name in err
    assert err.count("100%") >= len(FILE_NAMES)


def test_fetch_shows_no_progress_without_terminal(files, folder, serve, capsys):
    serve(files)
    fashion_mnist.fetch(folder)
    assert capsys.readouterr() == ("", "")

"""Fashion-MNIST: where it is found, download, and verification by checksums.

Source: Xiao, Rasul, Vollgraf (2017), "Fashion-MNIST: a novel image dataset for benchmarking
machine learning algorithms"; MIT licence, Zalando SE.
"""

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import DataError
from .cache import Arrays, cache_folder, cache_path, find_cached, load_or_create
from .idx import read_idx

if TYPE_CHECKING:
    from rich.progress import Progress

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# In the order of cache.Arrays: file name -> sha256 of the gzip file.
FILES = {
    f"{stem}-ubyte.gz": checksum
    for stem, checksum in {
        "train-images-idx3": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }.items()
}

# cache.compute_checksum of the four arrays.
CHECKSUM = "8294d2ca571ee42977a0b2dbf2f2f22ac6655a869e4497e2cd010da5acf40c92"

# The last is plain http: every file is verified by the checksums in FILES.
SOURCES = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)

# Seconds to connect, and between two packets.
TIMEOUT = (5, 30)

CACHE_KEY = f"fashion-mnist-{CHECKSUM[:16]}"


class DatasetUnavailable(DataError):
    """The data set is in no known folder and cannot be downloaded."""


def load(data_dir: Path | None = None, *, download: bool = True) -> Arrays:
    """Load from data_dir, else $FMNIST_FAST_DATA, else the user's cache, else the network.

    Images uint8 (60000, 28, 28) and (10000, 28, 28), labels uint8; memory-mapped from the cache.
    download : False uses no network.
    Raises: DataError if a file has the wrong checksum, DatasetUnavailable if none was found.
    """
    missing: list[str] = []
    for folder in _named_folders(data_dir):
        absent = [name for name in FILES if not os.path.isfile(folder / name)]
        if absent:
            missing.append(f"{folder} has no {absent[0]}")
            continue
        verify(folder)
        return _load_or_decode(partial(read_folder, folder))
    try:
        arrays = _load_or_decode(lambda: read_folder(fetch() if download else _download_folder()))
    except DatasetUnavailable as error:
        raise DatasetUnavailable("; ".join([*missing, str(error)])) from error
    if missing:
        warnings.warn(f"{'; '.join(missing)}: using the copy in the user's cache", stacklevel=4)
    return arrays


def _load_or_decode(decode: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of the cache; decode and cache them if they are missing."""
    arrays, checksum = load_or_create(CACHE_KEY, decode, CHECKSUM)
    if checksum != CHECKSUM:
        raise DataError("the files of Fashion-MNIST changed while they were read: try again")
    return arrays


def read_folder(folder: Path) -> Arrays:
    """Read the four IDX files of a folder, gzip or uncompressed, named as those of MNIST.

    Raises: DataError that names the file.
    """
    paths = [_gzip_or_plain(folder, name) for name in FILES]
    dimensions = (3, 1, 3, 1)
    arrays = Arrays(*(read_idx(path, n) for path, n in zip(paths, dimensions)))
    for images, labels, path in zip(arrays[::2], arrays[1::2], paths[1::2]):
        if len(labels) != len(images):
            raise DataError(
                f"{path} has {len(labels)} labels for {len(images)} images: are they of one set?"
            )
    return arrays


def find_folder(data_dir: Path | None = None) -> Path | None:
    """Return the folder that `load` would read; None if it would have to download.

    It holds the four files, or it is the decoded copy in the cache.
    """
    for folder in _named_folders(data_dir):
        if all(os.path.isfile(folder / name) for name in FILES):
            return folder
    try:
        if cache_path(CACHE_KEY).is_dir():
            return cache_path(CACHE_KEY)
        return _download_folder()
    except (OSError, DatasetUnavailable):
        return None


def _download_folder() -> Path:
    """Return the folder of an earlier download; DatasetUnavailable if a file is missing."""
    try:
        folder = cache_folder()
    except OSError as error:
        raise DatasetUnavailable(f"there is no cache: {error.strerror}") from error
    if not all(os.path.isfile(folder / name) for name in FILES):
        raise DatasetUnavailable(
            "Fashion-MNIST is not on this machine: 'fmnist-fast data fetch' gets it"
        )
    return folder


def verify(folder: Path) -> None:
    """Raise DataError for the first file whose checksum is not the published one.

    folder : has the four files, or is the decoded copy in the cache.
    """
    if folder.name == CACHE_KEY:
        if find_cached(CACHE_KEY, CHECKSUM) is None:
            raise DataError(f"{folder} is damaged: the next use will make it again")
        return
    for name, expected in FILES.items():
        path = folder / name
        try:
            with open(path, "rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if found != expected:
            raise DataError(
                f"{path} is not Fashion-MNIST's: its sha256 is {found[:12]}..., not "
                f"{expected[:12]}...; remove it, or use the folder with --dataset {folder}"
            )


def fetch(folder: Path | None = None) -> Path:
    """Download missing files into a folder (None: the user's cache), and return the folder.

    Progress bars are shown on standard error if that is a terminal.
    Raises: DatasetUnavailable, with the failure of every source.
    """
    import pooch
    import requests
    from rich.console import Console
    from rich.progress import Progress

    try:
        folder = folder or cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = folder or "the folder for the download"
        raise DatasetUnavailable(f"{where} cannot be made: {error.strerror}") from error
    pooch.get_logger().setLevel(logging.WARNING)
    console = Console(stderr=True)
    failures: list[str] = []
    with Progress(console=console, disable=not console.is_terminal) as bars:
        for source in SOURCES:
            try:
                for name, checksum in FILES.items():
                    _retrieve(f"{source}{name}", checksum, folder, bars)
                return folder
            except requests.RequestException as error:
                status = getattr(error.response, "status_code", None)
                failure = f"HTTP status {status}" if status else type(error).__name__
            except ValueError:
                failure = f"{name} came with the wrong checksum"
            except OSError as error:
                path = folder / name
                raise DatasetUnavailable(f"{path} cannot be written: {error.strerror}") from error
            failures.append(f"{urlsplit(source).hostname}: {failure}")
    raise DatasetUnavailable(
        f"Fashion-MNIST could not be downloaded ({'; '.join(failures)}); give the folder of its "
        "four files with --data-dir or FMNIST_FAST_DATA"
    )


def first_failure() -> bool:
    """Return whether no earlier command of this user failed to find the data set; remember it."""
    try:
        note = cache_folder() / "fashion-mnist-unavailable"
        if note.exists():
            return False
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except OSError:  # no cache, or a full disk: the explanation comes again
        pass
    return True


def _retrieve(url: str, checksum: str, folder: Path, bars: "Progress") -> None:
    """Download a file, unless it exists with this checksum. Raises ValueError if it has another."""
    import pooch

    name = url.rpartition("/")[2]
    download = pooch.HTTPDownloader(
        progressbar=_ProgressBar(bars, name),
        chunk_size=1 << 16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # keep the gzip files as they are
    )
    pooch.retrieve(url, f"sha256:{checksum}", fname=name, path=folder, downloader=download)


def _named_folders(data_dir: Path | None) -> list[Path]:
    """Return the folders that the user named: the argument and the environment variable."""
    named = data_dir, os.environ.get("FMNIST_FAST_DATA")
    return [Path(folder) for folder in named if folder]


def _gzip_or_plain(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / name.removesuffix(".gz")):
        if path.is_file():
            return path
    raise DataError(f"{folder} has no {name}, nor {name.removesuffix('.gz')}")


class _ProgressBar:
    """Progress bar of one file, with the interface that pooch expects."""

    total = 0  # set by pooch

    def __init__(self, bars: "Progress", name: str) -> None:
        self._bars, self._task = bars, bars.add_task(name, visible=False)

    def update(self, size: int) -> None:
        self._bars.update(self._task, total=self.total, advance=size, visible=True)

    def reset(self) -> None:
        """Start again; pooch calls this and then update(total) when a download is complete."""
        self._bars.reset(self._task)

    def close(self) -> None:
        """Do nothing: `Progress` is closed when all files are there."""

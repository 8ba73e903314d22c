"""How much faster is batch prediction with a second worker, and how much memory does it take?

python benchmarks/scoring_table.py              # some minutes
python benchmarks/scoring_table.py --rounds 1 --rows 20000 --pictures 4    # whether it runs
python benchmarks/scoring_table.py --check      # exit code 1 if a limit is missed

Inputs are images of the test set, repeated: as an IDX file, as small PNG files, and as large colour
photographs to be segmented. Times are from the first block to the written predictions, with one and
two warm workers, alternating.
"""

import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import click
import numpy as np
import psutil
from perf_targets import PerfTarget, print_targets
from PIL import Image

from fmnist_fast import load_dataset
from fmnist_fast.distributed.batch_predict.job import (
    PredictObserver,
    model_name,
    model_to_workers,
    predict_all,
    workers_identity,
)
from fmnist_fast.distributed.batch_predict.output import write_predictions
from fmnist_fast.distributed.batch_predict.result_store import open_results
from fmnist_fast.distributed.batch_predict.sources import Inputs
from fmnist_fast.distributed.batch_predict.worker import PredictConfig
from fmnist_fast.distributed.worker_pool import WorkerPool, open_pool
from fmnist_fast.models.load import load_model

# Height and width of the photographs.
SIDE = 448


def measure(path: Path, pool: WorkerPool, folder: Path) -> float:
    """Predict a file or folder; return the rows a second."""
    model, out = load_model(threads=1), folder / f"{len(list(folder.iterdir()))}.parquet"
    results_file = out.with_suffix(".partial")
    blocks = Inputs([str(path)]).blocks(model.input_shape, None)
    name = model_name(None, pool.identity["backend"])
    config = PredictConfig(
        model=name, folder=str(folder), segmentation="auto", invert=False, probabilities=False
    )
    with open_results(results_file, {}, blocks) as store:
        start = perf_counter()
        assert predict_all(store, config, 784, pool, PredictObserver(), lambda: False)
        write_predictions(store, out, model.class_names, False, lambda rows: None)
        speed = store.rows / (perf_counter() - start)
        store.remove()
    out.write_bytes(b"")
    return speed


def write_idx(path: Path, x_test: np.ndarray, rows: int) -> Path:
    """Write the images, repeated, as `rows` rows."""
    with path.open("wb") as file:
        file.write(struct.pack(">4B3I", 0, 0, 8, 3, rows, 28, 28))
        for begin in range(0, rows, len(x_test)):
            file.write(x_test[: rows - begin].tobytes())
    return path


def write_pictures(folder: Path, x_test: np.ndarray, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(x_test[number % len(x_test)]).save(folder / f"{number:06}.png")
    return folder


def write_photographs(folder: Path, x_test: np.ndarray, count: int) -> Path:
    """Write dark red garments on a light, noisy wall."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(x_test[number % len(x_test)])
        cover = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[..., None] / 255
        wall = random.normal((215, 210, 200), 4, (SIDE, SIDE, 3))
        photo = wall * (1 - cover) + np.array((120, 40, 40)) * cover
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg")
    return folder


def resident() -> Iterator[float]:
    """Resident MB of this process and of each worker."""
    this = psutil.Process()
    yield this.memory_info().rss / 1e6
    for process in this.children(recursive=True):
        if "spawn_main" in " ".join(process.cmdline()):
            yield process.memory_info().rss / 1e6


def run(rows: int, pictures: int, rounds: int) -> list[PerfTarget]:
    x_test = load_dataset("fashion-mnist").x_test
    identity = workers_identity(load_model())
    targets = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (outs := folder / "predictions").mkdir()
        prepare = model_to_workers(None, identity["backend"])
        pools = [stack.enter_context(open_pool(None, n, identity, prepare)) for n in (1, 2)]
        few = write_idx(folder / "few.idx", x_test, rows // 10)
        small = 20 * pictures
        kinds = {
            f"{rows:,} rows of an IDX file": write_idx(folder / "rows.idx", x_test, rows),
            f"{small:,} small PNG files": write_pictures(folder / "png", x_test, small),
            f"{pictures:,} photographs": write_photographs(folder / "jpg", x_test, pictures),
        }
        warm = write_photographs(folder / "warm", x_test, 8)
        for pool in pools:
            measure(warm, pool, outs)
            measure(few, pool, outs)
        before = list(resident())
        for what, path in kinds.items():
            pairs = [[measure(path, pool, outs) for pool in pools] for _ in range(rounds)]
            for one, two in pairs:
                print(f"{what}: one worker {one:,.0f} a second, two {two:,.0f}")
            ratios = [two / one for one, two in pairs]
            targets.append(PerfTarget(f"{what}: two workers over one", ratios, "x", 1.7))
            if path.suffix == ".idx":
                after = list(resident())
                growth = max(b - a for a, b in zip(before, after, strict=True))
                print("resident, MB:", *(f"{a:.0f} -> {b:.0f}" for a, b in zip(before, after)))
                name = f"memory for {rows:,} rows beyond {rows // 10:,}"
                targets.append(PerfTarget(name, [growth], "MB", limit=50, at_least=False))
    return targets


@click.command(help=__doc__.partition("\n")[0])
@click.option("--rows", default=2_000_000)
@click.option("--pictures", default=400)
@click.option("--rounds", default=3)
@click.option("--check", is_flag=True)
def main(rows: int, pictures: int, rounds: int, check: bool) -> None:
    met = print_targets(run(rows, pictures, rounds), ("distributed", "pyarrow"), rounds)
    sys.exit(check and not met)


if __name__ == "__main__":
    main()

"""The command line: `fmnist-fast train`, `evaluate`, `predict`, `info`, `bench`, `data`.

A mistake of the user is one line on standard error and exit code 2; Ctrl-C is exit code 130. What
a command is asked for goes to standard output. Modules that take long to load are loaded by the
commands that use them.
"""

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from .bench.measure import Report
    from .data import Dataset
    from .metrics import Evaluation
    from .modelfile import Model
    from .train import TrainingResult

__all__ = ["main"]

PROGRAM = "fmnist-fast"
INTERRUPTED = 130

# The widest hidden layer and the most threads that are not a slip of the finger.
MAX_WIDTH = 1 << 20
MAX_THREADS = 1024

# Width that the widest line and table need.
MIN_WIDTH = 120

# Room that a model file takes beside its weights.
_DESCRIPTION_BYTES = 64 << 10


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _command.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
        return code or 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else error, file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _fail("stopped", INTERRUPTED)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        return _fail(f"{error.format_message().rstrip('.')}; see '{path} --help'")
    except (UserError, Warning) as error:  # a warning comes here under python -W error
        return _fail(str(error))
    except BrokenPipeError:
        _ignore_output()
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        return _fail("there is not enough memory for this: use fewer epochs or narrower layers")


def _ignore_output() -> None:
    """The reader of standard output has had enough, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int = 2) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):  # ours; others are for programmers
        print(f"{PROGRAM}: warning: {message}", file=sys.stderr)


def _console(*, stderr: bool = False) -> "Console":
    """Plain text goes out as it is: names from data sets and files are never markup."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Go on without anybody who reads, where rich would end the process."""
            self.quiet = True
            _ignore_output()

    console = Quiet(stderr=stderr, markup=False, highlight=False)
    if not console.is_terminal:  # a file has no width that lines would have to be broken for
        console.width = max(console.width, MIN_WIDTH)
    return console


class _Widths(click.ParamType):
    """Widths of the hidden layers: "128,64"; "none" for no hidden layer."""

    name = "WIDTHS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if not isinstance(value, str):
            return tuple(value)
        if value.strip() == "none":
            return ()
        try:
            widths = tuple(int(part) for part in value.split(","))
        except ValueError:
            widths = (0,)
        if not all(1 <= width <= MAX_WIDTH for width in widths):
            self.fail(f"{value!r}: give widths like 128,64, or none", param, ctx)
        return widths


_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, only that.")
_DATA_DIR = click.option(
    "--data-dir",
    type=_FOLDER,
    help="Folder to look in first for Fashion-MNIST's files. Then come $FMNIST_FAST_DATA, the "
    "user's cache, and the download.",
)
_BACKEND = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="auto (the fastest there is), cython, numba or numpy.",
)
_THREADS = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Threads to compute with, at most 8 for every core.  [default: usable cores]",
)
_BATCH_SIZE = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Rows that one step learns from.",
)
_DATASETS = "auto, fashion-mnist, garments, a folder of four IDX files, or an .npz file"


@click.group(name=PROGRAM, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def _command() -> None:
    """Train and use a multilayer perceptron for Fashion-MNIST.

    \b
    fmnist-fast train                            train, and save model.safetensors
    fmnist-fast evaluate model.safetensors       how good it is, class by class
    fmnist-fast predict --model model.safetensors shoe.png
    """


@_command.command()
@_BACKEND
@click.option("--dataset", default="auto", show_default=True, help=f"What to learn: {_DATASETS}.")
@_DATA_DIR
@click.option(
    "--hidden",
    type=_Widths(),
    default="128,64",
    show_default=True,
    help="Widths of the hidden layers, or none.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="How many times to go through the training rows.",
)
@_BATCH_SIZE
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    default=2e-3,
    show_default=True,
    help="Peak learning rate.",
)
@click.option(
    "--schedule",
    type=click.Choice(["onecycle", "constant", "cosine"]),
    default="onecycle",
    show_default=True,
    help="How the learning rate goes over the run.",
)
@click.option(
    "--l2",
    type=click.FloatRange(0),
    default=1e-4,
    show_default=True,
    help="Penalty on the weights: l2/2 times the sum of their squares.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Share of the learning rate that every step takes from the weights (decoupled decay).",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of every target that all classes have alike: 0.05 teaches not to be too sure.",
)
@click.option("--flips", is_flag=True, help="Show half of the images in the mirror.")
@click.option(
    "--validation",
    type=click.IntRange(0),
    help="Training rows held back to choose the best epoch; 0 for none, then the last epoch is "
    "saved.  [default: 5000, or a twelfth of a smaller set]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides the first weights and the order of the rows.",
)
@_THREADS
@click.option(
    "--out", type=_FILE, default="model.safetensors", show_default=True, help="The model file."
)
@click.option("--force", is_flag=True, help="Replace --out even if another data set's model.")
@click.option("--metrics", type=_FILE, help="Append every epoch's figures, as JSON lines.")
@click.option("--plot", type=_FILE, help="Draw loss and accuracy: a .png, .svg or .pdf file.")
@click.option("--quiet", is_flag=True, help="Print only the last line.")
@_JSON
def train(
    dataset: str,
    data_dir: Path | None,
    out: Path,
    force: bool,
    metrics: Path | None,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Train a network and save it.

    The same command with the same threads on the same machine writes the same bytes. The saved
    model is the epoch with the best validation accuracy; the test set is used once, for the figure
    at the end. Ctrl-C saves the best epoch so far beside --out.

      \b
      fmnist-fast train
      fmnist-fast train --epochs 5 --hidden 256,128 --out wide.safetensors --plot curves.png
      fmnist-fast train --dataset my-data.npz --json
    """
    from .data import load_dataset
    from .modelfile import check_replaceable
    from .report import MetricsLog, Several, TrainingReport
    from .train import TrainingDiverged, TrainingInterrupted
    from .train import train as train_network

    _check_outputs(out, metrics, plot, Path(dataset))
    data = load_dataset(dataset, data_dir)
    if not force:
        check_replaceable(out, data.name, data.checksum)
    _check_model_room(out, data, settings["hidden"])

    console = _console(stderr=as_json)
    log = MetricsLog(metrics) if metrics else None
    report = TrainingReport(console)
    parts = [part for part in (log, None if quiet else report) if part]
    with _one_interrupt():  # a second Ctrl-C must not cost what the first one saves
        try:
            with report:
                result = train_network(data, progress=Several(*parts), **settings)
            _ignore_interrupts()
        except (TrainingInterrupted, TrainingDiverged) as stop:
            code = INTERRUPTED if isinstance(stop, TrainingInterrupted) else 2
            return _fail(f"{stop}; {_save_aside(stop.result, out)}", code)
        _save(result, out, force)
    try:
        if log:
            log.write(event="end", dataset=data.name, model=str(out), **result.model.metrics)
        if as_json:
            click.echo(json.dumps(_training_json(result, out)))
        else:
            if not quiet:
                _print_result(console, result)
            console.print(_last_line(result, out))
        if plot:
            from .plots import plot_curves

            plot_curves(result, plot)
        if log and log.error:
            raise UserError(
                f"metrics {metrics} could not be written to the end: {log.error.strerror}"
            )
    except KeyboardInterrupt:
        return _fail(f"stopped; the model is saved in {out}", INTERRUPTED)
    except BrokenPipeError:
        raise
    except (OSError, UserError) as error:
        reason = error if isinstance(error, UserError) else f"standard output: {error.strerror}"
        raise UserError(f"{reason}; the model is saved in {out}") from error
    return 0


@_command.command()
@click.argument("model", type=_FILE)
@click.option(
    "--dataset", help=f"What to measure it on: {_DATASETS}.  [default: what it was trained on]"
)
@_DATA_DIR
@_BACKEND
@_THREADS
@click.option("--plot", type=_FILE, help="Draw the confusion matrix: a .png, .svg or .pdf file.")
@_JSON
def evaluate(
    model: Path,
    dataset: str | None,
    data_dir: Path | None,
    backend: str,
    threads: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure MODEL on a test set.

    Accuracy; precision, recall and F1 of every class; the confusion matrix; and the expected
    calibration error, which is how far the model's confidence is from its accuracy.
    """
    from .data import NAMES, load_dataset
    from .metrics import evaluate as measure
    from .modelfile import load_model
    from .network import check_labels
    from .report import class_table, confusion_table, percent

    _check_outputs(None, None, plot, model)
    loaded = load_model(model, backend, threads)
    if dataset is None and loaded.dataset_name not in NAMES:
        raise _unknown_data(loaded, model)
    data = load_dataset(dataset or loaded.dataset_name, data_dir)
    if dataset is None and data.checksum != loaded.dataset_checksum:
        raise _unknown_data(loaded, model)
    _check_fits(loaded, model, data)
    labels_n = check_labels(data.y_test, len(data.x_test), len(data.class_names), "y_test")
    evaluation = measure(loaded.predict_proba(data.x_test), labels_n)
    if plot:
        from .plots import plot_confusion

        plot_confusion(evaluation, data.class_names, plot)
    if as_json:
        click.echo(json.dumps(_evaluation_json(evaluation, model, data)))
        return
    console = _console()
    console.print(class_table(evaluation, data.class_names))
    console.print()
    console.print(confusion_table(evaluation, data.class_names))
    console.print()
    console.print(
        f"{model} on the {len(data.x_test):,} test rows of {data.name}: "
        f"accuracy {percent(evaluation.accuracy)}, loss {evaluation.loss:.4f}, "
        f"calibration error {percent(evaluation.calibration_error)}"
    )


@_command.command()
@click.option("--model", required=True, type=_FILE, help="A file that 'fmnist-fast train' wrote.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@_BACKEND
@_THREADS
@_JSON
def predict(
    model: Path, images: tuple[str, ...], backend: str, threads: int | None, as_json: bool
) -> int:
    """Say what is on each IMAGE.

    An image is a file of the size that the model was trained on, 28x28 for Fashion-MNIST, in
    grayscale: the garment bright, on black. The exit code is 1 if any image could not be read.
    """
    from .modelfile import load_model
    from .report import percent

    loaded = load_model(model, backend, threads)
    answers = [_answer(loaded, path) for path in images]
    if as_json:
        click.echo(json.dumps(answers))
    else:
        for answer in answers:
            if "error" in answer:
                click.echo(f"{answer['path']}: {answer['error']}", err=True)
                continue
            top = ", ".join(f"{entry['name']} {percent(entry['p'])}" for entry in answer["top"])
            click.echo(f"{answer['path']}: {top}")
    return 1 if any("error" in answer for answer in answers) else 0


@_command.command()
@click.argument("model", type=_FILE, required=False)
@_JSON
def info(model: Path | None, as_json: bool) -> None:
    """Say what this installation has, or what MODEL's file says."""
    facts = _model_facts(model) if model else _installation_facts()
    if as_json:
        click.echo(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:{width}}  {_in_line(value)}")


@_command.command()
@click.option(
    "--backends",
    metavar="NAME,...",
    help="Which of ours: cython, numba, numpy. numpy is always measured, to compare with.  "
    "[default: all that are there]",
)
@_THREADS
@_BATCH_SIZE
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How often everything is measured, in turn.",
)
@click.option(
    "--peers",
    is_flag=True,
    help="Also JAX, PyTorch, scikit-learn and ONNX Runtime, those that are installed "
    "(pip install 'fmnist-fast[bench]').",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    help="Train on so many rows only: for a quick look; the figures mean less.",
)
@click.option(
    "--dataset",
    default="auto",
    show_default=True,
    help=f"What to learn: {_DATASETS}, of uint8 pixels.",
)
@_DATA_DIR
@click.option("--plot", type=_FILE, help="Draw it: a .png, .svg or .pdf file.")
@_JSON
def bench(
    backends: str | None,
    threads: int | None,
    batch_size: int,
    rounds: int,
    peers: bool,
    rows: int | None,
    dataset: str,
    data_dir: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure how fast this machine trains and predicts, and where the time goes.

    Every backend, with every instruction set that this processor has, trains epochs of
    784-128-64-10, in turn, each in a process of its own, from the same weights and on the same
    rows; checked first to compute the same. GFLOP/s count an epoch's arithmetic as if no pixel were
    zero; "of peak" is their share of what the processor can do at most, measured in the same run,
    and may be above 1. "x numpy" is the median of the rounds' ratios. Takes some 40 seconds, with
    --peers two minutes and more, and wants a machine that does nothing else.

      \b
      fmnist-fast bench
      fmnist-fast bench --peers --plot bench.png
      fmnist-fast bench --backends cython --threads 1 --batch-size 256 --json
    """
    from .bench.contender import Setting
    from .bench.measure import measure
    from .cores import usable_cores
    from .data import NAMES, load_dataset
    from .network import THREADS_PER_CORE
    from .report import MeasuringReport

    _check_outputs(None, None, plot, Path(dataset))
    names = None if backends is None else tuple(name.strip() for name in backends.split(","))
    found = load_dataset(dataset, data_dir)  # looked for, downloaded or done without only once
    where = found.name if dataset == "auto" and found.name in NAMES else dataset
    threads = min(threads or usable_cores(), THREADS_PER_CORE * usable_cores())
    setting = Setting(where, data_dir, rows, threads)
    with MeasuringReport(_console(stderr=True)) as report:
        result = measure(setting, names, batch_size, rounds, peers, report.measuring)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        _print_bench(result)
    if plot:
        from .plots import plot_speeds

        plot_speeds(result, plot)


def _print_bench(result: "Report") -> None:
    from .bench.table import bench_tables, missing, on_what

    console = _console()
    for line in on_what(result):
        console.print(line, soft_wrap=True)
    for table in bench_tables(result):
        console.print()
        console.print(table)
    console.print()
    for line in missing(result):
        console.print(line, soft_wrap=True)


@_command.group()
def data() -> None:
    """Fetch, verify or find Fashion-MNIST."""


@data.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to download into.  [default: the user's cache]",
)
def fetch(data_dir: Path | None) -> None:
    """Download the four files, those that are not there yet, and check them."""
    from . import fashion_mnist

    folder = fashion_mnist.fetch(data_dir)
    fashion_mnist.verify(folder)
    click.echo(f"Fashion-MNIST is in {folder}")


@data.command()
@_DATA_DIR
def verify(data_dir: Path | None) -> None:
    """Check every byte of the files that would be used."""
    from . import fashion_mnist

    folder = _data_folder(data_dir)
    fashion_mnist.verify(folder)
    click.echo(f"{folder}: Fashion-MNIST, every byte")


@data.command()
@_DATA_DIR
def path(data_dir: Path | None) -> None:
    """Print the folder of the files that would be used: the four, or their decoded copy."""
    click.echo(_data_folder(data_dir))


def _data_folder(data_dir: Path | None) -> Path:
    from . import fashion_mnist

    folder = fashion_mnist.find_folder(data_dir)
    if folder is None:
        raise UserError(
            "the files of Fashion-MNIST are not here: get them with 'fmnist-fast data fetch', or "
            "name their folder with --data-dir or FMNIST_FAST_DATA"
        )
    return folder


def _check_outputs(
    out: Path | None, metrics: Path | None, plot: Path | None, *inputs: Path
) -> None:
    """Find out before the work, not after it, that a result could not or must not be written."""
    from .files import check_room
    from .plots import check_plot_path
    from .report import check_metrics_path

    if plot:
        check_plot_path(plot)
    taken = {Path(os.path.realpath(path)) for path in inputs}
    for path, what in ((out, "model"), (metrics, "metrics"), (plot, "plot")):
        if path:
            if path.exists() and not path.is_file() and (what != "metrics" or path.is_fifo()):
                raise UserError(f"{what} {path} is not a regular file: name another")
            check_room(path, 1, what)
            real = Path(os.path.realpath(path))
            if real in taken:
                raise UserError(f"{what} {path} is also another file of this command: name another")
            taken.add(real)
    if metrics:
        check_metrics_path(metrics)


def _check_model_room(out: Path, data: "Dataset", hidden: tuple[int, ...]) -> None:
    from math import prod

    from .files import check_room
    from .kernels import Spec

    spec = Spec((prod(data.x_train.shape[1:]), *hidden, len(data.class_names)))
    weights = sum((i + 1) * o for i, o in spec.shapes)
    check_room(out, 4 * weights + _DESCRIPTION_BYTES, "model")


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Within, the first Ctrl-C interrupts; further ones do nothing, until the process has ended."""
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        _ignore_interrupts()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not interrupted:
            signal.signal(signal.SIGINT, before)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _save(result: "TrainingResult", out: Path, force: bool) -> None:
    """Save the model; where that must not or cannot be, save it elsewhere and say so."""
    from .files import write_somewhere
    from .modelfile import check_replaceable

    model = result.model
    if not force:
        try:
            check_replaceable(out, model.dataset_name, model.dataset_checksum)
        except UserError as error:  # it came while we trained
            raise UserError(f"{error}; {_save_aside(result, out)}") from error
    place = write_somewhere(out, model.to_bytes())
    if place != out:
        raise UserError(f"{out} could not be written; the trained model is saved in {place}")


def _save_aside(result: "TrainingResult | None", out: Path) -> str:
    """Save what an unfinished run has, beside the target and never over it; says what happened."""
    from .files import free_name, write_somewhere

    if result is None:
        return "there was no model to save yet"
    place = free_name(out.with_name(f"{out.stem}.unfinished{out.suffix}"))
    place = write_somewhere(place, result.model.to_bytes())
    return f"the best model so far is saved in {place}"


def _print_result(console: "Console", result: "TrainingResult") -> None:
    from .report import class_table, percent

    console.print()
    console.print(class_table(result.test, result.model.class_names))
    console.print()
    seconds = sum(record.seconds for record in result.history)
    console.print(
        f"test accuracy {percent(result.test_accuracy)} with the weights of epoch "
        f"{result.best_epoch}; {seconds:.1f} s of training"
    )


def _last_line(result: "TrainingResult", place: Path) -> str:
    from .report import percent

    accuracy = percent(result.test_accuracy)
    return f"saved {place}: trained on {result.model.dataset_name}, test accuracy {accuracy}"


def _training_json(result: "TrainingResult", place: Path) -> dict[str, Any]:
    from .backend import name_of

    history, model = result.history, result.model
    return {
        "backend": name_of(model.network.backend),
        "dataset": model.dataset_name,
        "sizes": list(model.network.spec.sizes),
        "epochs": len(history),
        "best_epoch": result.best_epoch,
        "seconds_per_epoch": [record.seconds for record in history],
        "samples_per_second": [record.samples_per_second for record in history],
        "train_loss": [record.train_loss for record in history],
        "validation_loss": [record.validation_loss for record in history],
        "validation_accuracy": [record.validation_accuracy for record in history],
        "test_accuracy": result.test_accuracy,
        "test_accuracy_per_class": {
            name: _number(share) for name, share in zip(model.class_names, result.test.recall_k)
        },
        "seed": result.recipe.seed,
        "threads": model.network.threads,
        "model": str(place),
    }


def _evaluation_json(evaluation: "Evaluation", model: Path, data: "Dataset") -> dict[str, Any]:
    return {
        "model": str(model),
        "dataset": data.name,
        "rows": len(data.x_test),
        "accuracy": evaluation.accuracy,
        "loss": _number(evaluation.loss),
        "calibration_error": _number(evaluation.calibration_error),
        "classes": [
            {
                "label": label,
                "name": name,
                "precision": _number(evaluation.precision_k[label]),
                "recall": _number(evaluation.recall_k[label]),
                "f1": _number(evaluation.f1_k[label]),
                "rows": int(evaluation.confusion_kk[label].sum()),
            }
            for label, name in enumerate(data.class_names)
        ],
        "confusion": evaluation.confusion_kk.tolist(),
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if value == value else None


def _unknown_data(model: "Model", path: Path) -> UserError:
    return UserError(
        f"{path} was trained on {model.dataset_name}, which is not a data set that this "
        "installation has: say with --dataset where it is"
    )


def _check_fits(model: "Model", path: Path, data: "Dataset") -> None:
    from math import prod

    inputs, classes = model.network.spec.sizes[0], model.network.spec.sizes[-1]
    if prod(data.x_test.shape[1:]) != inputs or len(data.class_names) != classes:
        raise UserError(
            f"{path} takes {inputs} inputs and knows {classes} classes; {data.name} has "
            f"{prod(data.x_test.shape[1:])} and {len(data.class_names)}: name another --dataset"
        )
    if data.checksum != model.dataset_checksum:
        warnings.warn(
            f"the model was trained on another data set ({model.dataset_name})", stacklevel=1
        )


def _answer(model: "Model", path: str) -> dict[str, Any]:
    """One entry of predict's output."""
    from .errors import DataError
    from .photo import read_gray

    if len(model.input_shape) != 2:
        raise UserError(f"this model takes rows of shape {model.input_shape}, not images")
    height, width = model.input_shape
    try:
        pixels = read_gray(Path(path), height, width)
    except DataError as error:
        return {"path": path, "error": str(error)}
    probability_k = model.predict_proba(pixels[None])[0]
    top = [
        {"label": int(k), "name": model.class_names[k], "p": float(probability_k[k])}
        for k in probability_k.argsort()[::-1][:3]
    ]
    return {
        "path": path,
        "label": top[0]["label"],
        "name": top[0]["name"],
        "probability": top[0]["p"],
        "top": top,
        "sure": None,
    }


def _installation_facts() -> dict[str, Any]:
    import platform

    import numpy as np

    from .backend import NAMES, unavailable
    from .cores import usable_cores
    from .fashion_mnist import find_folder

    config: Any = np.show_config(mode="dicts")
    features = config["SIMD Extensions"]
    return {
        "fmnist-fast": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": " ".join(str(config["Build Dependencies"]["blas"][k]) for k in ("name", "version")),
        "backends": {name: unavailable(name) or "available" for name in NAMES},
        "instruction set": _instruction_set(),
        "machine": platform.machine(),
        "cpu features": [*features["baseline"], *features["found"]],
        "threads": usable_cores(),
        "cache": _cache_or_none(),
        "fashion-mnist": str(find_folder() or "not here: 'fmnist-fast data fetch' gets it"),
    }


def _instruction_set() -> str | None:
    """What the compiled kernels use here."""
    from .backend import get_backend

    return getattr(get_backend(), "instruction_set", lambda: None)()


def _cache_or_none() -> str | None:
    from .cache import cache_folder

    try:
        return str(cache_folder())
    except OSError:  # the user has no home folder
        return None


def _model_facts(path: Path) -> dict[str, Any]:
    from .modelfile import load_model

    return load_model(path).describe()


def _in_line(value: Any) -> str:
    """A fact as text: nested ones as name: value, lists with commas."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_in_line(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) if value else "none"
    return "none" if value is None else str(value)

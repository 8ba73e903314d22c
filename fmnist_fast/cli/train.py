"""The command `train`."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UserError
from .options import BACKEND, DATA_DIR, DATASETS, FILE, JSON, THREADS, ClassWeights, Seconds, Widths
from .outputs import check_model_room, check_outputs, save, save_aside
from .signals import stoppable
from .terminal import INTERRUPTED, console_of, fail, number_or_none

if TYPE_CHECKING:
    from rich.console import Console

    from ..data.datasets import Dataset
    from ..models.load import Ensemble, Model
    from ..training.config import TrainingConfig
    from ..training.trainer import TrainingInterrupted, TrainingResult

__all__ = ["train"]

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)


_OPTION_OF_PRESET = "the preset's"


def _of_recipe(name: str, **settings: Any) -> Callable[[FC], FC]:
    """An option that changes one field of the preset's recipe, if it is given."""
    return click.option(name, default=None, show_default=_OPTION_OF_PRESET, **settings)


@click.command()
@click.option(
    "--preset",
    type=click.Choice(["fast", "standard", "best", "photos", "wide"]),
    help="A whole recipe; the options below change parts of it. 'fmnist-fast info --presets' says "
    "what each is and reaches.  [default: standard]",
)
@BACKEND
@click.option("--dataset", default="auto", show_default=True, help=f"What to learn: {DATASETS}.")
@DATA_DIR
@_of_recipe("--hidden", type=Widths(), help="Widths of the hidden layers, or none.")
@_of_recipe(
    "--epochs", type=click.IntRange(1), help="How many times to go through the training rows."
)
@click.option(
    "--time-budget",
    type=Seconds(),
    help="Be done in this time, like 2s, 500ms or 3m, start-up included, in place of --epochs. "
    "Without --preset, the best recipe for 784-128-64-10 that fits is taken.",
)
@_of_recipe("--batch-size", type=click.IntRange(1), help="Rows that one step learns from.")
@_of_recipe("--lr", type=click.FloatRange(0, min_open=True), help="Peak learning rate.")
@_of_recipe(
    "--schedule",
    type=click.Choice(["onecycle", "constant", "cosine"]),
    help="How the learning rate goes over the run.",
)
@_of_recipe(
    "--l2",
    type=click.FloatRange(0),
    help="Penalty on the weights: l2/2 times the sum of their squares.",
)
@_of_recipe(
    "--weight-decay",
    type=click.FloatRange(0),
    help="Share of the learning rate that every step takes from the weights (decoupled decay).",
)
@_of_recipe(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of every target that all classes have alike: 0.05 teaches not to be too sure.",
)
@_of_recipe(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the hidden layers' outputs that every row of every epoch does without, like "
    "0.2; wants more epochs.",
)
@click.option(
    "--hflip/--no-hflip",
    default=None,
    help="Show half of the images in the mirror.  [default: for clothes, not for data of your own]",
)
@_of_recipe(
    "--augment",
    type=click.Choice(["photos"]),
    help="Learn from other images in every epoch, such as photographs of clothes give when the "
    "garment is cut out.",
)
@click.option(
    "--class-weight",
    type=ClassWeights(),
    help="How much rows count by their class: balanced, or weights of labels, like 6=2,2=1.5.",
)
@click.option(
    "--teacher",
    type=FILE,
    help="Learn from what the model in this file answers too, one network or an ensemble; it takes "
    "the place of the preset's teachers. One that learned from the validation rows makes the "
    "validation accuracy too good.",
)
@click.option(
    "--validation",
    type=click.IntRange(0),
    help="Training rows held back to choose the best epoch; 0 for none, then the last epoch is "
    "saved.  [default: 5000, or a twelfth of a smaller set]",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="Stop after so many epochs without a better validation accuracy.",
)
@_of_recipe(
    "--ema-epochs",
    type=click.IntRange(1),
    help="Save the mean of the weights over so many epochs; wants --schedule constant.",
)
@_of_recipe(
    "--target-precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the answers called sure that must be right, on the validation rows.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=None,
    show_default="0",
    help="Decides the first weights and the order of the rows.",
)
@THREADS
@click.option(
    "--out", type=FILE, default="model.safetensors", show_default=True, help="The model file."
)
@click.option("--force", is_flag=True, help="Replace --out even if another data set's model.")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the run in this new folder as it goes, so that --resume goes on after a crash.",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    help="Epochs between two checkpoints.  [default: as often as costs a twentieth of the time]",
)
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    help="Go on with the run in this folder, with its own options; the model will be the same as "
    "if it had not been interrupted.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Train nothing: try learning rates on a few hundred batches, and advise one for --lr. "
    "--plot draws the losses.",
)
@click.option("--metrics", type=FILE, help="Append every epoch's figures, as JSON lines.")
@click.option("--plot", type=FILE, help="Draw loss and accuracy: a .png, .svg or .pdf file.")
@click.option("--quiet", is_flag=True, help="Print only the last line.")
@JSON
@click.pass_context
def train(
    context: click.Context,
    /,
    dataset: str,
    data_dir: Path | None,
    out: Path,
    force: bool,
    teacher: Path | None,
    checkpoint: Path | None,
    resume: Path | None,
    find_lr: bool,
    metrics: Path | None,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    backend: str,
    threads: int | None,
    preset: str | None,
    every: int | None,
    **options: Any,
) -> int:
    """Train a network and save it.

    The same command with the same threads on the same machine writes the same bytes. The saved
    model is the epoch with the best validation accuracy; the test set is used once, for the figure
    at the end. Ctrl-C, or SIGTERM, saves the best epoch so far beside --out, and the run, so that
    --resume can go on with it.

      \b
      fmnist-fast train
      fmnist-fast train --preset best --checkpoint run --out best.safetensors
      fmnist-fast train --resume run
      fmnist-fast train --time-budget 2s
      fmnist-fast train --epochs 5 --hidden 256,128 --out wide.safetensors --plot curves.png
      fmnist-fast train --teacher ensemble.safetensors --out student.safetensors
      fmnist-fast train --dataset my-data.npz --json
    """
    start = perf_counter() - process_time()  # of the program, near enough: it has waited little
    from ..data.datasets import load_dataset
    from ..models.load import check_replaceable
    from ..training.presets import preset as preset_config
    from ..training.trainer import TrainingDiverged, TrainingInterrupted
    from ..training.trainer import train as train_network
    from .report import MetricsLog, Several, TrainingReport

    changes = {name: value for name, value in options.items() if value is not None}
    _check_combination(context, checkpoint, resume, changes)
    if find_lr:
        config = preset_config(preset, **changes)
        return _find_lr(load_dataset(dataset, data_dir), config, backend, threads, plot, as_json)
    notes = {"dataset": dataset, "data_dir": data_dir, "out": out, "teacher": teacher}
    if resume:
        dataset, data_dir, out, teacher = _as_started(context, resume, notes)
    notes = _absolute(dataset, data_dir, out, teacher)
    inputs = [Path(dataset), *([teacher] if teacher else [])]
    check_outputs({"model": out, "metrics": metrics, "plot": plot}, *inputs)
    taught_by = _load_teacher(teacher, backend) if teacher else None
    data = load_dataset(dataset, data_dir)
    if not force:
        check_replaceable(out, data.name, data.checksum)
    hidden = changes.get("hidden", preset_config(preset).hidden)
    check_model_room(out, data, hidden)

    console = console_of(stderr=as_json)
    log = MetricsLog(metrics) if metrics else None
    report = TrainingReport(console)
    parts = [part for part in (log, None if quiet else report) if part]
    if "time_budget" in changes:
        changes["time_budget"] = max(changes["time_budget"] - (perf_counter() - start), 1e-3)
    with stoppable() as stop:
        try:
            with report:
                result = train_network(
                    data,
                    preset=preset,
                    backend=backend,
                    threads=threads,
                    teacher=taught_by,
                    progress=Several(*parts),
                    should_stop=lambda: bool(stop),
                    checkpoint=resume or checkpoint,
                    every=every,
                    resume=bool(resume),
                    notes=notes,
                    **changes,
                )
        except TrainingInterrupted as interruption:
            saved = save_aside(interruption.result.model, out)
            code = 128 + stop[0] if stop else INTERRUPTED
            return fail(f"{interruption}; {saved}; {_how_to_go_on(interruption, out, notes)}", code)
        except TrainingDiverged as divergence:
            before = divergence.result.model if divergence.result else None
            return fail(f"{divergence}; {save_aside(before, out)}")
        save(result.model, out, force)
    try:
        if log:
            log.write(event="end", dataset=data.name, model=str(out), **result.model.metrics)
        if as_json:
            click.echo(json.dumps(_training_json(result, preset, out)))
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
        return fail(f"stopped; the model is saved in {out}", INTERRUPTED)
    except BrokenPipeError:
        raise
    except (OSError, UserError) as error:
        reason = error if isinstance(error, UserError) else f"standard output: {error.strerror}"
        raise UserError(f"{reason}; the model is saved in {out}") from error
    return 0


def _find_lr(
    data: "Dataset",
    config: "TrainingConfig",
    backend: str,
    threads: int | None,
    plot: Path | None,
    as_json: bool,
) -> int:
    """What --find-lr does in place of training."""
    from ..training.lr_finder import find_learning_rate

    check_outputs({"plot": plot})
    found = find_learning_rate(data, config, backend, threads)
    if plot:
        from .plots import plot_learning_rates

        plot_learning_rates(found, plot)
    if as_json:
        columns = {"lr": found.lr_t, "loss": found.loss_t, "smoothed_loss": found.smooth_t}
        entries = {name: column.tolist() for name, column in columns.items()}
        click.echo(json.dumps({"advised": found.advised, **entries}))
        return 0
    click.echo("learning rate  loss")
    for step in range(0, len(found.lr_t), max(1, len(found.lr_t) // 20)):
        click.echo(f"{found.lr_t[step]:13.2e}  {found.smooth_t[step]:.4f}")
    click.echo(f"advised: --lr {found.advised:.2g}")
    return 0


def _check_combination(
    context: click.Context,
    checkpoint: Path | None,
    resume: Path | None,
    changes: dict[str, Any],
) -> None:
    """Raise UserError for options that contradict each other."""
    if checkpoint and resume:
        raise UserError(
            "--checkpoint begins a run and --resume goes on with one: give only one of the two"
        )
    if context.params["every"] and not (checkpoint or resume):
        raise UserError("--every says how often to write checkpoints: name a folder, --checkpoint")
    if "epochs" in changes and "time_budget" in changes:
        raise UserError("--epochs and --time-budget both say when to end: give only one of the two")


def _load_teacher(path: Path, backend: str) -> "Model | Ensemble":
    """Raises: UserError; the file of a run that goes on may have been moved since."""
    from ..models.load import load_model

    if not path.exists():
        raise UserError(f"there is no teacher {path}: say with --teacher where it is")
    return load_model(path, backend)


def _absolute(
    dataset: str, data_dir: Path | None, out: Path, teacher: Path | None
) -> dict[str, Any]:
    """Where everything is, wherever the run is gone on with from."""
    from ..data.datasets import NAMES

    return {
        "dataset": dataset if dataset in NAMES else str(Path(dataset).absolute()),
        "data_dir": str(data_dir.absolute()) if data_dir else None,
        "out": str(out.absolute()),
        "teacher": str(teacher.absolute()) if teacher else None,
    }


def _as_started(
    context: click.Context, folder: Path, given: dict[str, Any]
) -> tuple[str, Path | None, Path, Path | None]:
    """Data set, its folder, the model file and the teacher's: as given now, else as when the run
    was started.
    """
    from ..training.checkpoint import read_identity

    notes = read_identity(folder)["notes"]
    for name, value in given.items():
        if context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
            given[name] = notes.get(name, value)
    data_dir, teacher = (
        Path(given[name]) if given[name] else None for name in ("data_dir", "teacher")
    )
    return given["dataset"], data_dir, Path(given["out"]), teacher


def _how_to_go_on(interruption: "TrainingInterrupted", out: Path, notes: dict[str, Any]) -> str:
    """The command that goes on; a run that was kept in no folder is put into one."""
    from .._files import free_name

    folder = interruption.folder
    if folder is None:
        folder = free_name(out.with_name(f"{out.stem}.unfinished"))
        try:
            if not interruption.save_checkpoint(folder, notes):
                return "it cannot go on"
        except (OSError, UserError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return f"it cannot go on: {folder} could not be written: {reason}"
    return f"go on with 'fmnist-fast train --resume {shlex.quote(str(folder))}'"


def _print_result(console: "Console", result: "TrainingResult") -> None:
    from .report import class_table, percent

    console.print()
    console.print(class_table(result.test, result.model.class_names))
    console.print()
    console.print(
        f"test accuracy {percent(result.test_accuracy)} with the weights of epoch "
        f"{result.best_epoch}; {result.seconds:.1f} s of training"
    )


def _last_line(result: "TrainingResult", place: Path) -> str:
    from .report import percent

    accuracy = percent(result.test_accuracy)
    return f"saved {place}: trained on {result.model.dataset_name}, test accuracy {accuracy}"


def _training_json(result: "TrainingResult", preset: str | None, place: Path) -> dict[str, Any]:
    from ..nn.backend import backend_name

    history, model = result.history, result.model
    return {
        "backend": backend_name(model.network.backend),
        "dataset": model.dataset_name,
        "sizes": list(model.network.spec.sizes),
        "preset": preset,
        "epochs": len(history),
        "seconds": result.seconds,
        "best_epoch": result.best_epoch,
        "seconds_per_epoch": [record.seconds for record in history],
        "samples_per_second": [record.samples_per_second for record in history],
        "train_loss": [record.train_loss for record in history],
        "validation_loss": [record.validation_loss for record in history],
        "validation_accuracy": [record.validation_accuracy for record in history],
        "test_accuracy": result.test_accuracy,
        "test_accuracy_per_class": {
            name: number_or_none(share)
            for name, share in zip(model.class_names, result.test.recall_k)
        },
        "seed": result.config.seed,
        "threads": model.network.threads,
        "model": str(place),
    }

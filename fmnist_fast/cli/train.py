"""The command `train`."""

import json
import shlex
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .outputs import check_model_room, check_outputs, save, save_aside
from .signals import stoppable
from .terminal import INTERRUPTED, console_of, fail, number_or_none

if TYPE_CHECKING:
    from rich.console import Console

    from ..data.datasets import Dataset
    from ..models.ensemble import Ensemble
    from ..models.model import Model
    from ..training.config import TrainingConfig
    from ..training.trainer import TrainingInterrupted, TrainingResult

__all__ = ["train"]


def train(
    *,
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
    checkpoint_every: int | None,
    **options: Any,
) -> int:
    context = click.get_current_context()
    from ..data.datasets import load_dataset
    from ..models.safetensors_io import check_replaceable
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
        changes["time_budget"] = max(changes["time_budget"] - (monotonic() - context.obj), 1e-3)
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
                    every=checkpoint_every,
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
    if context.params["checkpoint_every"] and not (checkpoint or resume):
        raise UserError(
            "--checkpoint-every says how often to write checkpoints: name a folder, --checkpoint"
        )
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
    from ..data.datasets import DATASET_NAMES

    return {
        "dataset": dataset if dataset in DATASET_NAMES else str(Path(dataset).absolute()),
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

"""The command `train`."""

import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import click

from .._files import free_name
from ..data.datasets import DATASET_NAMES, load_dataset
from ..errors import UserError
from ..models.load import load_model
from ..models.safetensors_io import check_replaceable
from ..nn.backend import BACKEND_NAMES, backend_name, unavailable_reason
from ..training import trainer
from ..training.checkpoint import read_identity
from ..training.lr_finder import LRFinderResult, find_learning_rate
from ..training.presets import preset as preset_config
from ..training.run import TrainingDiverged
from .outputs import check_model_space, check_outputs, kept_note, save_model, save_unfinished
from .plots import plot_curves, plot_learning_rates
from .report import CombinedProgress, MetricsLog, TrainingReport, class_table, percent
from .signals import catch_stop_signals
from .terminal import EXIT_INTERRUPTED, fail, make_console, print_json


@dataclass(frozen=True)
class _Files:
    """Inputs and the output of a run, which --resume reads from its folder."""

    dataset: str
    data_dir: Path | None
    out: Path
    teacher: Path | None

    def metadata(self) -> dict[str, Any]:
        """Return absolute paths: a run may be resumed from another folder."""
        paths = {name: path and str(Path(path).absolute()) for name, path in vars(self).items()}
        return paths | ({"dataset": self.dataset} if self.dataset in DATASET_NAMES else {})

    def restore(self, folder: Path) -> "_Files":
        """Return the files of the run in the folder; options that are given override them."""
        stored, context = read_identity(folder).metadata, click.get_current_context()
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
                value = stored.get(name, value)
            values[name] = Path(value) if value and name != "dataset" else value
        return _Files(**values)


def train(
    *,
    dataset: str,
    data_dir: Path | None,
    out: Path,
    teacher: Path | None,
    force: bool,
    checkpoint: Path | None,
    checkpoint_every: int | None,
    resume: Path | None,
    find_lr: bool,
    metrics: Path | None,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    backend: str,
    threads: int | None,
    preset: str | None,
    **config_options: Any,
) -> int:
    """Run the command; return the exit code."""
    changes = {name: value for name, value in config_options.items() if value is not None}
    if checkpoint and resume:
        raise UserError("--checkpoint starts a run and --resume continues one: give only one")
    if checkpoint_every and not (checkpoint or resume):
        raise UserError("--checkpoint-every needs a folder for the checkpoints: give --checkpoint")
    if "epochs" in changes and "time_budget" in changes:
        raise UserError("--epochs and --time-budget both limit the training: give only one")
    config = preset_config(preset, **changes)
    if find_lr:
        check_outputs({"plot": plot})
        found = find_learning_rate(load_dataset(dataset, data_dir), config, backend, threads)
        return _show_learning_rates(found, plot, as_json)
    files = _Files(dataset, data_dir, out, teacher)
    if resume:
        files = files.restore(resume)
    inputs = filter(None, (Path(files.dataset), files.teacher))
    check_outputs({"model": files.out, "metrics": metrics, "plot": plot}, *inputs)
    if files.teacher and not files.teacher.exists():  # it may have been moved since the run began
        raise UserError(f"there is no teacher {files.teacher}: name its file with --teacher")
    loaded_teacher = load_model(files.teacher, backend) if files.teacher else None
    data = load_dataset(files.dataset, files.data_dir)
    if not force:
        check_replaceable(files.out, data.name, data.checksum)
    check_model_space(files.out, data, config.hidden)

    console = make_console(stderr=as_json)
    log = MetricsLog(metrics)
    report = TrainingReport(console, files.teacher)
    if backend == "auto" and (missing := unavailable_reason(BACKEND_NAMES[0])):
        warnings.warn(f"the fastest backend, {BACKEND_NAMES[0]}, {missing}", stacklevel=1)
    if "time_budget" in changes:
        elapsed = monotonic() - click.get_current_context().obj
        changes["time_budget"] = max(changes["time_budget"] - elapsed, 1e-3)
    with catch_stop_signals() as stop:
        try:
            with report:
                result = trainer.train(
                    data,
                    preset=preset,
                    backend=backend,
                    threads=threads,
                    teacher=loaded_teacher,
                    progress=log if quiet else CombinedProgress(log, report),
                    should_stop=lambda: bool(stop),
                    checkpoint=resume or checkpoint,
                    checkpoint_every=checkpoint_every,
                    resume=bool(resume),
                    metadata=files.metadata(),
                    **changes,
                )
        except trainer.TrainingInterrupted as interruption:
            saved = save_unfinished(interruption.result.model, files.out)
            code = 128 + stop[0] if stop else EXIT_INTERRUPTED
            return fail(f"{interruption}; {saved}; {_save_resumable(interruption, files)}", code)
        except TrainingDiverged as divergence:
            model = divergence.result.model if divergence.result else None
            return fail(f"{divergence}; {save_unfinished(model, files.out)}")
        previous = save_model(result.model, files.out, force)
    try:
        log.write(event="end", dataset=data.name, model=str(files.out), **result.model.metrics)
        if as_json:
            print_json(_to_json(result, preset, files.out, previous))
        else:
            accuracy = percent(result.test_accuracy)
            if not quiet:
                console.print()
                console.print(class_table(result.test, result.model.class_names))
                console.print(
                    f"\ntest accuracy {accuracy} with the weights of epoch {result.best_epoch}; "
                    f"{result.seconds:.1f} s of training"
                )
            console.print(
                f"saved {files.out}: trained on {data.name}, test accuracy {accuracy}"
                f"{kept_note(previous)}",
                soft_wrap=True,
            )
        if plot:
            plot_curves(result, plot)
        if log.error:
            raise UserError(f"metrics {metrics} are incomplete: {log.error.strerror}")
    except KeyboardInterrupt:
        return fail(f"stopped; the model is saved in {files.out}", EXIT_INTERRUPTED)
    except BrokenPipeError:
        raise
    except (OSError, UserError) as error:
        reason = error if isinstance(error, UserError) else f"standard output: {error.strerror}"
        raise UserError(f"{reason}; the model is saved in {files.out}") from error
    return 0


def _show_learning_rates(found: LRFinderResult, plot: Path | None, as_json: bool) -> int:
    if plot:
        plot_learning_rates(found, plot)
    if as_json:
        columns = {"lr": found.lr_t, "loss": found.loss_t, "smoothed_loss": found.smooth_t}
        entries = {name: column.tolist() for name, column in columns.items()}
        print_json({"suggested_lr": found.advised, **entries})
        return 0
    click.echo("learning rate  loss")
    for step in range(0, len(found.lr_t), max(1, len(found.lr_t) // 20)):
        click.echo(f"{found.lr_t[step]:13.2e}  {found.smooth_t[step]:.4f}")
    click.echo(f"suggested: --lr {found.advised:.2g}")
    return 0


def _save_resumable(interruption: trainer.TrainingInterrupted, files: _Files) -> str:
    """Save a checkpoint if the run has none; return the advice to resume it."""
    folder = interruption.folder
    if folder is None:
        folder = free_name(files.out.with_name(f"{files.out.stem}.unfinished"))
        try:
            if not interruption.save_checkpoint(folder, files.metadata()):
                return "the run cannot be resumed"
        except (OSError, UserError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return f"the run cannot be resumed: {folder} could not be written: {reason}"
    return f"resume with 'fmnist-fast train --resume {shlex.quote(str(folder))}'"


METRICS = ("samples_per_second", "train_loss", "validation_loss", "validation_accuracy")


def _to_json(
    result: trainer.TrainingResult, preset: str | None, out: Path, previous: Path | None
) -> dict[str, Any]:
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
        **{name: [getattr(record, name) for record in history] for name in METRICS},
        "test_accuracy": result.test_accuracy,
        "test_accuracy_per_class": dict(zip(model.class_names, result.test.recall_k.tolist())),
        "seed": result.config.seed,
        "threads": model.network.threads,
        "model": str(out),
        "previous_model": previous and str(previous),
    }

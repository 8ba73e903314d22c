"""Runs the command `sweep`."""

import json
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from .._cpu import usable_cores
from ..data.datasets import load_dataset
from ..distributed.sweep.config import SweepConfig
from ..distributed.sweep.results import Ranked, best_trials, final_settings, importances
from ..distributed.sweep.scheduler import StopReason, data_to_workers, run_sweep
from ..distributed.sweep.space import read_space
from ..distributed.sweep.study_store import StudyStore, check_address, is_database, open_study
from ..distributed.sweep.trial import METRICS
from ..distributed.worker_pool import open_pool
from ..errors import SweepError, UserError
from ..models.ensemble import Ensemble
from ..models.safetensors_io import check_replaceable
from ..training.presets import preset as preset_config
from ..training.run import TrainingDiverged
from ..training.trainer import TrainingInterrupted, TrainingResult, train
from .commands.sweep import STUDY_NAME
from .options import check_workers
from .outputs import check_model_space, check_outputs, kept_note, save_model
from .report import percent
from .signals import catch_stop_signals
from .sweep_plots import check_plots, draw_plots, plot_paths
from .sweep_view import FinalProgress, SweepView, best_table, importance_line
from .terminal import fail, make_console

BEST_SHOWN = 10


def sweep(
    *,
    space: Path | None,
    workers: int | None,
    scheduler: str | None,
    study: str,
    study_name: str,
    time_budget: float | None,
    out: Path,
    ensemble: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    dataset: str,
    data_dir: Path | None,
    preset: str,
    **options: Any,
) -> int:
    context = click.get_current_context()
    given = context.get_parameter_source("workers") is not click.core.ParameterSource.DEFAULT
    check_workers(workers, given, scheduler)
    check_address(study)
    search_space = read_space(space)
    study_files = [] if is_database(study) else [Path(study)]
    plots = plot_paths(
        study_files[0] if study_files else Path("sweep"),
        None if study_name == STUDY_NAME else study_name,
    )
    outputs = {"model": out} | ({"ensemble": ensemble_path(out)} if ensemble else {})
    check_outputs(outputs, Path(dataset), *([space] if space else []), *plots, *study_files)
    data = load_dataset(dataset, data_dir)
    if not force:
        for path in outputs.values():
            check_replaceable(path, data.name, data.checksum)
        check_plots(plots)
    config = SweepConfig(data, preset_config(preset), search_space, **options).checked()
    check_model_space(out, data, _largest_hidden(config))
    deadline = float("inf") if time_budget is None else context.obj + time_budget
    with ExitStack() as stack:
        stop = stack.enter_context(catch_stop_signals())
        store = stack.enter_context(
            open_study(study, study_name, config.identity(), METRICS[config.metric])
        )
        outcome = _Outcome(
            config=config,
            store=store,
            stop=stop,
            preset=preset,
            dataset=data.name if dataset == "auto" else dataset,
            data_dir=data_dir,
            out=out,
            force=force,
            as_json=as_json,
        )
        missing = config.trials - store.counts().ended
        try:
            with (
                SweepView(outcome.console, config.metric, quiet) as view,
                open_pool(
                    scheduler,
                    max(1, min(workers or usable_cores(), missing)),
                    config.workers_identity(),
                    data_to_workers(data),
                ) as pool,
            ):
                reason = run_sweep(config, store, pool, view, lambda: bool(stop), deadline)
        except OSError as error:
            raise UserError(
                f"{error.filename or study}: {error.strerror or error}; {outcome.kept()}"
            ) from error
        except UserError as error:
            if not stop:  # else workers were stopped, too
                raise UserError(f"{error}; {outcome.kept()}") from error
            reason = StopReason.STOPPED
        if reason is StopReason.STOPPED:
            return fail(f"stopped; {outcome.kept()}", 128 + stop[0])
        try:
            return outcome.finish(reason, plots, ensemble)
        except TrainingInterrupted as error:
            return fail(f"stopped: {error}; {outcome.kept()}", 128 + stop[0])
        except TrainingDiverged as error:
            return fail(f"{error}; {outcome.kept()}")


def ensemble_path(out: Path) -> Path:
    """Return the file of the ensemble: model.ensemble.safetensors beside model.safetensors."""
    return out.with_name(f"{out.stem}.ensemble{out.suffix}")


def _largest_hidden(config: SweepConfig) -> tuple[int, ...]:
    """Hidden layers that make the largest model file."""
    fixed: tuple[int, ...] = config.space.fixed.get("hidden", config.base.hidden)
    searched = "hidden" in config.space.searched
    return max(config.space.extremes("hidden"), key=sum) if searched else fixed


@dataclass(frozen=True)
class _Outcome:
    """What follows the trials: tables, plots, final trainings. stop : signals received."""

    config: SweepConfig
    store: StudyStore
    stop: list[int]
    preset: str
    dataset: str
    data_dir: Path | None
    out: Path
    force: bool
    as_json: bool

    @property
    def console(self) -> Any:
        return make_console(stderr=self.as_json)

    def kept(self) -> str:
        """Say what is stored, and how to resume."""
        ended = self.store.counts().ended
        return (
            f"{ended} of {self.config.trials} trials are kept in {self.store.address}: the same "
            "command resumes it"
        )

    def print(self, line: Any) -> None:
        """Print for people, unless the output is JSON."""
        if not self.as_json:
            self.console.print(line, soft_wrap=isinstance(line, str))

    def finish(self, reason: StopReason, plots: tuple[Path, Path], ensemble: int | None) -> int:
        """Report the best trials, train and save the best, and the ensemble.

        Raises: TrainingInterrupted; TrainingDiverged; UserError.
        """
        ranked = best_trials(self.store, self.config, max(BEST_SHOWN, ensemble or 0))
        if not ranked:
            if reason is StopReason.TIME:
                raise UserError(f"no trial ended before the time was over; {self.kept()}")
            failures = self.store.failures()
            why = f"; the last of them: {failures[-1]}" if failures else ""
            raise SweepError(
                f"no trial was completed{why}; they are kept in {self.store.address}: give another "
                "--space and --study, or more --trials"
            )
        best, counts, fractions = ranked[0], self.store.counts(), importances(self.store)
        drawn = self._draw(plots)
        self.print(
            f"{reason.value}: {counts.complete} complete, {counts.pruned} pruned, "
            f"{counts.failed} failed; kept in {self.store.address}"
        )
        self.print(best_table(ranked[:BEST_SHOWN], self.config.metric, self.console.width))
        if fractions:
            self.print(importance_line(fractions))
        if drawn:
            self.print(f"plots: {', '.join(drawn)}")
        result = self._train(best, f"training trial {best.number} again on all rows")
        previous = save_model(result.model, self.out, self.force)
        command = self._command(best, self.out)
        self.print(
            f"saved {self.out}: trial {best.number}, trained again on all "
            f"{len(self.config.dataset.x_train):,} training rows: test accuracy "
            f"{percent(result.test_accuracy)}{kept_note(previous)}"
        )
        self.print(f"the same again: {command}")
        document = {
            "study": self.store.address,
            "ended": reason.name.lower(),
            "trials": asdict(counts),
            "metric": self.config.metric,
            "best": [_to_json(one) for one in ranked[:BEST_SHOWN]],
            "importances": fractions,
            "plots": drawn,
            "model": str(self.out),
            "test_accuracy": result.test_accuracy,
            "command": command,
        }
        if ensemble:
            document["ensemble"] = self._ensemble(ranked[:ensemble], ensemble, result)
        if self.as_json:
            click.echo(json.dumps(document))
        return 0

    def _draw(self, plots: tuple[Path, Path]) -> list[str]:
        """Draw the plots; one that cannot be written costs no model."""
        try:
            draw_plots(self.store, self.config.metric, *plots)
        except UserError as error:
            warnings.warn(str(error), stacklevel=1)
            return []
        return list(map(str, plots))

    def _train(self, ranked: Ranked, label: str, place: int = 0) -> TrainingResult:
        """Train a trial's settings on all rows. label : of the training, in errors too. place : in
        the ensemble.
        """
        try:
            with FinalProgress(self.console, label) as progress:
                return train(
                    self.config.dataset,
                    preset=self.preset,
                    backend=self.config.backend,
                    progress=progress,
                    should_stop=lambda: bool(self.stop),
                    **final_settings(self.config, ranked, place),
                )
        except (TrainingInterrupted, TrainingDiverged) as error:
            error.args = (f"{label}: {error}",)
            raise

    def _ensemble(
        self, ranked: Sequence[Ranked], wanted: int, best: TrainingResult
    ) -> Mapping[str, Any]:
        """Train the others of the best trials, save the ensemble, and describe it."""
        if len(ranked) < wanted:
            warnings.warn(
                f"the ensemble has {len(ranked)} networks, not {wanted}: no more trials were "
                "completed",
                stacklevel=1,
            )
        results = {ranked[0].number: best}
        for place, one in enumerate(ranked[1:], start=1):
            label = f"training trial {one.number} again, {place + 1} of {len(ranked)}"
            try:
                results[one.number] = self._train(one, label, place)
            except TrainingDiverged as error:
                fail(f"{error}; {self.kept()}")  # the ensemble is smaller
        ensemble = Ensemble(tuple(result.model for result in results.values()))
        data, path = self.config.dataset, ensemble_path(self.out)
        accuracy = float((ensemble.predict(data.x_test) == data.y_test).mean())
        ensemble = replace(ensemble, metrics={"test_accuracy": accuracy})
        previous = save_model(ensemble, path, self.force)
        trials = ", ".join(map(str, results))
        self.print(
            f"saved {path}: ensemble of {len(results)} networks, of trials {trials}: test accuracy "
            f"{percent(accuracy)}{kept_note(previous)}"
        )
        student = self._command(ranked[0], Path("student.safetensors"), "--teacher", str(path))
        self.print(f"one network that learns from it: {student}")
        return {
            "model": str(path),
            "trials": list(results),
            "test_accuracy": accuracy,
            "test_accuracy_of_each": [result.test_accuracy for result in results.values()],
        }

    def _command(self, best: Ranked, out: Path, *more: str) -> str:
        """Return the command that trains the same model, to the byte, into a file."""
        words = ["fmnist-fast", "train", "--preset", self.preset, "--dataset", self.dataset]
        if self.data_dir:
            words += ["--data-dir", str(self.data_dir)]
        words += ["--backend", self.config.backend]
        for name, value in final_settings(self.config, best).items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                text = ",".join(map(str, value)) or "none" if isinstance(value, tuple) else value
                words += [f"--{option}", str(text)]
        return shlex.join([*words, *more, "--out", str(out)])


def _to_json(ranked: Ranked) -> dict[str, Any]:
    return {
        "trial": ranked.number,
        "value": ranked.result.value,
        "spread": ranked.result.spread,
        "settings": ranked.settings,
        **asdict(ranked.result),
    }

"""The command `sweep`."""

import json
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MissingExtra, UserError
from .commands.sweep import STUDY_NAME
from .options import check_workers
from .outputs import check_model_space, check_outputs, save_model
from .signals import catch_stop_signals
from .terminal import EXIT_INTERRUPTED, fail, make_console

if TYPE_CHECKING:
    from rich.console import Console

    from ..distributed.sweep.results import Ranked
    from ..distributed.sweep.scheduler import Ending, Plan
    from ..distributed.sweep.study_store import Ledger
    from ..training.trainer import TrainingResult

__all__ = ["sweep"]

BEST_SHOWN = 10


def sweep(
    *,
    show_space: bool,
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
    **choices: Any,
) -> int:
    context = click.get_current_context()
    if show_space:
        from ..distributed.sweep.space import BUILT_IN

        click.echo(BUILT_IN.read_text(encoding="utf-8"), nl=False)
        return 0
    _load_engines()
    from .._cpu import usable_cores
    from ..data.datasets import load_dataset
    from ..distributed.sweep.scheduler import Ending, Plan, data_to_workers, run_sweep
    from ..distributed.sweep.space import read_space
    from ..distributed.sweep.study_store import check_address, open_ledger
    from ..distributed.sweep.trial import METRICS
    from ..distributed.worker_pool import open_fleet
    from ..models.safetensors_io import check_replaceable
    from ..training.presets import preset as preset_config
    from .sweep_plots import check_pictures
    from .sweep_view import SweepView

    check_workers(workers, context.get_parameter_source("workers") is not _DEFAULT, scheduler)
    check_address(study)
    read = read_space(space)
    outs = {"model": out} | ({"ensemble": ensemble_path(out)} if ensemble else {})
    inputs = (Path(dataset), *([space] if space else []))
    pictures = _pictures(study, study_name)
    check_outputs(outs, *inputs, *pictures, *_own_file(study))
    data = load_dataset(dataset, data_dir)
    if not force:
        for path in outs.values():
            check_replaceable(path, data.name, data.checksum)
        check_pictures(pictures)
    plan = Plan(data, preset_config(preset), read, **choices).checked()
    check_model_space(out, data, _widest(plan))
    console = make_console(stderr=as_json)
    deadline = float("inf") if time_budget is None else context.obj + time_budget
    with (
        catch_stop_signals() as stop,
        open_ledger(study, study_name, plan.identity(), METRICS[plan.metric]) as ledger,
    ):
        try:
            with (
                SweepView(console, plan.metric, quiet) as view,
                open_fleet(
                    scheduler,
                    # no more than there are trials to run
                    max(1, min(workers or usable_cores(), plan.trials - ledger.counts().ended)),
                    plan.workers_identity(),
                    data_to_workers(data),
                ) as fleet,
            ):
                ending = run_sweep(plan, ledger, fleet, view, lambda: bool(stop), deadline)
        except OSError as error:
            raise UserError(
                f"{error.filename or study}: {error.strerror or error}; {_kept(ledger, plan)}"
            ) from error
        except UserError as error:
            raise UserError(f"{error}; {_kept(ledger, plan)}") from error
        if ending is Ending.STOPPED:
            return fail(f"stopped; {_kept(ledger, plan)}", 128 + stop[0])
        named = data.name if dataset == "auto" else dataset
        known_as = {"dataset": named, "data_dir": data_dir, "preset": preset, "out": out}
        outcome = _Outcome(plan, ledger, ending, console, known_as, pictures, as_json, ensemble)
        return outcome.show(stop, force)


def ensemble_path(out: Path) -> Path:
    """Beside the best model: model.ensemble.safetensors."""
    return out.with_name(f"{out.stem}.ensemble{out.suffix}")


_DEFAULT = click.core.ParameterSource.DEFAULT


def _load_engines() -> None:
    try:
        for package in ("distributed", "optuna", "scipy"):
            import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"a sweep needs Optuna and Dask ({error}): pip install 'fmnist-fast[sweep]'"
        ) from error


def _own_file(study: str) -> tuple[Path, ...]:
    """Where the study is, if it is a file."""
    from ..distributed.sweep.study_store import is_database

    return () if is_database(study) else (Path(study),)


def _pictures(study: str, name: str) -> tuple[Path, Path]:
    """Where they are drawn: beside the study, or if that is in a database, here."""
    from .sweep_plots import picture_paths

    own = next(iter(_own_file(study)), Path("sweep"))
    return picture_paths(own, None if name == STUDY_NAME else name)


def _widest(plan: "Plan") -> tuple[int, ...]:
    """The hidden layers that make the largest model file."""
    hidden = plan.space.searched.get("hidden")
    of_space = plan.space.fixed.get("hidden", plan.base.hidden)
    return max(hidden.ends if hidden else (of_space,), key=sum)


def _kept(ledger: "Ledger", plan: "Plan") -> str:
    """What is safe, and how to go on."""
    return (
        f"{ledger.counts().ended} of {plan.trials} trials are kept in {ledger.address}: the same "
        "command goes on"
    )


@dataclass(frozen=True)
class _Outcome:
    """What is shown and saved when the trials have ended. known_as : what the command calls the
    data set, its folder, the preset and the model. pictures : where they are to be drawn.
    ensemble : how many are to be one model.
    """

    plan: "Plan"
    ledger: "Ledger"
    ending: "Ending"
    console: "Console"
    known_as: Mapping[str, Any]
    pictures: tuple[Path, Path]
    as_json: bool
    ensemble: int | None

    def show(self, stop: list[int], force: bool) -> int:
        """Tables, pictures, the best model; returns the exit code."""
        from ..distributed.sweep.results import best_trials, importances

        ranked = best_trials(self.ledger, self.plan, max(BEST_SHOWN, self.ensemble or 0))
        best = ranked[:BEST_SHOWN]
        if not best:
            raise self._nothing()
        shares = importances(self.ledger)
        pictures = self._draw()
        if not self.as_json:
            self._print_best(best, shares, pictures)
        out, first = self.known_as["out"], f"training trial {best[0].number} again on all rows"
        result = self._train_again(best[0], stop, first)
        if isinstance(result, int):
            return result
        save_model(result.model, out, force)
        command = self._command(best[0], str(out))
        if not self.as_json:
            self._print_saved(best[0], result, command)
        ensemble = None
        if self.ensemble:
            members = self._members(ranked[: self.ensemble], result, stop)
            if isinstance(members, int):
                return members
            ensemble = self._save_ensemble(members, best[0], force)
        if self.as_json:
            document = self._to_json(best, shares, pictures, result, command)
            click.echo(json.dumps(document | ({"ensemble": ensemble} if ensemble else {})))
        return 0

    def _nothing(self) -> UserError:
        from ..distributed.sweep.results import nothing_came_out
        from ..distributed.sweep.scheduler import Ending

        if self.ending is Ending.TIME:
            kept = _kept(self.ledger, self.plan)
            return UserError(f"no trial came to its end before the time was over; {kept}")
        return nothing_came_out(self.ledger)

    def _print_saved(self, best: "Ranked", result: "TrainingResult", command: str) -> None:
        from .report import percent

        self.console.print(
            f"saved {self.known_as['out']}: trial {best.number}, trained again on all "
            f"{len(self.plan.dataset.x_train):,} training rows: test accuracy "
            f"{percent(result.test_accuracy)}"
        )
        self.console.print(f"the same again: {command}", soft_wrap=True)

    def _members(
        self, ranked: "Sequence[Ranked]", best: "TrainingResult", stop: list[int]
    ) -> "dict[int, TrainingResult] | int":
        """The trials trained again, by number, or the exit code. best : the first of them."""
        if len(ranked) < (self.ensemble or 0):
            warnings.warn(
                f"the ensemble has {len(ranked)} networks, not {self.ensemble}: no more trials "
                "came to their end",
                stacklevel=1,
            )
        results = {ranked[0].number: best}
        for place, one in enumerate(ranked[1:], start=1):
            what = f"training trial {one.number} again, {place + 1} of {len(ranked)}"
            result = self._train_again(one, stop, what, place)
            if not isinstance(result, int):
                results[one.number] = result
            elif stop:
                return result
        return results

    def _save_ensemble(
        self, members: "Mapping[int, TrainingResult]", best: "Ranked", force: bool
    ) -> dict[str, Any]:
        """Save the mean of the models; says what it is, plain JSON."""
        from ..models.ensemble import Ensemble
        from .report import percent

        data, out = self.plan.dataset, ensemble_path(self.known_as["out"])
        models = tuple(result.model for result in members.values())
        guess_n = Ensemble(models).predict(data.x_test)
        accuracy = float((guess_n == data.y_test).mean())
        save_model(Ensemble(models, metrics={"test_accuracy": accuracy}), out, force)
        trials = list(members)
        if not self.as_json:
            self.console.print(
                f"saved {out}: the mean of {len(models)} networks, of trials "
                f"{', '.join(map(str, trials))}: test accuracy {percent(accuracy)}",
                soft_wrap=True,
            )
            student = self._command(best, "student.safetensors", "--teacher", str(out))
            self.console.print(f"one network that learns from it: {student}", soft_wrap=True)
        of_each = [result.test_accuracy for result in members.values()]
        return {
            "model": str(out),
            "trials": trials,
            "test_accuracy": accuracy,
            "test_accuracy_of_each": of_each,
        }

    def _print_best(
        self, best: "Sequence[Ranked]", shares: Mapping[str, float], pictures: Sequence[Path]
    ) -> None:
        from .sweep_view import best_table, importance_line

        counts = self.ledger.counts()
        self.console.print(
            f"{self.ending.value}: {counts.complete} complete, {counts.pruned} pruned, "
            f"{counts.failed} failed; kept in {self.ledger.address}"
        )
        self.console.print(best_table(best, self.plan.metric, self.console.width))
        if shares:
            self.console.print(importance_line(shares), soft_wrap=True)
        if pictures:
            self.console.print(f"drawn: {', '.join(map(str, pictures))}", soft_wrap=True)

    def _draw(self) -> Sequence[Path]:
        """Pictures beside the study; a picture that cannot be written costs no model."""
        from .sweep_plots import draw_pictures

        try:
            draw_pictures(self.ledger, self.plan.metric, *self.pictures)
        except UserError as error:
            warnings.warn(str(error), stacklevel=1)
            return ()
        return self.pictures

    def _train_again(
        self, ranked: "Ranked", stop: list[int], what: str, place: int = 0
    ) -> "TrainingResult | int":
        """A trial's settings on all rows, or the exit code if that came to nothing. what : is being
        done, for people. place : in the ensemble.
        """
        from ..distributed.sweep.results import trained_again
        from ..training.trainer import TrainingDiverged, TrainingInterrupted
        from .sweep_view import FinalProgress

        try:
            with FinalProgress(self.console, what) as progress:
                return trained_again(
                    *(self.plan, self.known_as["preset"], ranked, progress),
                    *(lambda: bool(stop), place),
                )
        except TrainingInterrupted:
            code = 128 + stop[0] if stop else EXIT_INTERRUPTED
            return fail(f"stopped while {what}; {_kept(self.ledger, self.plan)}", code)
        except TrainingDiverged as error:
            return fail(f"{what}: {error}; {_kept(self.ledger, self.plan)}")

    def _command(self, best: "Ranked", out: str, *more: str) -> str:
        """The command that trains this model, to the byte, into the file out. more : words."""
        from ..distributed.sweep.results import final_settings

        words = ["fmnist-fast", "train", "--preset", self.known_as["preset"]]
        words += ["--dataset", str(self.known_as["dataset"])]
        if self.known_as["data_dir"]:
            words += ["--data-dir", str(self.known_as["data_dir"])]
        words += ["--backend", self.plan.backend]
        for name, value in final_settings(self.plan, best).items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                text = ",".join(map(str, value)) or "none" if isinstance(value, tuple) else value
                words += [f"--{option}", str(text)]
        return shlex.join([*words, *more, "--out", out])

    def _to_json(
        self,
        best: "Sequence[Ranked]",
        shares: Mapping[str, float],
        pictures: Sequence[Path],
        result: "TrainingResult",
        command: str,
    ) -> dict[str, Any]:
        counts = self.ledger.counts()
        return {
            "study": self.ledger.address,
            "ended": self.ending.name.lower(),
            "trials": asdict(counts),
            "metric": self.plan.metric,
            "best": [
                {
                    "trial": ranked.number,
                    "value": ranked.result.value,
                    "spread": ranked.result.spread,
                    "settings": ranked.settings,
                    **ranked.result.to_dict(),
                }
                for ranked in best
            ],
            "importances": dict(shares),
            "pictures": list(map(str, pictures)),
            "model": str(self.known_as["out"]),
            "test_accuracy": result.test_accuracy,
            "command": command,
        }

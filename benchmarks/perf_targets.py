"""Performance targets: a table of what was measured beside the limits that the project sets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from markdown_tables import markdown_table

from fmnist_fast.bench.machine import describe_machine


@dataclass(frozen=True)
class PerfTarget:
    """A measured quantity and its limits.

    values : one a round, whose median counts; or why there are none. limit : must be met. goal : is
    wanted beyond that. at_least : whether these are minima, else maxima.
    """

    name: str
    values: Sequence[float] | str
    unit: str = ""
    limit: float | None = None
    goal: float | None = None
    at_least: bool = True

    def _meets(self, bound: float | None) -> bool:
        if bound is None or isinstance(self.values, str):
            return False
        value = median(self.values)
        return value >= bound if self.at_least else value <= bound

    @property
    def missed(self) -> bool:
        """Whether it was measured and is beyond the limit."""
        measured = not isinstance(self.values, str)
        return measured and self.limit is not None and not self._meets(self.limit)

    def row(self) -> tuple[str, ...]:
        """Cells of the table."""
        sign = ">=" if self.at_least else "<="
        bounds = [
            "" if bound is None else f"{sign} {bound:g} {self.unit}".rstrip()
            for bound in (self.limit, self.goal)
        ]
        if isinstance(self.values, str):
            return (self.name, self.values, "", *bounds, "not measured")
        value = f"{median(self.values):.3g} {self.unit}".rstrip()
        spread = f"{min(self.values):.3g} .. {max(self.values):.3g}"
        if self._meets(self.goal):
            verdict = "goal met"
        elif self.limit is None:
            verdict = "goal missed"
        else:
            verdict = "**limit missed**" if self.missed else "limit met"
        return (self.name, value, spread, *bounds, verdict)


def print_targets(targets: Iterable[PerfTarget], packages: tuple[str, ...], rounds: int) -> bool:
    """Print a Markdown table; return whether all limits are met. packages : of which versions."""
    targets = list(targets)
    titles = ("", "median", "range", "limit", "goal", "verdict")
    print("", *markdown_table(titles, (one.row() for one in targets), left=("verdict",)), sep="\n")
    machine = describe_machine(packages)
    versions = (f"{name} {number or 'missing'}" for name, number in machine["versions"].items())
    print(f"\n{machine['date']}; {machine['cpu']}, {machine['usable_cores']} usable cores")
    print(f"{rounds} interleaved rounds; {', '.join(versions)}")
    return not any(target.missed for target in targets)

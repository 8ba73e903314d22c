"""Figures that were promised: a table of what was measured and what it must be."""

from collections.abc import Sequence
from dataclasses import dataclass

from fmnist_fast.bench.machine import machine_facts

__all__ = ["Promise", "show"]


@dataclass(frozen=True)
class Promise:
    """A figure, and what it must be. least : whether more is better."""

    what: str
    figure: float
    unit: str
    must: float
    least: bool

    @property
    def kept(self) -> bool:
        return self.figure >= self.must if self.least else self.figure <= self.must


def show(promises: Sequence[Promise], packages: tuple[str, ...], rounds: int) -> bool:
    """Print the table; whether all are kept. packages : whose versions matter."""
    print("\n| | measured | must |\n| --- | ---: | ---: |")
    for p in promises:
        sign = ">=" if p.least else "<="
        print(
            f"| {p.what} | {p.figure:.3g} {p.unit} | {sign} {p.must:g} {p.unit}"
            f"{'' if p.kept else ' **missed**'} |"
        )
    facts = machine_facts(packages)
    print(f"\n{facts['cpu']}, {facts['date'][:10]}; medians of {rounds} rounds")
    return all(p.kept for p in promises)

"""Which of several models to take for photographs, and what to expect of the one taken: by folds.

python benchmarks/photo_choice.py PHOTOS a.safetensors b.safetensors ...

The photographs, in folders by kind as photo_table.py has them, are dealt into folds, every kind
alike. For every fold the model is chosen that is best on all the others, and counted on that fold,
which had no part in the choice. The mean over the folds is what other photographs may expect of a
choice made in this way. The best model's own figure is higher than that by chance.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photo_table import KINDS, look

from fmnist_fast import load_model


def photographs(folder: Path, segmentation: str) -> tuple[NDArray[np.uint8], list[str]]:
    """What a network sees of every photograph of the mapped kinds, (n, 28, 28), and their kinds."""
    mapped = [one for one in look(folder, None, segmentation) if KINDS[one.kind]]
    return np.stack([one.answer.preprocessed.pixels for one in mapped]), [
        one.kind for one in mapped
    ]


def folds_of(kinds: list[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,), which fold each photograph is in; those of a kind are dealt one after the other."""
    rng = np.random.default_rng(seed)
    fold_n = np.empty(len(kinds), np.int64)
    for kind in dict.fromkeys(kinds):
        rows = rng.permutation([n for n, other in enumerate(kinds) if other == kind])
        fold_n[rows] = (np.arange(len(rows)) + rng.integers(folds)) % folds
    return fold_n


def expected(right_mn: NDArray[np.bool_], fold_n: NDArray[np.int64]) -> float:
    """Share right of photographs that had no part in the choice of the model. (m models, n)."""
    hits = 0
    for fold in range(int(fold_n.max()) + 1):
        inside = fold_n == fold
        chosen = right_mn[:, ~inside].mean(axis=1).argmax()
        hits += int(right_mn[chosen, inside].sum())
    return hits / right_mn.shape[1]


def main() -> None:
    """Look, choose, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--segmentation", default="auto")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--deals", type=int, default=100, help="how often the folds are dealt anew")
    wish = parser.parse_args()
    images, kinds = photographs(wish.folder, wish.segmentation)
    right_mn = np.array(
        [
            [
                label in (KINDS[kind] or ())
                for label, kind in zip(load_model(path).predict(images), kinds)
            ]
            for path in wish.models
        ]
    )
    names = list(dict.fromkeys(kinds))
    print("| model | all | " + " | ".join(names) + " |")
    print("| --- | ---: |" + " ---: |" * len(names))
    for path, right_n in zip(wish.models, right_mn):
        by_kind = (
            right_n[[n for n, other in enumerate(kinds) if other == kind]].mean() for kind in names
        )
        cells = " | ".join(f"{share:.0%}" for share in by_kind)
        print(f"| {path.stem} | {right_n.mean():.1%} | {cells} |")
    deals = [expected(right_mn, folds_of(kinds, wish.folds, deal)) for deal in range(wish.deals)]
    print(
        f"\n{np.mean(deals):.1%} of photographs that had no part in the choice "
        f"({wish.folds} folds, {wish.deals} deals, deviation {np.std(deals):.1%})"
    )


if __name__ == "__main__":
    main()

"""Which model is best for photographs, and what is its expected accuracy? By cross-validation.

python benchmarks/model_selection.py PHOTOS a.safetensors b.safetensors ...

The photographs, in folders by kind as for photo_table.py, are split into stratified folds. For each
fold the model that is best on the other folds is selected, and evaluated on that fold. The mean
over the folds estimates the accuracy of the selected model on other photographs; the accuracy of
the best model on all of them is biased upwards by the selection.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photo_table import KINDS, recognize_all

from fmnist_fast import load_model


def photographs(folder: Path, segmentation: str) -> tuple[NDArray[np.uint8], list[str]]:
    """Return network inputs, (n, 28, 28), and kinds of the photographs of the mapped kinds."""
    photos = [one for one in recognize_all(folder, None, segmentation) if KINDS[one.kind]]
    images = np.stack([one.prediction.preprocessed.pixels for one in photos])
    return images, [one.kind for one in photos]


def stratified_folds(kinds: list[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each photograph, (n,); each kind is split evenly."""
    rng = np.random.default_rng(seed)
    fold_n = np.empty(len(kinds), np.int64)
    for kind in dict.fromkeys(kinds):
        rows = rng.permutation([n for n, other in enumerate(kinds) if other == kind])
        fold_n[rows] = (np.arange(len(rows)) + rng.integers(folds)) % folds
    return fold_n


def cross_validated_accuracy(correct_mn: NDArray[np.bool_], fold_n: NDArray[np.int64]) -> float:
    """Return the accuracy on the folds that were not used to select the model. (m models, n)."""
    hits = 0
    for fold in range(int(fold_n.max()) + 1):
        inside = fold_n == fold
        best = correct_mn[:, ~inside].mean(axis=1).argmax()
        hits += int(correct_mn[best, inside].sum())
    return hits / correct_mn.shape[1]


def main() -> None:
    """Evaluate the models, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--segmentation", default="auto")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=100, help="number of random splits")
    args = parser.parse_args()
    images, kinds = photographs(args.folder, args.segmentation)
    correct_mn = np.array(
        [
            [
                label in (KINDS[kind] or ())
                for label, kind in zip(load_model(path).predict(images), kinds)
            ]
            for path in args.models
        ]
    )
    names = list(dict.fromkeys(kinds))
    print("| model | all | " + " | ".join(names) + " |")
    print("| --- | ---: |" + " ---: |" * len(names))
    for path, correct_n in zip(args.models, correct_mn):
        by_kind = (
            correct_n[[n for n, other in enumerate(kinds) if other == kind]].mean()
            for kind in names
        )
        cells = " | ".join(f"{accuracy:.0%}" for accuracy in by_kind)
        print(f"| {path.stem} | {correct_n.mean():.1%} | {cells} |")
    accuracies = [
        cross_validated_accuracy(correct_mn, stratified_folds(kinds, args.folds, seed))
        for seed in range(args.repeats)
    ]
    print(
        f"\n{np.mean(accuracies):.1%} of photographs not used for the selection "
        f"({args.folds} folds, {args.repeats} splits, standard deviation {np.std(accuracies):.1%})"
    )


if __name__ == "__main__":
    main()

"""How accurate is the photo model, and which of several models is best for photographs?

python benchmarks/photo_table.py PHOTOS                      # folders by kind: t-shirt, pants, ...
python benchmarks/photo_table.py PHOTOS --sheet sheet.png    # photograph, mask, input, prediction
python benchmarks/photo_table.py PHOTOS --write              # into the model card
python benchmarks/photo_table.py PHOTOS --check              # exit code 1 if a limit is missed
python benchmarks/photo_table.py PHOTOS a.safetensors b.safetensors ...    # select a model

The photographs were not trained on. The photo augmentation, the confidence threshold and the class
weights were selected with them.

Of several models, the one that is best on all folds but one of the photographs is evaluated on that
fold. The mean over the folds estimates the accuracy of the selected model on other photographs; the
accuracy of the best model on all of them is biased upwards by the selection.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
from markdown_tables import MODEL_CARD, markdown_table, write_block
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from sklearn.model_selection import StratifiedKFold

from fmnist_fast import load_model
from fmnist_fast._cpu import usable_cores
from fmnist_fast.models.load import PRETRAINED_PHOTOS
from fmnist_fast.vision.image_io import SUFFIXES, read_picture
from fmnist_fast.vision.recognizer import Prediction, Recognizer

# Correct labels of a kind; none: out of distribution, to be predicted with low confidence.
KINDS: dict[str, tuple[int, ...]] = {
    "t-shirt": (0,),
    "pants": (1,),
    "longsleeve": (2,),
    "dress": (3,),
    "outwear": (4,),
    "shirt": (6,),
    "shoes": (5, 7, 9),
    "hat": (),
    "shorts": (),
    "skirt": (),
}

# Limits: accuracy on the mapped kinds and on each of them; ratio of the rates of low confidence on
# the other and on the mapped kinds.
MIN_ACCURACY, MIN_KIND_ACCURACY, MIN_RATIO = 0.45, 0.25, 2.0


@dataclass(frozen=True)
class Photo:
    """A photograph and its prediction."""

    kind: str
    prediction: Prediction

    @property
    def is_correct(self) -> bool:
        return self.prediction.label in KINDS[self.kind]

    @property
    def has_low_confidence(self) -> bool:
        return self.prediction.is_confident is False


def recognize_all(folder: Path, model: Path | None, segmentation: str) -> list[Photo]:
    """Predict every photograph of the folders by kind."""
    recognizer = Recognizer(model, threads=1)
    paths = [path for kind in KINDS for path in sorted((folder / kind).glob("*"))]

    def recognize(path: Path) -> Photo:
        picture = read_picture(path, max_side=512)
        return Photo(path.parent.name, recognizer.recognize(picture, segmentation))

    with ThreadPoolExecutor(usable_cores()) as pool:
        images = (path for path in paths if path.suffix.lower() in SUFFIXES)
        return list(pool.map(recognize, images))


class PhotoMetrics:
    """accuracy_by_kind, accuracy : of the mapped kinds. low_confidence, ood_low_confidence : rate
    of low confidence, of the mapped and of the other kinds. confident_accuracy : of the confident
    predictions of the mapped kinds.
    """

    def __init__(self, photos: list[Photo]) -> None:
        mapped = [one for one in photos if KINDS[one.kind]]
        self.accuracy_by_kind = {
            kind: fraction(one.is_correct for one in mapped if one.kind == kind)
            for kind, labels in KINDS.items()
            if labels
        }
        self.accuracy = fraction(one.is_correct for one in mapped)
        self.low_confidence = fraction(one.has_low_confidence for one in mapped)
        others = [one for one in photos if not KINDS[one.kind]]
        self.ood_low_confidence = fraction(one.has_low_confidence for one in others)
        confident = [one for one in mapped if not one.has_low_confidence]
        self.confident_accuracy = fraction(one.is_correct for one in confident)

    def meets_limits(self) -> bool:
        return (
            self.accuracy >= MIN_ACCURACY
            and min(self.accuracy_by_kind.values()) > MIN_KIND_ACCURACY
            and self.ood_low_confidence >= MIN_RATIO * self.low_confidence
        )


def fraction(conditions: Iterable[bool]) -> float:
    """Return the fraction that is true."""
    values = list(conditions)
    return sum(values) / len(values) if values else float("nan")


def table_row(kind: str, photos: list[Photo]) -> list[str]:
    """Return the row of a kind, for its photographs."""
    names = [one.prediction.top(1)[0][1] for one in photos]
    frequent = sorted(set(names), key=lambda name: (-names.count(name), name))[:4]
    return [
        kind,
        str(len(photos)),
        f"{fraction(one.is_correct for one in photos):.0%}" if KINDS[kind] else "",
        f"{fraction(one.has_low_confidence for one in photos):.0%}",
        ", ".join(f"{name} {names.count(name)}" for name in frequent),
    ]


def table(photos: list[Photo]) -> Iterator[str]:
    """Yield the lines of the table."""
    titles = ("kind", "photographs", "accuracy", "low confidence", "predictions")
    rows = (table_row(kind, [one for one in photos if one.kind == kind]) for kind in KINDS)
    yield from markdown_table(titles, rows, left=("predictions",))
    metrics = PhotoMetrics(photos)
    yield ""
    yield (
        f"Accuracy {metrics.accuracy:.1%} on the seven mapped kinds, "
        f"{metrics.confident_accuracy:.1%} of the confident predictions; low confidence on "
        f"{metrics.low_confidence:.1%} of them and on {metrics.ood_low_confidence:.1%} of the "
        f"others, {metrics.ood_low_confidence / metrics.low_confidence:.2f} times as often"
    )


def model_table(
    photos: list[Photo], models: Sequence[Path], folds: int, repeats: int
) -> Iterator[str]:
    """Yield the accuracy of the models by kind, and that of the selected one, cross-validated."""
    mapped = [one for one in photos if KINDS[one.kind]]
    images = np.stack([one.prediction.preprocessed.pixels for one in mapped])
    kind_n = np.array([one.kind for one in mapped])
    labels_mn = [load_model(path).predict(images) for path in models]
    correct_mn = np.array(
        [[label in KINDS[kind] for label, kind in zip(row, kind_n)] for row in labels_mn]
    )
    names, rows = list(dict.fromkeys(kind_n)), []
    for path, correct_n in zip(models, correct_mn):
        accuracies = (f"{correct_n[kind_n == name].mean():.0%}" for name in names)
        rows.append([path.stem, f"{correct_n.mean():.1%}", *accuracies])
    yield from markdown_table(("model", "all", *names), rows)
    selected = [cross_validated_accuracy(correct_mn, kind_n, folds, n) for n in range(repeats)]
    yield ""
    yield (
        f"{np.mean(selected):.1%} of photographs not used for the selection ({folds} folds, "
        f"{repeats} splits, standard deviation {np.std(selected):.1%})"
    )


def cross_validated_accuracy(
    correct_mn: NDArray[np.bool_], kind_n: NDArray[np.str_], folds: int, seed: int
) -> float:
    """Return the accuracy on the folds that were not used to select the model. (m models, n)."""
    splitter, hits = StratifiedKFold(folds, shuffle=True, random_state=seed), 0
    for others, fold in splitter.split(kind_n, kind_n):
        best = correct_mn[:, others].mean(axis=1).argmax()
        hits += int(correct_mn[best, fold].sum())
    return hits / len(kind_n)


TILE, SIDE, TEXT = 84, 82, 26


def sheet(photos: list[Photo], columns: int = 6) -> Image.Image:
    """Draw photographs, segmented garments, network inputs and predictions, green if correct."""
    width, height = 3 * TILE + 8, TILE + TEXT
    rows = -(-len(photos) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(page)
    for place, one in enumerate(photos):
        x, y = place % columns * width, place // columns * height
        stages = one.prediction.preprocessed
        for stage, pixels in enumerate((stages.rgb, stages.masked, stages.pixels)):
            picture = Image.fromarray(pixels).convert("RGB")
            small = max(picture.size) < SIDE
            how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
            page.paste(ImageOps.contain(picture, (SIDE, SIDE), how), (x + stage * TILE, y))
        _, name, probability = one.prediction.top(1)[0]
        color = "green" if one.is_correct else "firebrick" if KINDS[one.kind] else "gray"
        doubt = "low confidence: " if one.has_low_confidence else ""
        draw.text((x, y + TILE), f"{one.kind}: {doubt}{name} {probability:.0%}", color)
    return page


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.argument("models", type=click.Path(exists=True, path_type=Path), nargs=-1)
@click.option("--segmentation", default="auto")
@click.option("--sheet", "sheet_file", type=Path, help="Draw all photographs into this image file.")
@click.option("--write", is_flag=True, help="Write the table into the model card.")
@click.option("--check", is_flag=True, help="Exit with code 1 if a limit is missed.")
@click.option("--folds", default=5, help="Number of folds to select a model.")
@click.option("--repeats", default=100, help="Number of random splits to select a model.")
def main(
    folder: Path,
    models: tuple[Path, ...],
    segmentation: str,
    sheet_file: Path | None,
    write: bool,
    check: bool,
    folds: int,
    repeats: int,
) -> None:
    """Evaluate the pretrained photo model, or a model, or compare several."""
    photos = recognize_all(folder, models[0] if len(models) == 1 else None, segmentation)
    if len(models) > 1:
        print("\n".join(model_table(photos, models, folds, repeats)))
        return
    lines = list(table(photos))
    print("\n".join(lines))
    if write:
        digest = sha256(PRETRAINED_PHOTOS.read_bytes()).hexdigest()
        write_block(MODEL_CARD, [f"sha256 `{digest}`", "", *lines], "photographs")
    if sheet_file:
        sheet(photos).save(sheet_file)
    sys.exit(check and not PhotoMetrics(photos).meets_limits())


if __name__ == "__main__":
    main()

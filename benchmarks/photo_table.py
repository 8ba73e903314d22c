"""How accurate is the photo model? A table by kind of garment, and a sheet of all photographs.

python benchmarks/photo_table.py PHOTOS                      # folders by kind: t-shirt, pants, ...
python benchmarks/photo_table.py PHOTOS --sheet sheet.png    # photograph, mask, input, prediction
python benchmarks/photo_table.py PHOTOS --write              # into the model card
python benchmarks/photo_table.py PHOTOS --check              # exit code 1 if a limit is missed

The photographs were not trained on. The photo augmentation, the confidence threshold and the class
weights were selected with them.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageDraw
from readme_tables import replace_block

from fmnist_fast._cpu import usable_cores
from fmnist_fast.models.load import PRETRAINED, PRETRAINED_PHOTOS
from fmnist_fast.vision.image_io import SUFFIXES, read_picture
from fmnist_fast.vision.recognizer import Prediction, Recognizer

CARD = PRETRAINED.with_name("MODEL_CARD.md")

# Correct labels of a kind; None: out of distribution, to be predicted with low confidence.
KINDS: dict[str, tuple[int, ...] | None] = {
    "t-shirt": (0,),
    "pants": (1,),
    "longsleeve": (2,),
    "dress": (3,),
    "outwear": (4,),
    "shirt": (6,),
    "shoes": (5, 7, 9),
    "hat": None,
    "shorts": None,
    "skirt": None,
}

# Limits: accuracy on the mapped kinds and on each of them; ratio of the rates of low confidence on
# the other and on the mapped kinds.
MIN_ACCURACY, MIN_KIND_ACCURACY, MIN_RATIO = 0.45, 0.25, 2.0


@dataclass(frozen=True)
class Photo:
    """A photograph and its prediction."""

    kind: str
    path: Path
    prediction: Prediction

    @property
    def is_correct(self) -> bool:
        return self.prediction.label in (KINDS[self.kind] or ())

    @property
    def has_low_confidence(self) -> bool:
        return self.prediction.is_confident is False


def recognize_all(folder: Path, model: Path | None, segmentation: str) -> list[Photo]:
    """Predict every photograph of the folders by kind."""
    recognizer = Recognizer(model, threads=1)
    work = [
        (kind, path)
        for kind in KINDS
        for path in sorted((folder / kind).glob("*"))
        if path.suffix.lower() in SUFFIXES
    ]

    def recognize(kind: str, path: Path) -> Photo:
        picture = read_picture(path, max_side=512)
        return Photo(kind, path, recognizer.recognize(picture, segmentation))

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(recognize, *zip(*work)))


@dataclass(frozen=True)
class PhotoMetrics:
    """accuracy_by_kind, accuracy : of the mapped kinds. low_confidence, ood_low_confidence : rate
    of low confidence, of the mapped and of the other kinds. confident_accuracy : of the confident
    predictions of the mapped kinds.
    """

    accuracy_by_kind: dict[str, float]
    accuracy: float
    low_confidence: float
    ood_low_confidence: float
    confident_accuracy: float

    @classmethod
    def from_photos(cls, photos: list[Photo]) -> "PhotoMetrics":
        mapped = [one for one in photos if KINDS[one.kind]]
        others = [one for one in photos if not KINDS[one.kind]]
        by_kind = {
            kind: fraction(one.is_correct for one in mapped if one.kind == kind)
            for kind, labels in KINDS.items()
            if labels
        }
        return cls(
            accuracy_by_kind=by_kind,
            accuracy=fraction(one.is_correct for one in mapped),
            low_confidence=fraction(one.has_low_confidence for one in mapped),
            ood_low_confidence=fraction(one.has_low_confidence for one in others),
            confident_accuracy=fraction(
                one.is_correct for one in mapped if not one.has_low_confidence
            ),
        )

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


def table(photos: list[Photo]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| kind | photographs | accuracy | low confidence | predictions |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for kind, labels in KINDS.items():
        of_kind = [one for one in photos if one.kind == kind]
        names = [one.prediction.top(1)[0][1] for one in of_kind]
        frequent = sorted(set(names), key=lambda name: (-names.count(name), name))[:4]
        counts = ", ".join(f"{name} {names.count(name)}" for name in frequent)
        accuracy = f"{fraction(one.is_correct for one in of_kind):.0%}" if labels else ""
        low_confidence = fraction(one.has_low_confidence for one in of_kind)
        yield f"| {kind} | {len(of_kind)} | {accuracy} | {low_confidence:.0%} | {counts} |"
    metrics = PhotoMetrics.from_photos(photos)
    yield ""
    yield (
        f"Accuracy {metrics.accuracy:.1%} on the seven mapped kinds, "
        f"{metrics.confident_accuracy:.1%} of the confident predictions; low confidence on "
        f"{metrics.low_confidence:.1%} of them and on {metrics.ood_low_confidence:.1%} of the "
        f"others, {metrics.ood_low_confidence / metrics.low_confidence:.2f} times as often"
    )


def block(lines: list[str]) -> str:
    """Return the table for the model card, with the checksum of the model."""
    digest = sha256(PRETRAINED_PHOTOS.read_bytes()).hexdigest()
    return "\n".join([f"sha256 `{digest}`", "", *lines, ""])


TILE, TEXT = 84, 26


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
            scale = (TILE - 2) / max(picture.size)
            size = round(scale * picture.width), round(scale * picture.height)
            how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
            page.paste(picture.resize(size, how), (x + stage * TILE, y))
        _, name, probability = one.prediction.top(1)[0]
        color = "green" if one.is_correct else "firebrick" if KINDS[one.kind] else "gray"
        doubt = "low confidence: " if one.has_low_confidence else ""
        draw.text((x, y + TILE), f"{one.kind}: {doubt}{name} {probability:.0%}", color)
    return page


def main() -> int:
    """Predict, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="default: the pretrained model")
    parser.add_argument("--segmentation", default="auto")
    parser.add_argument("--sheet", type=Path, help="an image file")
    parser.add_argument("--write", action="store_true", help="into the model card")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    photos = recognize_all(args.folder, args.model, args.segmentation)
    lines = list(table(photos))
    print("\n".join(lines))
    if args.write:
        page = CARD.read_text(encoding="utf-8")
        CARD.write_text(replace_block(page, block(lines), "photographs"), encoding="utf-8")
    if args.sheet:
        sheet(photos).save(args.sheet)
    return int(args.check and not PhotoMetrics.from_photos(photos).meets_limits())


if __name__ == "__main__":
    sys.exit(main())

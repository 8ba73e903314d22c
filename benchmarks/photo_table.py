"""How many photographs of clothes are recognised: a table by kind, and a picture of every one.

python benchmarks/photo_table.py PHOTOS                      # folders by kind: t-shirt, pants, ...
python benchmarks/photo_table.py PHOTOS --sheet sheet.png    # photograph, cut-out, 28x28, answer
python benchmarks/photo_table.py PHOTOS --write              # into the model's card
python benchmarks/photo_table.py PHOTOS --check              # exit code 1 if it is not good enough

The photographs were never trained on. How imitations are made, the threshold and the class weights
were chosen with them.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageDraw
from quote import replaced

from fmnist_fast._cpu import usable_cores
from fmnist_fast.models.load import PRETRAINED, PRETRAINED_PHOTOS
from fmnist_fast.vision.image_io import SUFFIXES, read_picture
from fmnist_fast.vision.recognizer import Prediction, Recognizer

CARD = PRETRAINED.with_name("MODEL_CARD.md")

# Which answers are right; None: the garment is none of the ten, and "not sure" is.
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

# What must be reached: share right of the mapped kinds, of each of them, and how much more often
# the others are "not sure".
MUST, MUST_EACH, MUST_RATIO = 0.45, 0.25, 2.0


@dataclass(frozen=True)
class Seen:
    """One photograph and the answer to it."""

    kind: str
    path: Path
    answer: Prediction

    @property
    def right(self) -> bool:
        return self.answer.label in (KINDS[self.kind] or ())

    @property
    def is_confident(self) -> bool:
        return self.answer.is_confident is not False


def look(folder: Path, model: Path | None, segmentation: str) -> list[Seen]:
    """Every photograph of the folders by kind."""
    recogniser = Recognizer(model, threads=1)
    work = [
        (kind, path)
        for kind in KINDS
        for path in sorted((folder / kind).glob("*"))
        if path.suffix.lower() in SUFFIXES
    ]

    def seen(kind: str, path: Path) -> Seen:
        return Seen(
            kind, path, recogniser.recognize(read_picture(path, max_side=512), segmentation)
        )

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(seen, *zip(*work)))


@dataclass(frozen=True)
class Figures:
    """right_by_kind : share of the mapped kinds' photographs; right : of all of them. unsure : of
    the mapped kinds; others_unsure : of those that are none of the ten. sure_right : of the sure
    answers to the mapped kinds.
    """

    right_by_kind: dict[str, float]
    right: float
    unsure: float
    others_unsure: float
    sure_right: float

    @classmethod
    def of(cls, seen: list[Seen]) -> "Figures":
        mapped = [one for one in seen if KINDS[one.kind]]
        others = [one for one in seen if not KINDS[one.kind]]
        kinds = [kind for kind, labels in KINDS.items() if labels]
        return cls(
            {kind: share(one.right for one in mapped if one.kind == kind) for kind in kinds},
            share(one.right for one in mapped),
            share(not one.is_confident for one in mapped),
            share(not one.is_confident for one in others),
            share(one.right for one in mapped if one.is_confident),
        )

    def good_enough(self) -> bool:
        return (
            self.right >= MUST
            and min(self.right_by_kind.values()) > MUST_EACH
            and self.others_unsure >= MUST_RATIO * self.unsure
        )


def share(these: Iterator[bool]) -> float:
    values = list(these)
    return sum(values) / len(values) if values else float("nan")


def table(seen: list[Seen]) -> Iterator[str]:
    """In Markdown."""
    yield "| kind | photographs | right | not sure | answers |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for kind, labels in KINDS.items():
        of_kind = [one for one in seen if one.kind == kind]
        names = [one.answer.top(1)[0][1] for one in of_kind]
        often = sorted(set(names), key=lambda name: (-names.count(name), name))[:4]
        answers = ", ".join(f"{name} {names.count(name)}" for name in often)
        right = f"{share(one.right for one in of_kind):.0%}" if labels else ""
        unsure = share(not one.is_confident for one in of_kind)
        yield f"| {kind} | {len(of_kind)} | {right} | {unsure:.0%} | {answers} |"
    found = Figures.of(seen)
    yield ""
    yield (
        f"{found.right:.1%} of the seven mapped kinds are right, {found.sure_right:.1%} of those "
        f"that it is sure of; not sure of {found.unsure:.1%} of them, and of "
        f"{found.others_unsure:.1%} of the others, {found.others_unsure / found.unsure:.2f} times "
        "as often"
    )


def block(lines: list[str]) -> str:
    """For the card: of which file, and the table."""
    digest = sha256(PRETRAINED_PHOTOS.read_bytes()).hexdigest()
    return "\n".join([f"sha256 `{digest}`", "", *lines, ""])


TILE, TEXT = 84, 26


def sheet(seen: list[Seen], columns: int = 6) -> Image.Image:
    """Photograph, cut-out, what the network saw and its answer, green where it is right."""
    width, height = 3 * TILE + 8, TILE + TEXT
    rows = -(-len(seen) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(page)
    for place, one in enumerate(seen):
        x, y = place % columns * width, place // columns * height
        stages = one.answer.preprocessed
        for stage, pixels in enumerate((stages.rgb, stages.cut, stages.pixels)):
            picture = Image.fromarray(pixels).convert("RGB")
            scale = (TILE - 2) / max(picture.size)
            size = round(scale * picture.width), round(scale * picture.height)
            how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
            page.paste(picture.resize(size, how), (x + stage * TILE, y))
        _, name, probability = one.answer.top(1)[0]
        color = "green" if one.right else "firebrick" if KINDS[one.kind] else "gray"
        doubt = "" if one.is_confident else "not sure: "
        draw.text((x, y + TILE), f"{one.kind}: {doubt}{name} {probability:.0%}", color)
    return page


def main() -> int:
    """Look, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="default: the one in the box")
    parser.add_argument("--segmentation", default="auto")
    parser.add_argument("--sheet", type=Path, help="a picture file")
    parser.add_argument("--write", action="store_true", help="into the model's card")
    parser.add_argument("--check", action="store_true")
    wish = parser.parse_args()
    seen = look(wish.folder, wish.model, wish.segmentation)
    lines = list(table(seen))
    print("\n".join(lines))
    if wish.write:
        page = CARD.read_text(encoding="utf-8")
        CARD.write_text(replaced(page, block(lines), "photographs"), encoding="utf-8")
    if wish.sheet:
        sheet(seen).save(wish.sheet)
    return int(wish.check and not Figures.of(seen).good_enough())


if __name__ == "__main__":
    sys.exit(main())

"""Charts of the app: legible on the light and on the dark theme, and on a telephone."""

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmnist_fast.nn.metrics import Evaluation, ReliabilityBin
from fmnist_fast.training.loop import Epoch

from .backend_race import Contest

__all__ = [
    "DARK",
    "LIGHT",
    "Palette",
    "accuracy_curve",
    "confusion_matrix",
    "loss_curve",
    "reliability_diagram",
    "speed_bars",
    "weight_tiles",
]

# What Altair makes of layers.
Layered = alt.LayerChart | alt.FacetChart

# More units than these would be too small to see on a telephone.
MOST_TILES = 64

# The least that the axis of a curve spans, and from mark to mark: less is noise that looks large.
LEAST_SPAN, LEAST_STEP = 0.04, 0.01

# Pixels between two tiles.
GAP = 4


class Palette(NamedTuple):
    """Colours of one theme. main, second : of what is compared. strong : of text on these, where
    they cover at least the share `covered`; on less, `text` is read better.
    """

    text: str
    faint: str
    main: str
    second: str
    strong: str
    covered: float


LIGHT = Palette("#20262b", "#8a949b", "#2a6f97", "#c8642c", "#ffffff", 0.6)
DARK = Palette("#e4e6e6", "#7c878e", "#5fabd3", "#e08a55", "#0d1114", 0.35)


def loss_curve(history: Sequence[Epoch], epochs: int, palette: Palette) -> Layered:
    """Training and validation loss over the epochs so far, of so many."""
    rows = [(e.epoch, "training", e.train_loss) for e in history]
    rows += [
        (e.epoch, "validation", e.validation_loss) for e in history if e.validation_loss is not None
    ]
    return _curve(rows, epochs, "loss", ".3f", palette)


def accuracy_curve(history: Sequence[Epoch], epochs: int, palette: Palette) -> Layered:
    """Validation accuracy over the epochs so far, of so many."""
    rows = [
        (e.epoch, "validation", e.validation_accuracy)
        for e in history
        if e.validation_accuracy is not None
    ]
    return _curve(rows, epochs, "accuracy", ".1%", palette)


def _curve(
    rows: Sequence[tuple[int, str, float | None]],
    epochs: int,
    quantity: str,
    form: str,
    palette: Palette,
) -> Layered:
    """Lines of a quantity over epochs, one for each kind in the rows (epoch, kind, value)."""
    table = pd.DataFrame(rows, columns=["epoch", "of", quantity])
    low, high = table[quantity].min(), table[quantity].max()
    spare = max(0.0, LEAST_SPAN - (high - low)) / 2
    kinds = alt.Scale(domain=["training", "validation"], range=[palette.main, palette.second])
    several = table["of"].nunique() > 1
    base = alt.Chart(table).encode(
        x=alt.X(
            "epoch:Q",
            title="epoch",
            scale=alt.Scale(domain=[1, max(2, epochs)], nice=False),
            axis=alt.Axis(format="d", tickMinStep=1, tickCount=min(8, max(2, epochs)), grid=False),
        ),
        y=alt.Y(
            f"{quantity}:Q",
            title=None,
            scale=alt.Scale(domain=[low - spare, high + spare], nice=True),
            axis=alt.Axis(
                format=form.replace(".3f", ".2f").replace(".1%", ".0%"),
                tickCount=5,
                tickMinStep=LEAST_STEP,
            ),
        ),
        color=alt.Color(
            "of:N",
            scale=kinds,
            legend=alt.Legend(orient="top", title=None) if several else None,
        ),
        tooltip=["epoch:Q", "of:N", alt.Tooltip(f"{quantity}:Q", format=form)],
    )
    line = base.mark_line(strokeWidth=2)
    points = base.mark_point(filled=True, size=28, opacity=1)
    return alt.layer(line, points).properties(height=250)


def speed_bars(contest: Contest, palette: Palette) -> Layered:
    """A bar of samples a second for every backend, a point for each epoch, and the roofline."""
    racing = [racer for racer in contest.racers if racer.missing is None]
    names = [racer.name for racer in racing]
    bars = pd.DataFrame(
        [
            (racer.name, speed, _speed_text(contest, racer.name, speed))
            for racer in racing
            if (speed := contest.samples_per_second(racer)) is not None
        ],
        columns=["backend", "speed", "text"],
    )
    epochs = pd.DataFrame(
        [
            (racer.name, number, contest.rows / seconds)
            for racer in racing
            for number, seconds in enumerate(racer.seconds, start=1)
        ],
        columns=["backend", "epoch", "speed"],
    )
    fastest = max([1.0, *epochs["speed"], contest.roofline or 0.0])
    x = alt.X(
        "speed:Q",
        title="samples a second",
        scale=alt.Scale(domain=[0, 1.05 * fastest], nice=False),
        axis=alt.Axis(
            labelExpr="datum.value ? format(datum.value, '~s') : '0'", tickCount=5, grid=False
        ),
    )
    y = alt.Y("backend:N", title=None, sort=names, scale=alt.Scale(domain=names))
    layers: list[alt.Chart] = [
        alt.Chart(bars).mark_bar(height=26, color=palette.main, opacity=0.85).encode(x=x, y=y),
        alt.Chart(epochs)
        .mark_tick(thickness=2, height=26, color=palette.text, opacity=0.55)
        .encode(x=x, y=y, tooltip=["backend:N", "epoch:Q", alt.Tooltip("speed:Q", format=",.0f")]),
        alt.Chart(bars)
        .mark_text(align="left", baseline="top", dy=16, fontSize=12, color=palette.text)
        .encode(x=alt.datum(0), y=y, text="text:N"),
    ]
    if contest.roofline:
        roof = pd.DataFrame({"speed": [contest.roofline], "text": ["dense roofline"]})
        layers += [
            alt.Chart(roof).mark_rule(color=palette.second, strokeDash=[5, 4]).encode(x=x),
            alt.Chart(roof)
            .mark_text(align="right", baseline="bottom", dx=-5, dy=-2, color=palette.second)
            .encode(x=x, y=alt.value(0), text="text:N"),
        ]
    return alt.layer(*layers).properties(height=max(1, len(names)) * 74)


def _speed_text(contest: Contest, name: str, speed: float) -> str:
    (racer,) = (racer for racer in contest.racers if racer.name == name)
    speedup = contest.speedup(racer)
    times = f", {speedup:.1f} times NumPy" if speedup and name != "numpy" else ""
    return f"{speed:,.0f}{times}"


def confusion_matrix(
    evaluation: Evaluation, class_names: Sequence[str], palette: Palette
) -> Layered:
    """Counts of every true class and answer; clicking selects "cell", with fields truth, answer.

    Shades grow with the root of the share of the true class, so that rare mistakes are seen.
    """
    counts_kk = evaluation.confusion_kk
    rows = [
        (class_names[truth], class_names[answer], int(count), float(share), truth == answer)
        for (truth, answer), count in np.ndenumerate(counts_kk)
        for share in [count / max(1, counts_kk[truth].sum())]
    ]
    table = pd.DataFrame(rows, columns=["truth", "answer", "images", "share", "right"])
    names = list(class_names)
    cell = alt.selection_point(name="cell", fields=["truth", "answer"], empty=False)
    base = alt.Chart(table).encode(
        x=alt.X(
            "answer:N",
            sort=names,
            title="answer",
            axis=alt.Axis(
                labelAngle=-45, labelLimit=90, labelOverlap=False, ticks=False, domain=False
            ),
        ),
        y=alt.Y(
            "truth:N",
            sort=names,
            title=None,
            axis=alt.Axis(
                labelLimit=90, labelBound=False, labelBaseline="middle", ticks=False, domain=False
            ),
        ),
        tooltip=["truth:N", "answer:N", "images:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    squares = (
        base.mark_rect(cornerRadius=2, cursor="pointer")
        .encode(
            color=alt.Color(
                "right:N",
                scale=alt.Scale(domain=[True, False], range=[palette.main, palette.second]),
                legend=None,
            ),
            opacity=alt.Opacity(
                "share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0.04, 1]), legend=None
            ),
            stroke=alt.condition(cell, alt.value(palette.text), alt.value(None)),
            strokeWidth=alt.condition(cell, alt.value(2.5), alt.value(0)),
        )
        .add_params(cell)
    )
    numbers = base.mark_text(fontSize=11, tooltip=None).encode(
        text=alt.condition("datum.images > 0", "images:Q", alt.value("")),
        color=alt.condition(
            f"datum.share > {palette.covered}", alt.value(palette.strong), alt.value(palette.text)
        ),
    )
    return alt.layer(squares, numbers).properties(height=500)


def reliability_diagram(bins: Sequence[ReliabilityBin], palette: Palette) -> Layered:
    """How often answers of a confidence are right; on the dashed line the two agree."""
    rows = [(b.confidence, b.accuracy, b.rows) for b in bins]
    table = pd.DataFrame(rows, columns=["confidence", "right", "images"])
    share = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1])
    ideal = (
        alt.Chart(pd.DataFrame({"confidence": [0, 1], "right": [0, 1]}))
        .mark_line(color=palette.faint, strokeDash=[5, 4])
        .encode(x=alt.X("confidence:Q", scale=share), y=alt.Y("right:Q", scale=share))
    )
    base = alt.Chart(table).encode(
        x=alt.X("confidence:Q", scale=share, axis=axis, title="probability that the model gives"),
        y=alt.Y("right:Q", scale=share, axis=axis, title="share of answers that are right"),
        tooltip=[
            alt.Tooltip("confidence:Q", format=".1%"),
            alt.Tooltip("right:Q", format=".1%"),
            alt.Tooltip("images:Q", format=","),
        ],
    )
    line = base.mark_line(color=palette.main, strokeWidth=2)
    points = base.mark_circle(color=palette.main, opacity=1).encode(
        size=alt.Size("images:Q", scale=alt.Scale(type="sqrt", range=[25, 420]), legend=None)
    )
    return alt.layer(ideal, line, points).properties(height=380)


def weight_tiles(
    w_io: NDArray, height: int, width: int, columns: int, palette: Palette
) -> NDArray[np.uint8]:
    """First-layer weights as one picture: a tile for every unit, in columns.

    w_io : (height * width, o). Weights above 0 have the colour `second`, those below `main`; they
    are the stronger the larger they are, up to all but the largest hundredth of their unit. Units
    with the most weight come first; at most MOST_TILES.
    Returns: RGBA, transparent between the tiles.
    """
    order_o = np.argsort(-np.abs(w_io).sum(axis=0), kind="stable")[:MOST_TILES]
    w_oi = w_io.T[order_o]
    full_o = np.maximum(np.quantile(np.abs(w_oi), 0.99, axis=1), 1e-12)
    strength = np.minimum(np.abs(w_oi) / full_o[:, None], 1)[..., None]
    zero, below, above = (
        [*_rgb(palette.faint), 24],
        [*_rgb(palette.main), 255],
        [*_rgb(palette.second), 255],
    )
    end = np.where(w_oi[..., None] < 0, below, above)
    tiles = (zero + (end - np.array(zero)) * strength).reshape(-1, height, width, 4)
    rows = -(-len(tiles) // columns)
    out = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for n, tile in enumerate(tiles):
        top, left = n // columns * (height + GAP), n % columns * (width + GAP)
        out[top : top + height, left : left + width] = tile
    return out


def _rgb(colour: str) -> list[int]:
    """Red, green and blue of "#rrggbb", 0..255."""
    return [int(colour[n : n + 2], 16) for n in (1, 3, 5)]

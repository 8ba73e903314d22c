"""Charts of the app, legible on the light and on the dark theme, and on a phone."""

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmnist_fast.nn.metrics import Evaluation, ReliabilityBin
from fmnist_fast.training.progress import Epoch

from .backend_race import REFERENCE, BackendRace, RaceEntry

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

Layered = alt.LayerChart | alt.FacetChart

# More units would be too small to see on a phone.
MAX_TILES = 64

# Minimum span of the axis of a curve, and between its ticks: less would magnify noise.
MIN_SPAN, MIN_STEP = 0.04, 0.01

# Pixels between two tiles.
GAP = 4


class Palette(NamedTuple):
    """Colours of one theme. main, second : of the data. strong : of text on these where their
    opacity is above `strong_above`; below it, `text` has more contrast.
    """

    text: str
    faint: str
    main: str
    second: str
    strong: str
    strong_above: float


LIGHT = Palette("#20262b", "#8a949b", "#2a6f97", "#c8642c", "#ffffff", 0.6)
DARK = Palette("#e4e6e6", "#7c878e", "#5fabd3", "#e08a55", "#0d1114", 0.35)


def loss_curve(history: Sequence[Epoch], epochs: int, palette: Palette) -> Layered:
    """Training and validation loss over the epochs so far. epochs : of the whole training."""
    rows = [(e.epoch, "training", e.train_loss) for e in history]
    rows += [
        (e.epoch, "validation", e.validation_loss) for e in history if e.validation_loss is not None
    ]
    return _curve(rows, epochs, "loss", ".3f", palette)


def accuracy_curve(history: Sequence[Epoch], epochs: int, palette: Palette) -> Layered:
    """Validation accuracy over the epochs so far. epochs : of the whole training."""
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
    """Lines of a quantity over epochs, one for each curve in the rows (epoch, curve, value)."""
    table = pd.DataFrame(rows, columns=["epoch", "curve", quantity])
    low, high = table[quantity].min(), table[quantity].max()
    margin = max(0.0, MIN_SPAN - (high - low)) / 2
    colors = alt.Scale(domain=["training", "validation"], range=[palette.main, palette.second])
    several = table["curve"].nunique() > 1
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
            scale=alt.Scale(domain=[low - margin, high + margin], nice=True),
            axis=alt.Axis(
                format=form.replace(".3f", ".2f").replace(".1%", ".0%"),
                tickCount=5,
                tickMinStep=MIN_STEP,
            ),
        ),
        color=alt.Color(
            "curve:N",
            scale=colors,
            legend=alt.Legend(orient="top", title=None) if several else None,
        ),
        tooltip=["epoch:Q", "curve:N", alt.Tooltip(f"{quantity}:Q", format=form)],
    )
    line = base.mark_line(strokeWidth=2)
    points = base.mark_point(filled=True, size=28, opacity=1)
    return alt.layer(line, points).properties(height=250)


def speed_bars(race: BackendRace, palette: Palette) -> Layered:
    """A bar of samples a second for every backend, a tick for each epoch, and the roofline."""
    entries = race.available
    names = [entry.name for entry in entries]
    bars = pd.DataFrame(
        [
            (entry.name, entry.samples_per_second, _speed_text(entry))
            for entry in entries
            if entry.samples_per_second is not None
        ],
        columns=["backend", "speed", "text"],
    )
    epochs = pd.DataFrame(
        [
            (entry.name, number, race.rows / seconds)
            for entry in entries
            for number, seconds in enumerate(entry.seconds, start=1)
        ],
        columns=["backend", "epoch", "speed"],
    )
    fastest = max([1.0, *epochs["speed"], race.roofline or 0.0])
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
    if race.roofline:
        roof = pd.DataFrame({"speed": [race.roofline], "text": ["dense roofline"]})
        layers += [
            alt.Chart(roof).mark_rule(color=palette.second, strokeDash=[5, 4]).encode(x=x),
            alt.Chart(roof)
            .mark_text(align="right", baseline="bottom", dx=-5, dy=-2, color=palette.second)
            .encode(x=x, y=alt.value(0), text="text:N"),
        ]
    return alt.layer(*layers).properties(height=max(1, len(names)) * 74)


def _speed_text(entry: RaceEntry) -> str:
    speedup = entry.speedup if entry.name != REFERENCE else None
    times = f", {speedup:.1f} times NumPy" if speedup else ""
    return f"{entry.samples_per_second:,.0f}{times}"


def confusion_matrix(
    evaluation: Evaluation, class_names: Sequence[str], palette: Palette
) -> Layered:
    """Counts of every true and predicted class; a click selects "cell", with the two as fields.

    Opacity is the root of the fraction of the true class, so that rare mistakes are visible.
    """
    counts_kk = evaluation.confusion_kk
    rows = [
        (class_names[truth], class_names[label], int(count), float(fraction), truth == label)
        for (truth, label), count in np.ndenumerate(counts_kk)
        for fraction in [count / max(1, counts_kk[truth].sum())]
    ]
    table = pd.DataFrame(rows, columns=["truth", "prediction", "images", "fraction", "correct"])
    names = list(class_names)
    cell = alt.selection_point(name="cell", fields=["truth", "prediction"], empty=False)
    base = alt.Chart(table).encode(
        x=alt.X(
            "prediction:N",
            sort=names,
            title="prediction",
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
        tooltip=["truth:N", "prediction:N", "images:Q", alt.Tooltip("fraction:Q", format=".1%")],
    )
    squares = (
        base.mark_rect(cornerRadius=2, cursor="pointer")
        .encode(
            color=alt.Color(
                "correct:N",
                scale=alt.Scale(domain=[True, False], range=[palette.main, palette.second]),
                legend=None,
            ),
            opacity=alt.Opacity(
                "fraction:Q",
                scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0.04, 1]),
                legend=None,
            ),
            stroke=alt.condition(cell, alt.value(palette.text), alt.value(None)),
            strokeWidth=alt.condition(cell, alt.value(2.5), alt.value(0)),
        )
        .add_params(cell)
    )
    numbers = base.mark_text(fontSize=11, tooltip=None).encode(
        text=alt.condition("datum.images > 0", "images:Q", alt.value("")),
        color=alt.condition(
            f"datum.fraction > {palette.strong_above}",
            alt.value(palette.strong),
            alt.value(palette.text),
        ),
    )
    return alt.layer(squares, numbers).properties(height=500)


def reliability_diagram(bins: Sequence[ReliabilityBin], palette: Palette) -> Layered:
    """Accuracy of the predictions by confidence; on the dashed line the two are equal."""
    rows = [(b.confidence, b.accuracy, b.rows) for b in bins]
    table = pd.DataFrame(rows, columns=["confidence", "accuracy", "images"])
    unit = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1])
    ideal = (
        alt.Chart(pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]}))
        .mark_line(color=palette.faint, strokeDash=[5, 4])
        .encode(x=alt.X("confidence:Q", scale=unit), y=alt.Y("accuracy:Q", scale=unit))
    )
    base = alt.Chart(table).encode(
        x=alt.X("confidence:Q", scale=unit, axis=axis, title="confidence"),
        y=alt.Y("accuracy:Q", scale=unit, axis=axis, title="accuracy"),
        tooltip=[
            alt.Tooltip("confidence:Q", format=".1%"),
            alt.Tooltip("accuracy:Q", format=".1%"),
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
    """First-layer weights as one image: a tile for every unit, in columns.

    w_io : (height * width, o). Positive weights have the colour `second`, negative ones `main`;
    the intensity saturates at the 99th percentile of a unit. Units are sorted by the sum of their
    absolute weights; at most MAX_TILES.
    Returns: RGBA, transparent between the tiles.
    """
    order_o = np.argsort(-np.abs(w_io).sum(axis=0), kind="stable")[:MAX_TILES]
    w_oi = w_io.T[order_o]
    limit_o = np.maximum(np.quantile(np.abs(w_oi), 0.99, axis=1), 1e-12)
    intensity = np.minimum(np.abs(w_oi) / limit_o[:, None], 1)[..., None]
    zero, below, above = (
        [*_rgb(palette.faint), 24],
        [*_rgb(palette.main), 255],
        [*_rgb(palette.second), 255],
    )
    end = np.where(w_oi[..., None] < 0, below, above)
    tiles = (zero + (end - np.array(zero)) * intensity).reshape(-1, height, width, 4)
    rows = -(-len(tiles) // columns)
    out = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for n, tile in enumerate(tiles):
        top, left = n // columns * (height + GAP), n % columns * (width + GAP)
        out[top : top + height, left : left + width] = tile
    return out


def _rgb(colour: str) -> list[int]:
    """Convert "#rrggbb" to red, green and blue, 0..255."""
    return [int(colour[n : n + 2], 16) for n in (1, 3, 5)]

"""Charts of the app, legible on the light and on the dark theme, and on a phone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ImageColor

from fmnist_fast.nn.metrics import Evaluation, ReliabilityBin
from fmnist_fast.training.progress import Epoch

from .backend_race import REFERENCE, BackendRace, RaceEntry

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
    curves = {"train_loss": "training", "validation_loss": "validation"}
    return _curve(history, curves, "loss", ".3f", epochs, palette)


def accuracy_curve(history: Sequence[Epoch], epochs: int, palette: Palette) -> Layered:
    """Validation accuracy over the epochs so far. epochs : of the whole training."""
    curves = {"validation_accuracy": "validation"}
    return _curve(history, curves, "accuracy", ".1%", epochs, palette)


def _curve(
    history: Sequence[Epoch],
    curves: dict[str, str],
    quantity: str,
    form: str,
    epochs: int,
    palette: Palette,
) -> Layered:
    """Lines of a quantity over epochs. curves : fields of Epoch, with the names of their lines."""
    table = pd.DataFrame(history).rename(columns=curves)
    table = table.melt("epoch", list(curves.values()), "curve", quantity).dropna()
    low, high = table[quantity].min(), table[quantity].max()
    margin = max(0.0, MIN_SPAN - (high - low)) / 2
    legend = alt.Legend(orient="top", title=None) if table["curve"].nunique() > 1 else None
    ticks = min(8, max(2, epochs))
    base = alt.Chart(table).encode(
        x=alt.X("epoch:Q")
        .scale(domain=[1, max(2, epochs)], nice=False)
        .axis(format="d", tickMinStep=1, tickCount=ticks, grid=False),
        y=alt.Y(f"{quantity}:Q", title=None)
        .scale(domain=[low - margin, high + margin], nice=True)
        .axis(format=form.replace("3", "2").replace("1", "0"), tickCount=5, tickMinStep=MIN_STEP),
        color=alt.Color("curve:N", legend=legend).scale(
            domain=["training", "validation"], range=[palette.main, palette.second]
        ),
        tooltip=["epoch:Q", "curve:N", alt.Tooltip(f"{quantity}:Q", format=form)],
    )
    line = base.mark_line(strokeWidth=2)
    points = base.mark_point(filled=True, size=28, opacity=1)
    return alt.layer(line, points).properties(height=250)


def speed_bars(race: BackendRace, palette: Palette) -> Layered:
    """A bar of samples a second for every backend, a tick for each epoch, and the roofline."""
    names = [entry.name for entry in race.available]
    bars = pd.DataFrame(
        {"backend": entry.name, "speed": entry.samples_per_second, "text": _speed_text(entry)}
        for entry in race.available
        if entry.samples_per_second is not None
    )
    epochs = pd.DataFrame(
        {"backend": entry.name, "epoch": number, "speed": race.rows / seconds}
        for entry in race.available
        for number, seconds in enumerate(entry.seconds, start=1)
    )
    fastest = max([1.0, *epochs.get("speed", []), race.roofline or 0.0])
    x = (
        alt.X("speed:Q", title="samples a second")
        .scale(domain=[0, 1.05 * fastest], nice=False)
        .axis(labelExpr="datum.value ? format(datum.value, '~s') : '0'", tickCount=5, grid=False)
    )
    y = alt.Y("backend:N", title=None, sort=names).scale(domain=names)
    layers: list[alt.Chart] = [
        alt.Chart(bars).mark_bar(height=26, color=palette.main, opacity=0.85).encode(x, y),
        alt.Chart(epochs)
        .mark_tick(thickness=2, height=26, color=palette.text, opacity=0.55)
        .encode(x, y, tooltip=["backend:N", "epoch:Q", alt.Tooltip("speed:Q", format=",.0f")]),
        alt.Chart(bars)
        .mark_text(align="left", baseline="top", dy=16, fontSize=12, color=palette.text)
        .encode(alt.X(datum=0), y, text="text:N"),
    ]
    if race.roofline:
        roof = alt.Chart(pd.DataFrame({"speed": [race.roofline], "text": ["dense roofline"]}))
        layers += [
            roof.mark_rule(color=palette.second, strokeDash=[5, 4]).encode(x),
            roof.mark_text(
                align="right", baseline="bottom", dx=-5, dy=-2, color=palette.second
            ).encode(x, y=alt.value(0), text="text:N"),
        ]
    return alt.layer(*layers).properties(height=max(1, len(names)) * 74)


def _speed_text(entry: RaceEntry) -> str:
    text = f"{entry.samples_per_second:,.0f}"
    if entry.speedup and entry.name != REFERENCE:
        text += f", {entry.speedup:.1f} times NumPy"
    return text


def confusion_matrix(
    evaluation: Evaluation, class_names: Sequence[str], palette: Palette
) -> Layered:
    """Counts of every true and predicted class; a click selects "cell", with the two as fields.

    Opacity is the root of the fraction of the true class, so that rare mistakes are visible.
    """
    fraction_kk = evaluation.confusion_kk / evaluation.confusion_kk.sum(1, keepdims=True).clip(1)
    table = pd.DataFrame(
        {
            "truth": class_names[truth],
            "prediction": class_names[label],
            "images": count,
            "fraction": fraction_kk[truth, label],
            "correct": truth == label,
        }
        for (truth, label), count in np.ndenumerate(evaluation.confusion_kk)
    )
    names = list(class_names)
    cell = alt.selection_point(name="cell", fields=["truth", "prediction"], empty=False)
    bare: dict[str, Any] = {"labelLimit": 90, "ticks": False, "domain": False}
    base = alt.Chart(table).encode(
        x=alt.X("prediction:N", sort=names).axis(**bare, labelAngle=-45, labelOverlap=False),
        y=alt.Y("truth:N", sort=names, title=None).axis(
            **bare, labelBound=False, labelBaseline="middle"
        ),
        tooltip=["truth:N", "prediction:N", "images:Q", alt.Tooltip("fraction:Q", format=".1%")],
    )
    squares = (
        base.mark_rect(cornerRadius=2, cursor="pointer")
        .encode(
            color=alt.Color("correct:N", legend=None).scale(
                domain=[True, False], range=[palette.main, palette.second]
            ),
            opacity=alt.Opacity("fraction:Q", legend=None).scale(
                type="sqrt", domain=[0, 1], range=[0.04, 1]
            ),
            stroke=alt.when(cell).then(alt.value(palette.text)).otherwise(alt.value(None)),
            strokeWidth=alt.when(cell).then(alt.value(2.5)).otherwise(alt.value(0)),
        )
        .add_params(cell)
    )
    numbers = base.mark_text(fontSize=11, tooltip=None).encode(
        text=alt.when("datum.images > 0").then("images:Q").otherwise(alt.value("")),
        color=alt.when(f"datum.fraction > {palette.strong_above}")
        .then(alt.value(palette.strong))
        .otherwise(alt.value(palette.text)),
    )
    return alt.layer(squares, numbers).properties(height=500)


def reliability_diagram(bins: Sequence[ReliabilityBin], palette: Palette) -> Layered:
    """Accuracy of the predictions by confidence; on the dashed line the two are equal."""
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1])
    unit = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("confidence:Q", axis=axis, scale=unit)
    y = alt.Y("accuracy:Q", axis=axis, scale=unit)
    ideal = (
        alt.Chart(pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]}))
        .mark_line(color=palette.faint, strokeDash=[5, 4])
        .encode(x, y)
    )
    tooltip = [alt.Tooltip(f"{field}:Q", format=".1%") for field in ("confidence", "accuracy")]
    tooltip.append(alt.Tooltip("rows:Q", title="images", format=","))
    base = alt.Chart(pd.DataFrame(bins)).encode(x, y, tooltip=tooltip)
    line = base.mark_line(color=palette.main, strokeWidth=2)
    points = base.mark_circle(color=palette.main, opacity=1).encode(
        size=alt.Size("rows:Q", legend=None).scale(type="sqrt", range=[25, 420])
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
    zero = np.array([*ImageColor.getrgb(palette.faint), 24])
    below, above = (ImageColor.getcolor(color, "RGBA") for color in (palette.main, palette.second))
    end = np.where(w_oi[..., None] < 0, below, above)
    tiles = (zero + (end - zero) * intensity).reshape(-1, height, width, 4)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (0, GAP), (0, GAP), (0, 0)))
    tiles = tiles.reshape(-1, columns, height + GAP, width + GAP, 4).swapaxes(1, 2)
    image = tiles.reshape(-1, columns * (width + GAP), 4)[:-GAP, :-GAP]
    return image.astype(np.uint8)

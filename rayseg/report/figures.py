"""Curves and bars as inline SVG that takes its colours and type from the page around it.

matplotlib writes colours as six hexadecimal digits. We draw with stand-ins that no eye ever sees
and put the page's CSS variables in their place, so that one drawing serves the light scheme, the
dark one and print. The legend beside each figure names the series by its letter.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from string import ascii_lowercase
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from rayseg.records.progress import Progress
from rayseg.report.contents import Score, number
from rayseg.report.segmenters import ObjectNetwork, PairNetwork, TrainedFolder, TrainedSegmenter

SERIES = 8
"""Colours that the page has for series; more series start again."""
LOSS, MAP, F1 = 5, 7, 6
"""Series of the classifier's curves, away from the methods' first ones."""
MAX_CLASSES_SHOWN = 30
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _LINE: "line"} | {
    f"#0404{place:02x}": f"series-{place}" for place in range(SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it is searched, scaled and set in the page's type
    "text.parse_math": False,  # a class may be called "$x$"
    "font.size": 11,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
}
_WIDTH_INCHES = 5.2


def series_color(place: int) -> str:
    """Stand-in of the colour of the series at that place."""
    return f"#0404{place % SERIES:02x}"


def series_letter(place: int) -> str:
    """What stands beside the colour of the series at that place: a, b, c and so on."""
    return ascii_lowercase[place] if place < len(ascii_lowercase) else str(place + 1)


def class_bars(
    scores: Sequence[Score],
    first: Score,
    start: int = 0,
    title: str = "IoU of each class by method",
) -> tuple[str, list[str]]:
    """IoU of each class as one bar a method.

    Args:
        scores: the methods; a series' place is its place here, counted from `start`.
        first: the method by which the classes are sorted, the highest IoU on top.
        start: place of the first series.
        title: what the drawing is called for who cannot see it; no two of a page share one.

    Returns:
        The drawing, and the classes left out of it when there are more than fit: those in the
        middle.
    """
    ranked = sorted(first.part("per_class"), key=lambda name: -(_iou(first, name) or 0))
    half = MAX_CLASSES_SHOWN // 2
    left_out = ranked[half:-half] if len(ranked) > MAX_CLASSES_SHOWN else []
    shown = [name for name in ranked if name not in left_out]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        thickness = 0.8 / len(scores)
        for place, score in enumerate(scores):
            values = [_percent(_iou(score, name)) for name in shown]
            rows = np.arange(len(shown)) + (place - (len(scores) - 1) / 2) * thickness
            axes.barh(rows, values, thickness * 0.88, color=series_color(start + place))
            _put_letter(axes, start + place, values[:1], rows)
        axes.set_yticks(range(len(shown)), [_short(name) for name in shown])
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.grid(visible=False, axis="y")
        axes.set(ylim=(len(shown) - 0.5, -0.5), xlim=(0, 100), xlabel="IoU, %")

    height = 0.7 + len(shown) * (0.1 + 0.085 * max(2, len(scores)))
    return _svg(title, height, draw), left_out


def _put_letter(axes: Axes, place: int, xs: Iterable[float], ys: Iterable[float]) -> None:
    """The letter of a series after its last known point, so that colour alone tells nothing."""
    if known := [point for point in zip(xs, ys, strict=False) if np.isfinite(point).all()]:
        axes.annotate(series_letter(place), known[-1], (5, 0), "data", "offset points", va="center")


def _iou(score: Score, label: str) -> float | None:
    return number((score.part("per_class").get(label) or {}).get("iou"))


def best_threshold(score: Score) -> tuple[float, float] | None:
    """The threshold that was used and the mIoU there; the top of the curve where none was."""
    thresholds, values = _sweep(score)
    if not len(values) or np.isnan(values).all():
        return None
    used = np.flatnonzero((thresholds == score.number("threshold")) & ~np.isnan(values))
    best = int(used[0]) if len(used) else int(np.nanargmax(values))
    return float(thresholds[best]), float(values[best])


def threshold_curve(scores: Sequence[Score]) -> str:
    """Mean IoU over the background threshold, one line a method that has a sweep, best marked.

    Over the classes that the threshold was chosen on, where some were chosen.
    """
    chosen = any("miou_over" in score.part("sweep") for score in scores)
    label = "mIoU of the chosen classes, %" if chosen else "mIoU, %"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, score in enumerate(scores):
            thresholds, values = _sweep(score)
            axes.plot(thresholds, 100 * values, color=series_color(place), linewidth=2)
            _put_letter(axes, place, thresholds, 100 * values)
            best = best_threshold(score)
            if best:
                axes.plot(best[0], 100 * best[1], "o", color=series_color(place), markersize=7)
        axes.set(xlabel="background threshold", ylabel=label)

    return _svg("mIoU over the background threshold", 3.3, draw)


def _sweep(score: Score) -> tuple[ndarray, ndarray]:
    sweep = score.part("sweep")
    thresholds = np.array([_number(value) for value in sweep.get("thresholds", [])])
    values = sweep.get("miou_over") or sweep.get("miou", [])
    return thresholds, np.array([_number(value) for value in values])


def size_bars(scores: Sequence[Score]) -> str:
    """Mean IoU by object size, one bar a method."""
    sizes = known_sizes(scores)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        thickness = 0.8 / len(scores)
        for place, score in enumerate(scores):
            values = [_percent(size_iou(score, size)) for size in sizes]
            columns = np.arange(len(sizes)) + (place - (len(scores) - 1) / 2) * thickness
            bars = axes.bar(columns, values, thickness * 0.88, color=series_color(place))
            labels = ["" if np.isnan(y) else f"{series_letter(place)} {y:.0f}" for y in values]
            axes.bar_label(bars, labels, padding=2, fontsize=9)
        axes.set_xticks(range(len(sizes)), [size.replace("_", "\n") for size in sizes])
        axes.tick_params(axis="x", length=0, labelcolor=_INK)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("IoU, %")

    return _svg("IoU by object size and method", 3.3, draw)


def known_sizes(scores: Sequence[Score]) -> list[str]:
    """Sizes for which a method has an IoU; the same table holds other facts as well."""
    sizes = dict.fromkeys(size for score in scores for size in score.part("sizes"))
    return [size for size in sizes if any(size_iou(score, size) is not None for score in scores)]


def size_iou(score: Score, size: str) -> float | None:
    """IoU over the objects of that size, whichever of its names the scores use."""
    facts = score.part("sizes").get(size)
    if not isinstance(facts, dict):
        return None
    found = (number(facts.get(key)) for key in ("miou", "iou"))
    return next((value for value in found if value is not None), None)


def classifier_curves(progress: Progress) -> str:
    """The classifier's loss above its mAP and F1, by iteration or epoch."""

    def points(entries: Sequence[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
        at = [_number(one.get(progress.unit, n + 1)) for n, one in enumerate(entries)]
        return at, [_number(one.get(key)) for one in entries]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        losses = points(progress.curve, "loss")
        upper.plot(*losses, color=series_color(LOSS), linewidth=2, marker="o", markersize=3)
        _put_letter(upper, LOSS, *losses)
        upper.set_ylabel("loss")
        upper.set_ylim(bottom=0)
        for place, key in ((MAP, "map"), (F1, "f1")):
            at, shares = points(progress.judged, key)
            values = [_percent(share) for share in shares]
            lower.plot(at, values, color=series_color(place), linewidth=2, marker="o", markersize=3)
            _put_letter(lower, place, at, values)
        lower.set(xlabel=progress.unit, ylabel="%")
        lower.xaxis.get_major_locator().set_params(integer=True)
        lower.margins(y=0.15)

    return _svg(f"Loss, mAP and F1 of the classifier by {progress.unit}", 3.9, draw)


def training_curves(segmenters: Sequence[TrainedSegmenter], places: Sequence[int]) -> str:
    """Loss by iteration, a line a segmenter, above their mIoU where training judged them."""
    judged = [one.mious for one in segmenters]
    return _curves(segmenters, places, judged, "mIoU", "the segmenters")


def pair_curves(networks: Sequence[PairNetwork]) -> str:
    """The same of networks that refiners work on, with the share of correctly classified pairs."""
    judged = [one.accuracies for one in networks]
    return _curves(networks, range(len(networks)), judged, "pairs", "IRNet and AffinityNet")


def object_curves(networks: Sequence[ObjectNetwork], places: Sequence[int], whose: str) -> str:
    """The same of detectors or Mask R-CNNs, with AP50.

    Args:
        whose: what the drawing is of, for who cannot see it; no two of a page share one.
    """
    judged = [one.precisions for one in networks]
    return _curves(networks, places, judged, "AP50", whose)


def _curves(
    networks: Sequence[TrainedFolder],
    places: Sequence[int],
    scores: Sequence[tuple[list[float], list[float]]],
    measure: str,
    whose: str,
) -> str:
    judged = any(iterations for iterations, _ in scores)
    pairs = list(zip(networks, places, strict=True))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1 + judged, 1, sharex=True, squeeze=False)[:, 0]
        for one, place in pairs:
            axes[0].plot(*one.losses, color=series_color(place), linewidth=1.6)
            _put_letter(axes[0], place, *one.losses)
        axes[0].set(ylabel="loss", ylim=(0, None))
        axes[-1].set_xlabel("iteration")
        if judged:
            for (iterations, values), place in zip(scores, places, strict=True):
                shares = [100 * value for value in values]
                color = series_color(place)
                axes[1].plot(iterations, shares, color=color, linewidth=2, marker="o", markersize=4)
                _put_letter(axes[1], place, iterations, shares)
            axes[1].set_ylabel(f"{measure}, %")
            axes[1].margins(y=0.15)

    title = f"Loss and {measure} of {whose} by iteration" if judged else f"Loss of {whose}"
    return _svg(title, 3.9 if judged else 2.6, draw)


def _number(value: object) -> float:
    found = number(value)
    return np.nan if found is None else found


def _percent(value: float | None) -> float:
    return np.nan if value is None else 100 * value


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _svg(title: str, height_inches: float, draw: Callable[[Figure], None]) -> str:
    sink = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        # Only the page's fonts count: the browser has the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure((_WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure)
        figure.savefig(sink, format="svg", transparent=True)
    return _adopt(sink.getvalue(), title)


def _adopt(svg: str, title: str) -> str:
    """Makes a stand-alone SVG file part of the page: no prologue, page colours, no clashing ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = re.sub(f"(fill|stroke): {stand_in}\\b", rf"\1: var(--{variable})", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)

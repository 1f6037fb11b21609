"""How much a result depends on each setting, as Figures 3.7 and 3.15 show it."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

METRICS = {"miou": "mean IoU", "object_iou": "mean IoU of objects"}
MAX_COLUMNS = 4
Entry = Mapping[str, Any]
"""A setting: field to value, and the metric under its own name."""


def draw_sensitivity(
    entries: Sequence[Entry], best: Entry, searched: Sequence[str], metric: str
) -> bytes:
    """One panel for each setting: all entries, and a line where the others are the best's.

    Args:
        entries: at least one; the metric in 0..1.
        best: the one that was chosen.
        metric: what is drawn, in percent.
    """
    shown = [name for name in searched if len({_place(e[name]) for e in entries}) > 1] or searched
    rows = max(math.ceil(len(shown) / MAX_COLUMNS), 1)
    columns = max(math.ceil(len(shown) / rows), 1)
    figure = Figure(figsize=(3.2 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, shown, strict=False):
        _panel(axes, entries, best, name, [other for other in searched if other != name], metric)
    for axes in panels.flat[len(shown) or 1 :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel(f"{METRICS.get(metric, metric)} in %")
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=150)
    return sink.getvalue()


def _panel(
    axes: Axes, entries: Sequence[Entry], best: Entry, name: str, others: Sequence[str], metric: str
) -> None:
    texts = sorted({str(e[name]) for e in entries if not isinstance(e[name], int | float)})

    def at(entry: Entry) -> float:
        value = entry[name]
        return texts.index(str(value)) if texts else float(value)

    points = [(at(entry), 100 * entry[metric]) for entry in entries]
    axes.plot(*zip(*points, strict=True), ".", color="0.75", markersize=4)
    line = sorted((at(e), 100 * e[metric]) for e in entries if all(e[o] == best[o] for o in others))
    axes.plot(*zip(*line, strict=True), marker="o", markersize=3, color="tab:blue")
    axes.plot(at(best), 100 * best[metric], "o", color="tab:red", markersize=6)
    axes.set_xlabel(name)
    values = [x for x, _ in points]
    if texts:
        axes.set_xticks(range(len(texts)), texts, rotation=30, fontsize=7, ha="right")
    elif min(values) > 0 and max(values) / min(values) > 10 and not _counts(entries, name):
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _counts(entries: Sequence[Entry], name: str) -> bool:
    """Whether the setting is a number of something."""
    return all(isinstance(entry[name], int) for entry in entries)


def _place(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

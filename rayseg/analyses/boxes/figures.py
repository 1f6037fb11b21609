"""The pictures of the analyses, each from its table alone; PNG."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Circle

from rayseg.analyses.boxes.curves import CurveSums
from rayseg.analyses.boxes.heads import HeadAnalysis
from rayseg.analyses.boxes.noise import NoiseAnalysis
from rayseg.analyses.boxes.overlaps import SIZE_EDGES, THRESHOLDS, OverlapAnalysis
from rayseg.analyses.boxes.positions import PositionCounts
from rayseg.analyses.drawing import picture

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#5f6368")  # also for the colour-blind
_MARKERS = ("o", "s", "^", "D", "v")


def draw_heads(result: HeadAnalysis) -> bytes:
    """Densities of both heads' pixels above, losses by step below; as Figure 5.6(b, c)."""
    with picture((7.2, 6.6)) as (figure, finish):
        upper, lower = figure.subfigures(2, 1, height_ratios=(1.35, 1))
        upper.suptitle(r"Relative position $R$ of the pixels above 0.9", fontsize=10)
        left, right = upper.subplots(1, 2)
        _draw_density(left, "box head only", result.box)
        _draw_density(right, "class head only", result.class_)
        lower.suptitle("Mean losses by step", fontsize=10)
        left, right = lower.subplots(1, 2)
        _draw_losses(left, "box head only", result.box_curves)
        _draw_losses(right, "class head only", result.class_curves)
        right.legend(frameon=False)
        return finish()


def draw_noise(result: NoiseAnalysis) -> bytes:
    """The measure against the amount of noise; as Figure 5.7(a)."""
    with picture((4.6, 3.2)) as (figure, finish):
        axes = figure.subplots()
        percent = 100 * np.array(result.amounts)
        axes.plot(percent, result.values, color=_COLORS[0], marker=_MARKERS[0], markersize=4.5)
        axes.axvline(0, color="#888888", linewidth=0.8, linestyle=(0, (4, 2)))
        axes.set(
            xlabel="noise of the boxes in %: contracted, expanded",
            ylabel=result.measure,
            ylim=(0, None),
            title=f"{result.objects} objects",
        )
        axes.grid(visible=True)
        return finish()


def draw_sizes(result: OverlapAnalysis) -> bytes:
    """IoU of each kind of map by the size of the object; as Figure 5.7(b)."""
    with picture((5.4, 3.4)) as (figure, finish):
        axes = figure.subplots()
        edges = (0.0, *SIZE_EDGES, 1.0)
        names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        first = next(iter(result.kinds.values()))
        places = np.arange(len(names))
        for (name, one), color, marker in _told_apart(result):
            axes.plot(places, one.by_size, color=color, marker=marker, markersize=4.5, label=name)
        labels = [
            f"{name}\n({count})" for name, count in zip(names, first.objects.tolist(), strict=True)
        ]
        axes.set_xticks(places, labels)
        axes.set(
            xlabel=r"size $\sqrt{a}$ of the object (objects)",
            ylabel="IoU with the true mask",
            ylim=(0, 1),
        )
        axes.grid(visible=True)
        axes.legend(frameon=False)
        return finish()


def draw_methods(result: OverlapAnalysis) -> bytes:
    """IoU of each kind of map: at its best threshold, and at all; as Figure 5.7(c)."""
    with picture((7.6, 3.2)) as (figure, finish):
        left, right = figure.subplots(1, 2)
        best = [float(one.means[one.best]) for one in result.kinds.values()]
        colors = [color for _, color, _ in _told_apart(result)]
        bars = left.bar(list(result.kinds), best, color=colors, width=0.6)
        left.bar_label(bars, fmt="%.2f")
        left.set(ylabel="IoU at the best threshold", ylim=(0, 1))
        for (name, one), color, _ in _told_apart(result):
            right.plot(THRESHOLDS, one.means, color=color, label=name)
            right.plot(THRESHOLDS[one.best], one.means[one.best], "o", color=color, markersize=4.5)
        right.set(xlabel="threshold", ylabel="mean IoU", ylim=(0, 1))
        right.legend(frameon=False)
        for axes in (left, right):
            axes.grid(visible=True, axis="y")
        return finish()


def _told_apart(result: OverlapAnalysis) -> Iterator[tuple[Any, str, str]]:
    for place, kind in enumerate(result.kinds.items()):
        yield kind, _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]


def _draw_density(axes: Axes, title: str, counts: PositionCounts) -> None:
    """Shares of the pixels by cell on a logarithmic scale; the contour's circle in white."""
    share = np.ma.masked_equal(counts.density / max(counts.pixels, 1), 0)
    image = axes.imshow(share, "viridis", LogNorm(1e-5, 1e-1), extent=(-1, 1, 1, -1))
    axes.set_facecolor("#1b0b26")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the pixels")
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="white", linewidth=0.8))
    axes.set(
        title=f"{title}: {counts.near_share:.0%} near the boundary",
        xticks=(-1, 0, 1),
        yticks=(-1, 0, 1),
    )


def _draw_losses(axes: Axes, title: str, curves: CurveSums) -> None:
    steps = np.arange(len(curves.total))
    for column, color, name in zip(
        curves.mean.T, _COLORS, ("box loss", "class loss"), strict=False
    ):
        axes.plot(steps, column, color=color, label=name)
    axes.set(title=f"{title}, {curves.objects} objects", xlabel="step", ylim=(0, None))
    axes.grid(visible=True)

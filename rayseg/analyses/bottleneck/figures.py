"""The experiment as a picture and as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy import ndarray

from rayseg.analyses.bottleneck.experiment import BottleneckResult, Examples
from rayseg.analyses.bottleneck.scenes import MARK
from rayseg.analyses.drawing import picture

_COLORS = ("#0072b2", "#d55e00", "#5f6368")  # distinct for the colour-blind as well
_LABELS = (r"$R_D$ digit", r"$R_{ND}$ mark", r"$R_{BG}$ background")
_MARKERS = ("o", "s", "^")
_BOX = "#35d0ff"
_SIZE_INCHES = (8.4, 8.6)
_ROWS = {"layers": 2.1, "iterations": 2.1, "curves": 2.0}  # relative heights
_MOST_COLUMNS = 7


def draw(result: BottleneckResult) -> bytes:
    """Examples and their gradient maps above, the ratios by layer and by iteration below; a PNG."""
    with picture(_SIZE_INCHES) as (figure, finish):
        upper, middle, lower = figure.subfigures(3, 1, height_ratios=list(_ROWS.values()))
        names = [f"$G_{place + 1}$" for place in range(len(result.layers))]
        upper.suptitle("Gradient of each layer, over the maximum of its map", fontsize=10)
        _draw_maps(upper, result.examples, result.examples.layers, names)
        shown = shown_iterations(len(result.iterations))
        middle.suptitle("Gradient of the logit, $G_6$, during RIB", fontsize=10)
        _draw_maps(
            middle,
            result.examples,
            result.examples.iterations[shown],
            ["before" if place == 0 else f"iteration {place}" for place in shown],
        )
        _draw_curves(lower, result)
        return finish()


def shown_iterations(number: int) -> list[int]:
    """Which of that many rows have a map in the picture: the first, the last, others between."""
    spread = np.linspace(0, number - 1, min(number, _MOST_COLUMNS - 1))
    return [round(place) for place in spread.tolist()]


def _draw_maps(
    figure: Any, examples: Examples, maps: Float[ndarray, "i e h w"], names: Sequence[str]
) -> None:
    """A row an example: the image, then its maps; a frame round the mark."""
    grid = figure.subplots(len(examples.images), _MOST_COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, image in enumerate(examples.images):
        columns = [image, *maps[:, row]]
        for axes, plane, kind in zip(
            grid[row], columns, ["gray_r", *["inferno"] * len(maps)], strict=False
        ):
            axes.imshow(plane, cmap=kind, vmin=0, vmax=1, interpolation="nearest")
            axes.add_patch(_edge(plane.shape))
            axes.add_patch(_frame(examples.regions[row] == MARK))
    for axes, name in zip(grid[0], ["image", *names], strict=False):
        axes.set_title(name)


def _edge(size_hw: tuple[int, ...]) -> Rectangle:
    """Where white paper ends."""
    height, width = size_hw
    look: dict[str, Any] = {"fill": False, "edgecolor": "#888888", "linewidth": 0.6}
    return Rectangle((-0.5, -0.5), width, height, clip_on=False, **look)


def _frame(mark: ndarray) -> Rectangle:
    rows, columns = np.nonzero(mark)
    corner = (columns.min() - 1.5, rows.min() - 1.5)
    width, height = float(np.ptp(columns)) + 3, float(np.ptp(rows)) + 3
    return Rectangle(corner, width, height, fill=False, edgecolor=_BOX, linewidth=1.2)


def _draw_curves(figure: Any, result: BottleneckResult) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes in (left, right):
        axes.grid(visible=True)
    places = np.arange(1, len(result.layers) + 1)
    handles = _draw_ratios(left, places, result.layers)
    left.set_xticks(places, [f"$G_{place}$" for place in places])
    left.set(xlabel="layer", ylabel="high gradient ratio", ylim=(-0.03, 1.05))
    left.legend(handles, _LABELS, frameon=False, loc="upper right")
    counted = np.arange(len(result.iterations))
    _draw_ratios(right, counted, result.iterations)
    for color, column in zip(_COLORS, result.fixed.T, strict=True):
        right.plot(counted, column, color=color, linewidth=1, linestyle=(0, (4, 2)))
    right.plot([], [], color="#333333", linewidth=2, label="over the map's own maximum")
    right.plot([], [], color="#333333", linewidth=1, ls=(0, (4, 2)), label="over that before RIB")
    right.legend(frameon=False, loc="upper right")
    right.set_xlabel("RIB iteration, $G_6$")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.tick_params(labelleft=True)


def _draw_ratios(axes: Axes, places: ndarray, ratios: Float64[ndarray, "i 3"]) -> list[Any]:
    return [
        axes.plot(places, column, color=color, marker=marker, markersize=4.5, linewidth=2)[0]
        for column, color, marker in zip(ratios.T, _COLORS, _MARKERS, strict=True)
    ]


def table(result: BottleneckResult) -> list[str]:
    """Both tables as Markdown, a line an item, after a line of what they are."""
    layers = [f"| G_{place} | {_cells(row)} |" for place, row in enumerate(result.layers, start=1)]
    rows = zip(result.iterations, result.fixed, result.logits, strict=True)
    iterations = [
        f"| {place} | {_cells(own)} | {_cells(fixed)} | {logit:.1f} |"
        for place, (own, fixed, logit) in enumerate(rows)
    ]
    return [
        "High gradient ratio of digit (R_D), mark (R_ND) and background (R_BG) by layer.",
        "",
        "| layer | R_D | R_ND | R_BG |",
        "|---|---|---|---|",
        *layers,
        "",
        "The same of G_6 by RIB iteration, and with the maximum before RIB as 1 throughout.",
        "",
        "| iteration | R_D | R_ND | R_BG | R_D fixed | R_ND fixed | R_BG fixed | logit |",
        "|---|---|---|---|---|---|---|---|",
        *iterations,
        "",
        f"Accuracy: {', '.join(f'{key} {one:.1%}' for key, one in result.accuracies.items())}.",
    ]


def _cells(row: Float64[ndarray, " 3"]) -> str:
    return " | ".join(f"{value:.3f}" for value in row)

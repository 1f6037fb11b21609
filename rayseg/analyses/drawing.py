"""What the pictures of all analyses look like."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
DPI = 160


@contextmanager
def picture(size_inches: tuple[float, float]) -> Iterator[tuple[Figure, Callable[[], bytes]]]:
    """A figure in our style, and what makes a PNG of it."""

    def finish() -> bytes:
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=DPI)
        return sink.getvalue()

    with mpl.rc_context(STYLE):
        figure = Figure(size_inches, layout="constrained")
        yield figure, finish

"""Rows, as stages take and give them."""

import logging
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Row = dict[str, Any]
Rows = list[Row]

logger = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def by_size(rows: Rows) -> Iterator[Rows]:
    """The rows in groups of one image size, since only those fit into one batch."""

    def size(row: Row) -> tuple[int, int]:
        return row["height"], row["width"]

    for _, group in groupby(sorted(rows, key=size), key=size):
        yield list(group)


def outcome(row: Row, error: str = "") -> Row:
    """A row without a result: the status and reason that it has, or this error."""
    kept = {name: row[name] for name in ("id", "status", "error", "height", "width", "note")}
    return kept | ({"status": "error", "error": error} if error else {})


def stack_pixels(rows: Rows) -> UInt8[Tensor, "n h w 3"]:
    """The pixels of decoded rows of one size."""
    shape = (len(rows), rows[0]["height"], rows[0]["width"], 3)
    pixels = np.frombuffer(b"".join(row["pixels"] for row in rows), np.uint8)
    return torch.from_numpy(pixels.reshape(shape).copy())


def in_halves(rows: Rows, make: Callable[[Rows], Rows], what: str) -> Rows:
    """What is made of rows; a batch that fails is tried again in halves, down to one bad row.

    Args:
        what: names the result in the log.

    Raises:
        torch.AcceleratorError: the device is lost; no image is to blame.
    """
    try:
        return make(rows)
    except torch.AcceleratorError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    # here the error is gone, and with it the tensors that its traceback kept alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(rows) == 1:
        logger.warning("no %s for %s: %s", what, rows[0]["id"], reason)
        return [outcome(rows[0], reason)]
    middle = len(rows) // 2
    return in_halves(rows[:middle], make, what) + in_halves(rows[middle:], make, what)

"""Rows, as stages take and give them."""

import logging
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Row = dict[str, Any]
Rows = list[Row]

logger = logging.getLogger(__name__)


def carry_digest(row: Row, made: Row) -> Row:
    """The row that was made of another, with the digest of that one."""
    return made | {"digest": row.get("digest") or ""}


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def by_size(rows: Rows) -> Iterator[Rows]:
    """The rows in groups of one image size, since only those fit into one batch."""
    size = itemgetter("height", "width")
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


def one_by_one(rows: Rows, make: Callable[[Row], Row], what: str, ready: str = "") -> Rows:
    """One row each: what is made of it and the seconds that took, or why there is nothing.

    Args:
        rows: those of another status than `ready` keep it and their reason.
        make: a row to the columns of its result.
        what: names the result in the log.

    Raises:
        torch.AcceleratorError: the device is lost; no image is to blame.
    """
    return [
        in_halves([row], lambda one: [outcome(one[0]) | make(one[0])], what)[0]
        if row["status"] == ready
        else outcome(row)
        for row in rows
    ]


def in_sizes(rows: Rows, make: Callable[[Rows], Rows], what: str, at_once: int = 0) -> Rows:
    """One row each, in the rows' order: `in_halves` for images of one size at a time.

    Args:
        rows: decoded; those with a status keep it and their reason.
        make: rows to rows with a result.
        what: names the result in the log.
        at_once: the most rows; 0 takes all of one size.
    """
    done = {row["id"]: outcome(row) for row in rows}
    for group in by_size([row for row in rows if not row["status"]]):
        for start in range(0, len(group), at_once or len(group)):
            made = in_halves(group[start : start + (at_once or len(group))], make, what)
            done.update((row["id"], row) for row in made)
    return [done[row["id"]] for row in rows]


def in_halves(rows: Rows, make: Callable[[Rows], Rows], what: str) -> Rows:
    """What is made of rows, and each one's seconds; a batch that fails is tried again in halves."""
    start = time.perf_counter()
    try:
        made = make(rows)
        seconds = (time.perf_counter() - start) / len(rows)
        return [row | {"seconds": seconds} for row in made]
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

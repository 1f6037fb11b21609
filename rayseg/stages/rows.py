"""Rows, as stages take and give them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Row = dict[str, Any]
Rows = list[Row]


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

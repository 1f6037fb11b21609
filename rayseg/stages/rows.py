"""Rows, as stages take and give them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch

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

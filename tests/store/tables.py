"""Rows and samples that the tests store."""

import numpy as np

from rayseg.records import Sample
from rayseg.store import SEEDS_SCHEMA, rows_to_table


def rows(*ids, status="ok"):
    return rows_to_table([{"id": id_, "status": status} for id_ in ids], SEEDS_SCHEMA)


def sample(id_, **changed):
    boxes, classes = np.array([[1, 2, 3, 4.5]], np.float32), np.array([1])
    return Sample(id_, f"/{id_}.jpg", 4, 5, (0, 1), boxes, classes, **changed)

"""The picture and the table say what the result says."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rayseg.analyses.bottleneck.figures import draw, shown_iterations, table


@pytest.fixture
def result(small):
    return small()


def rows_of(lines, name):
    start = next(place for place, line in enumerate(lines) if line.startswith(f"| {name} |"))
    for line in lines[start + 2 :]:
        if not line:
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_every_ratio(result):
    lines = table(result)
    layers = np.array([row[1:] for row in rows_of(lines, "layer")], float)
    iterations = np.array([row[1:7] for row in rows_of(lines, "iteration")], float)
    np.testing.assert_allclose(layers, result.layers, atol=5e-4)
    np.testing.assert_allclose(iterations, np.hstack([result.iterations, result.fixed]), atol=5e-4)


def test_the_picture_is_the_same_each_time_and_changes_with_the_numbers(result):
    other = replace(result, iterations=1 - result.iterations)
    first = np.array(Image.open(io.BytesIO(draw(result))).convert("L"))
    assert np.array_equal(first, np.array(Image.open(io.BytesIO(draw(result))).convert("L")))
    changed = first != np.array(Image.open(io.BytesIO(draw(other))).convert("L"))
    rows, columns = np.nonzero(changed)
    assert rows.min() > first.shape[0] / 2  # the curves' place
    assert columns.min() > first.shape[1] / 2


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, [0]), (3, [0, 1, 2]), (6, [0, 1, 2, 3, 4, 5]), (11, [0, 2, 4, 6, 8, 10])],
)
def test_the_first_and_the_last_iteration_are_shown(number, expected):
    assert shown_iterations(number) == expected

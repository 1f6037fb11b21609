"""Losses by step add up over objects."""

import json

import numpy as np
import pytest

from rayseg.analyses.boxes import CurveSums


def test_the_mean_is_over_objects():
    total = CurveSums.of([[1.0, 0.0], [3.0, 2.0]]) + CurveSums.of([[3.0, 4.0], [5.0, 0.0]])
    assert total.objects == 2
    assert total.mean.tolist() == [[2, 2], [4, 1]]
    figures = json.loads(json.dumps(total.figures()))
    assert figures == {"objects": 2, "box_loss": [2, 4], "class_loss": [2, 1]}


def test_curves_of_other_lengths_do_not_add():
    with pytest.raises(ValueError, match="same steps, got 3 and 2"):
        CurveSums.of(np.zeros((3, 2))) + CurveSums.of(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("curve", "message"),
    [(np.zeros((3, 1)), r"\(steps, 2\), got \(3, 1\)"), ([[np.nan, 0.0]], "finite, got nan")],
)
def test_a_broken_curve_is_refused(curve, message):
    with pytest.raises(ValueError, match=message):
        CurveSums.of(curve)

"""Each picture is a function of its table: another for other numbers, where they stand."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rayseg.analyses.boxes import (
    THRESHOLDS,
    CurveSums,
    HeadAnalysis,
    NoiseAnalysis,
    OverlapAnalysis,
    OverlapSums,
    PositionCounts,
)
from rayseg.analyses.boxes.figures import draw_heads, draw_methods, draw_noise, draw_sizes


def pixels(png):
    return np.array(Image.open(io.BytesIO(png)).convert("L"))


@pytest.fixture
def heads():
    turns = np.linspace(0, 6, 200)
    ring = 0.95 * np.stack([np.cos(turns), np.sin(turns)], 1)
    fall = np.exp(-np.arange(30.0) / 9)
    return HeadAnalysis(
        PositionCounts.of(ring),
        PositionCounts.of(0.3 * ring),
        CurveSums.of(np.stack([fall, 0.3 + 0.4 * (1 - fall)], 1)),
        CurveSums.of(np.stack([1 - fall, fall], 1)),
    )


@pytest.fixture
def overlaps():
    rise = np.sin(np.linspace(0.3, 2.8, len(THRESHOLDS)))
    sums = [
        sum(
            (OverlapSums.of(scale * rise, share) for share in (0.1, 0.3, 0.5, 0.9)),
            OverlapSums.of(0.9 * scale * rise, 0.01),
        )
        for scale in (0.7, 0.5, 0.3)
    ]
    return OverlapAnalysis(dict(zip(["adaptive", "24", "48"], sums, strict=True)))


def differs(draw, first, second):
    return pixels(draw(first)) != pixels(draw(second))


def test_the_heads_change_places_in_the_picture(heads):
    """Only the left density changes, in the upper left quarter."""
    other = replace(heads, box=heads.class_)
    changed = differs(draw_heads, heads, other)
    rows, columns = np.nonzero(changed)
    height, width = changed.shape
    assert rows.max() < 0.6 * height
    assert columns.max() < width / 2


def test_numbers_of_the_heads_survive_json(heads):
    read = json.loads(json.dumps(heads.figures()))
    assert (read["box_head"]["near_share"], read["class_head"]["near_share"]) == (1, 0)
    np.testing.assert_allclose(read["class_head"]["class_loss"], heads.class_curves.mean[:, 1])


def test_no_pixels_at_all_can_be_drawn(heads):
    nothing = replace(heads, box=PositionCounts())
    assert pixels(draw_heads(nothing)).size


def test_noise_is_drawn():
    result = NoiseAnalysis((-0.2, 0.0, 0.2), (0.4, 0.6, 0.5), 12, "AP50")
    assert differs(draw_noise, result, replace(result, values=(0.5, 0.6, 0.5))).any()
    assert not differs(draw_noise, result, result).any()


@pytest.mark.parametrize("draw", [draw_sizes, draw_methods])
def test_overlaps_are_drawn(overlaps, draw):
    fewer = OverlapAnalysis(dict.fromkeys(overlaps.kinds, overlaps.kinds["24"]))
    assert differs(draw, overlaps, fewer).any()

"""Objects of a tiny image, what a method says of them, and when two answers are the same."""

from dataclasses import replace

import pytest
import torch

from rayseg.attribution import BBAM, Objects

BOXES = ([5, 6, 35, 30], [28, 18, 53, 39], [2, 2, 14, 12], [10, 20, 40, 39])
CLASSES = (2, 0, 1, 1)
"""Such that the first masks hide something of each: where nothing is hidden, the detector gives
the first step no direction."""
TINY = {
    "num_jitters": 100, "jitter": 0.15, "max_positives": 8, "stride_base": 6.0,
    "stride_range": 8.0, "steps": 6, "lr": 0.05,
}  # fmt: skip
"""A tiny image wants small cells; its detector predicts what is almost the proposal."""
METHOD = replace(BBAM.official(), **TINY)
PRESETS = {
    "official": METHOD,
    "as_written": replace(BBAM.as_written(), **TINY | {"num_jitters": 40}),
}


def objects(boxes=BOXES, classes=CLASSES):
    return Objects(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(classes).long())


def run_one(method, detector, image, own=None, image_id="a"):
    (found,) = method.run(detector, image[None], [objects() if own is None else own], [image_id])
    return found


def points_objects(detector, image, number=3):
    """Objects that single cells of a one-stage detector predict."""
    (found,) = detector.detect(image[None], max_objects=40)
    inside = [i for i, box in enumerate(found.boxes_xyxy.tolist()) if min(box) > 1]
    rows = torch.tensor(inside[:: len(inside) // number][:number])
    return Objects(found.boxes_xyxy[rows], found.classes[rows], found.candidates[rows])


def assert_same(a, b, tolerance=1e-10):
    """Grids are float32, so that they must be the same number; the losses are float64."""
    assert (a.status, a.positives, a.steps) == (b.status, b.positives, b.steps)
    torch.testing.assert_close(a.grid, b.grid, rtol=0, atol=max(tolerance, 1e-7))
    assert a.box_loss == pytest.approx(b.box_loss, abs=tolerance)
    assert a.class_loss == pytest.approx(b.class_loss, abs=tolerance)


def assert_all_same(a, b, tolerance=1e-10):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert_same(one, other, tolerance)

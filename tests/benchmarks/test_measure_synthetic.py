"""The measurement of CAM's fault, on a scene whose figures can be counted by hand."""

import math

import numpy as np
import pytest

from rayseg.datasets.synthetic import CLASSES, Scene, make_scene
from rayseg.records import InstanceMasks
from tests.benchmarks.measure_synthetic import Tally, summed, tally

BOAT, CAT = CLASSES.index("boat"), CLASSES.index("cat")


def scene_on(background):
    """2 x 4 pixels: a boat with its part on the left, a cat that is all part, background right."""
    boat = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    cat = np.array([[0, 0, 0, 0], [0, 1, 0, 0]], bool)
    masks, parts = np.stack([boat, cat]), np.stack([boat, cat])
    parts[0] = [[1, 0, 0, 0], [0, 0, 0, 0]]
    return Scene(
        image=np.zeros((2, 4, 3), np.uint8),
        labels=(boat * (BOAT + 1) + cat * (CAT + 1)).astype(np.uint8),
        instances=InstanceMasks("hand", masks, np.array([BOAT, CAT])),
        parts=parts,
        boxes_xyxy=np.array([[0, 0, 2, 2], [1, 1, 2, 2]], np.float32),
        tags=(BOAT, CAT),
        background=background,
    )


MAPS = np.array(
    [
        [[1.0, 0.25, 0.5, 0.0], [0.75, 0.25, 0.5, 0.0]],  # boat: bleeds into the third column
        [[0.0, 0.50, 0.0, 0.0], [0.00, 0.75, 0.0, 0.0]],  # cat: takes a pixel of the boat
    ],
    np.float32,
)


def test_a_hand_made_scene_is_counted_right():
    found = tally(scene_on("water"), MAPS, [BOAT, CAT], 0.4)
    assert found == {
        ("boat", "part"): Tally(1.0, 1, 1),
        ("boat", "body"): Tally(1.0, 1, 2),  # 0.25 + 0.75, the first lost to the cat
        ("boat", "telling background"): Tally(1.0, 2, 4),
        ("cat", "part"): Tally(0.75, 1, 1),
        ("cat", "body"): Tally(0.0, 0, 0),
    }
    assert summed(found, "part") == Tally(1.75, 2, 2)
    assert summed(found, "body").share == 0.5
    assert math.isnan(summed(found, "other background").mean)


def test_the_same_pixels_on_another_background_count_as_other():
    found = tally(scene_on("grass"), MAPS, [BOAT, CAT], 0.4)
    assert found["boat", "other background"] == Tally(1.0, 2, 4)
    assert ("boat", "telling background") not in found


def test_a_value_at_the_threshold_is_background():
    found = tally(scene_on("water"), MAPS, [BOAT, CAT], 0.5)
    assert found["boat", "telling background"].predicted == 0


@pytest.mark.parametrize("index", range(5))
def test_true_masks_as_maps_have_no_fault(index):
    scene = make_scene(0, index, 64)
    maps = np.stack([scene.labels == tag + 1 for tag in scene.tags]).astype(np.float32)
    found = tally(scene, maps, list(scene.tags), 0.5)
    assert summed(found, "part").mean == summed(found, "body").share == 1
    assert all(one.predicted == 0 for (_, kind), one in found.items() if "background" in kind)

"""What BBAM shows of the image: windows around objects, or the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import BBAM, Objects, enlarge_grid
from rayseg.attribution.objects.positives import Target
from rayseg.nets.detection import Window
from rayseg.nets.detectors import DetectorDesign
from rayseg.nets.detectors.one_stage import RetinaNet
from rayseg.nets.detectors.two_stage import check_window
from tests.attribution.tiny_detector import REACH, TinyDetector, TinyPoints
from tests.attribution.tiny_objects import METHOD, assert_all_same, objects, points_objects, run_one


@pytest.mark.parametrize("kind", [TinyDetector, TinyPoints])
def test_windows_that_hold_all_that_is_seen_equal_the_whole(draw_image, kind):
    # what a candidate pools reaches REACH further; total variation would lift a cell of 0 beside
    # one above 0, and then the next one, until it is out of the window
    detector = kind(enlarged=1.0)
    image = torch.from_numpy(draw_image((120, 160), 4))
    if kind is TinyPoints:
        own = points_objects(detector, image)
        own = Objects(own.boxes_xyxy, own.classes)
    else:
        own = objects([[50, 40, 75, 66], [60, 60, 80, 75], [30, 60, 50, 72]], [2, 1, 2])
    method = replace(METHOD, tv=0.0, fixed_stride=7.0, window_margin=0.0, window_pixels=REACH + 16)
    full = run_one(method, detector, image, own)
    windows = run_one(replace(method, region="windows"), detector, image, own)
    assert all(one.status == "ok" for one in full)
    assert sizes_seen(replace(method, region="windows"), detector, image, own) < 120 * 160 / 1.5
    for one, other in zip(full, windows, strict=True):
        torch.testing.assert_close(one.grid, other.grid, rtol=0, atol=1e-7)
        assert one.box_loss == pytest.approx(other.box_loss, abs=1e-12)


def sizes_seen(method, detector, image, own):
    """The mean number of pixels of the windows."""
    fit, inputs = detector.fit(image.shape[:2]), detector.encode(image[None])
    targets = method.find_targets(detector, inputs, 0, fit, own, "a")
    areas = [method._problem(detector, inputs[0], fit, one).inputs[0].numel() for one in targets]
    return sum(areas) / len(areas)


def test_nothing_outside_a_window_is_shown(draw_image):
    detector = TinyDetector(enlarged=1.0)
    image = torch.from_numpy(draw_image((120, 160), 4))
    method = replace(METHOD, region="windows", start="ones", window_pixels=4, window_margin=0.0)
    (found,) = run_one(method, detector, image, objects([[50, 40, 75, 66]], [2]))
    mask = enlarge_grid(found.grid, (120, 160))
    assert mask[40:66, 50:75].max() > 0.5
    assert mask[:, 110:].max() == 0
    assert mask[:10].max() == 0


class AnchorsAway(TinyPoints):
    """Its anchors lie in no window."""

    refused = 0

    def in_window(self, candidates, input_hw, window):
        self.refused += 1
        raise ValueError(f"window must hold the candidates, got {window}")


def test_an_object_whose_anchors_lie_outside_its_window_is_shown_the_whole(draw_image):
    detector = AnchorsAway(enlarged=1.0).requires_grad_(False)
    image = torch.from_numpy(draw_image((120, 160), 4))
    own = points_objects(detector, image)
    method = replace(METHOD, region="windows", window_pixels=4)
    full = run_one(replace(method, region="full"), detector, image, own)
    assert_all_same(run_one(method, detector, image, own), full)
    assert detector.refused == 3


def test_windows_are_refused_where_the_detector_takes_whole_inputs_only(images):
    detector = TinyDetector()
    detector.window_stride = 0
    with pytest.raises(ValueError, match="region must be full for a detector that takes whole"):
        run_one(replace(METHOD, region="windows"), detector, images[0])


@pytest.mark.parametrize("length", [1344, 800, 1056, 128, 96])
def test_a_window_holds_what_is_asked_and_fits_the_stride_or_ends_with_the_input(length):
    method = BBAM(region="windows")
    generator = np.random.default_rng(length)
    for low, high in np.sort(generator.uniform(0, length, (200, 2))).tolist():
        margin = max(0.25 * (high - low), 32)
        first, size = method._along(low, high, length, 128)
        assert first <= max(low - margin, 0)
        assert min(high + margin, length) <= first + size <= length
        check_window(Window(first, 0, size, 1), (length, 1), 128)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ([1100.0, 700, 1200, 780], Window(640, 1024, 160, 256)),  # 800 ends within a stride
        ([300.0, 200, 400, 300], Window(128, 256, 256, 256)),
        ([100.0, 20, 1300, 700], Window(0, 0, 800, 1344)),
    ],
)
def test_a_one_stage_detector_has_windows_in_inputs_off_its_stride(box, window):
    detector = RetinaNet(DetectorDesign(trunk="mobilenet_v2", classes=("a", "b"), channels=16))
    fit = detector.fit((800, 1344))
    row, column = (int((box[i] + box[i + 2]) / 16) for i in (1, 0))  # the finest level's
    anchor = torch.tensor([9 * (168 * row + column)])
    own = torch.tensor([box])
    target = Target(0, "", own[0], 0.01, 1, anchor, torch.ones(1), torch.zeros(1, 4), own)
    found, candidates = BBAM(region="windows", window_margin=0.25)._window(detector, fit, target)
    assert found == window
    y, x = row - window.top // 8, column - window.left // 8
    assert candidates.tolist() == [9 * (window.width // 8 * y + x)]

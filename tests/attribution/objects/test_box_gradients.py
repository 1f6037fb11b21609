"""Gradients of a detector's answers against finite differences and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rayseg.attribution import Objects, enlarge_grid
from rayseg.attribution.objects.box_gradients import (
    BoxGradCAM,
    SimpleGrad,
    SmoothGrad,
    input_gradient,
    mean_output,
    reduce_to_grid,
)
from tests.attribution.tiny_detector import TinyDetector, TinyPoints

FEW = {"num_jitters": 40, "iou_levels": (0.5, 0.3), "max_positives": 5, "cell": 4}
METHODS = {
    "SimpleGrad": SimpleGrad(**FEW),
    "SmoothGrad": SmoothGrad(**FEW, num_copies=3),
    "Grad-CAM": BoxGradCAM(**FEW),
}
BOX = (12.0, 9.0, 24.0, 20.0)


def build(kind):
    detector = kind()
    detector.feature_layer = "trunk"
    return detector


@pytest.fixture(params=[TinyDetector, TinyPoints], ids=["two stages", "one stage"])
def detector(request):
    return build(request.param)


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.fixture(scope="module")
def image():
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (34, 48, 3), generator=generator, dtype=torch.uint8)


def find(method, detector, image, box=BOX, class_index=1, candidates=None):
    objects = Objects(torch.tensor([box]), torch.tensor([class_index]), candidates)
    ((found,),) = method.run(detector, image[None], [objects], ["a"])
    return found


def targets_of(method, detector, image):
    inputs, fit = detector.encode(image[None]), detector.fit(tuple(image.shape[:2]))
    objects = Objects(torch.tensor([BOX]), torch.tensor([1]))
    (target,) = method.find_targets(detector, inputs, 0, fit, objects, "a")
    return inputs, target


@pytest.mark.parametrize("output", [0, 1, 4])
def test_the_gradient_is_that_of_finite_differences(detector, image, output):
    inputs, target = targets_of(METHODS["SimpleGrad"], detector, image)
    gradient = input_gradient(detector, inputs, target, output)
    seen = gradient.abs().flatten().topk(3).indices
    unseen = (gradient == 0).flatten().nonzero()[:2, 0]
    for place in [*seen.tolist(), *unseen.tolist()]:
        step = torch.zeros(gradient.numel(), dtype=inputs.dtype)
        step[place] = 1e-5
        with torch.no_grad():
            high, low = (
                mean_output(detector, inputs + sign * step.view_as(inputs), target, output)
                for sign in (1, -1)
            )
        slope = float(high - low) / 2e-5
        assert slope == pytest.approx(float(gradient.flatten()[place]), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("output", [0, 3])
def test_outputs_are_means_over_the_positives(detector, image, output):
    inputs, target = targets_of(METHODS["SimpleGrad"], detector, image)
    assert len(target.candidates) > 1
    expected = target.deltas[:, output - 1] if output else target.probabilities
    assert float(mean_output(detector, inputs, target, output).detach()) == pytest.approx(
        float(expected.mean())
    )


def test_simple_grad_is_the_largest_absolute_slope_over_its_maximum(detector, image):
    inputs, target = targets_of(METHODS["SimpleGrad"], detector, image)
    gradient = input_gradient(detector, inputs, target, 0).abs().amax(0)
    height, width = detector.fit((34, 48)).content_hw
    grid = reduce_to_grid(gradient[None, :height, :width], (14, 19))[0]
    found = find(METHODS["SimpleGrad"], detector, image).grid
    np.testing.assert_allclose(found, grid / grid.max(), atol=1e-6)


def test_without_noise_smooth_grad_is_simple_grad(detector, image):
    still = replace(METHODS["SmoothGrad"], noise=0.0)
    expected = find(METHODS["SimpleGrad"], detector, image).grid
    np.testing.assert_allclose(find(still, detector, image).grid, expected, atol=1e-6)


def test_smooth_grad_does_not_depend_on_how_many_copies_fit(detector, image):
    method = METHODS["SmoothGrad"]
    one, all_ = (replace(method, max_pixels=number) for number in (1, 10**9))
    found, expected = (find(some, detector, image).grid for some in (one, all_))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    noisy = find(method, detector, image).grid
    assert (noisy - find(METHODS["SimpleGrad"], detector, image).grid).abs().max() > 1e-3


def test_equal_boxes_of_two_images_have_noise_of_their_own(image):
    detector, method = build(TinyDetector), METHODS["SmoothGrad"]
    objects = Objects(torch.tensor([BOX]), torch.tensor([1]))
    images = torch.stack([image, image])
    (first,), (other,) = method.run(detector, images, [objects] * 2, ["a", "b"])
    (again,), (same,) = method.run(detector, images, [objects] * 2, ["a", "a"])
    assert (first.grid - other.grid).abs().max() > 1e-3
    assert torch.equal(again.grid, same.grid)


def test_noise_stays_within_the_image(detector, image, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "rayseg.attribution.objects.box_gradients.input_gradient",
        lambda _detector, inputs, _target, _output: shown.append(inputs) or inputs.sum(0),
    )
    find(METHODS["SmoothGrad"], detector, image)
    height, width = detector.fit((34, 48)).content_hw
    change = torch.cat(shown) - detector.encode(image[None])
    inside = change[:, :, :height, :width]
    content = detector.encode(image[None])[:, :, :height, :width]
    deviation = float(0.15 * (content.max() - content.min()))
    assert float(inside.std()) == pytest.approx(deviation, rel=0.05)
    change[:, :, :height, :width] = 0
    assert not change.any()


def test_grad_cam_of_a_linear_offset_is_its_own_channel(image):
    """An offset of TinyPoints is w f + b at one cell: the mean gradient is w over the cells."""
    detector = build(TinyPoints)
    method = replace(METHODS["Grad-CAM"], use_box=True, use_class=False)
    found = find(method, detector, image, candidates=torch.tensor([40]))
    with torch.no_grad():
        features = detector.trunk(detector.encode(image[None]))
        weights = detector.box_head.weight.flatten(1)  # (4, d)
        cams = torch.einsum("kd,nduv->kuv", weights, features).relu()
    height, width = detector.fit((34, 48)).content_hw
    size_hw = tuple(detector.fit((34, 48)).input_hw)
    large = functional.interpolate(cams[None], size_hw, mode="bilinear")[0, :, :height, :width]
    grids = reduce_to_grid(large, (14, 19))
    mean = (grids / grids.amax((1, 2), keepdim=True)).mean(0)
    np.testing.assert_allclose(found.grid, mean / mean.max(), atol=1e-6)


def test_maps_reach_from_zero_to_one_on_a_grid_that_fits_the_image(method, detector, image):
    found = find(method, detector, image)
    assert (found.status, found.steps) == ("ok", 0)
    assert found.positives > 1
    assert found.grid.shape == (14, 19)  # 51x72 input pixels over 4, and one
    assert (float(found.grid.min()), float(found.grid.max())) == (pytest.approx(0, abs=0.2), 1)
    assert method.grid_hw(0.3, (51, 72)) == (14, 19)
    assert replace(method, cell=16).grid_hw(0.3, (800, 1066)) == (51, 68)


def test_an_object_that_nobody_predicts_has_zeros(method, detector, image):
    found = find(replace(method, iou_levels=(0.999,)), detector, image)
    assert (found.status, found.positives) == ("missed", 0)
    assert not found.grid.any()


def test_other_objects_change_nothing(method, detector, image):
    boxes = torch.tensor([BOX, (3.0, 14.5, 38.0, 25.25)])
    found = method.run(detector, image[None], [Objects(boxes, torch.tensor([1, 1]))], ["a"])
    assert torch.equal(found[0][0].grid, find(method, detector, image).grid)


def test_both_heads_together_are_the_sum_of_their_maps(detector, image):
    parts = [{"use_box": False}, {"use_box": True}, {"use_class": False, "use_box": True}]
    class_, both, box = (
        find(replace(METHODS["SimpleGrad"], **part), detector, image).grid for part in parts
    )
    assert (class_ - box).abs().max() > 0.01
    mixed = class_ + _mean_of_offsets(detector, image)
    np.testing.assert_allclose(both, mixed / mixed.max(), atol=1e-5)


def _mean_of_offsets(detector, image):
    """The four maps of the box head, each over its maximum, added."""
    inputs, target = targets_of(METHODS["SimpleGrad"], detector, image)
    height, width = detector.fit((34, 48)).content_hw
    total = 0
    for output in (1, 2, 3, 4):
        gradient = input_gradient(detector, inputs, target, output).abs().amax(0)
        (grid,) = reduce_to_grid(gradient[None, :height, :width], (14, 19)).float()
        total = total + grid / grid.max()
    return total


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_grad_cam_wants_the_name_of_a_module(image, name):
    detector = build(TinyDetector)
    detector.feature_layer = name
    with pytest.raises(ValueError, match=f"feature_layer must name a module .* got '{name}'"):
        find(METHODS["Grad-CAM"], detector, image)


def test_no_hook_stays_after_an_error(image, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    detector = build(TinyDetector).requires_grad_(False)
    monkeypatch.setattr("rayseg.attribution.objects.box_gradients.mean_output", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        find(METHODS["Grad-CAM"], detector, image)
    assert not detector.trunk._forward_hooks


@pytest.mark.parametrize("grid_hw", [(2, 2), (5, 9), (14, 19)])
def test_a_constant_map_stays_constant_on_a_grid(grid_hw):
    grid = reduce_to_grid(torch.full((1, 40, 61), 0.7), grid_hw)
    np.testing.assert_allclose(grid, 0.7, atol=1e-6)
    assert grid.shape == (1, *grid_hw)


def test_a_grid_comes_back_where_a_map_is_as_smooth_as_it():
    """A ramp from corner to corner is nearly its own grid, enlarged again."""
    ramp = torch.linspace(0, 1, 65)[:, None] * torch.linspace(1, 0, 97)
    (grid,) = reduce_to_grid(ramp[None], (9, 13))
    inner = slice(8, -8)
    again = enlarge_grid(grid, (65, 97))
    np.testing.assert_allclose(again[inner, inner], ramp[inner, inner], atol=0.03)


def test_a_pixel_on_a_point_counts_for_no_other():
    map_ = torch.zeros(1, 9, 9)
    map_[0, 4, 8] = 1  # the point in the middle of the right edge
    grid = reduce_to_grid(map_, (3, 3))
    assert grid.nonzero().tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_class": False}, "use_class or use_box must be true, got false for both"),
        ({"cell": 0}, "cell must be 1 or more, got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        replace(method, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_copies": 0}, "num_copies must be 1 or"), ({"noise": -0.1}, "noise must be 0 or more")],
)
def test_smooth_grad_refuses_its_own(settings, message):
    with pytest.raises(ValueError, match=message):
        SmoothGrad(**settings)

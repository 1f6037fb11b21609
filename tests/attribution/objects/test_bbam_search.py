"""How BBAM searches: the optimiser, the grids, the losses, when it ends."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.attribution import BBAM, enlarge_grid
from rayseg.attribution.objects.mask_search import (
    Objective,
    Problem,
    distance,
    interpolation,
    own_neighbours,
    search,
    total_variation,
)
from rayseg.nets.detection import Reading
from tests.attribution.tiny_detector import TinyDetector
from tests.attribution.tiny_objects import BOXES, CLASSES, METHOD, assert_same, objects, run_one


def problem(detector, inputs, candidates, grid_hw=(5, 7), class_index=1, start=0.6):
    """A search over the whole of an input that holds nothing but its image.

    It must not start where nothing is hidden: |t - t'| has no slope there for us, and one of its
    rounding's sign for torch.
    """
    with torch.no_grad():
        owner = torch.zeros(len(candidates), dtype=torch.int64)
        probabilities, deltas, _ = detector.read(inputs[None], owner, candidates).of(
            torch.full((len(candidates),), class_index)
        )
    return Problem(
        inputs,
        interpolation(grid_hw[0], inputs.shape[1], inputs),
        interpolation(grid_hw[1], inputs.shape[2], inputs),
        tuple(inputs.shape[1:]),
        torch.full(grid_hw, start, dtype=inputs.dtype),
        torch.ones(grid_hw, dtype=torch.bool),
        candidates,
        class_index,
        probabilities,
        deltas,
    )


def test_searches_together_equal_searches_alone_in_float64(detector, images):
    lean = detector.lean(torch.device("cpu"), "fp32")
    inputs = lean.encode(images)
    boxes = torch.tensor([[8.0, 9, 50, 44], [30, 15, 75, 57], [10, 30, 60, 58]]).double()
    objective = Objective(True, True, "mean", 0.007, 1e-4, 3.0)
    problems = [
        problem(lean, inputs[0], boxes[:2]),
        problem(lean, inputs[1], boxes[1:], (3, 9), 0),
        problem(lean, inputs[0], boxes[2:], (8, 2), 2),
    ]
    together = search(lean, problems, objective, 8, 0.05)
    for one, own in zip(together, problems, strict=True):
        (alone,) = search(lean, [own], objective, 8, 0.05)
        assert one.grid.shape == own.start.shape
        torch.testing.assert_close(one.grid, alone.grid, rtol=0, atol=1e-12)
        torch.testing.assert_close(one.curve, alone.curve, rtol=0, atol=1e-12)


def test_the_search_is_torchs_adam(detector, images):
    lean = detector.lean(torch.device("cpu"), "fp32")
    inputs = lean.encode(images)[0]
    candidates = torch.tensor([[8.0, 9, 50, 44]]).double()
    own = problem(lean, inputs, candidates)
    (found,) = search(lean, [own], Objective(True, True, "sum", 0.01, 0.0, 3.0), 10, 0.05)
    grid = own.start.clone().requires_grad_()
    optimiser = torch.optim.Adam([grid], lr=0.05)
    enlarge = nn.UpsamplingBilinear2d(inputs.shape[1:])
    for _ in range(10):
        shown = lean.mean + (inputs - lean.mean) * enlarge(grid[None, None])[0]
        reading = lean.read(shown[None], torch.tensor([0]), candidates)
        loss = (reading.deltas[0, 1] - own.deltas[0]).abs().sum() + 0.01 * grid.abs().sum()
        loss = loss + (reading.probabilities[0, 1] - own.probabilities[0]).abs()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        grid.data.clamp_(0, 1)
    torch.testing.assert_close(found.grid, grid.detach(), rtol=0, atol=1e-12)


def test_zero_steps_leave_the_union_of_the_predicted_boxes(detector, images):
    method = replace(METHOD, steps=0, max_positives=1)
    (found,) = run_one(method, detector, images[0], objects(BOXES[:1], [1]))
    grid = np.zeros((5, 7))
    stride = 6 + 8 * np.sqrt(30 * 24 / (40 * 56))
    (target,) = method.find_targets(
        detector, detector.encode(images), 0, detector.fit((40, 56)), objects(BOXES[:1], [1]), "a"
    )
    left, top, right, bottom = (int(side / stride) for side in target.boxes_xyxy[0].tolist())
    grid[top:bottom, left:right] = 1
    assert 0 < grid.sum() < grid.size
    np.testing.assert_array_equal(found.grid.numpy(), grid)
    assert found.steps == 0


def test_ones_start_with_nothing_hidden(detector, images):
    (found,) = run_one(
        replace(METHOD, steps=0, start="ones"), detector, images[0], objects(BOXES[:1], [1])
    )
    assert (found.grid == 1).all()
    assert found.box_loss == pytest.approx(0, abs=1e-12)
    assert found.class_loss == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("share", "stride", "grid_hw"), [(0.01, 20.8, (38, 51)), (1.0, 64.0, (12, 16))]
)
def test_strides_and_grids_are_those_of_the_public_code(share, stride, grid_hw):
    assert BBAM().stride(share) == pytest.approx(stride)
    assert BBAM().grid_hw(share, (800, 1066)) == grid_hw


def test_the_text_rounds_grids_up():
    assert BBAM.as_written().grid_hw(1.0, (800, 1066)) == (13, 17)


def test_a_fixed_stride_takes_the_place_of_the_adaptive_one():
    assert replace(BBAM(), fixed_stride=24.0).grid_hw(0.5, (800, 1066)) == (33, 44)


def test_a_grid_has_a_cell_at_least():
    assert BBAM().grid_hw(1.0, (30, 40)) == (1, 1)


@pytest.mark.parametrize("cells", [(1, 1), (1, 4), (5, 7), (2, 3), (9, 1)])
def test_two_products_are_torchs_upsampling(cells):
    generator = torch.Generator().manual_seed(0)
    grid = torch.rand(cells, generator=generator, dtype=torch.float64)
    ours = interpolation(cells[0], 23, grid) @ grid @ interpolation(cells[1], 31, grid).T
    expected = nn.UpsamplingBilinear2d((23, 31))(grid[None, None])[0, 0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(enlarge_grid(grid, (23, 31)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_distance_of_rounding_has_no_slope_and_any_other_that_of_torch(dtype):
    wanted = torch.tensor([0.0, -3.0, 40.0, 0.5, 0.0, -3.0], dtype=dtype)
    one_up = torch.nextafter(wanted, torch.full_like(wanted, torch.inf))
    found = torch.where(torch.arange(6) < 3, one_up, wanted + 1e-4).requires_grad_()
    distance(wanted, found).sum().backward()
    assert found.grad.tolist() == [0, 0, 0, 1, 1, 1]
    away = distance(wanted, found)
    assert away[:3].tolist() == [0, 0, 0]
    assert torch.equal(away[3:], (wanted - found).abs()[3:])


def test_a_distance_from_what_is_no_number_is_none():
    found = torch.tensor([torch.nan, torch.inf, -torch.inf])
    torch.testing.assert_close(distance(torch.zeros(3), found), found.abs(), equal_nan=True)


def test_total_variation_counts_the_diagonals_twice():
    grid = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]], dtype=torch.float64)
    rows = 0.5**3 + 0.75**3
    columns = 1.0**3 + 0.25**3
    diagonals = 0.25**3 + 0.5**3
    found = total_variation(grid, own_neighbours(grid), 3.0)
    assert found.tolist() == [pytest.approx(rows + columns + 2 * diagonals, abs=1e-15)]


def test_total_variation_of_one_cell_is_0():
    grid = torch.ones(1, 1, 1)
    assert total_variation(grid, own_neighbours(grid), 3.0).tolist() == [0.0]


class OtherHead(TinyDetector):
    """The tiny detector with one head that answers something else to what is not the image."""

    def __init__(self, head, **given):
        super().__init__(**given)
        self.head = head

    def read(self, inputs, owner, candidates):
        reading = super().read(inputs, owner, candidates)
        if not torch.is_grad_enabled():
            return reading
        probabilities, deltas = reading.probabilities, reading.deltas
        if self.head == "class":
            probabilities = probabilities.square() * 0.5
        else:
            deltas = deltas * 3 + 1
        return Reading(probabilities, reading.background, deltas, reading.boxes_xyxy)


@pytest.mark.parametrize(("switch", "head"), [("use_class", "class"), ("use_box", "box")])
def test_a_head_that_is_switched_off_does_not_move_the_mask(detector, images, switch, head):
    changed = OtherHead(head)
    for on in (True, False):
        method = replace(METHOD, **{switch: on})
        plain, other = (run_one(method, one, images[0]) for one in (detector, changed))
        far = max((a.grid - b.grid).abs().max() for a, b in zip(plain, other, strict=True))
        assert (far > 1e-3) == on


def test_a_head_that_is_switched_off_is_measured_all_the_same(detector, images):
    found = run_one(replace(METHOD, use_class=False), detector, images[0])
    assert all(one.class_loss > 0 for one in found)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("place", [0, 1])  # the second sees the padding, which stays as it was
def test_the_losses_are_those_of_the_grid_that_comes_back(detector, images, reduction, place):
    method = replace(METHOD, reduction=reduction, max_positives=1)
    own = objects(BOXES[place : place + 1], CLASSES[place : place + 1])
    (found,) = run_one(method, detector, images[0], own)
    fit, inputs = detector.fit((40, 56)), detector.encode(images)
    (target,) = method.find_targets(detector, inputs, 0, fit, own, "a")
    height, width = fit.content_hw
    shown = inputs[:1].clone()
    mask = enlarge_grid(found.grid.double(), fit.content_hw)
    part = shown[:, :, :height, :width]
    part.copy_(detector.mean + (part - detector.mean) * mask)
    with torch.no_grad():
        p, t, _ = detector.read(shown, torch.tensor([0]), target.candidates).of(own.classes)
    box, class_ = (target.deltas - t).abs().sum(), (target.probabilities - p).abs().sum()
    factors = (1 / 8, 1 / 2) if reduction == "mean" else (1, 1)
    assert found.box_loss == pytest.approx(float(box) * factors[0], abs=1e-6)
    assert found.class_loss == pytest.approx(float(class_) * factors[1], abs=1e-6)
    assert found.box_loss > 1e-4


def test_the_curve_is_what_shorter_searches_end_with(detector, images):
    method = replace(METHOD, record=True)
    own = objects(BOXES[:2], CLASSES[:2])
    whole = run_one(method, detector, images[0], own)
    assert [one.curve.shape for one in whole] == [(6, 2)] * 2
    short = run_one(replace(METHOD, steps=4), detector, images[0], own)
    for one, other in zip(whole, short, strict=True):
        expected = [other.box_loss, other.class_loss]
        assert one.curve[4].tolist() == pytest.approx(expected, abs=1e-12)
        assert other.curve is None


def test_an_early_stop_ends_objects_one_by_one_and_leaves_the_others_as_they_were(detector, images):
    method = replace(METHOD, steps=60)
    full = run_one(replace(method, record=True), detector, images[0])
    found = run_one(replace(method, early_stop=0.1, record=True), detector, images[0])
    steps = [one.steps for one in found]
    assert min(steps) < max(steps)
    for i, (one, whole) in enumerate(zip(found, full, strict=True)):
        assert one.curve.shape == (one.steps, 2)
        torch.testing.assert_close(one.curve, whole.curve[: one.steps], rtol=0, atol=1e-10)
        if one.steps < 60:
            short = run_one(replace(method, steps=one.steps), detector, images[0])
            assert_same(one, short[i])


def test_an_early_stop_of_0_takes_all_steps(detector, images):
    found = run_one(replace(METHOD, steps=25, sparsity=0.0), detector, images[0])
    assert [one.steps for one in found] == [25] * 4

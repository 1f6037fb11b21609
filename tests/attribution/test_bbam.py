import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.attribution import BBAM, BOX_METHODS, Objects, enlarge_grid
from rayseg.attribution.mask_search import (
    Objective,
    Problem,
    interpolation,
    own_neighbours,
    search,
    total_variation,
)
from rayseg.attribution.positives import Target, jittered_boxes, overlaps, pick_positives
from rayseg.detection import Reading, Window
from rayseg.nets.detectors.one_stage import RetinaNet
from rayseg.nets.detectors.two_stage import check_window
from tests.attribution.tiny_detector import REACH, TinyDetector, TinyPoints

BOXES = ([5, 6, 35, 30], [28, 18, 53, 39], [2, 2, 14, 12], [10, 20, 40, 39])
CLASSES = (2, 0, 1, 1)
"""Such that the first masks hide something of each: where nothing is hidden, the signs of |t - t'|
are of rounding, and no two ways to compute them agree."""
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


@pytest.fixture
def images(draw_image):
    return torch.from_numpy(np.stack([draw_image((40, 56), seed) for seed in (1, 2)]))


@pytest.fixture
def detector():
    return TinyDetector()


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


def problem(detector, inputs, candidates, grid_hw=(5, 7), class_index=1, start=0.6):
    """A search over the whole of an input that holds nothing but its image.

    It must not start where nothing is hidden: the signs of |t - t'| are of rounding there.
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


def test_bbam_is_the_method_of_its_name():
    assert BOX_METHODS["bbam"] is BBAM


def test_all_tiny_objects_are_found_and_their_masks_move(detector, images):
    still = run_one(replace(METHOD, steps=0), detector, images[0])
    for one, start in zip(run_one(METHOD, detector, images[0]), still, strict=True):
        assert one.status == "ok"
        assert one.positives > 0
        assert one.grid.dtype == torch.float32
        assert 0 <= one.grid.min() <= one.grid.max() <= 1
        assert (one.grid - start.grid).abs().max() > 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_finds_what_each_object_finds_alone(detector, images, preset):
    method = PRESETS[preset]
    together = run_one(method, detector, images[0])
    alone = [
        run_one(method, detector, images[0], objects([box], [c]))[0]
        for box, c in zip(BOXES, CLASSES, strict=True)
    ]
    assert_all_same(together, alone)


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


def test_the_order_of_objects_does_not_matter(detector, images):
    order = [2, 0, 3, 1]
    plain = run_one(METHOD, detector, images[0])
    turned = objects([BOXES[i] for i in order], [CLASSES[i] for i in order])
    assert_all_same(run_one(METHOD, detector, images[0], turned), [plain[i] for i in order])


def test_equal_objects_get_equal_maps(detector, images):
    one, other = run_one(METHOD, detector, images[0], objects([BOXES[0]] * 2, [1, 1]))
    assert_same(one, other)


def test_other_images_do_not_matter(detector, images):
    both = METHOD.run(detector, images, [objects(), objects(BOXES[1:], CLASSES[1:])], ["a", "b"])
    assert_all_same(both[0], run_one(METHOD, detector, images[0]))
    own = objects(BOXES[1:], CLASSES[1:])
    assert_all_same(both[1], run_one(METHOD, detector, images[1], own, "b"))


@pytest.mark.parametrize("max_pixels", [1, 15_000, 10**9])
def test_the_size_of_batches_does_not_matter(detector, images, max_pixels):
    plain = run_one(METHOD, detector, images[0])
    assert_all_same(run_one(replace(METHOD, max_pixels=max_pixels), detector, images[0]), plain)


def test_100_objects_are_never_in_one_batch_on_a_cpu(detector, images, monkeypatch):
    batches = []
    plain = TinyDetector.read

    def spy(self, inputs, owner, candidates):
        batches.append(len(inputs))
        return plain(self, inputs, owner, candidates)

    monkeypatch.setattr(TinyDetector, "read", spy)
    many = objects([BOXES[i % 4] for i in range(100)], [CLASSES[i % 4] for i in range(100)])
    found = run_one(replace(METHOD, steps=1), detector, images[0], many)
    assert len(found) == 100
    assert 10 < max(batches) < 2**18 / (64 * 88)


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


def test_the_detector_is_left_as_it_was(detector, images):
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    run_one(METHOD, detector, images[0])
    assert_untouched(detector, before)


def test_the_detector_is_left_as_it_was_after_an_exception(detector, images, monkeypatch):
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    calls = []

    def breaks(self, inputs, owner, candidates):
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("out of memory")
        return plain(self, inputs, owner, candidates)

    plain = TinyDetector.read
    monkeypatch.setattr(TinyDetector, "read", breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_one(METHOD, detector, images[0])
    assert_untouched(detector, before)


def assert_untouched(detector, before):
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    for parameter in detector.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None


def test_what_is_given_is_not_changed(detector, images):
    own, copied = objects(), images.clone()
    METHOD.run(detector, images, [own, own], ["a", "b"])
    assert torch.equal(own.boxes_xyxy, objects().boxes_xyxy)
    assert torch.equal(images, copied)


def test_a_prepared_detector_gives_the_same(detector, images):
    lean = METHOD.prepare(detector, torch.device("cpu"))
    assert_all_same(run_one(METHOD, lean, images[0]), run_one(METHOD, detector, images[0]))


def test_the_same_seed_gives_the_same_maps_and_another_one_others(detector, images):
    first, again = (run_one(METHOD, detector, images[0]) for _ in range(2))
    assert_all_same(first, again, 0)
    other = run_one(replace(METHOD, seed=1), detector, images[0])
    assert any(a.box_loss != b.box_loss for a, b in zip(first, other, strict=True))


def test_another_image_id_draws_other_proposals(detector, images):
    first, other = (run_one(METHOD, detector, images[0], image_id=name) for name in "ab")
    assert any(a.box_loss != b.box_loss for a, b in zip(first, other, strict=True))


def test_methods_and_objects_survive_pickle():
    assert pickle.loads(pickle.dumps(METHOD)) == METHOD
    copied = pickle.loads(pickle.dumps(objects()))
    assert torch.equal(copied.boxes_xyxy, objects().boxes_xyxy)


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


def test_jitters_stay_within_their_share_and_on_their_outer_side_in_the_image():
    box = torch.tensor([10.0, 2, 30, 12], dtype=torch.float64)
    jitters = jittered_boxes(box, (14, 100), 2000, 0.3, torch.Generator().manual_seed(0))
    low = torch.tensor([4.0, 0, 24, 9], dtype=torch.float64)
    high = torch.tensor([16.0, 5, 36, 14], dtype=torch.float64)
    assert ((low <= jitters) & (jitters <= high)).all()
    torch.testing.assert_close(jitters.amin(0), low, rtol=0, atol=0.1)
    torch.testing.assert_close(jitters.amax(0), high, rtol=0, atol=0.1)
    assert float(jitters[:, 0].mean()) == pytest.approx(10, abs=0.3)


def test_overlaps_cut_fractions_off_as_the_public_code_does():
    box = torch.tensor([0.0, 0, 10, 10])
    boxes = torch.tensor([[0.9, 0.9, 10.9, 5.9], [20, 20, 30, 30], [0.5, 0, 10, 10]])
    assert overlaps(boxes, box, "int").tolist() == [0.5, 0.0, 1.0]
    assert overlaps(boxes, box, "exact")[2].item() == pytest.approx(0.95)


def test_overlaps_of_nothing_are_0():
    assert overlaps(torch.zeros(1, 4), torch.full((4,), 0.5), "int").tolist() == [0.0]


@pytest.mark.parametrize(
    ("above", "between", "expected"),
    [
        (5, 0, (0, 1, 2)),  # enough above the first level: the first three of them
        (2, 1, (0, 1, 2)),  # never more than three: all above the last level
        (0, 0, ()),
    ],
)
def test_a_level_counts_where_more_than_the_limit_exceed_it(above, between, expected):
    ious = torch.tensor([0.95] * above + [0.87] * between + [0.5] * 4)
    picked = pick_positives(torch.ones_like(ious, dtype=torch.bool), ious, (0.9, 0.85), 3)
    assert tuple(picked.tolist()) == expected


def test_as_many_as_the_limit_do_not_exceed_it():
    ious = torch.tensor([0.87, 0.95, 0.95, 0.95, 0.87])
    right = torch.ones(5, dtype=torch.bool)
    assert pick_positives(right, ious, (0.9, 0.85), 3).tolist() == [0, 1, 2]
    assert pick_positives(right, ious, (0.9, 0.85), 2).tolist() == [1, 2]


def test_positives_are_strictly_above_a_level_and_of_the_class():
    ious = torch.tensor([0.75, 0.8, 0.9, 0.9])
    right = torch.tensor([True, True, True, False])
    assert pick_positives(right, ious, (0.75,), 100).tolist() == [1, 2]


def test_without_a_limit_all_above_the_last_level_are_positives():
    ious = torch.tensor([0.95] * 5 + [0.82] * 5)
    right = torch.ones(10, dtype=torch.bool)
    assert len(pick_positives(right, ious, (0.9, 0.8), 0)) == 10


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
    detector = RetinaNet("mobilenet_v2", 2, channels=16)
    fit = detector.fit((800, 1344))
    row, column = (int((box[i] + box[i + 2]) / 16) for i in (1, 0))  # the finest level's
    anchor = torch.tensor([9 * (168 * row + column)])
    own = torch.tensor([box])
    target = Target(0, "", own[0], 0.01, 1, anchor, torch.ones(1), torch.zeros(1, 4), own)
    found, candidates = BBAM(region="windows", window_margin=0.25)._window(detector, fit, target)
    assert found == window
    y, x = row - window.top // 8, column - window.left // 8
    assert candidates.tolist() == [9 * (window.width // 8 * y + x)]


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


class Breaking(TinyDetector):
    """Knows no number for candidates of class 1 once anything is hidden."""

    def read(self, inputs, owner, candidates):
        reading = super().read(inputs, owner, candidates)
        if not torch.is_grad_enabled():
            return reading
        nothing = torch.zeros_like(reading.deltas)
        nothing[:, 1] = torch.nan
        return Reading(
            reading.probabilities,
            reading.background,
            reading.deltas + nothing,
            reading.boxes_xyxy,
        )


def test_nan_is_the_object_s_own(detector, images):
    plain = run_one(METHOD, detector, images[0])
    found = run_one(METHOD, Breaking(), images[0])
    for one, other, class_index in zip(found, plain, CLASSES, strict=True):
        if class_index != 1:
            assert_same(one, other)
        else:
            assert one.status == "error: the losses are no numbers after 0 of 6 steps"
            assert one.grid.shape == other.grid.shape
            assert (one.grid == 0).all()


def test_nan_of_a_head_that_does_not_count_costs_nothing(detector, images):
    method = replace(METHOD, use_box=False)
    found, expected = (run_one(method, one, images[0]) for one in (Breaking(), detector))
    for one, other, class_index in zip(found, expected, CLASSES, strict=True):
        assert one.status == "ok"
        assert np.isnan(one.box_loss) == (class_index == 1)
        torch.testing.assert_close(one.grid, other.grid, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", [TinyDetector, TinyPoints])
def test_a_predicted_box_is_explained_by_what_it_was_predicted_from(images, kind):
    detector = kind()
    (found, _) = detector.detect(images, max_objects=3)
    own = Objects(found.boxes_xyxy, found.classes, found.candidates)
    maps = run_one(replace(METHOD, record=True), detector, images[0], own)
    assert [one.positives for one in maps] == [1, 1, 1]
    fit, inputs = detector.fit((40, 56)), detector.encode(images)
    targets = list(METHOD.find_targets(detector, inputs, 0, fit, own, "a"))
    for i, target in enumerate(targets):
        assert torch.equal(target.candidates, found.candidates[i : i + 1])
        torch.testing.assert_close(target.probabilities, found.scores[i : i + 1])
        torch.testing.assert_close(fit.to_image(target.boxes_xyxy), found.boxes_xyxy[i : i + 1])
    assert_all_same(run_one(replace(METHOD, seed=9), detector, images[0], own), maps)


def test_anchors_that_predict_the_object_take_the_proposals_place(images):
    detector = TinyPoints()
    predicted = points_objects(detector, images[0])
    given = Objects(predicted.boxes_xyxy, predicted.classes)
    method = replace(METHOD, iou_levels=(0.5,))
    found = run_one(method, detector, images[0], given)
    assert all(one.status == "ok" and one.positives >= 1 for one in found)
    targets = list(
        method.find_targets(
            detector, detector.encode(images), 0, detector.fit((40, 56)), given, "a"
        )
    )
    for i, target in enumerate(targets):
        assert int(predicted.candidates[i]) in target.candidates.tolist()


def test_the_first_anchors_are_random_ones(images):
    detector = TinyPoints()
    given = points_objects(detector, images[0], 1)
    given = Objects(given.boxes_xyxy, given.classes)
    fit, inputs = detector.fit((40, 56)), detector.encode(images)
    method = replace(METHOD, iou_levels=(0.3,), max_positives=3)
    picked = [
        set(
            next(
                iter(replace(method, seed=seed).find_targets(detector, inputs, 0, fit, given, "a"))
            ).candidates.tolist()
        )
        for seed in range(4)
    ]
    assert all(len(one) == 3 for one in picked)
    assert any(one != picked[0] for one in picked)


def test_a_candidate_below_the_threshold_predicts_nothing(images):
    detector = TinyPoints()
    own = points_objects(detector, images[0])
    detector.score_threshold = 0.99
    found = run_one(METHOD, detector, images[0], Objects(own.boxes_xyxy, own.classes))
    assert [one.status for one in found] == ["missed"] * 3


def test_an_object_that_is_never_found_is_missed_with_a_grid_of_zeros(detector, images):
    (found,) = run_one(
        replace(METHOD, iou_levels=(0.999,)), detector, images[0], objects(BOXES[:1], [1])
    )
    assert (found.status, found.positives, found.steps) == ("missed", 0, 0)
    assert found.grid.shape == (5, 7)
    assert (found.grid == 0).all()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([5.0, 5, 5, 9], r"box must have x1 < x2 and y1 < y2, got (5, 5, 5, 9)"),
        ([9.0, 5, 5, 9], r"box must have x1 < x2 and y1 < y2, got (9, 5, 5, 9)"),
        ([60.0, 5, 70, 9], r"box must lie in the image of 56x40, got (60, 5, 70, 9)"),
        ([float("nan"), 5, 7, 9], r"box must be four numbers, got (nan, 5, 7, 9)"),
    ],
)
def test_a_bad_box_says_why_and_leaves_the_others_alone(detector, images, box, reason):
    found = run_one(METHOD, detector, images[0], objects([BOXES[0], box], [1, 1]))
    assert found[1].status == reason
    assert (found[1].grid == 0).all()
    assert_same(found[0], run_one(METHOD, detector, images[0], objects(BOXES[:1], [1]))[0])
    with pytest.raises(ValueError, match="box must"):
        METHOD(detector, images[0], torch.tensor([box]), [1])


def test_a_box_over_the_edge_is_cut_to_the_image(detector, images):
    over, cut = ([30, 20, 80, 60], [30, 20, 56, 40])
    targets = [
        next(
            iter(
                METHOD.find_targets(
                    detector,
                    detector.encode(images),
                    0,
                    detector.fit((40, 56)),
                    objects([box], [1]),
                    "a",
                )
            )
        )
        for box in (over, cut)
    ]
    assert torch.equal(targets[0].box_xyxy, targets[1].box_xyxy)
    assert targets[0].share == pytest.approx(26 * 20 / (40 * 56))


def test_an_image_without_objects_has_no_maps(detector, images):
    none = objects([], [])
    assert METHOD.run(detector, images, [none, none], ["a", "b"]) == [[], []]
    mixed = METHOD.run(detector, images, [none, objects(BOXES[:1], [1])], ["a", "b"])
    assert [len(row) for row in mixed] == [0, 1]


def test_a_call_gives_maps_at_the_image_s_size(detector, images):
    maps = METHOD(detector, images[0].numpy()[::-1], np.array(BOXES), np.array(CLASSES), "a")
    assert maps.shape == (4, 40, 56)
    assert maps.dtype == torch.float32
    found = run_one(METHOD, detector, images[0].flip(0))
    torch.testing.assert_close(maps[0], enlarge_grid(found[0].grid, (40, 56)))
    assert METHOD(detector, images[0], torch.zeros(0, 4), []).shape == (0, 40, 56)


def test_an_unknown_class_is_refused(detector, images):
    with pytest.raises(ValueError, match=r"classes must lie in 0\.\.2, got 3"):
        run_one(METHOD, detector, images[0], objects(BOXES[:1], [3]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("jitter", 0.5, r"jitter must lie in \[0, 0.5\), got 0.5"),
        ("iou_levels", (0.8, 0.9), "iou_levels must descend"),
        ("iou_levels", (), "iou_levels must lie"),
        ("iou", "round", "iou must be int or exact, got 'round'"),
        ("region", "crop", "region must be full or windows, got 'crop'"),
        ("steps", -1, "steps must be 0 or more, got -1"),
        ("num_jitters", 0, "num_jitters must be 1 or more, got 0"),
        ("stride_base", 0.0, r"stride_base must be 1 or more, got 0\.0"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(BBAM(), **{field: value})


def test_a_method_of_no_head_is_refused():
    with pytest.raises(ValueError, match="use_box or use_class must be true, got neither"):
        replace(BBAM(), use_box=False, use_class=False)


@pytest.mark.parametrize(
    ("boxes", "classes", "candidates", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2).long(), None, r"boxes_xyxy must be float \(o, 4\)"),
        (torch.zeros(2, 4), torch.zeros(1).long(), None, r"classes must be int64 \(2,\)"),
        (torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(1, 4), "candidates must be 2"),
    ],
)
def test_objects_that_do_not_fit_are_refused(boxes, classes, candidates, message):
    with pytest.raises(ValueError, match=message):
        Objects(boxes, classes, candidates)


def test_each_setting_changes_the_maps(detector, images):
    plain = run_one(METHOD, detector, images[0])
    for other in (
        {"sparsity": 0.05}, {"tv": 0.01}, {"tv": 0.01, "tv_power": 2.0}, {"steps": 5},
        {"lr": 0.02}, {"stride_base": 9.0}, {"stride_range": 2.0}, {"grid": "ceil"},
        {"reduction": "sum"}, {"start": "ones"}, {"use_box": False}, {"use_class": False},
        {"jitter": 0.05}, {"max_positives": 2}, {"iou_levels": (0.6,)}, {"num_jitters": 30},
    ):  # fmt: skip
        found = run_one(replace(METHOD, **other), detector, images[0])
        changed = [
            a.grid.shape != b.grid.shape or bool((a.grid - b.grid).abs().max() > 1e-6)
            for a, b in zip(plain, found, strict=True)
        ]
        assert any(changed), other

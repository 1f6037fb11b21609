import cv2
import numpy as np
import pytest
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax

from rayseg.refine import BOX_REFINERS, BoxCRF, BoxMask, BoxThreshold
from rayseg.refine.box_masks import NO_MAP, NOT_FINITE, blur_box, box_slices, saturate_top
from rayseg.refine.lattice import Lattice

SIZE = (24, 36)
BOX = np.array([[6, 4, 30, 20]], np.float32)
PLACE = (slice(4, 20), slice(6, 30))


def draw_object(seed=0):
    """A light ellipse on a dark ground, its truth, and a map that lies on it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    truth = ((y - 11.5) / 8) ** 2 + ((x - 17.5) / 12) ** 2 < 1
    image = np.where(truth[..., None], (200, 150, 90), (30, 60, 100)) + rng.integers(-1, 2, 3)
    map_ = np.exp(-(((y - 11.5) / 5) ** 2) - ((x - 17.5) / 7) ** 2) + 0.05 * rng.random(SIZE)
    return image.astype(np.uint8), truth, (map_ / map_.max()).astype(np.float32)[None]


def literal_field(image, prob):
    """The authors' CRF: built anew for each map, on the image as B, G, R."""
    field = DenseCRF2D(SIZE[1], SIZE[0], 2)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(np.stack([prob, 1 - prob]))))
    field.addPairwiseGaussian(sxy=1, compat=3)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    field.addPairwiseBilateral(sxy=80, srgb=3, rgbim=bgr, compat=4)
    return np.array(field.inference(10)).reshape(2, *SIZE)[0]


def literal_top(image, map_, box, threshold):
    """One threshold, step by step, with sorted lists and OpenCV; and how many CRFs it took."""
    x1, y1, x2, y2 = (int(side) for side in box)
    height, width = SIZE
    pixels = (x2 - x1) * (y2 - y1)
    roi = np.zeros(SIZE)
    roi[y1:y2, x1:x2] = 1
    mask = (map_.astype(np.float64) - map_.min()) / map_.max() * roi
    value = sorted(mask.flatten(), reverse=True)[int(pixels * (1 - threshold))]
    mask = np.clip(mask / (value + 1e-8), 0, 1)
    k = int(16 + 48 * (pixels / (width * height)) ** 0.5)
    mask = cv2.GaussianBlur(mask, (2 * k + 1, 2 * k + 1), k) * roi
    total = literal_field(image, (mask - mask.min()) / mask.max()) > 0.9
    if total.sum() > pixels / 5 or pixels / (width * height) > 1 / 10:
        return total, 1
    crfs = 1
    for prob in (0.7, 0.8, 0.9, 0.95, 0.96):
        crfs += 1
        start = np.where(total, 1, prob * roi)
        again = literal_field(image, start) > 0.9
        if again.sum() > pixels / 3:
            break
    return again, crfs


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_of_the_steps_written_out(seed):
    image, truth, maps = draw_object(seed)
    (found,) = BoxCRF()(image, maps, BOX)
    strict, _ = literal_top(image, maps[0], BOX[0], 0.85)
    lax, _ = literal_top(image, maps[0], BOX[0], 0.2)
    np.testing.assert_array_equal(found.foreground, strict)
    np.testing.assert_array_equal(found.possible, lax | strict)
    assert found.note == ""
    assert (found.foreground & truth).sum() / (found.foreground | truth).sum() > 0.7


def test_a_small_box_of_which_little_is_left_is_seeded_again():
    image, _, _ = draw_object()
    image[:] = np.random.default_rng(0).integers(100, 103, (*SIZE, 3))
    box = np.array([[10, 8, 18, 16]], np.float32)  # 64 of 864 pixels
    maps = np.zeros((1, *SIZE), np.float32)
    maps[0, 8, 10], maps[0, 9, 11] = 1, 0.5
    strict, crfs = literal_top(image, maps[0], box[0], 0.85)
    assert crfs > 1
    (found,) = BoxCRF()(image, maps, box)
    np.testing.assert_array_equal(found.foreground, strict)


def test_objects_of_an_image_do_not_touch_each_other():
    image, _, maps = draw_object()
    boxes = np.concatenate([BOX, [[2, 3, 9, 11]], [[15, 10, 33, 22]]]).astype(np.float32)
    three = np.repeat(maps, 3, 0)
    alone = [BoxCRF()(image, maps, box[None])[0] for box in boxes]
    for together, one in zip(BoxCRF()(image, three, boxes), alone, strict=True):
        np.testing.assert_array_equal(together.foreground, one.foreground)
        np.testing.assert_array_equal(together.possible, one.possible)


@pytest.mark.parametrize(
    ("threshold", "number"), [(0.85, 14), (0.2, 76), (0.8, 19), (0.5, 48), (1.0, 0), (0.02, 94)]
)
def test_threshold_is_that_value_of_the_box_counted_from_the_largest(threshold, number):
    """96 pixels; 96 * .15 is 14.4, 96 * .8 76.8, and the .2 that is left of .8 gives 19."""
    values = np.random.default_rng(0).permutation(200).reshape(10, 20) / 199
    box = (slice(1, 9), slice(3, 15))
    found = saturate_top(values, box, threshold)
    value = sorted(values[box].ravel())[::-1][number]
    inside = np.zeros(values.shape, bool)
    inside[box] = True
    assert (found[~inside] == 0).all()
    full = inside & (found > 1 - 1e-4)
    np.testing.assert_array_equal(full, inside & (values >= value))
    assert full.sum() == number + 1


def test_values_below_a_shared_smallest_are_counted_from_it():
    found = saturate_top(np.array([[0.5, 0.75, 1.0]]), (slice(0, 1), slice(0, 3)), 1.0)
    np.testing.assert_allclose(found, [[0, 0.5, 1]], atol=1e-6)


@pytest.mark.parametrize("radius", [1, 5, 23, 60])
@pytest.mark.parametrize("box", [PLACE, (slice(0, 7), slice(20, 36)), (slice(0, 24), slice(0, 36))])
def test_blur_equals_opencv_in_the_box(radius, box):
    values = np.zeros(SIZE)
    values[box] = np.random.default_rng(0).random(values[box].shape)
    side = 2 * radius + 1
    expected = cv2.GaussianBlur(values, (side, side), radius)
    np.testing.assert_allclose(blur_box(values, box, radius)[box], expected[box], atol=1e-12)


def literal_prior(image, box):
    x1, y1, x2, y2 = (int(side) for side in box)
    for prob in (0.7, 0.8, 0.9, 0.95):
        start = np.zeros(SIZE)
        start[y1:y2, x1:x2] = prob
        mask = literal_field(image, start) > 0.9
        if mask.sum() > (x2 - x1) * (y2 - y1) / 5:
            break
    return mask


NAN = np.full(SIZE, np.nan, np.float32)
ELSEWHERE = np.pad(np.ones((2, 2), np.float32), ((0, 22), (0, 34)))


@pytest.mark.parametrize(
    ("map_", "note"),
    [
        (np.zeros(SIZE, np.float32), NO_MAP),
        (np.full(SIZE, 0.6, np.float32), NO_MAP),
        (ELSEWHERE, NO_MAP),
        (NAN, NOT_FINITE),
    ],
)
def test_a_map_that_says_nothing_leaves_the_box_to_tell(map_, note):
    image, _, good = draw_object()
    first, second = BoxCRF()(image, np.stack([map_, good[0]]), np.repeat(BOX, 2, 0))
    np.testing.assert_array_equal(first.foreground, literal_prior(image, BOX[0]))
    np.testing.assert_array_equal(first.possible, first.foreground)
    assert first.foreground.any()
    assert (first.note, second.note) == (note, "")


def test_no_pixel_lies_outside_the_box_whatever_the_weights():
    image = np.full((*SIZE, 3), 90, np.uint8)
    maps = np.ones((1, *SIZE), np.float32)
    maps[0, 0, 0] = 0
    box = np.array([[1, 1, 35, 23]], np.float32)
    (found,) = BoxCRF(bilateral_compat=40)(image, maps, box)
    inside = np.zeros(SIZE, bool)
    inside[1:23, 1:35] = True
    start = np.where(inside, 1.0, 0.0)
    planes = unary_from_softmax(np.stack([start, 1 - start]))
    assert Lattice(BoxCRF(bilateral_compat=40), image, 2).infer(planes, 10)[0][~inside].max() > 0.9
    np.testing.assert_array_equal(found.foreground, inside)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((6, 4, 30, 20), PLACE),
        ((-5, -9, 100, 80), (slice(0, 24), slice(0, 36))),
        ((34, 20, 90, 90), (slice(20, 24), slice(34, 36))),
        ((6.5, 4.4, 6.6, 5.6), (slice(4, 6), slice(6, 7))),  # no centre in x: the pixel it is in
        ((6.4, 4.6, 29.6, 20.4), (slice(5, 20), slice(6, 30))),
        ((5, 5, 6, 6), (slice(5, 6), slice(5, 6))),
    ],
)
def test_a_box_is_the_pixels_whose_centres_it_holds(box, place):
    assert box_slices(np.array(box, np.float32), SIZE) == place


@pytest.mark.parametrize(
    "box", [(-8, -3, 12, 9), (25, 15, 99, 99), (5, 5, 6, 6), (0, 0, 36, 24), (3, 3, 3.2, 9)]
)
@pytest.mark.parametrize("refiner", BOX_REFINERS.values())
def test_boxes_at_the_edge_and_of_one_pixel_pass(refiner, box):
    image, _, maps = draw_object()
    boxes = np.array([box], np.float32)
    (found,) = refiner()(image, maps, boxes)
    outside = np.ones(SIZE, bool)
    outside[box_slices(boxes[0], SIZE)] = False
    assert not found.possible[outside].any()


def test_a_grey_image_and_one_of_one_pixel_pass():
    image = np.full((*SIZE, 3), 128, np.uint8)
    (found,) = BoxCRF()(image, draw_object()[2], BOX)
    assert found.foreground.any()
    one = BoxCRF()(image[:1, :1], np.ones((1, 1, 1), np.float32), np.array([[0, 0, 1, 1]], float))
    assert one[0].foreground.shape == (1, 1)


def test_thresholds_of_values_without_crf_are_two_comparisons():
    values = np.array([[0.1, 0.2, 0.5, 0.8, 0.81, 1.0, 1.0]], np.float32)
    image = np.zeros((1, 7, 3), np.uint8)
    box = np.array([[0, 0, 6, 1]], np.float32)
    (found,) = BoxThreshold(foreground=0.8, background=0.15, crf=False)(image, values[None], box)
    above = values > 0.8
    above[0, 6] = False  # outside the box
    np.testing.assert_array_equal(found.foreground, above)
    assert found.possible.tolist() == [[False, True, True, True, True, True, False]]


def test_thresholds_of_values_are_taken_after_the_crf():
    image, _, maps = draw_object()
    (found,) = BoxThreshold()(image, maps, BOX)
    inside = np.zeros(SIZE, bool)
    inside[PLACE] = True
    refined = literal_field(image, maps[0] * inside)
    np.testing.assert_array_equal(found.foreground, inside & (refined > 0.8))
    np.testing.assert_array_equal(found.possible, inside & (refined >= 0.2))


def test_the_whole_box_is_doubtful_for_thresholds_of_an_empty_map():
    (found,) = BoxThreshold()(draw_object()[0], np.zeros((1, *SIZE), np.float32), BOX)
    assert not found.foreground.any()
    assert found.possible[PLACE].all()
    assert found.possible.sum() == 16 * 24
    assert found.note == NO_MAP


@pytest.mark.parametrize("refiner", BOX_REFINERS.values())
def test_an_image_without_objects_has_no_masks(refiner):
    image = draw_object()[0]
    assert refiner()(image, np.zeros((0, *SIZE), np.float32), np.zeros((0, 4), np.float32)) == []


def test_nothing_is_changed():
    image, _, maps = draw_object()
    before = image.copy(), maps.copy(), BOX.copy()
    for array in (image, maps):
        array.flags.writeable = False
    BoxCRF()(image, maps, BOX)
    for array, copy in zip((image, maps, BOX), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("refiner", BOX_REFINERS.values())
def test_constants_of_the_field_are_those_of_the_authors_code(refiner):
    """tools/BBAM/make_annotation/anno_utils.py."""
    for crf in (refiner.official(), refiner.as_written()):
        kernels = crf.gaussian_sxy, crf.gaussian_compat, crf.bilateral_sxy, crf.bilateral_srgb
        assert (*kernels, crf.bilateral_compat, crf.iterations) == (1, 3, 80, 3, 4, 10)


def test_presets_are_the_code_and_the_text():
    code, text = BoxCRF.official(), BoxCRF.as_written()
    assert (code.foreground, code.background, text.foreground) == (0.85, 0.2, 0.8)
    assert (code.blur, code.blur_gain, code.sure) == (16, 48, 0.9)
    assert (code.small_share, code.large_box) == (1 / 5, 1 / 10)
    assert (code.reseeds, code.reseed_share) == ((0.7, 0.8, 0.9, 0.95, 0.96), 1 / 3)
    assert (code.priors, code.prior_share) == ((0.7, 0.8, 0.9, 0.95), 1 / 5)
    assert BoxThreshold.as_written() == BoxThreshold(foreground=0.8, background=0.2, crf=True)


IMAGE = np.zeros((4, 5, 3), np.uint8)
MAPS = np.ones((1, 4, 5), np.float32)
GOOD = np.array([[0, 0, 3, 3]], np.float32)


@pytest.mark.parametrize(
    ("image", "maps", "boxes", "message"),
    [
        (IMAGE[..., 0], MAPS, GOOD, r"uint8 \(h, w, 3\)"),
        (IMAGE, MAPS[0], GOOD, r"\(o, h, w\) with o = 1, got \(4, 5\)"),
        (IMAGE, MAPS[:, :3], GOOD, r"each \(4, 5\) as the image, got float32 \(3, 5\)"),
        (IMAGE, MAPS.astype(float), GOOD, "got float64"),
        (IMAGE, MAPS, GOOD[0], r"\(o, 4\).*got \(4,\)"),
        (IMAGE, MAPS, GOOD[[0, 0]], r"with o = 2, got \(1, 4, 5\)"),
        (IMAGE, -MAPS, GOOD, "negative, got -1"),
        (IMAGE, MAPS, GOOD[:, [2, 1, 0, 3]], "x1 < x2"),
        (IMAGE, MAPS, GOOD + 40, "in the image of 5x4"),
        (IMAGE, MAPS, GOOD * np.nan, "four numbers"),
    ],
)
@pytest.mark.parametrize("refiner", BOX_REFINERS.values())
def test_what_does_not_fit_is_refused(refiner, image, maps, boxes, message):
    with pytest.raises(ValueError, match=message):
        refiner()(image, maps, boxes)


def test_values_above_one_have_no_threshold():
    with pytest.raises(ValueError, match=r"\[0, 1\], got 2"):
        BoxThreshold()(IMAGE, 2 * MAPS, GOOD)


@pytest.mark.parametrize(
    ("refiner", "wrong"),
    [
        (BoxCRF, {"foreground": 0.1}),
        (BoxCRF, {"background": 0}),
        (BoxCRF, {"blur": -1}),
        (BoxCRF, {"priors": ()}),
        (BoxCRF, {"reseeds": (0.5, 1.0)}),
        (BoxCRF, {"bilateral_srgb": 0}),
        (BoxThreshold, {"foreground": 1.1}),
        (BoxThreshold, {"iterations": -1}),
    ],
)
def test_constants_without_meaning_are_refused(refiner, wrong):
    with pytest.raises(ValueError, match="got"):
        refiner(**wrong)


def test_a_mask_must_hold_what_is_sure():
    full, empty = np.ones((2, 3), bool), np.zeros((2, 3), bool)
    assert BoxMask(empty, full).note == ""
    with pytest.raises(ValueError, match="got 6 pixels outside it"):
        BoxMask(full, empty)
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(2, 2\)"):
        BoxMask(full, full[:, :2])
    with pytest.raises(ValueError, match="got uint8"):
        BoxMask(full.astype(np.uint8), full)

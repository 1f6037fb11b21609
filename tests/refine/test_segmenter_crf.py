import pickle

import numpy as np
import pytest

from rayseg.refine import REFINERS, SegmenterCRF
from rayseg.refine.segmenter_crf import wrap_image
from tests.reference import crf_literal as literal


def draw_scene(seed=0, size=(18, 32), num_labels=3):
    """Upright bands of nearly one colour each, and noisy probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    truth = np.broadcast_to(np.arange(size[1]) * num_labels // size[1], size)
    image = 60 * truth[..., None] + np.array([40, 60, 70]) + rng.integers(-1, 2, (*size, 3))
    logits = rng.normal(0, 1, (num_labels, *size))
    logits += 0.8 * (truth == np.arange(num_labels)[:, None, None])
    planes = np.exp(logits)
    return image.astype(np.uint8), (planes / planes.sum(0)).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_those_of_mean_field_over_all_pairs(seed):
    """All but a few: the lattice blurs with a spline instead of a Gaussian."""
    image, planes, truth = draw_scene(seed)
    unary = -np.log(np.clip(planes.astype(float), 1e-5, 1)).reshape(3, -1)
    exact = literal.mean_field(image, unary, 10, 1, 3, 67, 3, 4).argmax(0).reshape(truth.shape)
    found = SegmenterCRF()(image, planes)
    assert (exact != planes.argmax(0)).mean() > 0.3
    assert (found == exact).mean() > 0.98
    assert (found == truth).mean() > 0.98


@pytest.mark.parametrize("num_labels", [1, 2, 21])
def test_zero_iterations_are_the_argmax(num_labels):
    image, planes, _ = draw_scene(num_labels=num_labels)
    labels = SegmenterCRF(iterations=0)(image, planes)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, planes.argmax(0))


def test_zero_weights_are_the_argmax():
    image, planes, _ = draw_scene()
    crf = SegmenterCRF(gaussian_compat=0, bilateral_compat=0)
    np.testing.assert_array_equal(crf(image, planes), planes.argmax(0))


def test_probabilities_of_zero_and_one_pass():
    image, _, truth = draw_scene()
    planes = (truth == np.arange(3)[:, None, None]).astype(np.float32)
    np.testing.assert_array_equal(SegmenterCRF()(image, planes), truth)


@pytest.mark.parametrize(
    ("rgb", "wrapped"),
    [
        ((0, 0, 0), (134, 140, 152)),  # -122.675 is cut to -122, and 256 - 122 = 134
        ((122, 116, 104), (0, 0, 0)),  # -.675 and -.669 are cut to 0, and so is -.008
        ((121, 115, 103), (255, 255, 255)),
        ((123, 117, 105), (0, 0, 0)),
        ((124, 118, 106), (1, 1, 1)),
        ((255, 255, 255), (132, 138, 150)),
    ],
)
def test_image_without_its_mean_is_cut_and_wraps(rgb, wrapped):
    image = np.full((2, 3, 3), rgb, np.uint8)
    found = wrap_image(image)
    assert found.dtype == np.uint8
    assert (found == wrapped).all()
    assert (image == rgb).all()


def test_wrapped_field_is_that_of_the_wrapped_image():
    _, planes, _ = draw_scene()
    noise = np.random.default_rng(0).integers(0, 2, (*planes.shape[1:], 1))
    image = np.array([121, 115, 103], np.uint8) + noise.astype(np.uint8)  # 255 or 0 when wrapped
    as_theirs = SegmenterCRF(wrapped_image=True)(image, planes)
    np.testing.assert_array_equal(as_theirs, SegmenterCRF()(wrap_image(image), planes))
    assert (as_theirs != SegmenterCRF()(image, planes)).any()


def test_nothing_is_changed_and_a_second_call_gives_the_same():
    image, planes, _ = draw_scene()
    before = image.copy(), planes.copy()
    for array in (image, planes):
        array.flags.writeable = False
    crf = pickle.loads(pickle.dumps(SegmenterCRF(wrapped_image=True)))
    np.testing.assert_array_equal(crf(image, planes), crf(image, planes))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(planes, before[1])


def test_constants_are_deeplab_pytorchs_and_it_is_no_refiner():
    crf = SegmenterCRF()
    kernels = crf.gaussian_sxy, crf.gaussian_compat
    appearance = crf.bilateral_sxy, crf.bilateral_srgb, crf.bilateral_compat
    assert (crf.iterations, kernels, appearance) == (10, (1, 3), (67, 3, 4))
    assert not crf.wrapped_image
    assert SegmenterCRF not in REFINERS.values()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_tiny_images_pass(size):
    image, planes, _ = draw_scene(size=size)
    assert SegmenterCRF()(image, planes).shape == size


IMAGE = np.zeros((4, 5, 3), np.uint8)
HALVES = np.full((2, 4, 5), 0.5, np.float32)


@pytest.mark.parametrize(
    ("image", "planes", "message"),
    [
        (IMAGE.astype(float), HALVES, r"uint8 \(h, w, 3\).*got float64"),
        (IMAGE, HALVES.astype(float), r"float32 \(l, 4, 5\).*got float64 \(2, 4, 5\)"),
        (IMAGE, HALVES[:, :3], r"\(l, 4, 5\).*got float32 \(2, 3, 5\)"),
        (IMAGE, HALVES[0], r"got float32 \(4, 5\)"),
        (IMAGE, HALVES[:0], r"l = 1 to 255.*got float32 \(0, 4, 5\)"),
        (IMAGE, np.full((256, 4, 5), 1 / 256, np.float32), r"got float32 \(256, 4, 5\)"),
        (IMAGE, HALVES - 1, r"\[0, 1\], got -0.5 to -0.5"),
        (IMAGE, np.full_like(HALVES, np.nan), r"\[0, 1\], got nan"),
        (IMAGE, HALVES / 2, r"sum to 1.*from 0.500 to 0.500"),
    ],
)
def test_what_does_not_fit_is_refused(image, planes, message):
    with pytest.raises(ValueError, match=message):
        SegmenterCRF()(image, planes)


@pytest.mark.parametrize("wrong", [{"bilateral_srgb": 0}, {"iterations": -1}])
def test_values_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        SegmenterCRF(**wrong)

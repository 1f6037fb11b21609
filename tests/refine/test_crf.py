import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydensecrf.utils import unary_from_labels, unary_from_softmax

from rayseg.learn import TRAININGS
from rayseg.refine import REFINERS, LabelCRF, SoftCRF, Threshold
from rayseg.refine.lattice import Kernels, Lattice
from rayseg.stages import network_kind
from tests.reference import crf_literal as literal

IRN = Kernels(
    gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=50, bilateral_srgb=5, bilateral_compat=10
)


@pytest.fixture
def reference():
    root = Path(__file__).parents[2] / ".." / "shared"
    if "RAYSEG_DATA" in os.environ:
        root = Path(os.environ["RAYSEG_DATA"]) / ".."
    path = root / "reference" / "crf_irn_96x128.npz"
    if not path.exists():
        pytest.skip(f"no reference arrays: {path} is missing")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def draw_scene(seed=0, size=(24, 60), num_maps=2):
    """Discs of one colour in noise, side by side; maps sure of all discs but the last."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = rng.integers(60, 64, (*size, 3))
    maps = np.zeros((num_maps, *size), np.float32)
    radius = size[1] // (2 * num_maps + 2) - 2
    for number in range(num_maps + 1):
        row, column = size[0] // 2 + rng.integers(-2, 3), (2 * number + 1) * (radius + 2)
        distance = np.hypot(rows - row, columns - column)
        image[distance < radius] = 110 + 40 * number
        if number < num_maps:
            maps[number] = (1.3 - distance / radius).clip(0, 1) ** rng.uniform(0.5, 2)
        else:
            maps[0][distance < radius] = 0.2  # between IRN's thresholds
    return image.astype(np.uint8), maps


@pytest.mark.data
def test_crf_is_irns_to_the_pixel(reference):
    (refined,) = LabelCRF().refine_labels(reference["img"], [reference["lab"]], 3)
    np.testing.assert_array_equal(refined, reference["out"])


@pytest.mark.data
@pytest.mark.parametrize("number", ["1", "1-b", "2", "3"])
def test_pydensecrfs_examples_come_out_as_expected(real_data, number):
    """Its examples/inference.py: five iterations, sxy 80, srgb 13, black = unknown if it occurs.

    The expected images were made with features computed in Python (use_2d = False), whose rounding
    differs, so that 27 to 84 of 68,000 to 76,800 pixels at the borders do too.
    """

    def read(name):
        with Image.open(real_data / "densecrf" / f"{name}.png") as picture:
            return np.asarray(picture.convert("RGB"))

    image, annotation, expected = (
        read(name) for name in (f"im{number[0]}", f"anno{number}", f"out{number}")
    )
    colours, local = np.unique(annotation.reshape(-1, 3), axis=0, return_inverse=True)
    unknown = not colours[0].any()
    colours = colours[1:] if unknown else colours
    unary = unary_from_labels(local.ravel(), len(colours), 0.7, zero_unsure=unknown)
    lattice = Lattice(replace(IRN, bilateral_sxy=80, bilateral_srgb=13), image, len(colours))
    found = colours[lattice.infer(unary, 5).argmax(0)]
    assert (found != expected).any(-1).mean() < 0.002


@pytest.mark.parametrize("num_maps", [1, 2, 3])
@pytest.mark.parametrize("method", ["cam", "advcam"])
def test_label_crf_equals_two_fields_of_their_own(num_maps, method):
    classes = [7, 2, 19][:num_maps]
    crf = LabelCRF.official(method)
    for seed in range(3):
        image, maps = draw_scene(seed, num_maps=num_maps)
        expected = literal.cam_to_ir_label(image, maps, classes, crf.fg_threshold, crf.bg_threshold)
        np.testing.assert_array_equal(crf(image, maps, classes), expected)


def test_scenes_hold_all_kinds_of_label():
    image, maps = draw_scene()
    labels = LabelCRF()(image, maps, [7, 2])
    assert set(np.unique(labels)) == {0, 3, 8, 255}


def test_second_unary_on_one_lattice_is_bit_identical():
    image, maps = draw_scene()
    unaries = [
        unary_from_labels((maps.max(0) > level).astype(int), 3, 0.7, zero_unsure=False)
        for level in (0.3, 0.05, 0.3)
    ]
    shared = Lattice(IRN, image, 3)
    for unary in unaries:
        alone = Lattice(IRN, image, 3).infer(unary, 10)
        np.testing.assert_array_equal(shared.infer(unary, 10), alone)


def test_lattice_is_near_mean_field_over_all_pairs():
    """Near only: the lattice blurs with a spline instead of a Gaussian."""
    image, maps = draw_scene(size=(16, 30))
    noise = np.random.default_rng(0).uniform(0.1, 0.5, maps[0].shape)
    inside = (0.5 * maps[0] + noise).clip(0.05, 0.95)
    unary = unary_from_softmax(np.stack([1 - inside, inside]))
    found = Lattice(replace(IRN, gaussian_compat=1, bilateral_compat=2), image, 2).infer(unary, 5)
    exact = literal.mean_field(image, unary, 5, 3, 1, 50, 5, 2).reshape(found.shape)
    assert set(np.unique(exact.argmax(0))) == {0, 1}
    assert np.abs(found - exact).mean() < 0.01
    assert (found.argmax(0) == exact.argmax(0)).mean() > 0.98
    start = np.exp(-unary).reshape(found.shape)
    assert np.abs(found - exact).mean() < 0.05 * np.abs(start - exact).mean()


def test_a_labeling_of_one_label_is_what_the_field_would_give():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    for label in (0, 2):
        labels = np.full((20, 20), label)
        (refined,) = LabelCRF().refine_labels(image, [labels], 3)
        np.testing.assert_array_equal(literal.crf_inference_label(image, labels, 3), refined)


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_labeling_of_one_label_leaves_its_neighbour_to_the_field(plain_first):
    image, maps = draw_scene()
    labelings = [np.zeros(maps.shape[1:], int), (maps.max(0) > 0.3).astype(int)]
    labelings = labelings if plain_first else labelings[::-1]
    expected = [literal.crf_inference_label(image, labels, 2) for labels in labelings]
    assert any((a != b).any() for a, b in zip(labelings, expected, strict=True))
    np.testing.assert_array_equal(LabelCRF().refine_labels(image, labelings, 2), expected)


@pytest.mark.parametrize("gt_prob", [0.4, 0.95])
def test_the_label_crf_is_as_sure_of_labels_as_it_is_asked_to_be(gt_prob):
    image, maps = draw_scene()
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 3, maps[0].shape)
    labels = np.where(rng.random(drawn.shape) < 0.3, drawn, maps.max(0) > 0.3)
    kernels = vars(IRN) | {"gaussian_compat": 3, "bilateral_compat": 3, "iterations": 2}
    lattice = Lattice(Kernels(**kernels), image, 3)
    expected = {
        sure: lattice.infer(unary_from_labels(labels, 3, sure, zero_unsure=False), 2).argmax(0)
        for sure in (gt_prob, 0.7)
    }
    crf = LabelCRF(gt_prob=gt_prob, **kernels)
    (refined,) = crf.refine_labels(image, [labels], 3)
    np.testing.assert_array_equal(refined, expected[gt_prob])
    assert (refined != expected[0.7]).any()


@pytest.mark.parametrize("alpha", [0.5, 4, 32])
def test_background_of_the_soft_crf_is_the_rest_to_one_to_the_power_of_alpha(alpha):
    image, maps = draw_scene()
    crf = SoftCRF(alpha=alpha, gaussian_compat=0, bilateral_compat=0)
    planes = np.concatenate([(1 - maps.max(0)[None].astype(float)) ** alpha, maps])
    found = crf.probabilities(image, maps, [7, 2])
    np.testing.assert_allclose(found, planes / planes.sum(0), atol=5e-5)


def test_zero_iterations_of_the_label_crf_are_its_two_thresholds():
    image, maps = draw_scene()
    labels = LabelCRF(iterations=0)(image, maps, [7, 2])
    strict = Threshold(0.30)(image, maps, [7, 2])
    lax = Threshold(0.05)(image, maps, [7, 2])
    np.testing.assert_array_equal(labels, np.where((strict == 0) & (lax > 0), 255, strict))


@pytest.mark.parametrize("background", ["constant", "power"])
def test_soft_crf_without_kernels_is_the_argmax(background):
    image, maps = draw_scene()
    crf = SoftCRF(background=background, gaussian_compat=0, bilateral_compat=0)
    plane = np.full(maps.shape[1:], 0.15) if background == "constant" else (1 - maps.max(0)) ** 4
    planes = np.concatenate([plane[None].astype(np.float32), maps])
    np.testing.assert_array_equal(crf(image, maps, [7, 2]), np.array([0, 8, 3])[planes.argmax(0)])
    np.testing.assert_allclose(
        crf.probabilities(image, maps, [7, 2]), planes / planes.sum(0), atol=3e-5
    )


def test_soft_crf_does_not_depend_on_a_common_factor():
    """PSA does not normalise; the CRF must not care (where the clip at 1e-5 does not bite)."""
    image, maps = draw_scene()
    maps = 0.05 + 0.9 * maps
    planes = np.concatenate([(1 - maps.max(0))[None] ** 4 + 1e-3, maps])
    lattice = Lattice(IRN, image, 3)
    first = lattice.infer(unary_from_softmax(planes), 10)
    second = lattice.infer(unary_from_softmax(planes / planes.sum(0)), 10)
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_soft_crf_gives_probabilities_of_background_and_classes():
    image, maps = draw_scene()
    probabilities = SoftCRF().probabilities(image, maps, [7, 2])
    assert probabilities.shape == (3, 24, 60)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_soft_crf_survives_maps_of_zeros_and_ones():
    image, maps = draw_scene()
    for value in (0, 1):
        labels = SoftCRF()(image, np.full_like(maps, value), [7, 2])
        assert set(np.unique(labels)) == ({0} if value == 0 else {8})


def test_threshold_ties_go_to_background():
    maps = np.array([[[0.25, 0.5, 0.1]], [[0.25, 0.5, 0.3]]], np.float32)
    labels = Threshold(0.25)(np.zeros((1, 3, 3), np.uint8), maps, [4, 0])
    assert labels.tolist() == [[0, 5, 1]]


def made(name):
    """A refiner as it is called; one that works on a network has one before its first step."""
    refiner = REFINERS[name]()
    if kind := network_kind(refiner):
        network = TRAININGS[kind](weights="none").build([f"class {i}" for i in range(254)])
        return refiner.prepare(network.eval(), torch.device("cpu"))
    return refiner


@pytest.mark.parametrize("name", REFINERS)
class TestEveryRefiner:
    def test_labels_are_of_the_given_classes(self, name):
        image, maps = draw_scene()
        labels = made(name)(image, maps, [7, 2])
        assert labels.dtype == np.uint8
        assert labels.shape == (24, 60)
        assert {3, 8} <= set(np.unique(labels)) <= {0, 3, 8, 255}

    def test_no_class_is_all_background(self, name):
        image, _ = draw_scene()
        labels = made(name)(image, np.zeros((0, 24, 60), np.float32), [])
        assert labels.dtype == np.uint8
        assert not labels.any()

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)])
    def test_tiny_images_pass(self, name, size):
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        labels = made(name)(image, rng.random((2, *size)).astype(np.float32), [0, 1])
        assert labels.shape == size

    def test_memory_layout_does_not_matter_and_nothing_is_changed(self, name):
        image, maps = draw_scene()
        plain = made(name)(image, maps, [7, 2])
        odd_image = np.zeros((60, 24, 6), np.uint8).transpose(1, 0, 2)[:, :, ::2]
        odd_image[:] = image
        odd_maps = np.asfortranarray(maps)
        before = odd_image.copy(), odd_maps.copy()
        for array in (odd_image, odd_maps):
            array.flags.writeable = False
        np.testing.assert_array_equal(made(name)(odd_image, odd_maps, [7, 2]), plain)
        np.testing.assert_array_equal(odd_image, before[0])
        np.testing.assert_array_equal(odd_maps, before[1])

    def test_second_call_gives_the_same(self, name):
        image, maps = draw_scene()
        refiner = made(name)
        np.testing.assert_array_equal(refiner(image, maps, [7, 2]), refiner(image, maps, [7, 2]))

    def test_survives_pickling(self, name):
        refiner = replace(REFINERS[name]())
        assert pickle.loads(pickle.dumps(refiner)) == refiner

    def test_has_both_presets(self, name):
        assert REFINERS[name].official() == REFINERS[name]()
        written = {"psa": {"borders": "clipped"}}  # the sum of equation 2.5 is the network's
        expected = replace(REFINERS[name](), **written.get(name, {}))
        assert REFINERS[name].as_written("rib") == expected

    @pytest.mark.parametrize(
        ("image", "maps", "classes", "message"),
        [
            (np.zeros((4, 4, 3)), np.zeros((1, 4, 4), np.float32), [0], "uint8"),
            (np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4), np.float32), [0], r"\(h, w, 3\)"),
            (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4)), [0], "float64"),
            (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 2, 4), np.float32), [0], r"\(1, 4, 4\)"),
            (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.float32), [0, 0], "different"),
            (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4), np.float32), [254], "0 to 253"),
            (np.zeros((4, 4, 3), np.uint8), np.full((1, 4, 4), 2, np.float32), [0], r"\[0, 1\]"),
            (np.zeros((4, 4, 3), np.uint8), np.full((1, 4, 4), np.nan, "f4"), [0], r"\[0, 1\]"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, name, image, maps, classes, message):
        with pytest.raises(ValueError, match=message):
            made(name)(image, maps, classes)


@pytest.mark.parametrize(
    ("method", "thresholds"),
    [
        ("cam", (0.30, 0.05)),
        ("gradcam", (0.30, 0.05)),
        ("advcam", (0.35, 0.15)),
        ("rib", (0.35, 0.17)),
        ("wood", (0.30, 0.15)),
    ],
)
def test_official_thresholds_are_those_of_the_codes(method, thresholds):
    crf = LabelCRF.official(method)
    assert (crf.fg_threshold, crf.bg_threshold) == thresholds
    assert replace(crf, fg_threshold=0.30, bg_threshold=0.05) == LabelCRF()


def test_a_method_without_official_values_is_refused():
    with pytest.raises(ValueError, match="no official CRF thresholds for 'bbam'"):
        LabelCRF.official("bbam")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelCRF(gt_prob=1), "gt_prob"),
        (lambda: LabelCRF(fg_threshold=0.1, bg_threshold=0.2), "bg_threshold"),
        (lambda: LabelCRF(bilateral_srgb=0), "deviations"),
        (lambda: SoftCRF(iterations=-1), "iterations"),
        (lambda: SoftCRF(background="none"), "background"),
        (lambda: SoftCRF(alpha=0), "alpha"),
    ],
)
def test_values_without_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""InstanceCRF: against pydensecrf itself, and the part of the image that a small box is seen in."""

import numpy as np
import pytest
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax

from rayseg.refine.instance_crf import InstanceCRF
from rayseg.refine.lattice import Lattice

BOX = np.array([20.0, 12.0, 44.0, 30.0])


def scene(size_hw=(48, 64)):
    """A dark ellipse on grey, and probabilities that are high in its middle only."""
    y, x = np.indices(size_hw)
    inside = ((x - 32) / 12) ** 2 + ((y - 21) / 9) ** 2 < 1
    image = np.where(inside[..., None], 40, 170).astype(np.uint8).repeat(3, 2)
    probabilities = np.where(((x - 32) / 7) ** 2 + ((y - 21) / 5) ** 2 < 1, 0.9, 0.02)
    probabilities[(probabilities < 0.5) & inside] = 0.45
    return image, probabilities.astype(np.float32), inside


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_without_zoom_it_is_pydensecrf_on_the_whole_image():
    image, probabilities, _ = scene()
    field = DenseCRF2D(64, 48, 2)
    field.setUnaryEnergy(unary_from_softmax(np.stack([1 - probabilities, probabilities])))
    field.addPairwiseGaussian(sxy=1, compat=3)
    field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    expected = np.array(field.inference(10)).reshape(2, 48, 64)[1] > 0.5
    assert np.array_equal(InstanceCRF(zoom=1)(image, probabilities, BOX), expected)
    assert np.array_equal(InstanceCRF(zoom_below=0)(image, probabilities, BOX), expected)


def test_no_iteration_leaves_the_probabilities():
    image, probabilities, _ = scene()
    mask = InstanceCRF(zoom=1, iterations=0)(image, probabilities, BOX)
    assert np.array_equal(mask, probabilities > 0.5)


@pytest.mark.parametrize("zoom", [1, 3])
def test_a_mask_grows_to_the_edges_of_its_object(zoom):
    image, probabilities, inside = scene()
    assert iou(probabilities > 0.5, inside) < 0.5
    assert iou(InstanceCRF(zoom=zoom)(image, probabilities, BOX), inside) > 0.9


def test_the_part_of_a_small_box_holds_a_third_of_what_surrounds_it():
    assert InstanceCRF().part(BOX, (48, 64)) == (8, 13, 36, 50)
    # int(12 * 2 / 3), int(20 * 2 / 3), int((48 + 2 * 30) / 3), int((64 + 2 * 44) / 3)
    assert InstanceCRF(zoom_below=400).part(BOX, (48, 64)) == (0, 0, 48, 64)


def test_nothing_of_the_mask_lies_outside_the_part():
    image, probabilities, _ = scene()
    probabilities[:] = 0.99
    mask = InstanceCRF()(image, probabilities, BOX)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 35, 13, 49)


def test_a_box_at_the_corner_is_refined_too():
    image, probabilities, _ = scene()
    for box in ([-4.0, -3.0, 5.0, 6.0], [60.0, 44.0, 70.0, 60.0]):
        assert InstanceCRF()(image, probabilities, np.array(box)).shape == (48, 64)


def test_instances_of_an_image_do_not_touch_each_other():
    image, probabilities, _ = scene()
    crf = InstanceCRF(zoom_below=200)
    given = [
        (probabilities, BOX),
        (probabilities[:, ::-1], np.array([3, 3, 9, 9])),  # small, so that it is enlarged
        (probabilities[::-1], BOX),
    ]
    refine = crf.on(image)
    for (one, box), mask in [(pair, refine(*pair)) for pair in given]:
        np.testing.assert_array_equal(mask, crf(image, one, box))


def test_whole_images_share_one_lattice(monkeypatch):
    image, probabilities, _ = scene()
    build, built = Lattice.__init__, []
    monkeypatch.setattr(Lattice, "__init__", lambda *of: built.append(of) or build(*of))
    refine = InstanceCRF(zoom=1).on(image)
    for _ in range(3):
        refine(probabilities, BOX)
    assert len(built) == 1


def test_a_read_only_image_is_taken_and_nothing_is_changed():
    image, probabilities, _ = scene()
    before = probabilities.copy()
    image.flags.writeable = probabilities.flags.writeable = False
    InstanceCRF()(image, probabilities, BOX)
    assert np.array_equal(probabilities, before)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"zoom": 0.5}, "zoom must be 1 or more"),
        ({"sure": 1.0}, r"sure must lie in \[0, 1\), got 1.0"),
        ({"bilateral_srgb": 0.0}, "kernel deviations must be at least 0.1"),
    ],
)
def test_constants_without_meaning_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        InstanceCRF(**changed)


def test_probabilities_of_another_size_are_refused():
    image, probabilities, _ = scene()
    with pytest.raises(ValueError, match=r"probabilities must be \(48, 64\), .* got \(48, 60\)"):
        InstanceCRF()(image, probabilities[:, :60], BOX)


@pytest.mark.parametrize("wrong", [lambda image: image / 255, lambda image: image[..., 0]])
def test_an_image_that_is_not_rgb_of_8_bits_is_refused_before_any_instance(wrong):
    image, _, _ = scene()
    with pytest.raises(ValueError, match=r"image must be uint8 \(h, w, 3\) RGB"):
        InstanceCRF().on(wrong(image))

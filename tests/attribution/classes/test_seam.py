"""SEAM's seeds and AdvCAM on SEAM against their literal second implementations."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, SEAM, AdvCAM, LeanNetwork
from rayseg.attribution.classes.advcam_seam import AdvCAMOnSEAM
from rayseg.attribution.classes.lean import suit_cpu
from rayseg.attribution.classes.seam import LeanSeam, present_classes
from rayseg.nets.seam import strongest_planes
from tests.attribution.classes.test_advcam import TERMS, as_fields, largest_difference
from tests.attribution.conftest import TinySeam
from tests.reference import attribution_literal
from tests.reference import seam_literal as literal


class DoubleSeam(LeanSeam):
    """The lean network in float64: nothing folded, convolutions put as for the CPU."""

    def __init__(self, network):
        super().__init__(network, "fp32")
        self.classifier = copy.deepcopy(network).eval().requires_grad_(False).double()
        suit_cpu(self.classifier, torch.float64)
        self.correlation_head = self.classifier.correlation_head
        self.weight = self.classifier.head.weight.flatten(1)

    def levels(self, images):
        return self.classifier.levels(images)


@pytest.fixture
def network():
    return TinySeam().eval()


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
def test_seeds_are_the_literal_ones(network, draw_image, our_resize, size_hw):
    image = draw_image(size_hw)
    maps = SEAM(precision="fp32")(network, image, [2, 0])
    for found, target in zip(maps, (2, 0), strict=True):
        expected = literal.seam(network, image, target, resize=our_resize)
        assert largest_difference(found, expected) < 2e-4


def test_maps_are_literal_in_float64(network, image):
    views = attribution_literal.look(image, 1, True, torch.zeros(1).double())
    owner, target = torch.zeros(3, dtype=torch.long), torch.tensor([2, 0, 1])
    found = SEAM().locate(DoubleSeam(network), views[None], owner, target, 1.0)
    for own, one in zip(found.maps, target, strict=True):
        expected = literal.seam_one_scale(network.double(), views, int(one))
        assert largest_difference(own, expected) < 1e-9


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
def test_official_climb_is_the_literal_procedure(network, draw_image, our_resize, size_hw):
    image, classes = draw_image(size_hw), [1, 2]
    maps = AdvCAMOnSEAM(num_steps=4, precision="fp32")(network, image, classes)
    for found, target in zip(maps, classes, strict=True):
        expected = literal.advcam_on_seam(network, image, target, num_steps=4, resize=our_resize)
        assert largest_difference(found, expected) < 1e-3


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_each_term_is_literal_in_float64(network, image, terms):
    pair = attribution_literal.look(image, 1, True, torch.zeros(1).double())
    owner, target = torch.zeros(3, dtype=torch.long), torch.tensor([2, 0, 1])
    found = AdvCAMOnSEAM(num_steps=4, **as_fields(terms)).locate(
        DoubleSeam(network), pair[None], owner, target, 1.0
    )
    for own, one in zip(found.maps, target, strict=True):
        expected = literal.advcam_one_scale(network.double(), pair, int(one), 4, **terms)
        assert largest_difference(own, expected) < 1e-9


def test_the_author_names_eight_steps_and_lambda_2():
    official = AdvCAMOnSEAM.official()
    assert (official.num_steps, official.restrict_weight) == (8, 2.0)
    others = {"num_steps": 27, "restrict_weight": 7.0}
    both = [(official, AdvCAM.official()), (AdvCAMOnSEAM.as_written(), AdvCAM.as_written())]
    for found, plain in both:
        assert vars(replace(found, **others)) == vars(plain) | {"compete": "all"}


@pytest.mark.parametrize("preset", ["official", "as_written"])
def test_no_step_leaves_seams_own_maps(network, image, preset):
    method = getattr(AdvCAMOnSEAM, preset)()
    plain = SEAM(scales=method.scales, flip=method.flip)
    expected = plain(network, image, [0, 1, 2])
    still = replace(method, num_steps=0)(network, image, [0, 1, 2])
    torch.testing.assert_close(still, expected, rtol=0, atol=0)
    one_map = replace(method, num_steps=1, add_last=False)(network, image, [0, 1, 2])
    torch.testing.assert_close(one_map, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=[SEAM(precision="fp32"), AdvCAMOnSEAM(num_steps=1, precision="fp32")])
def competing(request):
    """Both methods at a step that no climb comes before."""
    return replace(request.param, compete="present")


def test_classes_that_an_image_lacks_take_no_cells_where_only_present_ones_compete(
    network, image, competing
):
    without = copy.deepcopy(network)
    with torch.no_grad():
        without.head.weight[1] = 0.0
    expected = replace(competing, compete="all")(without, image, [2, 0])
    found = competing(network, image, [2, 0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - replace(competing, compete="all")(network, image, [2, 0])).abs().max() > 0.01


def test_a_faint_absent_class_takes_cells_from_a_present_one_in_the_authors_module():
    maps = torch.zeros(1, 2, 1, 4)
    maps[0, 0] = torch.tensor([1.0, 0.5, 0.4, 0.3])
    maps[0, 1] = torch.tensor([0.0, 0.002, 0.002, 0.002])
    planes = strongest_planes(maps)
    assert (planes[0, 1] > 0).sum() == 1  # of four cells three are the faint class's
    present = present_classes(torch.arange(1), *torch.zeros(2, 1).long(), 2)
    assert (strongest_planes(maps * present)[0, 1] > 0).all()


def test_present_classes_are_those_of_each_image_of_a_batch(network, draw_image, competing):
    images = torch.from_numpy(np.stack([draw_image((37, 50), seed) for seed in range(3)]))
    classes = [[0], [], [2, 1]]
    together = replace(competing, max_pairs=100).run(network, images, classes)
    for one, own, found in zip(images, classes, together, strict=True):
        (alone,) = competing.run(network, one[None], [own])
        torch.testing.assert_close(found.maps, alone.maps, rtol=1e-3, atol=1e-4)
    all_classes = replace(competing, compete="all")(network, images[0].numpy(), [0, 1, 2])
    torch.testing.assert_close(
        competing(network, images[0].numpy(), [0, 1, 2]), all_classes, rtol=1e-4, atol=1e-5
    )


def test_without_refinement_the_scores_are_those_of_cam(network, image):
    images = torch.from_numpy(image)[None]
    (found,) = SEAM(precision="fp32").run(network, images, [[0, 1, 2]])
    # the same trunk and head as a classifier
    (plain,) = CAM(precision="fp32").run(LeanNetwork(network, "fp32"), images, [[0, 1, 2]])
    torch.testing.assert_close(found.scores, plain.scores, rtol=1e-4, atol=1e-5)
    assert (found.maps - plain.maps).abs().max() > 0.05
    assert torch.equal(found.gains, torch.zeros(3))


def test_the_course_gives_what_runs_of_fewer_steps_give(network, image):
    method = AdvCAMOnSEAM(scales=(1.0, 0.5), num_steps=3, precision="fp32")
    images = torch.from_numpy(image)[None]
    for steps, found in enumerate(method.course(network, images[0], [2, 0]), 1):
        (alone,) = replace(method, num_steps=steps).run(network, images, [[2, 0]])
        torch.testing.assert_close(found.maps, alone.maps, rtol=1e-4, atol=1e-4)


def test_climbing_raises_the_score(network, image):
    images = torch.from_numpy(image)[None]
    (found,) = AdvCAMOnSEAM(restrict_weight=0.0).run(network, images, [[0, 1, 2]])
    assert (found.gains > 0.1).all()
    assert found.steps == 7


def test_what_is_no_seam_is_refused_with_the_way_out(tiny_classifier, network):
    for method in (SEAM(), AdvCAMOnSEAM()):
        for other in (tiny_classifier(), LeanNetwork(tiny_classifier(), "fp32")):
            with pytest.raises(ValueError, match=r"must be a SEAM, got a \w+; train one with "):
                method.prepare(other)
    with pytest.raises(ValueError, match="must be a classifier, got the LeanSeam of another"):
        CAM().prepare(SEAM().prepare(network))


def test_half_precision_rounds_the_trunk_alone(network, image):
    lean = SEAM(precision="bf16").prepare(network)
    assert {one.dtype for one in lean.correlation_head.parameters()} == {torch.float32}
    assert torch.equal(lean.correlation_head.low.weight, network.correlation_head.low.weight)
    maps = SEAM(precision="bf16")(network, image, [1])
    expected = SEAM(precision="fp32")(network, image, [1])
    assert np.corrcoef(maps.flatten(), expected.flatten())[0, 1] > 0.9

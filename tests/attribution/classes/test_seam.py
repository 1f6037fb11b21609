"""SEAM's seeds and AdvCAM on SEAM against their literal second implementations."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, SEAM, AdvCAM, LeanNetwork
from rayseg.attribution.classes.advcam_seam import AdvCAMOnSEAM
from rayseg.attribution.classes.lean import suit_cpu
from rayseg.attribution.classes.seam import LeanSeam
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
    assert vars(replace(official, **others)) == vars(AdvCAM.official())
    assert vars(replace(AdvCAMOnSEAM.as_written(), **others)) == vars(AdvCAM.as_written())


@pytest.mark.parametrize("preset", ["official", "as_written"])
def test_no_step_leaves_seams_own_maps(network, image, preset):
    method = getattr(AdvCAMOnSEAM, preset)()
    plain = SEAM(scales=method.scales, flip=method.flip)
    expected = plain(network, image, [0, 1, 2])
    still = replace(method, num_steps=0)(network, image, [0, 1, 2])
    torch.testing.assert_close(still, expected, rtol=0, atol=0)
    one_map = replace(method, num_steps=1, add_last=False)(network, image, [0, 1, 2])
    torch.testing.assert_close(one_map, expected, rtol=1e-4, atol=1e-4)


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

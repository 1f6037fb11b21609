from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, GradCAM
from rayseg.attribution.classes.advcam import _gradcam
from tests.reference import attribution_literal as literal

WRITTEN = replace(GradCAM.as_written(), precision="fp32")


@pytest.fixture
def curved(tiny_classifier):
    """A network whose logit is no linear function of its features."""

    class Curved(tiny_classifier):
        def classify(self, features):
            return torch.logsumexp(self.head(features.square() / 4 + features).flatten(2), 2)

    return Curved().eval()


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
@pytest.mark.parametrize("classes", [[1], [2, 0], [0, 1, 2]])
def test_official_gradcam_is_the_literal_one(curved, draw_image, our_resize, size_hw, classes):
    image = draw_image(size_hw)
    maps = GradCAM(precision="fp32")(curved, image, classes)
    for found, target in zip(maps, classes, strict=True):
        expected = literal.gradcam(curved.double(), image, target, resize=our_resize)
        curved.float()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gradcam_as_written_is_element_by_element(curved, draw_image):
    image = draw_image((37, 50))
    maps = WRITTEN(curved, image, [0, 1, 2])
    for target, found in enumerate(maps):
        expected = literal.gradcam(curved.double(), image, target, (1.0,), False, pooled=False)
        curved.float()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pooling_matters_where_the_head_is_not_linear(curved, image):
    pooled = replace(WRITTEN, pooled=True)(curved, image, [1])
    assert (pooled - WRITTEN(curved, image, [1])).abs().max() > 0.05


@pytest.mark.parametrize("pooled", [True, False])
def test_linear_head_makes_it_cam(network, image, pooled):
    maps = GradCAM(pooled=pooled, precision="fp32")(network, image, [0, 1, 2])
    torch.testing.assert_close(
        maps, CAM(precision="fp32")(network, image, [0, 1, 2]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_closed_form_is_autograds_gradcam(network, image, scale):
    network.double()
    pair = literal.look(image, scale, True, network.head.weight)
    for target in range(3):
        features = network.features(pair)
        maps = network.head(features)
        expected = literal.autograd_gradcam(features, maps, target)
        weight = network.head.weight[target].detach().flatten()[None]
        found = _gradcam(maps[None, :, target].detach(), weight)[0]
        torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)


def test_closed_form_of_a_class_that_is_nowhere_is_zero():
    nothing = -torch.rand(2, 2, 4, 5)
    assert _gradcam(nothing, -torch.rand(2, 6)).abs().max() == 0

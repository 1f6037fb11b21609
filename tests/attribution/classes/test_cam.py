from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM
from tests.reference import attribution_literal as literal

SCALES = (1.0, 0.5, 1.5, 2.0)
WRITTEN = replace(CAM.as_written(), precision="fp32")


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50), (16, 33)])
@pytest.mark.parametrize("classes", [[1], [2, 0], [0, 1, 2]])
def test_official_cam_is_the_literal_one(network, draw_image, our_resize, size_hw, classes):
    image = draw_image(size_hw)
    maps = CAM(precision="fp32")(network, image, classes)
    for found, target in zip(maps, classes, strict=True):
        expected = literal.cam(network.double(), image, target, resize=our_resize)
        network.float()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
def test_cam_as_written_is_equation_2_1(network, draw_image, size_hw):
    image = draw_image(size_hw)
    maps = WRITTEN(network, image, [0, 1, 2])
    for target, found in enumerate(maps):
        expected = literal.cam(network.double(), image, target, scales=(1.0,), flip=False)
        network.float()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_cam_of_one_scale_is_literal_in_float64(network, double_network, image, scale):
    views = literal.look(image, scale, True, double_network.weight)
    owner, target = torch.tensor([0, 0]), torch.tensor([2, 1])
    found = CAM().locate(double_network, views[None], owner, target, scale)
    for own, one in zip(found.maps, target, strict=True):
        expected = literal.cam_one_scale(network.double(), views, int(one))
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_pillows_resize_instead_of_ours_changes_little(network, image):
    maps = CAM(precision="fp32")(network, image, [0, 1, 2])
    for target, found in enumerate(maps):
        expected = literal.cam(network, image, target)
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)


def test_score_is_the_networks_logit(network, image):
    (found,) = CAM(precision="fp32").run(network, torch.from_numpy(image)[None], [[2, 0]])
    with torch.no_grad():
        logits = network(literal.look(image, 1, False, network.head.weight))[0]
    torch.testing.assert_close(found.scores, logits[[2, 0]], rtol=1e-4, atol=1e-5)
    assert found.gains.tolist() == [0, 0]


def test_class_without_any_positive_cell_has_an_empty_map(tiny_classifier, image):
    network = tiny_classifier(seed=0).eval()
    views = literal.look(image, 1, False, network.head.weight)
    assert literal.raw_maps(network, views)[:, 1].max() < 0
    assert WRITTEN(network, image, [1]).max() == 0


def test_object_lights_up_where_it_is(network, image):
    image = np.full_like(image, 120)
    image[:, 40:] = np.random.default_rng(0).integers(0, 255, (48, 24, 3))
    with torch.no_grad():
        views = literal.look(image, 1, False, network.head.weight)
        difference = network.features(views)[0].mean(1)
        network.head.weight[0, :, 0, 0] = difference[:, -1] - difference[:, 0]
    columns = CAM(precision="fp32")(network, image, [0])[0].mean(0)
    assert columns[48:].mean() > 2 * columns[:16].mean()

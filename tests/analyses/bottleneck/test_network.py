"""Gradient maps, their ratios and RIB against loops and finite differences in float64."""

import numpy as np
import pytest
import torch

from rayseg.analyses.bottleneck.network import (
    ToyNetwork,
    high_gradient_ratio,
    layer_maps,
    rib_maps,
    train,
)
from tests.reference import bottleneck_literal as literal


def companions(number, size=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        others = torch.rand(size, 8, 8, dtype=torch.float64, generator=generator)
        yield others, torch.randint(2, (size,), generator=generator)


def rates(margin=float("inf")):
    return {"learning_rate": 0.01, "margin": margin}


def test_gradient_maps_are_finite_differences_of_each_layers_sum(network, images, classes):
    found = layer_maps(network, images, classes)
    for place, (image, label) in enumerate(zip(images, classes, strict=True)):
        expected = literal.layer_gradients(network, image, label)
        np.testing.assert_allclose(found[:, place].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_images_gradient_maps_do_not_depend_on_the_others(network, images, classes):
    together = layer_maps(network, images, classes)
    alone = layer_maps(network, images[1:2], classes[1:2])
    np.testing.assert_allclose(together[:, 1], alone[:, 0], rtol=1e-12)


def test_the_ratio_is_that_of_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    maps, regions = rng.random((4, 3, 5, 6)), rng.integers(0, 3, (3, 5, 6))
    tops = maps.max((2, 3))
    for region in range(3):
        found = high_gradient_ratio(
            torch.tensor(maps), torch.tensor(tops), torch.tensor(regions == region), 0.3
        )
        expected = [
            literal.ratio(one, top, regions, region, 0.3)
            for one, top in zip(maps, tops, strict=True)
        ]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_map_without_gradient_has_no_high_gradient():
    nothing, everywhere = torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)
    assert high_gradient_ratio(nothing, torch.zeros(1), everywhere, 0.0) == 0


def test_the_ratio_does_not_change_with_the_scale_of_a_map(network, images, classes):
    maps = layer_maps(network, images, classes)
    region = images > 0.5
    ratios = [high_gradient_ratio(one, one.amax((-2, -1)), region, 0.3) for one in (maps, 8 * maps)]
    assert torch.equal(*ratios)


@pytest.mark.parametrize("margin", [float("inf"), 0.05])
def test_rib_is_gradient_descent_on_logits_below_the_margin(network, images, classes, margin):
    image, label = images[0], classes[1]
    found = list(rib_maps(network, image, label, companions(3), **rates(margin)))
    for number, (one, logit) in enumerate(found):
        then = literal.adapted(network, image, label, companions(number), *rates(margin).values())
        expected = layer_maps(then, image[None], label[None])[5, 0]
        np.testing.assert_allclose(one.numpy(), expected.numpy(), rtol=1e-9, atol=1e-15)
        assert logit == pytest.approx(then(image[None])[1][0, label].item(), rel=1e-9)


def test_a_margin_below_all_logits_leaves_everything_as_it_is(network, images, classes):
    (before, _), *after = rib_maps(
        network, images[0], classes[0], companions(2), learning_rate=1.0, margin=-1e9
    )
    assert all(torch.equal(one, before) for one, _ in after)


def test_rib_leaves_the_network_as_it_was_bit_for_bit(network, images, classes):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    list(rib_maps(network, images[0], classes[0], companions(3), **rates()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in network.parameters())


def test_rib_of_one_image_does_not_depend_on_the_one_before(network, images, classes):
    def adapt(place):
        return list(rib_maps(network, images[place], classes[place], companions(2), **rates()))

    alone = adapt(1)
    adapt(0)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(alone, adapt(1), strict=True))


def test_making_a_network_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    ToyNetwork(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_loss(images, classes):
    network = ToyNetwork(0)
    inputs = images.float()

    def right():
        return torch.sigmoid(network(inputs)[1]).gather(1, classes[:, None]).mean().item()

    before = right()
    train(network, inputs, classes, epochs=30, batch_size=2, learning_rate=1e-3, seed=0)
    assert right() > before + 0.05

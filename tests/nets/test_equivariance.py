"""SEAM's losses against loops over pixels, in float64, with their gradients."""

import pytest
import torch

from rayseg.nets.equivariance import minimum_pooling, seam_losses, stretch
from tests.reference import seam_literal as literal

NAMES = ("classes", "pooled", "equivariance", "cross")


def drawn(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


@pytest.fixture
def looks():
    """Maps of three classes and refined ones with background, 14x18 and 4x5, of two images."""
    sizes = ((14, 18), (4, 5))
    made = [
        (drawn(2, 3, *size, seed=n), drawn(2, 4, *size, seed=n + 2).sigmoid())
        for n, size in enumerate(sizes)
    ]
    return [tuple(one.requires_grad_() for one in look) for look in made]


TARGETS = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_each_loss_and_its_gradient_are_the_literal_ones(looks, name, share):
    found = seam_losses(*looks, TARGETS, share)[name]
    pairs = [list(zip(*look, strict=True)) for look in looks]
    expected = literal.losses(*pairs, TARGETS, share)[name]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    leaves = [one for look in looks for one in look]
    ours, theirs = (
        torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
        for loss in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        if one is None or other is None:
            assert (0 if one is None else one.abs().max()) == 0
            assert (0 if other is None else other.abs().max()) == 0
        else:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_there_is_a_loss_for():
    looks = [(drawn(2, 3, 8, 8, seed=5), drawn(2, 4, 8, 8, seed=6).sigmoid())] * 2
    found = seam_losses(*looks, TARGETS)
    assert tuple(found) == NAMES
    assert found["equivariance"] == 0  # two looks that are the same
    assert all(found[name] > 0 for name in ("classes", "pooled", "cross"))


def test_a_class_that_the_image_lacks_costs_its_score_alone(looks):
    (maps, refined), second = looks
    lacking = refined.detach().clone()
    lacking[0, 2] = drawn(14, 18, seed=9).abs()
    one, other = (seam_losses((maps, changed), second, TARGETS) for changed in (refined, lacking))
    assert all(torch.equal(one[name], other[name]) for name in NAMES)


def test_the_lowest_quarter_by_hand():
    maps = torch.arange(8.0).view(1, 1, 2, 4).repeat(1, 2, 1, 1)
    maps[0, 1] -= 3  # never the strongest
    assert minimum_pooling(maps) == pytest.approx(0.5)
    assert minimum_pooling(torch.full((1, 1, 1, 1), 3.0)) == 3.0  # fewer than four pixels


def test_stretched_maps_reach_from_0_to_1():
    maps = stretch(drawn(2, 3, 6, 6, seed=4) + 3)
    assert float(maps.amin()) == 0
    assert (maps.amax((2, 3)) > 0.999).all()
    assert float(stretch(-torch.ones(1, 1, 2, 2)).abs().max()) == 0

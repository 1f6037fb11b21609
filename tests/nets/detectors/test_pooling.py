import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from rayseg.nets.detectors import pooling
from rayseg.nets.detectors.pooling import RegionPool, pool_regions, region_levels
from tests.nets.detectors.tiny import regions

CELLS = (10, 14)


def both_ways(boxes, owner, images=3, stride=8, size=7):
    """Pooled features and the gradient of a weighted sum: ours, then torchvision's."""
    torch.manual_seed(0)
    features = torch.randn(images, 5, *CELLS, dtype=torch.float64, requires_grad=True)
    ours = pool_regions(features, boxes, owner, stride, size).permute(0, 3, 1, 2)
    indexed = torch.cat([owner[:, None].to(boxes), boxes], 1)
    theirs = roi_align(features, indexed, size, 1 / stride, 2, aligned=False)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    made = []
    for pooled in (ours, theirs):
        (gradient,) = torch.autograd.grad((pooled * weights).sum(), features)
        made.append((pooled.detach(), gradient))
    return made


def assert_equal(made):
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1, 7, 14])
def test_pooling_and_its_gradient_equal_roi_align(size):
    boxes = regions(40, (80, 112))
    made = both_ways(boxes, torch.arange(40) % 3, size=size)
    assert_equal(made)
    assert made[0][0].std() > 0.1


@pytest.mark.parametrize("near", [1, 3, 6])
def test_pooling_equals_roi_align_however_regions_are_grouped(near, monkeypatch):
    monkeypatch.setattr(pooling, "NEAR", near)
    assert_equal(both_ways(regions(40, (80, 112)), torch.arange(40) % 3))


def test_regions_of_a_big_map_are_pooled_from_what_they_span():
    torch.manual_seed(0)
    boxes, owner = regions(60, (12, 16)), torch.arange(60) % 2
    boxes = boxes + torch.rand(60, 2, dtype=torch.float64).repeat(1, 2) * 100
    features = torch.randn(2, 2, 100, 110, dtype=torch.float64, requires_grad=True)
    indexed = torch.cat([owner[:, None].to(boxes), boxes], 1)
    ours = pool_regions(features, boxes, owner, 1).permute(0, 3, 1, 2)
    theirs = roi_align(features, indexed, 7, 1, 2, aligned=False)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad((one * weights).sum(), features)[0] for one in (ours, theirs)]
    assert_equal([(ours.detach(), gradients[0]), (theirs.detach(), gradients[1])])


@pytest.mark.parametrize(
    "box",
    [
        (3, 3, 3.5, 4),
        (50, 20, 50, 20),
        (60, 30, 40, 10),
        (-40, -30, 300, 200),
        (100, 70, 112, 80),
        (-8, -8, -1, -1),
        (-9, 10, 20, 30),
        (0, 0, 112, 80),
    ],
    ids=["tiny", "empty", "upside down", "around", "corner", "edge", "one cell out", "all"],
)
def test_unusual_region_is_pooled_as_by_roi_align(box):
    made = both_ways(torch.tensor([box], dtype=torch.float64), torch.tensor([1]))
    assert_equal(made)
    assert made[0][0].abs().sum() > 0


@pytest.mark.parametrize("box", [(300, 20, 340, 60), (20, -90, 60, -40), (200, 200, 240, 240)])
def test_region_outside_the_map_is_zero(box):
    made = both_ways(torch.tensor([box], dtype=torch.float64), torch.tensor([0]))
    assert_equal(made)
    assert made[0][0].eq(0).all()


def test_no_regions_give_nothing():
    made = pool_regions(torch.rand(2, 5, *CELLS), torch.rand(0, 4), torch.zeros(0).long(), 8)
    assert made.shape == (0, 7, 7, 5)


def test_region_is_pooled_from_its_own_image_whatever_the_order():
    boxes, owner = regions(20, (80, 112)), torch.arange(20) % 3
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    features = torch.randn(3, 5, *CELLS, dtype=torch.float64)
    pooled = pool_regions(features, boxes, owner, 8)
    mixed = pool_regions(features, boxes[order], owner[order], 8)
    torch.testing.assert_close(mixed, pooled[order], rtol=1e-12, atol=1e-12)
    alone = pool_regions(features[2:], boxes[owner == 2], owner[owner == 2] - 2, 8)
    torch.testing.assert_close(alone, pooled[owner == 2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (447.9, 2), (448, 3), (5000, 3)],
)
def test_level_doubles_with_the_side_from_224_at_stride_16(side, level):
    box = torch.tensor([[10, 20, 10 + side, 20 + side]], dtype=torch.float64)
    assert region_levels(box, 4, 2).tolist() == [level]
    assert region_levels(box, 3, 3).tolist() == [max(level - 1, 0)]


@pytest.mark.parametrize("first_level", [2, 3])
def test_region_pool_equals_torchvisions_on_all_levels(first_level):
    torch.manual_seed(0)
    names = [str(level) for level in range(6 - first_level)]
    features = {
        name: torch.randn(2, 3, 512 // stride, 640 // stride, dtype=torch.float64)
        for name, stride in zip(names, (4, 8, 16, 32)[first_level - 2 :], strict=True)
    }
    boxes = [regions(12, (512, 640), seed) for seed in (0, 1)]
    boxes[0] = torch.cat([boxes[0], boxes[0].new_tensor([[0, 0, 112, 112], [8, 8, 232, 232]])])
    sizes = [(512, 640), (500, 600)]
    expected = MultiScaleRoIAlign(names, 7, 2)(features, boxes, sizes)
    found = RegionPool(len(names), 7, first_level)(features, boxes, sizes)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    levels = region_levels(torch.cat(boxes), len(names), first_level)
    assert set(levels.tolist()) == set(range(len(names)))


def test_region_pool_takes_images_without_regions():
    features = {"0": torch.rand(2, 3, 16, 16)}
    boxes = [torch.rand(0, 4), torch.tensor([[4.0, 4, 30, 40]])]
    found = RegionPool(1, 7)(features, boxes, [(64, 64)] * 2)
    expected = MultiScaleRoIAlign(["0"], 7, 2)(features, boxes, [(64, 64)] * 2)
    torch.testing.assert_close(found, expected)
    assert RegionPool(1, 7)(features, boxes[:1] * 2, [(64, 64)] * 2).shape == (0, 3, 7, 7)

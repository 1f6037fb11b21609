"""SEAM's training: the authors' constants, what trains, and how colours change."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import functional

from rayseg.learn import Crops, JitteredCrops, PolySGD, SEAMTraining
from rayseg.learn.colours import turn_hue
from rayseg.nets.backbones import build_trunk
from tests.learn.tiny import tiny


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3)).astype(np.uint8)


def test_defaults_are_the_authors():
    one = SEAMTraining()
    assert (one.trunk, one.stride, one.freeze) == ("wide_resnet38", 8, "stage1")
    assert (one.epochs, one.batch_size, one.second_scale, one.hardest_share) == (8, 8, 0.3, 0.2)
    assert (one.crops.crop, one.crops.long_side) == (448, (448, 768))
    assert one.schedule == PolySGD(0.01, 10.0, momentum=5e-4, weight_decay=5e-4, power=0.9)


def test_head_and_correlation_module_learn_ten_times_faster():
    network = tiny("seam").build(("a", "b"))
    trunk, head = tiny("seam").schedule.optimizer(network).param_groups
    fast = {*network.head.parameters(), *network.correlation_head.parameters()}
    assert set(head["params"]) == fast
    assert head["base_lr"] == 10 * trunk["base_lr"]


def test_frozen_statistics_freeze_scale_and_shift_and_the_first_stages_stay(tmp_path):
    path = tmp_path / "trunk.pth"
    whole = build_trunk("resnet18", 16)
    names = {"stem.0": "conv1", "stem.1": "bn1"} | {f"stage{n}": f"layer{n}" for n in range(1, 5)}
    renamed = {}
    for key, value in whole.state_dict().items():
        start = next(one for one in names if key.startswith(f"{one}."))
        renamed[names[start] + key.removeprefix(start)] = value
    torch.save(renamed, path)
    network = tiny("seam", trunk="resnet18", weights=str(path)).build(("a", "b"))
    trained = {name for name, one in network.named_parameters() if one.requires_grad}
    assert not any(name.startswith(("trunk.stem", "trunk.stage1")) for name in trained)
    assert "trunk.stage2.0.conv1.weight" in trained
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    assert not any(weight.requires_grad for norm in norms for weight in norm.parameters())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"second_scale": 0.0}, r"must lie in \(0, 1\], got 0.0, 0.2"),
        ({"hardest_share": 1.5}, r"must lie in \(0, 1\], got 0.3, 1.5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_values_out_of_range_are_refused(changed, reason):
    with pytest.raises(ValueError, match=reason):
        SEAMTraining(**changed)


@pytest.mark.parametrize(
    ("crop", "stride", "scale", "least"),
    [(448, 8, 0.3, 0.15), (448, 32, 0.3, 0.58), (128, 8, 0.3, 0.5), (321, 16, 0.3, 0.4)],
)
def test_a_second_look_of_few_cells_is_refused_with_the_least_scale(crop, stride, scale, least):
    changed = {"trunk": "resnet18", "stride": stride, "crops": JitteredCrops(crop=crop)}
    if scale < least:
        reason = f"second_scale must be {least} or more.*a crop of {crop} pixels.*leaves [0-7]$"
        with pytest.raises(ValueError, match=reason):
            SEAMTraining(**changed, second_scale=scale)
        with pytest.raises(ValueError, match="leaves 7"):
            SEAMTraining(**changed, second_scale=least - 0.01)
    SEAMTraining(**changed, second_scale=least)


def test_a_crop_without_any_such_scale_is_refused_with_the_least_crop():
    with pytest.raises(ValueError, match=r"crops\.crop must be 128 pixels or more, .* leaves 4"):
        tiny("seam", stride=16, second_scale=1.0)


def test_the_first_look_alone_updates_statistics():
    once, twice = (tiny("seam", batch_norm="trained").build(("a", "b")).train() for _ in range(2))
    images = torch.randn(2, 3, 72, 72, generator=torch.manual_seed(1))
    once(images, (1.0,))
    twice(images, (1.0, 0.9))
    for (name, one), other in zip(once.named_buffers(), twice.buffers(), strict=True):
        torch.testing.assert_close(other, one, msg=name)
    # the second look is normalised by its own statistics all the same
    fresh = tiny("seam", batch_norm="trained").build(("a", "b")).train()
    fresh.dropout = twice.dropout = 0.0
    _, (small, _) = twice(images, (1.0, 0.9))
    ((alone, _),) = fresh(images, (0.9,))
    torch.testing.assert_close(small, alone)
    assert all(one.track_running_stats for one in twice.modules() if hasattr(one, "running_mean"))


@pytest.mark.parametrize("field", ["second_scale", "hardest_share", "dropout"])
def test_each_setting_changes_the_losses(field):
    found = []
    for value in (0.9, 0.95):
        training = tiny("seam", **{field: value})
        network = training.build(("a", "b")).train()
        network.reseed(0, 0)
        images = torch.randn(2, 3, 72, 72, generator=torch.manual_seed(1))
        losses = training.losses(network, (images, torch.eye(2), ["a", "b"]), torch.float32)
        found.append(torch.stack(list(losses.values())))
    assert not torch.allclose(*found, rtol=1e-4, atol=1e-7)


# Colours


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("brightness", functional.adjust_brightness),
        ("contrast", functional.adjust_contrast),
        ("saturation", functional.adjust_saturation),
    ],
)
def test_a_change_is_torchvisions(field, change):
    at = ("brightness", "contrast", "saturation").index(field)
    crops = JitteredCrops(jitter=tuple(0.3 * (place == at) for place in range(4)))
    factors = set()
    for seed in range(5):
        found = crops.recolour(picture(), np.random.default_rng(seed))
        generator = np.random.default_rng(seed)
        generator.permutation(4)
        factor = [generator.uniform(1 - one, 1 + one) for one in crops.jitter[:3]][at]
        expected = change(Image.fromarray(picture()), factor)
        assert np.array_equal(found, np.asarray(expected))
        factors.add(factor)
    assert len(factors) == 5
    assert 0.7 <= min(factors) < 1 < max(factors) <= 1.3


@pytest.mark.parametrize("turn", [-0.1, -0.03, 0.0, 0.07, 0.5])
def test_a_turn_of_the_hue_is_torchvisions(turn):
    found = turn_hue(Image.fromarray(picture()), turn)
    expected = functional.adjust_hue(Image.fromarray(picture()), turn)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_no_change_keeps_the_image_and_each_draw_has_colours_of_its_own():
    still = JitteredCrops(jitter=(0, 0, 0, 0))
    for crops in (still, Crops()):
        assert np.array_equal(crops.recolour(picture(), np.random.default_rng(0)), picture())
    colours = JitteredCrops(24, (30, 50))
    drawn = [colours.cut(picture(), np.random.default_rng(n)) for n in (3, 3, 4)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("jitter", [(0, 0, 0, 0.6), (-0.1, 0, 0, 0)])
def test_changes_out_of_range_are_refused(jitter):
    with pytest.raises(ValueError, match=r"hue lie in \[0, 0.5\], got "):
        JitteredCrops(jitter=jitter)

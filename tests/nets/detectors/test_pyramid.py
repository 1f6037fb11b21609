import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from rayseg.nets.classifier import CamClassifier
from rayseg.nets.detectors.pyramid import build_pyramid
from rayseg.nets.weights import to_safetensors
from tests.nets.detectors.tiny import apart


def built(extra="pool", first_level=2, **changed):
    settings = {"trunk": "resnet18", "channels": 8} | changed
    return build_pyramid(*apart(settings), extra, first_level)


def pyramid(**changed):
    torch.manual_seed(0)
    made = built(**changed).double().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.8, 1.5)
            nn.init.uniform_(module.weight, 0.5, 0.9)
    return made


def planes(number=3, size_hw=(64, 96)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, 3, *size_hw, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("owner", "level"),
    [
        ([0, 1, 2, 2, 0], [0, 1, 2, 3, 3]),
        ([2, 0, 2], [3, 3, 1]),
        ([1, 1], [0, 0]),
        ([0, 2], [3, 0]),
        ([2], [2]),
    ],
)
def test_asked_levels_are_those_of_the_whole_pyramid(upsample, owner, level):
    network, images = pyramid(upsample=upsample), planes()
    owner, level = torch.tensor(owner), torch.tensor(level)
    with torch.no_grad():
        whole, found = network(images), network.some(images, owner, level)
    assert set(found) == set(level.tolist())
    for place, (own, features) in found.items():
        assert own.tolist() == sorted(set(owner[level == place].tolist()))
        torch.testing.assert_close(features, whole[str(place)][own], rtol=1e-12, atol=1e-12)


def test_asked_levels_begin_at_the_first_level():
    network, images = pyramid(first_level=3), planes()
    with torch.no_grad():
        whole = network(images)
        found = network.some(images, torch.tensor([0, 1]), torch.tensor([0, 2]))
    torch.testing.assert_close(found[0][1], whole["0"][:1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2][1], whole["2"][1:2], rtol=1e-12, atol=1e-12)


def test_nobody_asks_and_nothing_is_made():
    nobody = torch.zeros(0, dtype=torch.int64)
    assert pyramid().some(planes(), nobody, nobody) == {}


@pytest.mark.parametrize(("extra", "first_level"), [("pool", 2), ("p6p7", 3)])
def test_nearest_pyramid_equals_torchvisions(extra, first_level):
    network, images = pyramid(extra=extra, upsample="nearest", first_level=first_level), planes(2)
    widths = [64, 128, 256, 512][first_level - 2 :]
    more = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(8, 8)
    other = FeaturePyramidNetwork(widths, 8, more).double()
    names = {"inner": "inner_blocks", "layer": "layer_blocks", "extra": "extra_blocks"}
    other.load_state_dict(
        {
            f"{names[key.partition('.')[0]]}.{key.partition('.')[2]}": value
            for key, value in network.state_dict().items()
            if not key.startswith("trunk")
        }
    )
    with torch.no_grad():
        stages = dict(zip("abcd", network.stages(images), strict=False))
        found, expected = network(images), other(stages)
    for one, second in zip(found.values(), expected.values(), strict=True):
        torch.testing.assert_close(one, second, rtol=1e-12, atol=1e-12)


def test_bilinear_pyramid_equals_the_sum_written_out():
    network, images = pyramid(), planes(1)
    with torch.no_grad():
        found = network(images)
        fine, coarse = network.stages(images)[2:]
        # by a kernel of (1, 3, 3, 1) / 4 over cells set apart, which is bilinear at a factor of 2
        spread = functional.pad(network.inner[3](coarse), (1, 1, 1, 1), mode="replicate")
        kernel = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 4
        kernel = (kernel[:, None] * kernel).expand(8, 1, 4, 4)
        grown = functional.conv_transpose2d(spread, kernel, stride=2, groups=8)[..., 3:-3, 3:-3]
        expected = network.layer[2](network.inner[2](fine) + grown)
    torch.testing.assert_close(found["2"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("extra", "first_level", "strides"),
    [("pool", 2, (4, 8, 16, 32, 64)), ("p6p7", 3, (8, 16, 32, 64, 128)), ("pool", 4, (16, 32, 64))],
)
def test_cells_lie_a_stride_apart(extra, first_level, strides):
    network = pyramid(extra=extra, first_level=first_level)
    assert network.strides == strides
    with torch.no_grad():
        levels = network(planes(1, (70, 90)))
    for level, stride in zip(levels.values(), strides, strict=True):
        assert level.shape == (1, 8, -(-70 // stride), -(-90 // stride))


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_move_in_training_only_where_they_are_not_frozen(frozen):
    network = built(frozen_statistics=frozen)
    assert network.training
    norm = network.trunk.stem[1]
    before = norm.running_mean.clone()
    network.train()(torch.rand(2, 3, 64, 64))["0"].sum().backward()
    assert torch.equal(norm.running_mean, before) is frozen
    assert (norm.weight.grad is None) is frozen
    assert network.trunk.stem[0].weight.grad is not None


def test_folding_keeps_the_levels_and_leaves_no_normalisation():
    network, images = pyramid(), planes()
    with torch.no_grad():
        before = network(images)
        network.fold()
        after = network(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for one, other in zip(after.values(), before.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_first_stages_of_a_trained_trunk_can_be_frozen(tmp_path):
    path = tmp_path / "classifier.safetensors"
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": ["a"]}
    path.write_bytes(to_safetensors(CamClassifier("mobilenet_v2", 1), facts))
    network = built(trunk="mobilenet_v2", weights=str(path), freeze="stage2")
    frozen = {
        name
        for name, stage in network.trunk.named_children()
        if not any(weight.requires_grad for weight in stage.parameters())
    }
    assert frozen == {"stem", "stage1", "stage2"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"trunk": "vgg16"}, "trunk must be one of mobilenet_v2, .* for a pyramid, got 'vgg16'"),
        ({"first_level": 5}, "first_level must be 2, 3 or 4, got 5"),
    ],
)
def test_what_no_pyramid_can_be_made_of_is_refused(changed, reason):
    with pytest.raises(ValueError, match=reason):
        built(**changed)

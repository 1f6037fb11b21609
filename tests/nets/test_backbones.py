import pytest
import torch
from torch import nn
from torchvision import models

from rayseg.nets import backbones
from rayseg.nets.backbones import (
    STAGES,
    STRIDES,
    TRUNKS,
    build_trunk,
    feature_channels,
    freeze_stages,
    freeze_statistics,
)

CHANNELS = {
    "mobilenet_v2": 1280,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "vgg16": 512,
}


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("name", TRUNKS)
def test_features_are_the_images_size_over_the_stride_rounded_up(name, stride):
    with torch.device("meta"):  # shapes only
        trunk = build_trunk(name, stride)
        for height, width in ((64, 64), (50, 75), (33, 97)):
            shape = trunk(torch.zeros(1, 3, height, width)).shape
            assert shape == (1, CHANNELS[name], -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("name", TRUNKS)
def test_stride_changes_no_parameter(name):
    with torch.device("meta"):
        shapes = [
            {key: value.shape for key, value in build_trunk(name, stride).state_dict().items()}
            for stride in (8, 32)
        ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", TRUNKS)
def test_children_are_a_stem_and_four_stages(name):
    with torch.device("meta"):
        trunk = build_trunk(name)
    assert tuple(dict(trunk.named_children())) == STAGES
    assert feature_channels(trunk) == CHANNELS[name]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_trunk_of_stride_32_computes_what_torchvision_does(name):
    torch.manual_seed(0)
    trunk = build_trunk(name, 32).eval()
    torch.manual_seed(0)
    whole = models.get_model(name, weights=None).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        if name == "mobilenet_v2":
            expected = whole.features(images)
        else:
            names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
            expected = nn.Sequential(*(getattr(whole, part) for part in names))(images)
        torch.testing.assert_close(trunk(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", TRUNKS)
def test_smaller_stride_adds_no_dilation(name):
    with torch.device("meta"):
        trunk = build_trunk(name, 8)
    dilations = {m.dilation for m in trunk.modules() if isinstance(m, nn.Conv2d)}
    assert dilations == {(1, 1)}


def test_unknown_trunk_stride_and_weights_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"one of mobilenet_v2, resnet18.*got 'resnet19'"):
        build_trunk("resnet19")
    with pytest.raises(ValueError, match=r"stride must be one of \(8, 16, 32\), got 4"):
        build_trunk("resnet18", 4)
    with pytest.raises(ValueError, match=r"IMAGENET1K_V1.* for resnet18, got 'IMAGENET'"):
        build_trunk("resnet18", weights="IMAGENET")


def test_torchvision_name_is_handed_to_torchvision(monkeypatch):
    asked = []
    plain = models.get_model

    def get_model(name, weights):
        asked.append((name, weights))
        return plain(name, weights=None)

    monkeypatch.setattr(backbones.models, "get_model", get_model)
    build_trunk("resnet18", weights="IMAGENET1K_V1")
    assert asked == [("resnet18", "IMAGENET1K_V1")]


def test_frozen_statistics_stay_but_scale_and_shift_train():
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    freeze_statistics(trunk)
    before = trunk[1].running_mean.clone()
    trunk(torch.rand(2, 3, 8, 8)).square().sum().backward()
    assert torch.equal(trunk[1].running_mean, before)
    assert trunk[1].weight.grad.abs().sum() > 0
    assert trunk.training


@pytest.mark.parametrize(("through", "count"), [("none", 0), ("stem", 1), ("stage2", 3)])
def test_stages_up_to_the_named_one_stop_training(through, count):
    trunk = build_trunk("resnet18")
    freeze_stages(trunk, through)
    trained = [all(p.requires_grad for p in stage.parameters()) for stage in trunk]
    assert trained == [False] * count + [True] * (5 - count)


def test_unknown_stage_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"none, stem, stage1.*got 'layer2'"):
        freeze_stages(nn.Sequential(), "layer2")

import pytest
import torch
from torch import nn
from torchvision import models

from rayseg.nets.backbones import (
    TRUNKS,
    build_trunk,
    feature_channels,
    freeze_stages,
    freeze_statistics,
    keep_depthwise_float,
    release_depthwise,
)
from rayseg.nets.trunks import STAGES

CHANNELS = {
    "mobilenet_v2": 1280,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "vgg16": 512,
    "wide_resnet38": 4096,
    "small_resnet": 128,
}
STRIDED = tuple(name for name, kind in TRUNKS.items() if len(kind.strides) > 1)
BUILT = [(name, stride) for name, kind in TRUNKS.items() for stride in kind.strides]


@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize(("name", "stride"), BUILT)
def test_features_are_the_images_size_over_the_stride_rounded_up(name, stride, dilated):
    with torch.device("meta"):  # shapes only
        trunk = build_trunk(name, stride, dilated=dilated)
        for height, width in ((64, 64), (50, 75), (33, 97)):
            shape = trunk(torch.zeros(1, 3, height, width)).shape
            assert shape == (1, CHANNELS[name], -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("name", STRIDED)
def test_neither_stride_nor_dilation_changes_a_parameter(name):
    with torch.device("meta"):
        trunks = [build_trunk(name, s, dilated=d) for s, d in ((32, False), (8, False), (8, True))]
    shapes = [{k: v.shape for k, v in trunk.state_dict().items()} for trunk in trunks]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", TRUNKS)
def test_children_are_a_stem_and_four_stages(name):
    with torch.device("meta"):
        trunk = build_trunk(name, 8)
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


@pytest.mark.parametrize("name", STRIDED)
def test_smaller_stride_adds_no_dilation(name):
    with torch.device("meta"):
        trunks = build_trunk(name, 8), build_trunk(name, 32, dilated=True)
    for trunk in trunks:
        dilations = {m.dilation for m in trunk.modules() if isinstance(m, nn.Conv2d)}
        assert dilations == {(1, 1)}


@pytest.mark.parametrize(
    ("name", "stride", "expected"),
    [
        ("resnet50", 8, (1, 1, 1, 2, 4)),
        ("resnet50", 16, (1, 1, 1, 1, 2)),
        ("mobilenet_v2", 8, (1, 1, 1, 2, 4)),
        ("mobilenet_v2", 16, (1, 1, 1, 1, 2)),
        ("vgg16", 8, (1, 1, 1, 1, 2)),  # conv5; the last pool has no convolution after it
        ("vgg16", 16, (1, 1, 1, 1, 1)),
    ],
)
def test_every_spatial_convolution_after_a_dropped_stride_is_dilated(name, stride, expected):
    with torch.device("meta"):
        trunk = build_trunk(name, stride, dilated=True)
    for stage, dilation in zip(trunk, expected, strict=True):
        convolutions = [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
        spatial = {m.dilation for m in convolutions if m.kernel_size != (1, 1)}
        assert spatial == {(dilation, dilation)}


def drawn(name, stride, dilated=False):
    """A float64 trunk with random weights and statistics, the same for every stride."""
    with torch.device("meta"):
        trunk = build_trunk(name, stride, dilated=dilated)
    generator = torch.Generator().manual_seed(0)
    trunk.double().to_empty(device="cpu")
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.data.uniform_(-1, 1, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.uniform_(-0.5, 0.5, generator=generator)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return trunk


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vgg16"])
def test_dilated_stage_computes_what_the_plain_one_does_on_every_second_cell(name):
    plain, dilated = drawn(name, 8), drawn(name, 8, dilated=True)
    thinned = ("stage4",) if name == "vgg16" else ("stage3", "stage4")
    apart = 2 ** len(thinned)
    features = torch.rand(1, 3, 40, 56).double()
    with torch.no_grad():
        found = dilated.eval()(features)[:, :, ::apart, ::apart]
        for stage, module in plain.double().eval().named_children():
            if stage in thinned:
                features = features[:, :, ::2, ::2]
            features = module(features)
    assert found.shape[2:] == ((3, 4) if name == "vgg16" else (2, 2))
    torch.testing.assert_close(found, features, rtol=1e-9, atol=1e-12)


def test_dilated_resnet50_is_the_strided_one_of_caffe_at_every_fourth_cell():
    strided, dilated = drawn("resnet50", 32), drawn("resnet50", 8, dilated=True)
    for block in (strided.stage3[0], strided.stage4[0]):  # Caffe's stride is in the first 1x1
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    images = torch.rand(1, 3, 72, 104).double()
    with torch.no_grad():
        found = dilated.eval()(images)[:, :, ::4, ::4]
        expected = strided.eval()(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_dilated_trunk_is_the_strided_one_where_the_striding_convolution_keeps_its_reach(name):
    strided, dilated = drawn(name, 32), drawn(name, 8, dilated=True)
    for stage, dilation in (("stage3", 1), ("stage4", 2)):
        block = dilated.get_submodule(stage)[0]
        carried = block.conv1 if name == "resnet18" else block.conv[1][0]
        carried.dilation = carried.padding = (dilation, dilation)
    images = torch.rand(1, 3, 96, 128).double()
    with torch.no_grad():
        found = dilated.eval()(images)[:, :, ::4, ::4]
        expected = strided.eval()(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_unknown_trunk_stride_and_weights_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"one of mobilenet_v2, resnet18.*got 'resnet19'"):
        build_trunk("resnet19")
    with pytest.raises(ValueError, match=r"stride must be 8 or 16 or 32 for trunk resnet18, got 4"):
        build_trunk("resnet18", 4)
    with pytest.raises(ValueError, match=r"IMAGENET1K_V1.* for resnet18, got 'IMAGENET'"):
        build_trunk("resnet18", weights="IMAGENET")


def test_torchvision_name_is_handed_to_torchvision(monkeypatch):
    asked = []
    plain = models.get_model

    def get_model(name, weights):
        asked.append((name, weights))
        return plain(name, weights=None)

    monkeypatch.setattr(models, "get_model", get_model)
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


def test_depthwise_convolutions_stay_in_float32_under_autocast_and_are_released_again():
    torch.manual_seed(0)
    trunk = build_trunk("mobilenet_v2", 16)
    names = list(trunk.state_dict())
    depthwise = trunk.stage2[0].conv[1][0]
    inputs = torch.randn(1, depthwise.in_channels, 9, 9)
    expected = depthwise(inputs)
    keep_depthwise_float(trunk)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(depthwise(inputs), expected)
    release_depthwise(trunk)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise(inputs).dtype == torch.bfloat16
    assert list(trunk.state_dict()) == names

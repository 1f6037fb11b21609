from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import nn

from rayseg.attribution.classes.lean import LeanNetwork
from rayseg.nets.backbones import TRUNKS, build_trunk, feature_channels
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.trunks import STAGES
from rayseg.nets.wide_resnet38 import WideResNet38
from tests.reference import wide_resnet38_literal as literal


def shake(network):
    """Gives every normalisation statistics, scale and shift of its own."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, least in (
                (module.running_mean, -0.3), (module.running_var, 0.5),
                (module.weight.data, 0.5), (module.bias.data, -0.3),
            ):  # fmt: skip
                spread = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(least + spread)
    return network


@pytest.fixture
def tiny(monkeypatch):
    """Trunks of a thirty-second of the width."""
    kind = replace(TRUNKS["wide_resnet38"], publish=lambda weights: WideResNet38(divisor=32))
    monkeypatch.setitem(TRUNKS, "wide_resnet38", kind)
    torch.manual_seed(0)


def test_features_equal_the_table_read_row_by_row():
    torch.manual_seed(0)
    network = shake(WideResNet38(divisor=32).double()).eval()
    images = torch.rand(2, 3, 41, 58, dtype=torch.float64)
    with torch.no_grad():
        found = network(images)
    expected = literal.features(network.state_dict(), images)
    assert found.shape == (2, 128, 6, 8)
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_cut_trunk_computes_what_the_whole_network_does(tiny):
    trunk = build_trunk("wide_resnet38", 8).eval()
    torch.manual_seed(0)
    whole = WideResNet38(divisor=32).eval()
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images), whole(images), rtol=0, atol=0)
    assert tuple(dict(trunk.named_children())) == STAGES
    assert [next(iter(dict(stage.named_children()))) for stage in trunk] == [
        "conv1a", "b2", "b3", "b4", "b5",
    ]  # fmt: skip


def test_full_width_is_the_published_networks():
    with torch.device("meta"):
        network = WideResNet38()
        trunk = build_trunk("wide_resnet38", 8)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes["conv1a.weight"] == (64, 3, 3, 3)
    assert shapes["b2.conv_branch1.weight"] == (128, 64, 1, 1)
    assert shapes["b4_5.conv_branch2b1.weight"] == (512, 512, 3, 3)
    assert shapes["b5_2.conv_branch2a.weight"] == (512, 1024, 3, 3)
    assert shapes["b6.conv_branch2b1.weight"] == (1024, 512, 3, 3)
    assert shapes["b7.conv_branch2b2.weight"] == (4096, 2048, 1, 1)
    assert shapes["bn7.running_var"] == (4096,)
    assert sum("conv" in key for key in shapes) == 1 + (15 * 2 + 4) + 2 * 4
    assert feature_channels(trunk) == 4096


def test_dropout_falls_on_whole_channels_of_the_bottlenecks_only():
    rates = {n: m.p for n, m in WideResNet38(32).named_modules() if isinstance(m, nn.Dropout2d)}
    assert rates == {
        "b6.dropout_2b1": 0.3, "b6.dropout_2b2": 0.3,
        "b7.dropout_2b1": 0.5, "b7.dropout_2b2": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("heads", [(), ("fc8.weight",), ("fc8.weight", "f8_3.weight", "f9.weight")])
def test_weights_with_the_published_key_names_load(tiny, tmp_path, suffix, heads):
    network = shake(WideResNet38(divisor=32))
    tensors = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    assert {"b2.conv_branch2a.weight", "b4_5.bn_branch2b1.running_mean", "bn7.bias"} <= set(tensors)
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save({**tensors, **{key: torch.rand(20, 128, 1, 1) for key in heads}}, path)
    trunk = build_trunk("wide_resnet38", 8, str(path))
    for key, value in trunk.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, tensors[key.split(".", 1)[1]])


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"layer1.weight": torch.rand(1)}, path)
    with pytest.raises(ValueError, match=r"weights\.pth holds the weights of another network"):
        build_trunk("wide_resnet38", 8, str(path))


@pytest.mark.parametrize("stride", [16, 32])
def test_other_strides_are_refused_with_both_sides(stride):
    with pytest.raises(ValueError, match=f"stride must be 8 for trunk wide_resnet38, got {stride}"):
        build_trunk("wide_resnet38", stride)


def test_name_of_a_weight_set_is_refused_since_a_path_is_needed():
    reason = r"must be none or a \.pth or \.safetensors path for wide_resnet38, got 'IMAGENET1K_V1'"
    with pytest.raises(ValueError, match=reason):
        build_trunk("wide_resnet38", 8, "IMAGENET1K_V1")


def test_dilated_trunk_is_the_same_network(tiny):
    plain, dilated = (build_trunk("wide_resnet38", 8, dilated=d) for d in (False, True))
    places = [
        [(n, m.dilation) for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d)]
        for trunk in (plain, dilated)
    ]
    assert places[0] == places[1]


def test_folded_classifier_sees_the_same_features_and_logits(tiny):
    classifier = shake(CamClassifier("wide_resnet38", 3, stride=8)).eval()
    lean = LeanNetwork(classifier, "fp32")
    count = [
        sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        for network in (classifier, lean)
    ]
    assert count[1] < count[0]
    images = torch.rand(1, 3, 45, 50)
    with torch.no_grad():
        features = classifier.features(images)
        assert features.std() > 0.1
        torch.testing.assert_close(lean.features(images), features, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            lean.classify(features), classifier(images), rtol=1e-4, atol=1e-5
        )


def test_classifier_trains_with_frozen_statistics(tiny):
    classifier = CamClassifier("wide_resnet38", 3, stride=8).train()
    before = classifier.trunk.stage4.bn7.running_mean.clone()
    classifier(torch.rand(2, 3, 32, 32)).sum().backward()
    assert torch.equal(classifier.trunk.stage4.bn7.running_mean, before)
    assert all(p.grad is not None for p in classifier.parameters())

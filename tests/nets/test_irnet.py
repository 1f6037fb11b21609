"""IRNet and AffinityNet: grids, branches, what trains, and what their files say."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from rayseg.nets.affinity import AffinityNet, affinity_facts, load_affinity
from rayseg.nets.backbones import TRUNKS
from rayseg.nets.irnet import IRNet, irnet_facts, load_irnet
from rayseg.nets.taps import Tap, measure
from rayseg.nets.weights import to_safetensors
from rayseg.nets.wide_resnet38 import WideResNet38
from tests.nets.test_wide_resnet38 import shake
from tests.reference import wide_resnet38_literal


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Wide-ResNet-38 of a thirty-second of the width."""
    kind = replace(TRUNKS["wide_resnet38"], publish=lambda weights: WideResNet38(divisor=32))
    monkeypatch.setitem(TRUNKS, "wide_resnet38", kind)
    torch.manual_seed(0)


def pictures(height, width, number=2):
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("trunk", "stride"),
    [("resnet18", 16), ("resnet18", 32), ("mobilenet_v2", 16), ("vgg16", 8), ("wide_resnet38", 8)],
)
def test_outputs_cover_images_of_any_size_over_any_trunk(trunk, stride):
    irnet, affinity = IRNet(trunk, stride).eval(), AffinityNet(trunk, stride).eval()
    for size in ((64, 64), (37, 61), (5, 3)):
        edges, displacements = irnet(pictures(*size))
        assert edges.shape == (2, 1, *((side + 3) // 4 for side in size))
        assert displacements.shape == (2, 2, *edges.shape[2:])
        features = affinity(pictures(*size))
        assert features.shape == (2, 448, *((side + 7) // 8 for side in size))
        assert all(bool(one.isfinite().all()) for one in (edges, displacements, features))


def _branch(state, name, features, groups, factor=1):
    mixed = functional.conv2d(features, state[f"{name}.conv.weight"])
    mixed = functional.group_norm(
        mixed, groups, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
    )
    if factor > 1:
        mixed = functional.interpolate(
            mixed, scale_factor=factor, mode="bilinear", align_corners=False
        )
    return torch.relu(mixed)


def test_branches_are_irns_layer_by_layer():
    """On a residual network at stride 16, whose stages lie on grids of 4, 4, 8, 16 and 16."""
    network = IRNet("resnet18").double().eval()
    network.mean_displacement.copy_(torch.tensor([0.5, -2.0]))
    images = pictures(64, 96).double()
    stages, features = [], images
    for stage in network.trunk:
        features = stage(features)
        stages.append(features)
    state = network.state_dict()
    edge = [
        _branch(state, f"edge.branches.{k}", stages[k], 4, factor)
        for k, factor in enumerate((1, 1, 2, 4, 4))
    ]
    edges = functional.conv2d(
        torch.cat(edge, 1), state["edge.last.weight"], state["edge.last.bias"]
    )
    own = [
        _branch(state, f"displacement_head.branches.{k}", stages[k], groups, factor)
        for k, (groups, factor) in enumerate(((8, 1), (16, 1), (16, 1), (16, 2), (16, 2)))
    ]
    inner = _branch(state, "displacement_head.inner", torch.cat(own[2:], 1), 16, 2)
    joined = _branch(state, "displacement_head.joined", torch.cat([*own[:2], inner], 1), 16)
    fields = functional.conv2d(joined, state["displacement_head.last.weight"])
    found = network(images)
    assert torch.allclose(found[0], edges, atol=1e-12)
    assert torch.allclose(found[1], fields - torch.tensor([0.5, -2.0])[:, None, None], atol=1e-12)
    assert torch.equal(network.edges(images), found[0])
    assert torch.allclose(network.train()(images)[1], fields, atol=1e-12)  # not shifted


def test_irnets_trunk_neither_trains_nor_changes():
    network = IRNet("mobilenet_v2").train()
    before = {name: value.clone() for name, value in network.trunk.state_dict().items()}
    edges, displacements = network(pictures(64, 64))
    (edges.sum() + displacements.square().sum()).backward()
    assert all(torch.equal(before[name], one) for name, one in network.trunk.state_dict().items())
    parameters = list(network.named_parameters())
    trained = {name.partition(".")[0] for name, one in parameters if one.grad is not None}
    asked = {name.partition(".")[0] for name, one in parameters if one.requires_grad}
    assert trained == asked == {"edge", "displacement_head"}


def test_affinities_of_wide_resnet38_look_where_psa_looks():
    """Before the blocks b5 and b6, normalised and rectified, and at the end."""
    network = AffinityNet("wide_resnet38").double().eval()
    shake(network)
    images = pictures(40, 56).double()
    whole = {
        key.partition(".")[2].partition(".")[2]: value
        for key, value in network.state_dict().items()
        if key.startswith("trunk.")
    }
    taken = {}

    def keep(module, given, output):
        taken.setdefault(module, output.clone())

    for name in ("stage4.b5.relu", "stage4.b6.relu"):  # called first on what goes into the block
        network.trunk.get_submodule(name).register_forward_hook(keep)
    found = network(images)
    taps = [*taken.values(), wide_resnet38_literal.features(whole, images)]
    mixed = [
        functional.elu(functional.conv2d(tap, convolution.weight))
        for tap, convolution in zip(taps, network.tap_head, strict=True)
    ]
    assert [one.shape[1] for one in mixed] == [64, 128, 256]
    expected = functional.elu(functional.conv2d(torch.cat(mixed, 1), network.head.weight))
    assert torch.allclose(found, expected, atol=1e-10)


def test_a_trunk_is_measured_and_left_as_it_was():
    trunk = IRNet("mobilenet_v2").trunk.train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    assert measure(trunk)[0] == Tap(16, 2)
    assert trunk.training
    assert all(module.training for module in trunk.modules())
    assert all(torch.equal(before[name], one) for name, one in trunk.state_dict().items())
    assert not any(module._forward_pre_hooks for module in trunk.modules())


@pytest.mark.parametrize("kind", ["irnet", "affinity"])
def test_a_file_gives_the_network_again(kind, tmp_path):
    made, facts, load = {
        "irnet": (IRNet, irnet_facts, load_irnet),
        "affinity": (AffinityNet, affinity_facts, load_affinity),
    }[kind]
    network = made("resnet18", 8)
    for parameter in network.buffers():
        if parameter.is_floating_point():
            nn.init.uniform_(parameter, 0.5, 1.5)
    path = tmp_path / f"{kind}.safetensors"
    path.write_bytes(to_safetensors(network, facts(network, ["cat", "dog"])))
    again = load(str(path), ["cat", "dog"])
    assert not again.training
    for one, other in zip(again(pictures(32, 48)), network.eval()(pictures(32, 48)), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="was trained on 2 classes"):
        load(str(path), ["cat"])

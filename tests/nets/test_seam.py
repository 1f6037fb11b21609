"""SEAM's network against its literal second implementation."""

from dataclasses import replace

import pytest
import torch

from rayseg.nets import seam
from rayseg.nets.backbones import TRUNKS, build_trunk
from rayseg.nets.seam import SeamClassifier, correlate, load_seam, strongest_planes
from rayseg.nets.weights import to_safetensors
from rayseg.nets.wide_resnet38 import WideResNet38
from tests.nets.test_wide_resnet38 import shake
from tests.reference import seam_literal as literal
from tests.reference import wide_resnet38_literal


@pytest.fixture
def narrow(monkeypatch):
    """Wide-ResNet-38 of a thirty-second of the width."""
    kind = replace(TRUNKS["wide_resnet38"], publish=lambda weights: WideResNet38(divisor=32))
    monkeypatch.setitem(TRUNKS, "wide_resnet38", kind)


@pytest.fixture
def network(narrow):
    torch.manual_seed(0)
    return shake(SeamClassifier("wide_resnet38", 3).double()).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 37, 45, dtype=torch.float64, generator=torch.manual_seed(1))


def test_a_look_is_the_literal_one(network, images):
    maps, refined = network.look(images)
    for one, other, image in zip(maps, refined, images, strict=True):
        wanted, fine = literal.enlarged_look(network, image)
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other, fine, rtol=1e-9, atol=1e-12)


def test_levels_are_what_b5_and_b6_are_given_once_it_is_rectified(network, images, monkeypatch):
    rectified, plain = {}, torch.maximum
    # the literal network rectifies by a maximum, in the order of its table
    monkeypatch.setattr(
        torch, "maximum", lambda *of: rectified.setdefault(len(rectified), plain(*of))
    )
    state = {name.partition(".")[2]: one for name, one in network.trunk.state_dict().items()}
    last = wide_resnet38_literal.features(state, images)
    low, middle, features = network.levels(images)
    # 12 blocks of two before b5, then 3 of two
    torch.testing.assert_close(low, rectified[24], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(middle, rectified[30], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(features, last, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("trunk", ["mobilenet_v2", "resnet18", "vgg16"])
@pytest.mark.parametrize("stride", [8, 16])
def test_any_trunk_has_levels_and_its_features_last(trunk, stride):
    whole = build_trunk(trunk, stride).eval()
    images = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        low, middle, features = TRUNKS[trunk].levels(whole, images)
        torch.testing.assert_close(features, whole(images), rtol=0, atol=0)
        network = SeamClassifier(trunk, 2, stride).eval()
        maps, refined = network.look(images)
    assert low.shape[2] >= middle.shape[2] >= features.shape[2]
    assert (maps.shape, refined.shape) == ((1, 2, 40, 56), (1, 3, 40, 56))
    assert network.correlation_head.low.in_channels == low.shape[1]
    assert network.correlation_head.middle.in_channels == middle.shape[1]


def test_neither_maps_nor_trunk_learn_from_what_is_refined(network, images):
    _, refined = network.look(images)
    (refined**2).sum().backward()
    trained = {name for name, one in network.named_parameters() if one.grad is not None}
    assert trained == {f"correlation_head.{part}.weight" for part in ("low", "middle", "joined")}


def test_planes_are_the_literal_ones():
    maps = torch.randn(2, 4, 5, 6, dtype=torch.float64, generator=torch.manual_seed(2))
    maps[:, 3] = -1  # a class that is nowhere
    for found, own in zip(strongest_planes(maps), maps, strict=True):
        torch.testing.assert_close(found, literal.background_and_strongest(own))


def test_blocks_of_columns_do_not_matter(monkeypatch):
    generator = torch.manual_seed(3)
    planes = torch.rand(2, 3, 35, dtype=torch.float64, generator=generator)
    vectors = torch.randn(2, 8, 35, dtype=torch.float64, generator=generator)
    whole = correlate(planes, vectors)
    monkeypatch.setattr(seam, "BLOCK_NUMBERS", 2 * 35 * 4)
    torch.testing.assert_close(correlate(planes, vectors), whole, rtol=1e-12, atol=1e-14)
    for found, *given in zip(whole, planes, vectors, strict=True):
        torch.testing.assert_close(found, literal.correlate(*given), rtol=1e-12, atol=1e-14)


def test_memory_of_a_large_map_is_bounded(monkeypatch):
    """A map of 94x125 cells has 138 million affinities; no more are there than a block has."""
    sizes = []
    matmul = torch.Tensor.__matmul__

    def counted(self, other):
        made = matmul(self, other)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(torch.Tensor, "__matmul__", counted)
    correlate(torch.rand(1, 1, 94 * 125), torch.rand(1, 4, 94 * 125))
    assert max(sizes) <= seam.BLOCK_NUMBERS


def test_a_constant_image_is_refined_to_a_constant(network):
    maps = torch.rand(1, 3, 5, 5, dtype=torch.float64)
    low, middle = torch.zeros(1, 16, 5, 5).double(), torch.zeros(1, 32, 5, 5).double()
    planes = strongest_planes(maps)
    blank = torch.ones(1, 3, 40, 40, dtype=torch.float64)
    refined = network.correlation_head(planes, blank, low, middle)
    means = planes.mean((2, 3), keepdim=True).expand_as(planes)
    torch.testing.assert_close(refined, means, rtol=1e-5, atol=1e-6)


def test_workers_leave_out_together_what_one_leaves_out(network):
    network.train()
    features = torch.ones(4, 6, 2, 2, dtype=torch.float64)
    network.reseed(0, 7)
    whole = [network._thinned(features, place) for place in (0, 1)]
    assert set(whole[0].unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(*whole)
    for rank in (0, 1):
        network.reseed(0, 7, rank, 2)
        for place in (0, 1):
            assert torch.equal(network._thinned(features[:2], place), whole[place][rank::2])
    network.reseed(0, 8)
    assert not torch.equal(network._thinned(features, 0), whole[0])


def test_in_eval_mode_nothing_is_left_out(network, images):
    features = network.features(images)
    assert network._thinned(features, 0) is features
    torch.testing.assert_close(network(images), network.classify(features), rtol=0, atol=0)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "seam.safetensors"
    facts = {"network": "seam", "trunk": "resnet18", "stride": 16, "classes": ["a", "b"]}
    made = SeamClassifier("resnet18", 2, 16)
    path.write_bytes(to_safetensors(made, facts))
    loaded = load_seam(str(path), ["a", "b"])
    assert not loaded.training
    assert torch.equal(loaded.correlation_head.joined.weight, made.correlation_head.joined.weight)
    path.write_bytes(to_safetensors(made, facts | {"network": "classifier"}))
    with pytest.raises(ValueError, match="holds a classifier, not a seam"):
        load_seam(str(path))

import pickle
from dataclasses import replace

import pytest
import torch

from rayseg.attribution import RIB, Companions
from rayseg.attribution.classes.adaptable import AdaptableNetwork
from rayseg.nets.classifier import CamClassifier

CPU = torch.device("cpu")


@pytest.fixture
def make_bank():
    def make(count=19, num_classes=3, side=32):
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (count, side, side, 3), generator=generator).byte()
        boxes = torch.tensor([[0, 2, side, side - 4]] * count)
        tags = torch.eye(num_classes, dtype=torch.bool)[torch.arange(count) % num_classes]
        return Companions(tuple(map(str, range(count))), pixels, boxes, tags)

    return make


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 3, 48, 40, generator=generator, dtype=torch.float64)


@pytest.fixture(params=["tiny", "mobilenet_v2", "resnet18"])
def double(request, network):
    """Networks in float64, untrained ones with statistics and affine parts worth folding."""
    if request.param == "tiny":
        return network.double()
    torch.manual_seed(0)
    classifier = CamClassifier(request.param, 3, 16)
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.6, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    return classifier.double().eval()


def trained(network):
    """What trains, of a plain network: stages after the third, and the head, in that order."""
    last = [weight for stage in list(network.trunk)[3:] for weight in stage.parameters()]
    return [*last, network.head.weight]


def adaptable(network, **fields):
    return AdaptableNetwork(network, "fp32", **fields)


def loss_of(maps):
    return (maps * torch.linspace(-1, 2, maps.numel(), dtype=maps.dtype).view_as(maps)).sum()


def descend(prepared, inputs):
    loss_of(prepared.raw_maps(prepared.first_features(inputs), slice(None))).backward()


def test_features_maps_and_logits_are_the_networks(double, inputs):
    prepared = adaptable(double)
    with torch.no_grad():
        features = double.features(inputs)
        torch.testing.assert_close(prepared.features(inputs), features, rtol=1e-9, atol=1e-9)
        maps = prepared.raw_maps(prepared.first_features(inputs), [2, 0])
        expected = double.head(features)[:, [2, 0]]
        torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-9)
        logits = prepared.classify(prepared.features(inputs))
        torch.testing.assert_close(logits, double(inputs), rtol=1e-9, atol=1e-9)


def test_gradients_are_the_plain_networks(double, inputs):
    prepared = adaptable(double)
    descend(prepared, inputs)
    loss_of(double.head(double.features(inputs))).backward()
    expected = torch.cat([weight.grad.flatten() for weight in trained(double)])
    found = torch.cat([weight.grad.flatten() for weight in trained(prepared.classifier)])
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 1e-4, 0.9])
def test_steps_are_those_of_torchs_optimiser(network, inputs, decay, momentum):
    prepared = adaptable(network.double())
    *last, head = trained(network)
    groups = [{"params": last, "lr": 1.0}, {"params": [head], "lr": 1.0}]
    optimiser = torch.optim.SGD(groups, momentum=momentum, weight_decay=decay)
    with prepared.adapting():
        for rate in (1e-3, 5e-4, 2e-4):
            for group, factor in zip(optimiser.param_groups, (1, 7), strict=True):
                group["lr"] = rate * factor
            descend(prepared, inputs)
            prepared.step(rate, 7.0, decay, momentum)
            optimiser.zero_grad()
            loss_of(network.head(network.features(inputs))).backward()
            optimiser.step()
        for found, expected in zip(trained(prepared.classifier), trained(network), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_second_image_has_no_momentum_of_the_first(network, inputs):
    prepared = adaptable(network.double())
    reached = []
    for _ in range(2):
        with prepared.adapting():
            for _ in range(2):
                descend(prepared, inputs)
                prepared.step(1e-3, 10.0, 0.0, 0.9)
            reached.append(prepared.moving.clone())
    assert torch.equal(*reached)
    assert not torch.equal(reached[0], prepared.moving)


def test_gradient_left_over_is_not_added_to_the_next_images(network, inputs):
    prepared = adaptable(network.double())
    with prepared.adapting():
        descend(prepared, inputs)
    with prepared.adapting():
        assert prepared.gradient.abs().max() == 0


def test_weights_that_train_are_the_classifiers_of_the_moment(network, inputs):
    prepared = adaptable(network.double())
    with prepared.adapting():
        descend(prepared, inputs)
        prepared.step(1e-3, 10.0, 0.0, 0.0)
        torch.testing.assert_close(
            prepared.classifier.features(inputs), prepared.features(inputs), rtol=1e-9, atol=1e-9
        )
        assert torch.equal(prepared.weight, prepared.classifier.head.weight.flatten(1))
        for weight, given in zip(trained(prepared.classifier), trained(network), strict=True):
            assert not torch.equal(weight, given)
        stages = prepared.classifier.trunk[:3], network.trunk[:3]
        for weight, given in zip(*(stage.parameters() for stage in stages), strict=True):
            assert torch.equal(weight, given)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_weights_are_put_back_bit_for_bit_whatever_happened(network, inputs, error):
    prepared = adaptable(network.double())
    before = prepared.moving.clone()
    try:
        with prepared.adapting():
            descend(prepared, inputs)
            prepared.step(float("inf"), 10.0, 0.0, 0.0)
            assert not torch.isfinite(prepared.moving).all()
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert torch.equal(prepared.moving, before)
    for found, given in zip(trained(prepared.classifier), trained(network), strict=True):
        assert torch.equal(found, given)


def test_moving_weights_are_all_that_train(double):
    prepared = adaptable(double)
    assert len(prepared.moving) == sum(weight.numel() for weight in trained(double))
    needing = [weight for weight in prepared.parameters() if weight.requires_grad]
    assert {id(weight) for weight in needing} == {
        id(weight) for weight in trained(prepared.classifier)
    }


def test_given_network_stays_as_it_was(network, inputs):
    network.double().train()
    network.head.weight.grad = torch.ones_like(network.head.weight)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    prepared = adaptable(network)
    with prepared.adapting():
        descend(prepared, inputs)
        prepared.step(1e-3, 10.0, 0.0, 0.0)
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[key])
    assert torch.equal(network.head.weight.grad, torch.ones_like(network.head.weight))
    assert network.training


@pytest.mark.parametrize("cache_gb", [0.0, 1e-4, 2.0])
def test_companions_features_are_those_of_their_crops_whatever_is_cached(
    network, make_bank, cache_gb
):
    bank = make_bank()
    prepared = adaptable(network.double(), companions=bank, cache_gb=cache_gb)
    for indices in ([0, 17, 3], [18, 1], [17, 0, 9, 9]):
        found = prepared.companion_features(torch.tensor(indices))
        expected = prepared.first_features(bank.images(torch.tensor(indices), CPU))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_companions_features_are_computed_once_while_they_fit(network, make_bank, monkeypatch):
    prepared = adaptable(network, companions=make_bank())
    everything = torch.arange(len(prepared.companions))
    first = prepared.companion_features(everything)
    monkeypatch.setattr(prepared, "first_features", None)
    assert torch.equal(prepared.companion_features(everything), first)


def test_cache_holds_no_more_than_its_memory(network, make_bank):
    bank = make_bank(40)
    crop = adaptable(network, companions=bank).companion_features(torch.tensor([0])).nbytes
    room = 2.40 * crop / 2**30
    prepared = adaptable(network, companions=bank, cache_gb=room)
    for i in range(len(bank)):
        prepared.companion_features(torch.tensor([i]))
        assert sum(part.nbytes for part in prepared._cache.values()) <= room * 2**30


def test_copy_by_pickle_computes_the_same_and_holds_the_bank(network, make_bank, inputs):
    prepared = adaptable(network.double(), companions=make_bank())
    other = pickle.loads(pickle.dumps(prepared))
    assert torch.equal(other.features(inputs), prepared.features(inputs))
    assert torch.equal(other.moving, prepared.moving)
    assert torch.equal(other.companions.pixels, prepared.companions.pixels)


def test_rows_of_a_group_are_as_many_as_fit(network, inputs):
    prepared = adaptable(network.double())
    features = prepared.first_features(inputs)
    assert [len(part) for part in prepared.groups(features, 1e-12)] == [1, 1, 1]
    assert [len(part) for part in prepared.groups(features, 100.0)] == [3]


def graph_bytes(prepared, features):
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        maps = prepared.last_features(features)
    del maps
    return sum(kept.values())


def test_memory_of_a_row_is_what_a_further_row_adds_to_the_graph(network):
    prepared = adaptable(network.double())
    features = prepared.first_features(torch.randn(12, 3, 96, 96, dtype=torch.float64))
    few, more = (graph_bytes(prepared, features[:count]) for count in (2, 4))
    row_gb = (more - few) / 2 / 2**30
    for rows in (1, 5):
        found = len(prepared.groups(features, (rows + 0.5) * row_gb)[0])
        assert 0.6 * rows <= found <= 1.5 * rows


def test_bf16_computes_in_bf16_and_moves_float32_weights(network, inputs):
    prepared = AdaptableNetwork(network, "bf16")
    images = inputs.float()
    first = prepared.first_features(images)
    assert first.dtype == torch.bfloat16
    features = prepared.last_features(first)
    assert features.dtype == prepared.moving.dtype == prepared.gradient.dtype == torch.float32
    expected = network.features(images)
    assert (features - expected).abs().max() < 0.05 * expected.abs().max()


def test_prepared_network_is_used_as_it_is(network):
    method = replace(RIB.official(), num_companions=0)
    prepared = method.prepare(network)
    assert method.prepare(prepared) is prepared


def test_trunk_of_too_few_stages_is_refused(network):
    network.trunk = network.trunk[:3]
    with pytest.raises(ValueError, match="trunk must have more than 3 stages, got 3"):
        adaptable(network)


def test_companions_of_other_classes_are_refused(network, make_bank):
    with pytest.raises(ValueError, match="must be tagged with 3 classes, got 20"):
        adaptable(network, companions=make_bank(num_classes=20))


def test_head_of_other_windows_is_refused(network):
    network.head = torch.nn.Conv2d(24, 3, 3, bias=False)
    with pytest.raises(ValueError, match="head must be 1x1, got 3x3"):
        adaptable(network)

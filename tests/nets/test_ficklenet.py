"""FickleNet's head against a loop over window positions and against expansion, in float64."""

import pytest
import torch

from rayseg.nets.backbones import build_trunk
from rayseg.nets.classifier import CamClassifier, load_classifier
from rayseg.nets.ficklenet import (
    FickleClassifier,
    closed_logits,
    draw_selection,
    expanded_logits,
    fickle_facts,
    inside,
    load_ficklenet,
)
from rayseg.nets.weights import to_safetensors
from tests.reference import ficklenet_literal as literal

CLASSES = ["cat", "dog"]
FORMS = {"closed": closed_logits, "expanded": expanded_logits}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FickleClassifier("resnet18", 2, 16, kernel=3, drop_rate=0.6)


def problem(side, size_hw, generator, dtype):
    """Features, kernel and selections of two images."""
    features = torch.randn(2, 4, *size_hw, generator=generator, dtype=dtype)
    kernel = torch.randn(3, 4, side, side, generator=generator, dtype=dtype)
    selection = draw_selection(side, 0.5, 2, *size_hw, generator)
    return features.requires_grad_(), kernel.requires_grad_(), selection


@torch.no_grad()
def largest_share(found, expected):
    """The largest difference, of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("side", "size_hw"), [(3, (4, 5)), (5, (3, 7)), (1, (2, 3)), (9, (4, 3))])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_logits_and_gradients_are_those_of_the_loop(form, side, size_hw, dtype, within, generator):
    features, kernel, selection = problem(side, size_hw, generator, dtype)
    given = selection.to(dtype) if form == "closed" else selection
    found = FORMS[form](features, kernel, given)
    expected = torch.stack(
        [
            literal.logits_by_position(one, kernel, literal.windows_of(own, side))
            for one, own in zip(features, selection, strict=True)
        ]
    )
    assert largest_share(found, expected) < within
    towards = torch.randn(found.shape, generator=generator, dtype=dtype)
    ours, theirs = (
        torch.autograd.grad((logits * towards).sum(), (features, kernel))
        for logits in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert largest_share(one, other) < within


def test_literal_expansion_is_the_literal_loop(generator):
    features, kernel, selection = problem(5, (4, 6), generator, torch.float64)
    windows = literal.windows_of(selection[0], 5)
    torch.testing.assert_close(
        literal.logits_by_expansion(features[0], kernel, windows),
        literal.logits_by_position(features[0], kernel, windows),
        rtol=1e-12,
        atol=1e-12,
    )


def test_without_dropping_it_is_the_heads_convolution(generator):
    features, kernel, _ = problem(5, (4, 6), generator, torch.float64)
    everything = draw_selection(5, 0.0, 2, 4, 6, generator).double()
    plain = torch.nn.functional.conv2d(features, kernel, padding=2).mean((2, 3))
    found = closed_logits(features, kernel, everything)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_inside_is_where_the_window_lies_on_the_map():
    found = inside(5, 3, 4).view(5, 5, 3, 4)
    for row, column, y, x in torch.cartesian_prod(*map(torch.arange, (5, 5, 3, 4))).tolist():
        position = y - (row - 2), x - (column - 2)
        assert found[row, column, y, x] == (0 <= position[0] < 3 and 0 <= position[1] < 4)


def test_selection_keeps_the_centre_and_the_rest_by_chance(generator):
    selection = draw_selection(3, 0.8, 20, 30, 30, generator)
    assert selection[:, 4].all()
    others = selection[:, [0, 1, 2, 3, 5, 6, 7, 8]][:, :, 1:-1, 1:-1]
    # 125,440 draws of chance 0.2 deviate by 0.0011
    assert others.float().mean() == pytest.approx(0.2, abs=0.006)


def test_places_windows_and_images_are_selected_independently(generator):
    selection = draw_selection(3, 0.5, 2, 40, 40, generator)[:, :, 1:-1, 1:-1].float() - 0.5
    places = selection[:, [0, 1, 2, 3, 5, 6, 7, 8]].transpose(0, 1).flatten(1)
    related = torch.corrcoef(places) - torch.eye(8)
    assert related.abs().max() < 0.1
    assert torch.corrcoef(selection[:, 0].flatten(1))[0, 1].abs() < 0.1


@pytest.mark.parametrize("drop_rate", [0.0, 0.6])
def test_eval_mode_is_the_mean_over_all_selections(network, drop_rate):
    network.drop_rate = drop_rate
    features = torch.randn(1, 512, 3, 4)
    with torch.no_grad():
        expected = network.eval().classify(features)
        network.train()
        draws = torch.cat([network.classify(features) for _ in range(400)])
    error = draws.std(0) / 20
    assert ((draws.mean(0) - expected[0]).abs() <= 5 * error + 1e-6).all()
    assert (draws.std(0) > 1e-3).all() == (drop_rate > 0)


def test_eval_mode_weighs_places_by_their_chance(network):
    features = torch.randn(2, 512, 3, 4)
    weight = network.head.weight * 0.4
    with torch.no_grad():
        weight[:, :, 1, 1] = network.head.weight[:, :, 1, 1]
        expected = torch.nn.functional.conv2d(features, weight, padding=1).mean((2, 3))
        found = network.eval().classify(features)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_expanded_training_draws_what_closed_draws(network):
    features = torch.randn(2, 512, 3, 4)
    logits = {}
    for form in FORMS:
        network.selection = form
        network.train().reseed(1, 2)
        logits[form] = network.classify(features)
    torch.testing.assert_close(logits["closed"], logits["expanded"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("world", [2, 4])
def test_workers_draw_together_what_one_draws(network, world):
    features = torch.randn(8, 512, 3, 4)
    network.train()
    with torch.no_grad():
        network.reseed(7, 3)
        expected = network.classify(features)
        for rank in range(world):
            network.reseed(7, 3, rank, world)
            share = network.classify(features[rank::world])
            torch.testing.assert_close(share, expected[rank::world], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("other", [(8, 3), (7, 4)])
def test_another_seed_or_step_draws_another_selection(network, other):
    features = torch.randn(1, 512, 3, 4)
    network.train().reseed(7, 3)
    first = network.classify(features)
    network.reseed(*other)
    assert not torch.allclose(network.classify(features), first, rtol=1e-3, atol=1e-4)


def test_a_seed_counts_for_one_training_forward(network):
    features = torch.randn(1, 512, 3, 4)
    network.reseed(7, 3)
    network.eval().classify(features)  # draws nothing
    first, second = (network.train().classify(features) for _ in range(2))
    assert not torch.equal(first, second)
    network.reseed(7, 3)
    assert torch.equal(network.classify(features), first)


def test_without_a_seed_torchs_own_generator_draws(network):
    features = torch.randn(1, 512, 3, 4)
    network.train()
    torch.manual_seed(5)
    first, second = (network.classify(features) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(network.classify(features), first)


def test_trunk_is_dilated_as_asked():
    trunks = [FickleClassifier("resnet18", 2, 8, dilated=dilated).trunk for dilated in (1, 0)]
    for trunk, dilated in zip(trunks, (True, False), strict=True):
        expected = build_trunk("resnet18", 8, dilated=dilated)
        assert [getattr(m, "dilation", 0) for m in trunk.modules()] == [
            getattr(m, "dilation", 0) for m in expected.modules()
        ]


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_move_in_training_only_where_they_are_not_frozen(frozen):
    network = FickleClassifier("resnet18", 2, 32, frozen_statistics=frozen, kernel=3).train()
    before = network.trunk.stem[1].running_mean.clone()
    network(torch.rand(2, 3, 40, 40))
    assert torch.equal(network.trunk.stem[1].running_mean, before) is frozen


@pytest.mark.parametrize(("kernel", "drop_rate"), [(4, 0.9), (0, 0.9), (9, 1.0), (9, -0.1)])
def test_windows_without_centre_and_rates_that_are_none_are_refused(kernel, drop_rate):
    with pytest.raises(
        ValueError, match=rf"(kernel|drop_rate) must be .*, got ({kernel}|{drop_rate})$"
    ):
        FickleClassifier("resnet18", 2, kernel=kernel, drop_rate=drop_rate)


def write(path, network, trunk="resnet18"):
    path.write_bytes(to_safetensors(network, fickle_facts(network, trunk, CLASSES)))
    return str(path)


def test_ficklenet_comes_back_from_its_file(tmp_path):
    network = FickleClassifier("resnet18", 2, 8, kernel=5, drop_rate=0.3, dilated=True)
    back = load_ficklenet(write(tmp_path / "weights.safetensors", network), CLASSES)
    assert (back.stride, back.drop_rate, back.dilated, back.training) == (8, 0.3, True, False)
    assert back.trunk.stage4[0].conv1.dilation == network.trunk.stage4[0].conv1.dilation != (1, 1)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=0, atol=0)


def test_ficklenet_of_other_classes_is_refused(network, tmp_path):
    path = write(tmp_path / "weights.safetensors", network)
    with pytest.raises(ValueError, match=r"trained on 2 classes \(cat, dog.*has 1 \(cow"):
        load_ficklenet(path, ["cow"])


def test_ficklenets_and_classifiers_are_not_taken_for_each_other(network, tmp_path):
    fickle = write(tmp_path / "fickle.safetensors", network)
    with pytest.raises(ValueError, match=r"holds a ficklenet, not a classifier$"):
        load_classifier(fickle)
    facts = {"trunk": "resnet18", "stride": 16, "classes": CLASSES}
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(to_safetensors(CamClassifier("resnet18", 2), facts))
    with pytest.raises(ValueError, match=r"holds a classifier, not a ficklenet$"):
        load_ficklenet(str(plain))


def test_facts_that_lack_the_kernel_are_refused(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    facts = fickle_facts(network, "resnet18", CLASSES)
    path.write_bytes(to_safetensors(network, {k: v for k, v in facts.items() if k != "kernel"}))
    with pytest.raises(
        ValueError, match=r"must say its trunk, .*kernel, drop_rate and dilated, got"
    ):
        load_ficklenet(str(path))


def test_a_trunk_starts_from_a_ficklenets_file(network, tmp_path):
    path = write(tmp_path / "weights.safetensors", network)
    trunk = build_trunk("resnet18", 16, path)
    for key, value in network.trunk.state_dict().items():
        torch.testing.assert_close(trunk.state_dict()[key], value, rtol=0, atol=0)

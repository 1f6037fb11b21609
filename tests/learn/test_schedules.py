"""Parameter groups against METHODS 7, 8 and 10, schedules against their formulas."""

import pytest
import torch
from torch import nn

from rayseg.config import identity_of
from rayseg.learn import DetectorSGD, HalvedAdam, PolySGD, SegmenterSGD, StepSGD
from rayseg.nets.backbones import freeze_normalisation
from rayseg.nets.deeplab import Segmenter


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Segmenter("deeplab_v2", "resnet18", 3)
    freeze_normalisation(network.trunk)
    return network


def names_of(network, parameters):
    wanted = {id(parameter) for parameter in parameters}
    return {name for name, value in network.named_parameters() if id(value) in wanted}


def test_groups_are_those_of_deeplab(network):
    """METHODS 10: convolutions of the trunk x1, ASPP weights x10, biases x20 without decay."""
    groups = SegmenterSGD().optimizer(network).param_groups
    found = [(group["base_lr"], group["weight_decay"]) for group in groups]
    assert found == [(2.5e-4, 5e-4), (2.5e-3, 5e-4), (5e-3, 0.0)]
    assert {group["momentum"] for group in groups} == {0.9}
    convolutions = {
        f"{name}.weight"
        for name, module in network.trunk.named_modules(prefix="trunk")
        if isinstance(module, nn.Conv2d)
    }
    aspp = [f"head.branches.{rate}" for rate in range(4)]
    assert names_of(network, groups[0]["params"]) == convolutions
    assert names_of(network, groups[1]["params"]) == {f"{name}.weight" for name in aspp}
    assert names_of(network, groups[2]["params"]) == {f"{name}.bias" for name in aspp}


def test_no_batch_normalisation_of_the_trunk_trains_when_it_is_frozen(network):
    trained = names_of(network, [p for p in network.parameters() if p.requires_grad])
    normal = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    assert normal
    assert not trained & normal


def test_every_trained_parameter_of_v3_is_in_one_group():
    network = Segmenter("deeplab_v3", "resnet18", 3, frozen_statistics=False)
    groups = SegmenterSGD().optimizer(network).param_groups
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in network.parameters())
    assert all(".bias" in name for name in names_of(network, groups[2]["params"]))


def test_schedule_changes_every_ten_steps_and_is_the_polynomial_there(network):
    schedule = SegmenterSGD(lr=0.1, power=0.9, every=10)
    optimizer = schedule.optimizer(network)
    for step, counted in ((0, 0), (9, 0), (10, 10), (19, 10), (25, 20), (39, 30)):
        schedule.set_step(optimizer, step, 40)
        factor = (1 - counted / 40) ** 0.9
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.1 * factor, 1.0 * factor, 2.0 * factor])


def test_the_last_step_still_learns(network):
    schedule = SegmenterSGD(every=1)
    optimizer = schedule.optimizer(network)
    schedule.set_step(optimizer, 39, 40)
    assert optimizer.param_groups[0]["lr"] > 0


def test_steps_between_changes_must_be_positive():
    with pytest.raises(ValueError, match=r"^every must be 1 or more steps, got 0$"):
        SegmenterSGD(every=0)


def test_adam_is_halved_every_ten_epochs_and_not_within_one(network):
    schedule = HalvedAdam(lr=0.1, head_factor=2.0)
    optimizer = schedule.optimizer(network)
    for step, halvings in ((0, 0), (9, 0), (29, 0), (30, 1), (59, 1), (60, 2), (89, 2)):
        schedule.set_step(optimizer, step, 90, 3)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.1 * 0.5**halvings, 0.2 * 0.5**halvings])


def test_adam_is_as_recalled_and_holds_every_trained_parameter_once(network):
    groups = HalvedAdam().optimizer(network).param_groups
    assert [group["base_lr"] for group in groups] == [1e-3, 1e-3]
    assert {(group["betas"], group["weight_decay"]) for group in groups} == {((0.9, 0.999), 0)}
    listed = sorted(id(p) for group in groups for p in group["params"])
    assert listed == sorted(id(p) for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("every", 0, "every must be 1 or more epochs, got 0"), ("lr", 0.0, "lr must be positive")],
)
def test_adam_refuses_what_would_never_learn(field, value, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        HalvedAdam(**{field: value})


def test_the_learning_rate_is_that_of_bbams_detector():
    schedule = DetectorSGD()
    rates = {step: 0.01 * schedule.factor(step, 18_000) for step in (0, 250, 500, 11_999, 12_000)}
    expected = {0: 0.01 / 3, 250: 0.01 * 2 / 3, 500: 0.01, 11_999: 0.01, 12_000: 0.001}
    assert rates == pytest.approx(expected)
    assert schedule.factor(15_999, 18_000) == pytest.approx(0.1)
    assert schedule.factor(16_000, 18_000) == pytest.approx(0.01)


def test_a_shorter_training_falls_at_the_same_shares():
    factors = [DetectorSGD(warmup_steps=0).factor(step, 9) for step in range(9)]
    assert factors == pytest.approx([1] * 6 + [0.1] * 2 + [0.01])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"drops": (0.9, 0.5)}, r"drops must ascend between 0 and 1, got \(0.9, 0.5\)"),
        ({"drops": (1.5,)}, "drops must ascend between 0 and 1"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more"),
        ({"max_norm": -1.0}, "max_norm must be 0 or more, got -1.0"),
    ],
)
def test_a_schedule_without_sense_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        DetectorSGD(**changed)


def test_the_rate_of_dsrg_falls_to_a_third_every_thousand_steps(network):
    schedule = StepSGD()
    optimizer = schedule.optimizer(network)
    rates = {}
    for step in (0, 999, 1000, 1999, 2000, 7999):
        schedule.set_step(optimizer, step, 8000, 500)
        rates[step] = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == rates[999] == [5e-4, 5e-3, 1e-2]
    assert rates[1000] == rates[1999] == pytest.approx([0.33 * one for one in rates[0]])
    assert rates[7999][0] == pytest.approx(5e-4 * 0.33**7)
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [5e-4, 5e-4, 0.0]
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


@pytest.mark.parametrize("schedule", [PolySGD, SegmenterSGD])
def test_adam_in_place_of_sgd_has_the_same_groups_and_rates(network, schedule):
    plain, adam = schedule().optimizer(network), schedule(rule="adam").optimizer(network)
    assert type(plain) is torch.optim.SGD
    assert type(adam) is torch.optim.Adam
    for before, after in zip(plain.param_groups, adam.param_groups, strict=True):
        assert [id(p) for p in before["params"]] == [id(p) for p in after["params"]]
        for name in ("base_lr", "weight_decay"):
            assert before[name] == after[name]
        assert after["betas"] == (0.9, 0.999)


def test_the_rule_is_no_part_of_what_folders_before_it_are_compared_by():
    assert "rule" not in identity_of(PolySGD())
    assert identity_of(PolySGD(rule="adam"))["rule"] == "adam"

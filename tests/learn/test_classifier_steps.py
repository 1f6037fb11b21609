import numpy as np
import pytest
import torch
from torch import nn

from rayseg.learn import ClassifierScores, HalvedAdam, PolySGD, predict_logits, train_epoch
from rayseg.nets.losses import multilabel_soft_margin


class TwoLayers(nn.Module):
    def __init__(self, inputs=3 * 4 * 4, classes=2):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, images):
        return self.head(self.trunk(images))


@pytest.fixture
def network():
    return TwoLayers()


@pytest.fixture
def separable():
    """Batches whose classes are bright in the first or the second channel."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (10, 8, 2), generator=generator).float()
    noise = torch.randn(10, 8, 3, 4, 4, generator=generator) / 2
    noise[:, :, :2] += (2 * targets - 1)[..., None, None]
    return list(zip(noise, targets, strict=True))


def test_schedule_is_the_polynomial(network):
    schedule = PolySGD(lr=0.1, head_factor=10.0, power=0.9)
    optimizer = schedule.optimizer(network)
    for step, factor in ((0, 1.0), (5, 0.5**0.9), (9, 0.1**0.9), (10, 0.0), (11, 0.0)):
        schedule.set_step(optimizer, step, 5, 2)
        trunk, head = (group["lr"] for group in optimizer.param_groups)
        assert trunk == pytest.approx(0.1 * factor)
        assert head == pytest.approx(1.0 * factor)


def test_head_learns_ten_times_faster_and_every_parameter_once(network):
    trunk, head = PolySGD().optimizer(network).param_groups
    assert head["base_lr"] == 10 * trunk["base_lr"]
    assert set(trunk["params"]) == set(network.trunk.parameters())
    assert set(head["params"]) == set(network.head.parameters())


def test_head_is_found_below_a_wrapper(network):
    wrapped = nn.ModuleDict({"module": network})
    _, head = PolySGD().optimizer(wrapped).param_groups
    assert set(head["params"]) == set(network.head.parameters())


def test_frozen_parameters_are_not_in_the_optimizer(network):
    network.trunk.requires_grad_(False)
    (only,) = PolySGD().optimizer(network).param_groups
    assert set(only["params"]) == set(network.head.parameters())


def test_official_momentum_is_the_weight_decay_that_slipped_into_its_place():
    official, written = PolySGD(), PolySGD.as_written()
    assert official.momentum == official.weight_decay == 1e-4
    assert (written.momentum, written.lr) == (0.9, 0.01)
    groups = official.optimizer(TwoLayers()).param_groups
    assert all(group["momentum"] == group["weight_decay"] == 1e-4 for group in groups)


def test_two_steps_are_sgd_by_hand(network, separable):
    schedule = PolySGD(lr=0.1, momentum=0.5, weight_decay=0.01)
    mine = TwoLayers()
    velocity = [torch.zeros_like(parameter) for parameter in mine.parameters()]
    list(train_epoch(network, schedule.optimizer(network), schedule, separable[:2], 2, 5, 2))
    for step, (images, targets) in enumerate(separable[:2], 4):
        logits = mine(images)
        chance = logits.sigmoid()
        loss = -(targets * chance.log() + (1 - targets) * (1 - chance).log()).mean()
        gradients = torch.autograd.grad(loss, list(mine.parameters()))
        for i, (name, parameter) in enumerate(mine.named_parameters()):
            velocity[i] = 0.5 * velocity[i] + gradients[i] + 0.01 * parameter.detach()
            rate = 0.1 * (10 if name.startswith("head") else 1) * (1 - step / 10) ** 0.9
            parameter.data -= rate * velocity[i]
    for one, other in zip(network.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_network_learns_a_separable_task(network, separable):
    schedule = PolySGD()
    losses = list(train_epoch(network, schedule.optimizer(network), schedule, separable, 0, 1, 10))
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    scores = ClassifierScores.of(*predict_logits(network, separable))
    assert scores.mean_average_precision > 0.99
    assert scores.f1 > 0.9


def test_halved_adam_by_hand(network, separable):
    schedule = HalvedAdam(lr=0.01, head_factor=3.0, every=2)
    mine = TwoLayers()
    means = [[torch.zeros_like(parameter) for parameter in mine.parameters()] for _ in range(2)]
    optimizer = schedule.optimizer(network)
    for epoch in range(3):
        list(train_epoch(network, optimizer, schedule, separable[:2], epoch, 3, 2))
    for step, (images, targets) in enumerate(3 * separable[:2]):
        loss = multilabel_soft_margin(mine(images), targets)
        gradients = torch.autograd.grad(loss, list(mine.parameters()))
        for i, (name, parameter) in enumerate(mine.named_parameters()):
            means[0][i] = 0.9 * means[0][i] + 0.1 * gradients[i]
            means[1][i] = 0.999 * means[1][i] + 0.001 * gradients[i] ** 2
            first, second = (
                m[i] / (1 - b ** (step + 1)) for m, b in zip(means, (0.9, 0.999), strict=True)
            )
            rate = 0.01 * (3 if name.startswith("head") else 1) * (0.5 if step >= 4 else 1)
            parameter.data -= rate * first / (second.sqrt() + 1e-8)
    for one, other in zip(network.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_loss_that_is_no_number_stops_before_the_step(network, separable):
    images, targets = separable[0]
    broken = [(images, targets), (images * float("nan"), targets)]
    schedule = PolySGD()
    losses = train_epoch(network, schedule.optimizer(network), schedule, broken, 3, 5, 2)
    next(losses)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with pytest.raises(FloatingPointError, match="must be finite, got nan at step 7"):
        next(losses)
    assert all(map(torch.equal, network.parameters(), before))


@pytest.mark.parametrize("training", [True, False])
def test_prediction_puts_the_mode_back_also_after_an_exception(network, separable, training):
    network.train(training)
    logits, targets = predict_logits(network, separable[:2])
    assert logits.shape == targets.shape == (16, 2)
    assert network.training is training
    with pytest.raises(RuntimeError):
        predict_logits(network, [(torch.zeros(1, 5), torch.zeros(1, 2))])
    assert network.training is training


def test_average_precision_and_f1_by_hand():
    logits = np.array([[3.0, -1.0, -5.0], [2.0, 4.0, -5.0], [1.0, -2.0, 5.0], [-1.0, -3.0, -5.0]])
    targets = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    scores = ClassifierScores.of(logits, targets)
    # class 0: right at ranks 1 and 3: (1 + 2/3) / 2; class 1: ranks 1 and 4: (1 + 2/4) / 2;
    # class 2 does not occur and does not count
    assert scores.mean_average_precision == pytest.approx((5 / 6 + 3 / 4) / 2)
    # five decisions, of which three are right (class 0 twice, class 1 once); four are wanted
    assert scores.f1 == pytest.approx(2 * 3 / (5 + 4))


def test_scores_of_no_targets_are_no_numbers():
    scores = ClassifierScores.of(-np.ones((2, 2)), np.zeros((2, 2)))
    assert np.isnan(scores.mean_average_precision)
    assert np.isnan(scores.f1)

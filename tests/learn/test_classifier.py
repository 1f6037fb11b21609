"""Steps of the classifier's training: optimisers by hand, what it learns, no NaN."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.config import identity_of
from rayseg.learn import (
    TRAININGS,
    ClassifierScores,
    ClassifierTraining,
    FickleNetTraining,
    HalvedAdam,
    Length,
    NotFinite,
    PolySGD,
    SegmenterTraining,
    load_state,
    predict_logits,
)
from rayseg.learn.state import TrainingState
from rayseg.nets.losses import multilabel_soft_margin
from rayseg.steps.following import tell_fitted
from rayseg.store import claim, read_run, write_run
from tests.learn.steps import TwoLayers, course, losses_of, separable_batches
from tests.learn.tiny import Here, Killed, folder_of, killed_after, scenes, store, tiny, trained


@pytest.fixture
def network():
    return TwoLayers()


@pytest.fixture
def separable():
    return separable_batches()


def training(schedule):
    return ClassifierTraining(weights="none", schedule=schedule)


def named(pairs):
    """The batches with two ids each."""
    return [(*pair, [f"b{place}i0", f"b{place}i1"]) for place, pair in enumerate(pairs)]


def test_schedule_is_the_polynomial(network):
    schedule = PolySGD(lr=0.1, head_factor=10.0, power=0.9)
    optimizer = schedule.optimizer(network)
    for step, factor in ((0, 1.0), (5, 0.5**0.9), (9, 0.1**0.9), (10, 0.0), (11, 0.0)):
        schedule.set_step(optimizer, step, 10, 2)
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
    official = PolySGD()
    assert official.momentum == official.weight_decay == 1e-4
    groups = official.optimizer(TwoLayers()).param_groups
    assert all(group["momentum"] == group["weight_decay"] == 1e-4 for group in groups)


def test_two_steps_are_sgd_by_hand(network, separable):
    schedule = PolySGD(lr=0.1, momentum=0.5, weight_decay=0.01)
    mine = TwoLayers()
    velocity = [torch.zeros_like(parameter) for parameter in mine.parameters()]
    one, given = course(training(schedule), network, 10, 2), iter(named(separable))
    for step in (4, 5):
        one.take_step(network, given, step)
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
    losses = losses_of(training(schedule), network, named(separable), 10, epoch=10)
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    scores = ClassifierScores.of(*predict_logits(network, separable))
    assert scores.mean_average_precision > 0.99
    assert scores.f1 > 0.9


def test_halved_adam_by_hand(network, separable):
    schedule = HalvedAdam(lr=0.01, head_factor=3.0, every=2)
    mine = TwoLayers()
    means = [[torch.zeros_like(parameter) for parameter in mine.parameters()] for _ in range(2)]
    fickle = FickleNetTraining(weights="none", schedule=schedule)
    losses_of(fickle, network, named(3 * separable[:2]), 6, epoch=2)
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
    one, given = course(training(schedule), network, 10, 2), iter(named(broken))
    one.take_step(network, given, 6)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with pytest.raises(NotFinite, match="must be finite, got nan at iteration 8 on ") as caught:
        one.take_step(network, given, 7)
    assert caught.value.ids == ["b1i0", "b1i1"]
    assert all(map(torch.equal, network.parameters(), before))


# Epochs that are counted in iterations


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Length(15, 3)),
        ({"iterations": 7}, Length(7, 3)),
        ({"iterations": 99}, Length(15, 3)),
        ({"batch_size": 20}, Length(5, 1)),
        ({"epochs": 0}, Length(201, 3)),
        ({"epochs": 0, "least_steps": 10}, Length(15, 3)),
    ],
)
def test_epochs_are_iterations_of_whole_batches(changed, expected):
    given = {"batch_size": 4, "epochs": 5} | changed
    assert ClassifierTraining(**given).length(14) == expected


@pytest.mark.parametrize(
    ("images", "workers", "said"),
    [
        (10_582, 1, ""),
        (60, 1, "epochs 67 in place of 5"),
        (7, 1, "batch_size 7 in place of 16, epochs 200 in place of 5"),
        (7, 2, "batch_size 6 in place of 16, epochs 200 in place of 5"),
    ],
)
def test_few_images_get_more_epochs_and_batches_that_they_fill(images, workers, said):
    asked = ClassifierTraining()
    fitted = asked.fitted(images, workers)
    assert tell_fitted("", fitted, asked, 1) == said
    assert fitted.fitted(images, workers) == fitted
    fitted.check(images, workers)
    own = replace(asked, epochs=3, batch_size=2)
    assert own.fitted(images, workers) == own


def judged(value, chance=0.4, images=60):
    return {"judged": [{"map": value, "chance": chance, "judged_on": "val", "images": images}]}


def test_what_ranks_no_better_than_chance_is_failing_and_says_what_to_change():
    said = ClassifierTraining(schedule=PolySGD(lr=0.2)).failing(judged(0.39))
    assert said.startswith("mAP 0.390 on 60 images of val is no better than chance, which reaches")
    assert "--classifier.schedule.lr (a tenth of 0.2" in said
    assert "--seam-classifier.schedule.lr" in TRAININGS["seam"]().failing(judged(0.39))
    for facts in (judged(0.41), judged(0.1, images=19), judged(0.1, chance=None), {"judged": []}):
        assert ClassifierTraining().failing(facts) == ""


def test_it_is_saved_and_judged_after_each_epoch_and_saved_in_between():
    length = Length(3000, 1200)
    for every, ends in ((0, [500, 1000, 1200]), (300, [300, 600, 900, 1200])):
        one = ClassifierTraining(save_every=every)
        assert [n for n in range(1, 1201) if one.saves_after(n, length)] == ends
        assert [n for n in range(1, 1201) if one.judges_after(n, length)] == [1200]


def test_a_short_training_has_ten_checkpoints_and_is_not_judged_more_often():
    one = SegmenterTraining(save_every=500)
    for steps, every in ((324, 33), (7, 1), (12_000, 500)):
        saved = [n for n in range(1, steps) if one.saves_after(n, Length(steps, 9))]
        assert saved == list(range(every, steps, every))
        judged = [n for n in range(1, steps) if one.judges_after(n, Length(steps, 9))]
        assert judged == list(range(500, steps, 500))


def test_a_network_whose_answers_are_no_numbers_says_so_and_not_what_a_library_says(
    tmp_path, monkeypatch
):
    """Weights may be finite whose products are not."""

    def overflown(network, batches, answer):
        logits, targets = predict_logits(network, batches, answer)
        return np.full_like(logits, np.nan), targets

    store(tmp_path, scenes(tmp_path))
    monkeypatch.setattr("rayseg.learn.classifier.predict_logits", overflown)
    with pytest.raises(
        FloatingPointError, match=r"^loss must be finite, got nan at iteration .*lr"
    ):
        trained(tmp_path, "classifier")


def test_a_state_of_whole_epochs_is_gone_on_from(tmp_path):
    """What a classifier left that was begun when epochs were counted."""
    store(tmp_path, scenes(tmp_path / "images"))
    with pytest.raises(Killed):
        trained(tmp_path, "classifier", Here(killed_after(4)))
    folder = folder_of(tmp_path, "classifier")
    state = load_state(folder)
    epochs = [{"epoch": n, "loss": 0.5, "map": 0.9, "f1": 0.1, "seconds": 2.0} for n in (1, 2)]
    network = tiny("classifier").build("ab")
    optimizer = tiny("classifier").schedule.optimizer(network)
    state.restore(network, optimizer)
    TrainingState({"epochs": epochs}).save(folder, network, optimizer)
    trained(tmp_path, "classifier")
    told = read_run(folder)
    assert [one["iteration"] for one in told["curve"]] == [2, 4, 5]
    assert [one["iteration"] for one in told["judged"]] == [2, 4, 5]
    assert told["seconds"] > 4.0


def test_a_finished_folder_of_whole_epochs_is_taken_as_it_is(tmp_path):
    """Its configuration lacks what is new, it says nothing of tags, and its figures are epochs."""
    store(tmp_path, scenes(tmp_path / "images"))
    folder, one = folder_of(tmp_path, "classifier"), ClassifierTraining(weights="none")
    claim(folder, {"split": "train", "classifier": identity_of(one)})
    folder.write("classifier.safetensors", b"numbers")
    epochs = [{"epoch": 1, "loss": 0.25, "map": 0.5, "f1": 0.75, "judged_on": "val", "seconds": 2}]
    write_run(folder, {"epochs": epochs, "done": True})
    outcome = trained(tmp_path, "classifier", training=one)
    assert outcome.lines == ["classifier: loss 0.250, mAP 0.500, F1 0.750 on val after 1 epochs"]
    with pytest.raises(ValueError, match=r"judge_images is None there, 7 here"):
        trained(tmp_path, "classifier", training=replace(one, judge_images=7))

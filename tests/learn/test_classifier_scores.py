"""Average precision and F1 of a classifier, by hand; how its logits are predicted."""

from itertools import permutations

import numpy as np
import pytest
import torch

from rayseg.learn import ClassifierScores, predict_logits
from rayseg.learn.classifier_scores import chance_precision
from tests.learn.steps import TwoLayers, separable_batches


@pytest.fixture
def network():
    return TwoLayers()


@pytest.fixture
def separable():
    return separable_batches()


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


# Chance


def test_chance_is_what_a_share_of_all_orders_stays_below():
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0]], np.float32)
    orders = np.array([*permutations(range(5))], np.float64)
    single = [
        [
            ClassifierScores.of(order[:, None], own[:, None]).mean_average_precision
            for order in orders
        ]
        for own in targets.T
    ]
    means = (
        np.add.outer(*map(np.array, single)) / 2
    )  # orders of the classes know nothing of another
    for share in (0.5, 0.95):
        found = chance_precision(targets, share, draws=20_000)
        assert found == pytest.approx(np.quantile(means, share), abs=0.02)


def test_a_class_of_all_or_no_images_tells_nothing():
    assert chance_precision(np.array([[1, 0], [1, 0]], np.float32)) is None
    assert chance_precision(np.array([[1, 0], [1, 1]], np.float32)) == 1.0


def test_logits_of_noise_are_hardly_ever_above_chance():
    rng = np.random.default_rng(1)
    targets = (rng.random((60, 3)) < 0.3).astype(np.float32)
    chance = chance_precision(targets)
    above = [
        ClassifierScores.of(rng.random((60, 3)), targets).mean_average_precision > chance
        for _ in range(200)
    ]
    assert np.mean(above) < 0.1
    assert ClassifierScores.of(np.zeros((60, 3)), targets).mean_average_precision < chance
    assert ClassifierScores.of(targets, targets).mean_average_precision > chance

"""The whole experiment: what repeats, what a zero leaves, what is refused, what it shows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.analyses.bottleneck import ToyBottleneck
from rayseg.analyses.bottleneck.network import layer_maps
from rayseg.analyses.bottleneck.scenes import BACKGROUND, DIGIT, MARK
from tests.reference import bottleneck_literal as literal


def test_the_same_seed_gives_the_same_result(small):
    first, second = small().figures(), small().figures()
    assert first == second


def test_another_seed_gives_another_result(small):
    assert small().figures() != replace(small, seed=1)().figures()


def test_the_ratios_are_those_of_loops_over_the_unseen_images(small):
    training, shown = small.scenes()
    network = small.trained(training)
    maps = layer_maps(network, torch.tensor(shown.images), torch.tensor(shown.classes)).numpy()
    found = small().layers
    for layer, region in np.ndindex(6, 3):
        tops = maps[layer].max((1, 2))
        expected = literal.ratio(maps[layer], tops, shown.regions, region, 0.3)
        assert found[layer, region] == pytest.approx(expected, rel=1e-6)


def test_no_iteration_leaves_the_last_layers_row(small):
    result = replace(small, num_iterations=0)()
    assert np.array_equal(result.iterations, result.layers[-1:])
    assert np.array_equal(result.fixed, result.layers[-1:])


def test_more_iterations_do_not_change_the_first(small):
    longer = replace(small, num_iterations=4)()
    assert np.array_equal(longer.iterations[:3], small().iterations)


def test_more_images_do_not_change_the_companions_of_the_first(small):
    training, _ = small.scenes()
    drawn = [next(small._companions(training, 1)) for _ in range(2)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0][0], next(small._companions(training, 2))[0])


def test_a_tenth_of_the_training_images_and_all_unseen_ones_have_a_mark(small):
    training, shown = small.scenes()
    assert (training.marked.sum(), shown.marked.sum()) == (4, 4)


def test_examples_are_one_of_each_digit_over_their_maximum(small):
    examples = small().examples
    assert len(examples.images) == 2
    assert all((examples.regions[place] == MARK).any() for place in range(2))
    assert examples.layers.max((2, 3)) == pytest.approx(1)
    assert examples.iterations.max((2, 3)) == pytest.approx(1)


def test_figures_are_plain_and_whole(small):
    result = small()
    plain = json.loads(json.dumps(result.figures()))
    assert plain["hgr_by_layer"]["mark"] == result.layers[:, MARK].tolist()
    assert plain["hgr_by_iteration"]["digit"] == result.iterations[:, DIGIT].tolist()
    assert len(plain["logit_by_iteration"]) == 3


def test_rib_that_runs_away_says_so(small):
    with pytest.raises(FloatingPointError, match="rib_learning_rate below 1e"):
        replace(small, rib_learning_rate=1e20, margin=float("inf"), num_iterations=4)()


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("num_iterations", -1, "num_iterations must be 0 or more, got -1"),
        ("num_images", 0, "num_images must be 2 or more, got 0"),
        ("rib_learning_rate", 0.0, "rib_learning_rate must be positive, got 0.0"),
        ("margin", float("nan"), "margin must be positive, got nan"),
        ("threshold", 1.5, r"threshold must lie in \[0, 1\], got 1.5"),
        ("marked_share", -0.1, r"marked_share must lie in \[0, 1\], got -0.1"),
        ("rib_batch", 3000, "rib_batch must be at most num_train = 2000, got 3000"),
        ("size", 31, "size must be 32 or more for a mark of 5 .* digit of 20, got 31"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        ToyBottleneck(**{setting: value})


@pytest.mark.slow
def test_the_last_layer_loses_the_mark_and_rib_brings_it_back():
    result = ToyBottleneck(num_images=10)()
    before, last = result.layers[4:]
    assert last[MARK] / before[MARK] < 0.5 * last[DIGIT] / before[DIGIT]
    assert result.iterations[-1, MARK] > result.iterations[0, MARK] + 0.2
    assert abs(result.iterations[-1, BACKGROUND] - result.iterations[0, BACKGROUND]) < 0.05
    assert result.accuracies["digit"] > result.accuracies["mark"] + 0.2

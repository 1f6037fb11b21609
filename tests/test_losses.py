import numpy as np
import pytest
import torch

from rayseg.losses import multilabel_soft_margin


def literal(logits, targets):
    total = 0.0
    for row, wanted in zip(logits, targets, strict=True):
        for logit, want in zip(row, wanted, strict=True):
            share = 1 / (1 + np.exp(-logit))
            total -= want * np.log(share) + (1 - want) * np.log(1 - share)
    return total / logits.size


def test_soft_margin_is_the_mean_binary_cross_entropy():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (4, 5)), rng.integers(0, 2, (4, 5)).astype(float)
    found = multilabel_soft_margin(torch.tensor(logits), torch.tensor(targets))
    assert found.item() == pytest.approx(literal(logits, targets), rel=1e-12)


def test_undecided_logits_cost_log_two():
    loss = multilabel_soft_margin(torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]])
    assert multilabel_soft_margin(logits, torch.tensor([[1.0, 0.0]])).item() == 0
    assert multilabel_soft_margin(logits, torch.tensor([[0.0, 1.0]])).item() == 1e4

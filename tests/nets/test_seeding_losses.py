"""DSRG's losses against loops over cells, finite differences and the authors' formula."""

import numpy as np
import pytest
import torch

from rayseg.nets.seeding_losses import boundary_loss, log_probabilities, seed_loss
from tests.reference import dsrg_literal as literal


def drawn(seed=0, spread=3.0):
    """Logits, probabilities Q of which some are cut off, and seeds, of two images."""
    rng = np.random.default_rng(seed)
    logits, raw = rng.normal(0, spread, (2, 2, 3, 5, 4))
    refined = np.exp(2 * raw) / np.exp(2 * raw).sum(1, keepdims=True)
    seeds = rng.choice(np.array([0, 1, 2, 255], np.uint8), (2, 5, 4))
    return torch.from_numpy(logits), torch.from_numpy(refined), torch.from_numpy(seeds)


def test_probabilities_equal_loops():
    logits, _, _ = drawn(spread=20.0)
    expected = [literal.probabilities(one.numpy()) for one in logits]
    found = log_probabilities(logits).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.min() == pytest.approx(1e-4 / 1.0003, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_losses_equal_loops(seed):
    logits, refined, seeds = drawn(seed)
    logs = log_probabilities(logits)
    triples = [
        (literal.probabilities(one.numpy()), q.numpy(), own.numpy())
        for one, q, own in zip(logits, refined, seeds, strict=True)
    ]
    expected = {
        "seeds": [literal.seed_loss(h, own) for h, _, own in triples],
        "all": [literal.boundary_loss(h, q) for h, q, _ in triples],
        "written": [literal.boundary_loss(h, q, own) for h, q, own in triples],
    }
    found = {
        "seeds": seed_loss(logs, seeds),
        "all": boundary_loss(logs, refined),
        "written": boundary_loss(logs, refined, seeds),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-11)


def test_an_image_without_seeds_of_a_side_counts_the_other():
    logits, _, _ = drawn()
    logs = log_probabilities(logits)
    none = torch.full((2, 5, 4), 255, dtype=torch.uint8)
    assert seed_loss(logs, none).tolist() == [0, 0]
    background = torch.zeros_like(none)
    assert torch.allclose(seed_loss(logs, background), -logs[:, 0].mean((1, 2)))


@pytest.mark.parametrize("over", ["all", "seeds"])
def test_the_gradient_with_the_crf_held_is_that_of_finite_differences(over):
    logits, refined, seeds = drawn()
    chosen = seeds if over == "seeds" else None

    def loss(given):
        return boundary_loss(log_probabilities(given), refined, chosen, through_crf=False).sum()

    given = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(given), given)
    step = 1e-6
    for place in np.ndindex(*logits.shape):
        moved = torch.zeros_like(logits)
        moved[place] = step
        slope = (loss(logits + moved) - loss(logits - moved)) / (2 * step)
        assert found[place].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize("through_crf", [True, False])
def test_the_gradient_is_the_authors_formula(through_crf):
    logits, refined, _ = drawn()
    h = log_probabilities(logits).exp().requires_grad_()
    (found,) = torch.autograd.grad(
        boundary_loss(h.log(), refined, through_crf=through_crf).sum(), h
    )
    expected = [
        literal.boundary_gradient(one.detach().numpy(), q.numpy(), through_crf)
        for one, q in zip(h, refined, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    ratios = (refined / h).detach()
    assert (ratios < 0.05).any()
    assert (ratios > 20).any()


def test_what_the_crf_rules_out_has_a_finite_gradient():
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    refined = torch.zeros(1, 3, 2, 2)
    refined[:, 1] = 1
    loss = boundary_loss(log_probabilities(logits), refined).sum()
    (found,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(found).all()
    assert loss.item() == pytest.approx(np.log(3), rel=1e-3)

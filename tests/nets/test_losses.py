import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.nets.losses import (
    activated_bce,
    balanced_mask_loss,
    grown_seeds,
    multilabel_soft_margin,
    rib_loss,
    segmentation_loss,
)
from tests.reference import deeplab_literal


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


def test_images_of_no_class_weigh_as_they_are_told():
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(0, 3, (4, 5)), rng.integers(0, 2, (4, 5)).astype(float)
    targets[0], targets[1:, 0] = 0, 1  # the first is a negative, the others are not
    given = torch.tensor(logits), torch.tensor(targets)
    rows = [literal(logits[i : i + 1], targets[i : i + 1]) for i in range(4)]
    for weight in (0.0, 0.3, 1.0, 2.5):
        expected = (weight * rows[0] + sum(rows[1:])) / 4
        assert multilabel_soft_margin(*given, weight).item() == pytest.approx(expected, rel=1e-12)


def test_undecided_logits_cost_log_two():
    loss = multilabel_soft_margin(torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]])
    assert multilabel_soft_margin(logits, torch.tensor([[1.0, 0.0]])).item() == 0
    assert multilabel_soft_margin(logits, torch.tensor([[0.0, 1.0]])).item() == 1e4


@pytest.mark.parametrize("margin", [float("inf"), 1.5, 0.0, -1.0])
def test_rib_loss_is_the_negated_sum_of_the_wanted_logits_up_to_the_margin(margin):
    rng = np.random.default_rng(5)
    logits, targets = rng.normal(0, 3, (4, 5)), rng.integers(0, 2, (4, 5)).astype(float)
    found = rib_loss(torch.tensor(logits), torch.tensor(targets), margin)
    pairs = zip(logits.flat, targets.flat, strict=True)
    assert found.item() == pytest.approx(-sum(t * min(margin, y) for y, t in pairs), rel=1e-12)


def test_rib_loss_pulls_each_wanted_logit_alike_and_those_above_the_margin_no_more():
    logits = torch.tensor([[-1e6, 0.0, 2.0, 3.0, 9.0]], requires_grad=True)
    rib_loss(logits, torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0]]), 5.0).backward()
    assert logits.grad.tolist() == [[-1.0, 0.0, -1.0, 0.0, 0.0]]


ACTIVATIONS = {
    "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
    "tanh": lambda y: (np.tanh(y) + 1) / 2,
    "softsign": lambda y: (y / (1 + abs(y)) + 1) / 2,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activated_bce_is_the_sum_of_the_cross_entropies_of_the_activations(activation):
    rng = np.random.default_rng(6)
    logits, targets = rng.normal(0, 3, (4, 5)), rng.integers(0, 2, (4, 5)).astype(float)
    shares = ACTIVATIONS[activation](logits)
    expected = -sum(
        np.log(share) if want else np.log(1 - share)
        for share, want in zip(shares.flat, targets.flat, strict=True)
    )
    found = activated_bce(torch.tensor(logits), torch.tensor(targets), activation)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("activation", "wrong"), [("sigmoid", 1e4), ("tanh", 2e4), ("softsign", np.log(2 + 2e4))]
)
def test_activated_bce_of_extreme_logits_is_finite_with_finite_gradients(activation, wrong):
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = activated_bce(logits, torch.tensor([[0.0, 1.0]]), activation)
    assert loss.item() == pytest.approx(2 * wrong, rel=1e-4)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    right = activated_bce(logits, torch.tensor([[1.0, 0.0]]), activation)
    assert 0 <= right.item() < 2e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_activated_bce_are_those_of_the_formulas(activation):
    logits = torch.tensor([[-2.0, -1e-3, 0.0, 1e-3, 2.0]], dtype=torch.float64)
    for want in (0.0, 1.0):
        leaf = logits.clone().requires_grad_()
        activated_bce(leaf, torch.full_like(logits, want), activation).backward()
        for y, found in zip(logits[0].tolist(), leaf.grad[0].tolist(), strict=True):
            share = ACTIVATIONS[activation](y)
            slope = {
                "sigmoid": share * (1 - share),
                "tanh": (1 - np.tanh(y) ** 2) / 2,
                "softsign": 1 / (1 + abs(y)) ** 2 / 2,
            }[activation]
            assert found == pytest.approx((share - want) * slope / (share * (1 - share)), rel=1e-9)


def drawn(seed, logits_shape, size_hw, choices):
    """Random logits, and labels of which whole images can lack background or foreground."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.choice(some, size_hw) for some in choices]).astype(np.uint8)
    return rng.normal(0, 2, (len(choices), *logits_shape)), labels


CHOICES = [(0, 1, 2, 3, 255), (0, 255), (1, 2), (0, 0, 0, 0, 3)]


@pytest.mark.parametrize("size_hw", [(5, 7), (13, 20), (33, 41), (3, 4)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.long])
def test_segmentation_loss_is_the_mean_over_counted_pixels(size_hw, kind):
    logits, labels = drawn(0, (4, 5, 7), size_hw, CHOICES)
    total, count = segmentation_loss(torch.tensor(logits), torch.tensor(labels).to(kind))
    pairs = [deeplab_literal.pixel_losses(a, b) for a, b in zip(logits, labels, strict=True)]
    assert count.item() == sum(len(one) for one in pairs)
    expected = deeplab_literal.mean_loss(logits, labels)
    assert (total / count).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size_hw", [(5, 7), (13, 20), (33, 41)])
def test_balanced_loss_weighs_background_and_foreground_alike_in_every_image(size_hw):
    logits, labels = drawn(1, (4, 5, 7), size_hw, CHOICES)
    total, count = segmentation_loss(torch.tensor(logits), torch.tensor(labels), balanced=True)
    assert count.item() == 4
    expected = deeplab_literal.balanced_loss(logits, labels)
    assert (total / count).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("balanced", [False, True])
def test_sums_and_counts_of_parts_add_up_to_the_batchs(balanced):
    logits, labels = map(torch.tensor, drawn(2, (4, 5, 7), (20, 20), CHOICES))
    whole = segmentation_loss(logits, labels, balanced)
    parts = [segmentation_loss(logits[a:b], labels[a:b], balanced) for a, b in ((0, 1), (1, 4))]
    for one, *others in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(others), one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("balanced", [False, True])
def test_batch_without_a_counted_pixel_costs_nothing_and_has_a_zero_gradient(balanced):
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.full((2, 8, 9), 255, dtype=torch.uint8)
    total, count = segmentation_loss(logits, labels, balanced)
    assert total.item() == 0
    assert count.item() == (2 if balanced else 0)
    total.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_segmentation_loss_of_bf16_logits_is_float32_also_under_autocast(balanced, autocast):
    logits, labels = map(torch.tensor, drawn(3, (4, 5, 7), (5, 7), CHOICES))
    halved = logits.bfloat16()
    plain, _ = segmentation_loss(halved.float(), labels, balanced)
    with torch.autocast("cpu", torch.bfloat16, autocast):
        found, _ = segmentation_loss(halved, labels, balanced)
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)


@pytest.mark.parametrize(("pixels", "cells"), [(321, 41), (240, 30), (160, 20), (129, 17)])
def test_labels_are_thinned_as_pillow_does(pixels, cells):
    labels = np.random.default_rng(4).integers(0, 9, (pixels, pixels), dtype=np.uint8)
    thinned = np.asarray(Image.fromarray(labels).resize((cells, cells), Image.Resampling.NEAREST))
    logits = 50 * torch.eye(9)[torch.tensor(thinned).long()].permute(2, 0, 1)[None]
    total, count = segmentation_loss(logits, torch.tensor(labels)[None])
    assert count.item() == cells**2
    assert total.item() < 1e-3


def literal_seeds(probabilities, foreground, background, above, below):
    """Sides of one grid cell by cell: 1, 0, or None where nothing is to be learnt."""
    height, width = probabilities.shape
    chosen = {}
    for y in range(height):
        for x in range(width):
            p, cell = probabilities[y, x], (y, x)
            if foreground[cell] or (p > above and not background[cell]):
                chosen[cell] = 1
            elif background[cell] or p < below:
                chosen[cell] = 0
    return {
        (y, x): side
        for (y, x), side in chosen.items()
        if any(
            chosen.get((y + dy, x + dx)) == side
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if dy or dx
        )
    }


def drawn_seeds(seed, number=6, side=7):
    rng = np.random.default_rng(seed)
    marks = rng.choice([0, 1, 2], (number, side, side), p=[0.6, 0.2, 0.2])
    return rng.normal(0, 3, marks.shape), marks == 1, marks == 2


@pytest.mark.parametrize(("above", "below"), [(0.9, 0.1), (0.6, 0.55), (1.0, 0.0)])
def test_seeds_grow_as_cell_by_cell(above, below):
    logits, foreground, background = drawn_seeds(7)
    grown, receded = grown_seeds(*map(torch.tensor, (logits, foreground, background)), above, below)
    assert not (grown & receded).any()
    for i, one in enumerate(logits):
        wanted = literal_seeds(1 / (1 + np.exp(-one)), foreground[i], background[i], above, below)
        assert set(map(tuple, grown[i].nonzero().tolist())) == {c for c, s in wanted.items() if s}
        assert set(map(tuple, receded[i].nonzero().tolist())) == {
            c for c, s in wanted.items() if not s
        }


def test_a_seed_that_stands_alone_is_dropped_and_a_pair_away_from_seeds_is_kept():
    logits = torch.zeros(1, 5, 5)
    logits[0, 3, 3:] = 9.0
    seeds = torch.zeros(1, 5, 5, dtype=torch.bool)
    seeds[0, 0, 0] = True
    grown, receded = grown_seeds(logits, seeds, torch.zeros_like(seeds))
    assert grown.nonzero().tolist() == [[0, 3, 3], [0, 3, 4]]
    assert not receded.any()


def test_where_nothing_is_in_doubt_nothing_changes_sides():
    logits = 20 * torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    foreground = torch.zeros(2, 6, 6, dtype=torch.bool)
    foreground[:, 1:4, 2:5] = True
    grown, receded = grown_seeds(logits, foreground, ~foreground)
    assert torch.equal(grown, foreground)
    assert torch.equal(receded, ~foreground)


@pytest.mark.parametrize("balanced", [True, False])
def test_mask_loss_is_that_of_a_loop_over_cells(balanced):
    logits, foreground, background = drawn_seeds(8)
    losses = {True: [], False: []}
    for y, wanted, unwanted in zip(logits.flat, foreground.flat, background.flat, strict=True):
        if wanted or unwanted:
            losses[bool(wanted)].append(np.log1p(np.exp(-y if wanted else y)))
    expected = (
        (np.mean(losses[True]) + np.mean(losses[False])) / 2
        if balanced
        else np.mean(losses[True] + losses[False])
    )
    found = balanced_mask_loss(*map(torch.tensor, (logits, foreground, background)), balanced)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_plain_mask_loss_of_masks_without_doubt_is_the_mean_cross_entropy():
    logits, foreground, _ = map(torch.tensor, drawn_seeds(9))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, foreground.double())
    assert balanced_mask_loss(logits, foreground, ~foreground, balanced=False).item() == (
        pytest.approx(expected.item(), rel=1e-12)
    )


@pytest.mark.parametrize("balanced", [True, False])
def test_mask_loss_without_either_side_is_zero_with_a_zero_gradient(balanced):
    logits = torch.randn(2, 4, 4, requires_grad=True)
    none = torch.zeros(2, 4, 4, dtype=torch.bool)
    loss = balanced_mask_loss(logits, none, ~none if balanced else none, balanced)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_mask_loss_of_bf16_logits_is_float32():
    logits, foreground, background = map(torch.tensor, drawn_seeds(10))
    halved = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = balanced_mask_loss(halved, foreground, background)
    assert found.dtype == torch.float32
    assert torch.equal(found, balanced_mask_loss(halved.float(), foreground, background))

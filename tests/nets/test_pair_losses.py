"""Labels, affinities and losses of pairs against loops over single pairs in float64."""

import numpy as np
import pytest
import torch

from rayseg.nets.pair_losses import (
    PairLabels,
    affinities_of_edges,
    affinities_of_features,
    affinity_terms,
    check_room,
    displacement_terms,
    small_labels,
)
from rayseg.records.pairs import pixel_pairs
from tests.reference import pair_training_literal as literal

HEIGHT, WIDTH, RADIUS = 9, 12, 4


@pytest.fixture
def labels():
    """Two maps with background, two classes and unsure pixels."""
    rng = np.random.default_rng(0)
    blocks = rng.choice([0, 0, 1, 7, 255], (2, 3, 4)).astype(np.uint8)
    return torch.from_numpy(blocks.repeat(3, 1).repeat(3, 2))


@pytest.fixture
def edges():
    return torch.from_numpy(np.random.default_rng(1).random((2, HEIGHT, WIDTH)))


def keys(radius=RADIUS):
    """The pairs in the order of the tensors: (p, s) of (row, column, down, right)."""
    reach = radius - 1
    return [
        [
            (row, column, int(down), int(right))
            for row in range(HEIGHT - reach)
            for column in range(reach, WIDTH - reach)
        ]
        for down, right in pixel_pairs(radius).offsets_yx
    ]


def flat(planes, value):
    """For each image and pair, in one row, what is said of it."""
    return [value(plane, pair) for plane in planes for own in keys() for pair in own]


def kinds_of(labels):
    known = [literal.kinds_of(one.numpy(), RADIUS) for one in labels]
    return [kinds[pair] for kinds in known for own in keys() for pair in own]


def loss_of(terms):
    return sum(total / max(int(number), 1) for total, number in terms.values())


def test_pairs_are_all_and_no_others():
    listed = {pair for own in keys() for pair in own}
    assert listed == set(literal.pairs_of(HEIGHT, WIDTH, RADIUS))


def test_labels_of_pairs_are_those_of_their_two_pixels(labels):
    found = PairLabels.of(labels, RADIUS)
    kinds = kinds_of(labels)
    assert {"background", "foreground", "different", ""} == set(kinds)
    for name in ("background", "foreground", "different"):
        assert getattr(found, name).flatten().tolist() == [kind == name for kind in kinds]


def test_affinities_of_edges_are_the_weakest_place_on_the_way(edges):
    found = affinities_of_edges(edges, RADIUS)
    expected = flat(edges.numpy(), literal.edge_affinity)
    assert np.abs(found.flatten().numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_affinities_of_features_fall_with_their_distance(distance):
    features = torch.randn(2, 5, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    found = affinities_of_features(features, RADIUS, distance)
    expected = flat(
        features.numpy(), lambda plane, pair: literal.feature_affinity(plane, pair, distance)
    )
    assert np.abs(found.flatten().numpy() - expected).max() < 1e-12


def test_losses_are_those_of_single_pairs(edges, labels):
    known = PairLabels.of(labels, RADIUS)
    affinities = affinities_of_edges(edges, RADIUS)
    kinds = kinds_of(labels)
    expected = literal.affinity_loss(affinities.flatten().tolist(), kinds)
    assert float(loss_of(affinity_terms(affinities, known))) == pytest.approx(expected, rel=1e-12)
    fields = torch.randn(2, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3)).double()
    pairs = flat(fields.numpy(), lambda plane, pair: (plane, pair))
    expected = literal.displacement_loss(*zip(*pairs, strict=True), kinds)
    found = loss_of(displacement_terms(fields, known, RADIUS))
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_the_right_displacements_cost_nothing():
    """Each pixel of an object points at one centroid; background lies still."""
    labels = torch.ones(1, HEIGHT, WIDTH, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    to_centre = torch.stack([4 - rows, 6 - columns])[None].double()
    terms = displacement_terms(to_centre, PairLabels.of(labels, RADIUS), RADIUS)
    assert float(loss_of(terms)) == 0
    terms = displacement_terms(-to_centre, PairLabels.of(labels, RADIUS), RADIUS)
    assert float(loss_of(terms)) > 1


def test_gradients_are_those_of_finite_differences(labels):
    known = PairLabels.of(labels, RADIUS)
    generator = torch.Generator().manual_seed(4)

    def random(*shape):
        return torch.rand(*shape, generator=generator).double().requires_grad_()

    def of_features(features):
        return loss_of(affinity_terms(affinities_of_features(features, RADIUS), known))

    def of_edges(edges, fields):
        affinities = affinities_of_edges(edges, RADIUS)
        terms = affinity_terms(affinities, known) | displacement_terms(fields, known, RADIUS)
        return loss_of(terms)

    assert torch.autograd.gradcheck(of_features, random(2, 2, HEIGHT, WIDTH))
    size = (2, HEIGHT, WIDTH)
    assert torch.autograd.gradcheck(of_edges, (random(*size), random(2, 2, HEIGHT, WIDTH)))


@pytest.mark.parametrize("value", [0, 3, 255])
def test_pairs_of_one_kind_only_leave_the_others_at_nothing(value, edges):
    labels = torch.full((2, HEIGHT, WIDTH), value, dtype=torch.uint8)
    terms = affinity_terms(affinities_of_edges(edges, RADIUS), PairLabels.of(labels, RADIUS))
    expected = {0: {"background"}, 3: {"foreground"}, 255: set()}[value]
    assert {name for name, (_, number) in terms.items() if number} == expected
    assert all(float(total) == 0 for total, number in terms.values() if not number)


@pytest.mark.parametrize("by", ["nearest", "majority"])
def test_small_labels_are_those_of_each_cell(by):
    rng = np.random.default_rng(5)
    labels = rng.choice([0, 1, 20, 255], (2, 24, 32)).astype(np.uint8)
    shrunk = {"nearest": literal.shrunk_by_nearest, "majority": literal.shrunk_by_majority}[by]
    found = small_labels(torch.from_numpy(labels), 4, by)
    assert found.dtype == torch.uint8
    assert found.numpy().tolist() == np.stack([shrunk(one, 4) for one in labels]).tolist()


def test_a_crop_without_room_for_a_pair_is_refused():
    check_room(19, 10)
    with pytest.raises(ValueError, match="radius 10 asks for crops of 19 cells or more, got 18"):
        check_room(18, 10)

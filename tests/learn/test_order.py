import itertools

import numpy as np
import pytest

from rayseg.learn import DrawOrder, EpochOrder


def keys_of(world, **changes):
    facts = {"num_samples": 23, "size": 4, "epoch": 1, "seed": 5, **changes}
    return [list(EpochOrder(**facts, rank=rank, world=world)) for rank in range(world)]


@pytest.mark.parametrize("world", [2, 4])
def test_workers_together_see_what_one_worker_sees(world):
    (alone,) = keys_of(1)
    for number, batch in enumerate(alone):
        together = [key for rank in keys_of(world) for key in rank[number]]
        assert sorted(together) == sorted(batch)


def test_epoch_takes_every_image_at_most_once_and_drops_the_rest():
    (batches,) = keys_of(1)
    indices = [index for batch in batches for _, index in batch]
    assert len(EpochOrder(23, 4, 1, 5)) == len(batches) == 5
    assert len(set(indices)) == len(indices) == 20
    assert {epoch for batch in batches for epoch, _ in batch} == {1}


def test_order_is_the_same_again_and_another_in_other_epochs_and_seeds():
    def indices(**changes):
        return [index for batch in keys_of(1, **changes)[0] for _, index in batch]

    assert indices() == indices()
    assert indices() != indices(epoch=2)
    assert indices() != indices(seed=6)


def test_batch_that_does_not_divide_or_fill_is_refused_with_both_sides():
    with pytest.raises(ValueError, match="divide by 3 workers, got 4"):
        EpochOrder(23, 4, 0, 0, world=3)
    with pytest.raises(ValueError, match="at most the 3 images, got 4"):
        EpochOrder(3, 4, 0, 0)


# By iterations


def draws_of(first=0, stop=12, world=1, rank=0, **changes):
    facts = {"num_samples": 7, "size": 4, "seed": 5, **changes}
    return list(DrawOrder(**facts, first=first, stop=stop, rank=rank, world=world))


@pytest.mark.parametrize(("num_samples", "size"), [(7, 4), (8, 4), (3, 8), (1, 2)])
def test_batches_are_slices_of_all_permutations_in_a_row(num_samples, size):
    row = itertools.chain.from_iterable(
        np.random.default_rng([5, epoch]).permutation(num_samples).tolist()
        for epoch in itertools.count()
    )
    expected = list(enumerate(itertools.islice(row, 12 * size)))
    batches = draws_of(num_samples=num_samples, size=size)
    assert [len(batch) for batch in batches] == [size] * 12
    assert [key for batch in batches for key in batch] == expected


@pytest.mark.parametrize("first", range(13))
def test_a_training_started_again_sees_the_rest(first):
    assert draws_of(first=first) == draws_of()[first:]


@pytest.mark.parametrize("world", [2, 4])
def test_workers_together_draw_what_one_worker_draws(world):
    shares = [draws_of(first=3, rank=rank, world=world) for rank in range(world)]
    for number, batch in enumerate(draws_of(first=3)):
        assert [share[number] for share in shares] == [batch[rank::world] for rank in range(world)]


def test_draws_are_others_with_another_seed():
    assert draws_of() != draws_of(seed=6)


def test_the_length_of_an_order_is_its_number_of_batches():
    assert len(DrawOrder(7, 4, 3, 12, 0)) == 9
    assert draws_of(first=12) == []


def test_an_order_gone_through_twice_is_the_same():
    order = DrawOrder(7, 4, 1, 6, 0)
    assert list(order) == list(order)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"world": 3}, "batch size must divide by 3 workers, got 4"),
        ({"size": 0}, "batch size must divide by 1 workers, got 0"),
        ({"num_samples": 0}, "at least 1 image to draw from, got 0"),
        ({"first": 13}, r"from 0 or later to a stop, got \(13, 12\)"),
        ({"first": -1}, r"from 0 or later to a stop, got \(-1, 12\)"),
    ],
)
def test_an_order_that_cannot_be_is_refused_with_both_sides(changes, reason):
    with pytest.raises(ValueError, match=reason):
        draws_of(**changes)


def test_an_epoch_that_is_begun_in_its_midst_gives_the_rest():
    whole = list(EpochOrder(23, 4, 1, 5, rank=1, world=2))
    rest = EpochOrder(23, 4, 1, 5, rank=1, world=2, first=3)
    assert list(rest) == whole[3:]
    assert len(rest) == 2

"""A segmenter's steps: what they minimise, shares of workers, accumulation, resumption, no NaN."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rayseg.learn import NotFinite, SegmenterSGD, SegmenterTraining
from rayseg.learn.loop import _gathering, _summed
from rayseg.steps.following import tell_fitted
from tests.learn.steps import ALONE, Told, course, losses_of
from tests.learn.tiny import tiny

SCHEDULE = SegmenterSGD(lr=0.01, every=1)
TRAINING = SegmenterTraining(
    weights="none", schedule=SCHEDULE, precision="fp32", loss="cross_entropy"
)


class TwoOutputs(nn.Module):
    """Logits at two sizes, as a network of two input scales has them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, images):
        logits = self.head(self.trunk(images).relu())
        return [logits, functional.avg_pool2d(logits, 2)]


@pytest.fixture
def network():
    return TwoOutputs()


def batches(number=4, size=4, seed=0):
    """Images of which a channel tells the label, with unequal numbers of ignored pixels."""
    rng = np.random.default_rng(seed)
    for batch in range(number):
        labels = rng.integers(0, 3, (size, 6, 6)).astype(np.uint8)
        images = np.eye(3)[labels].transpose(0, 3, 1, 2) + rng.normal(0, 0.1, (size, 3, 6, 6))
        for place in range(size):
            labels[place, : place + batch % 2] = 255
        ids = [f"b{batch}i{place}" for place in range(size)]
        yield torch.from_numpy(images).float(), torch.from_numpy(labels), ids


def trained(network, steps=4, given=None, first=0, optimizer=None, **changed):
    training = replace(TRAINING, **changed)
    given = given or batches(8)
    return losses_of(training, network, given, steps, first, optimizer=optimizer)


def minimised(training, network, batch, worker):
    """What a worker differentiates, and the loss over all workers."""
    share, values = _summed(training.losses(network, batch, torch.float32), worker)
    return share, values["loss"]


def test_the_first_loss_is_the_sum_of_the_outputs_mean_cross_entropies(network):
    images, labels, _ = next(batches())
    coarse = labels[:, 1::2, 1::2]  # the pixel under each coarse cell's centre, rounded up
    expected = sum(
        functional.cross_entropy(logits, target.long(), ignore_index=255)
        for logits, target in zip(network(images), (labels, coarse), strict=True)
    )
    assert trained(network)[0] == pytest.approx(expected.item(), rel=1e-5)


def test_training_lowers_the_loss(network):
    losses = trained(network, 60, given=list(batches(60)))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_shares_of_workers_give_the_gradients_of_the_whole_batch(network):
    """Two shares with different numbers of counted pixels, added by hand."""
    images, labels, ids = next(batches())
    whole, value = minimised(TRAINING, network, (images, labels, ids), ALONE)
    expected = torch.autograd.grad(whole, list(network.parameters()))
    shares = [(images[place::2], labels[place::2], ids[place::2]) for place in range(2)]
    counted = []
    for share in shares:
        seen_alone = Told(together=lambda told: counted.append(told) or told)
        minimised(TRAINING, network, share, seen_alone)
    total = sum(counted)
    means = [torch.zeros_like(part) for part in expected]
    for share in shares:
        both = Told(world=2, together=lambda told: total)
        loss, seen = minimised(TRAINING, network, share, both)
        assert seen == pytest.approx(value, rel=1e-6)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        # as distributed training averages
        means = [mean + part / 2 for mean, part in zip(means, gradients, strict=True)]
    for got, want in zip(means, expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_are_averaged():
    given = list(batches(2))
    alone = [trained(TwoOutputs(), 1, given=[batch])[0] for batch in given]
    assert trained(TwoOutputs(), 1, given=given, accumulate=2) == pytest.approx([np.mean(alone)])


def test_a_training_in_two_parts_is_one_training():
    given = list(batches(6))
    network = TwoOutputs()
    whole = trained(network, 6, given=given)
    again = TwoOutputs()
    optimizer = SCHEDULE.optimizer(again)
    begun, drawn = course(TRAINING, again, 6, optimizer=optimizer), iter(given)
    first = [begun.take_step(again, drawn, step)["loss"] for step in range(3)]
    rest = trained(again, 6, given=given[3:], first=3, optimizer=optimizer)
    assert first + rest == whole
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


class Dropping(TwoOutputs):
    """The same, some of whose features are left out at random."""

    def forward(self, images):
        logits = self.head(functional.dropout(self.trunk(images).relu(), 0.5))
        return [logits, functional.avg_pool2d(logits, 2)]


def test_what_is_left_out_follows_from_seed_and_step():
    batch, still = next(batches()), SegmenterSGD(lr=1e-30, every=1)

    def losses(first=0, seed=0):
        training = replace(TRAINING, schedule=still, seed=seed)
        return losses_of(training, Dropping(), [batch] * 4, 4, first)

    assert len(set(losses())) == 4
    assert losses(first=2) == losses()[2:]
    assert not set(losses()) & set(losses(seed=1))


def test_a_loss_that_is_no_number_stops_before_it_changes_the_weights(network):
    given = list(batches(3))
    given[2][0][1, 0, 0, 0] = float("nan")
    begun, drawn = course(TRAINING, network, 3), iter(given)
    for step in range(2):
        begun.take_step(network, drawn, step)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(NotFinite) as caught:
        begun.take_step(network, drawn, 2)
    assert (caught.value.step, caught.value.ids) == (2, ["b2i0", "b2i1", "b2i2", "b2i3"])
    assert str(caught.value).startswith("loss must be finite, got nan at iteration 3 on ['b2i0'")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_batch_without_any_label_costs_nothing(network):
    images, labels, ids = next(batches())
    assert trained(network, 1, given=[(images, torch.full_like(labels, 255), ids)]) == [0.0]


def test_balanced_loss_is_asked_for(network):
    plain, balanced = (
        minimised(replace(TRAINING, loss=loss), network, next(batches()), ALONE)[1]
        for loss in ("cross_entropy", "balanced")
    )
    assert balanced > 1.5 * plain  # two means in place of one


def test_bf16_gives_about_the_same_losses():
    plain = trained(TwoOutputs())
    low = trained(TwoOutputs(), precision="bf16")
    assert low == pytest.approx(plain, rel=0.02)
    assert low != plain


def test_gradients_travel_with_the_last_batch_of_a_step_only():
    class Distributed(nn.parallel.DistributedDataParallel):
        def __init__(self):  # no process group: only what is asked of it counts
            nn.Module.__init__(self)
            self.asked = 0

        def no_sync(self):
            self.asked += 1
            return "apart"

    model = Distributed()
    kept = [_gathering(model, part, 3) for part in range(3)]
    assert model.asked == 2
    assert kept[:2] == ["apart", "apart"]


def test_v3_needs_two_images_a_worker_for_its_batch_normalisation():
    one = tiny("segmenter", network="deeplab_v3", input_scales=(1.0,), accumulate=4)
    with pytest.raises(ValueError, match=r"^deeplab_v3 must have 2 or more images .* got 1$"):
        one.check(10, 1)


# Steps that fit the data


@pytest.mark.parametrize(
    ("images", "given", "said"),
    [
        (10_582, {}, ""),
        (5_000, {}, "iterations 14500 in place of 30000"),
        (50_000, {}, ""),
        (437, {}, "iterations 2000 in place of 30000"),
        (6, {}, "batch_size 6 in place of 10, iterations 2000 in place of 30000"),
        (6, {"accumulate": 2, "iterations": 50}, "batch_size 6 in place of 10"),
        (
            1,
            {"network": "deeplab_v3"},
            "batch_size 2 in place of 10, iterations 2000 in place of 30",
        ),
        (437, {"iterations": 30_000}, ""),
    ],
)
def test_few_images_get_fewer_steps_and_batches_that_they_fill(images, given, said):
    asked = SegmenterTraining(**given)
    fitted = asked.fitted(images)
    assert tell_fitted("", fitted, asked, 1).startswith(said)
    assert bool(tell_fitted("", fitted, asked, 1)) == bool(said)
    assert fitted.fitted(images) == fitted
    assert asked.steps(images) == fitted.iterations
    fitted.check(images, 1)

"""Steps of networks that find objects: schedule, shares of workers, resumption, precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.learn import DetectorSGD, DetectorTraining, NotFinite, Worker, objects
from rayseg.learn.precision import lower_precision
from tests.learn.steps import Told, course, losses_of, taken
from tests.learn.tiny import tiny

SCHEDULE = DetectorSGD(lr=0.05, warmup_steps=3)
TRAINING = DetectorTraining(weights="none", schedule=SCHEDULE, precision="fp32")


class TwoLosses(nn.Module):
    """The mean colour of each image against its first box, and its brightness against its class."""

    def __init__(self, drawn=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(3, 8)
        self.box = nn.Linear(8, 4)
        self.kind = nn.Linear(8, 1)
        self.drawn = drawn

    def forward(self, images, targets):
        colours = torch.stack([image.mean((1, 2)) for image in images])
        features = self.trunk(colours + self.drawn * torch.randn_like(colours)).relu()
        boxes = torch.stack([target["boxes"][0] for target in targets])
        classes = torch.stack([target["classes"][:1] for target in targets]).float()
        return {
            "loss_box": (self.box(features) - boxes).abs().mean(),
            "loss_kind": (self.kind(features) - classes).square().mean(),
        }


def batches(number=8, size=4):
    """Images whose brightness tells the box and the class."""
    rng = np.random.default_rng(0)
    for batch in range(number):
        levels = rng.integers(0, 4, size)
        images = [torch.from_numpy(rng.integers(0, 64, (3, 5, 6), np.uint8)) for _ in range(size)]
        targets = [
            {"boxes": torch.full((1, 4), level / 4), "classes": torch.tensor([int(level > 1)])}
            for level in levels
        ]
        images = [image + int(64 * level) for image, level in zip(images, levels, strict=True)]
        yield images, targets, [f"b{batch}i{place}" for place in range(size)]


def trained(network, steps=6, given=None, first=0, **options):
    return taken(TRAINING, network, given or batches(steps), steps, first, **options)


def test_biases_learn_twice_as_fast_without_decay_and_frozen_weights_not_at_all():
    network = TwoLosses()
    network.kind.requires_grad_(False)
    weights, biases = SCHEDULE.optimizer(network).param_groups
    assert [id(p) for p in weights["params"]] == [id(network.trunk.weight), id(network.box.weight)]
    assert [id(p) for p in biases["params"]] == [id(network.trunk.bias), id(network.box.bias)]
    assert (weights["base_lr"], biases["base_lr"]) == (0.05, 0.1)
    assert (weights["weight_decay"], biases["weight_decay"]) == (1e-4, 0)


# Steps


def test_the_first_losses_are_the_networks_own_on_levels_in_0_to_1():
    images, targets, _ = next(batches())
    parts = TwoLosses()([image / 255 for image in images], targets)
    got = trained(TwoLosses(), 1)[0]
    assert got.keys() == {"loss", "loss_box", "loss_kind"}
    assert got["loss_box"] == pytest.approx(parts["loss_box"].item(), rel=1e-6)
    assert got["loss"] == pytest.approx(sum(parts.values()).item(), rel=1e-6)


def test_training_lowers_the_loss():
    losses = [one["loss"] for one in trained(TwoLosses(), 60)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_steps_equal_plain_sgd_with_the_rates_of_the_schedule():
    network, plain = TwoLosses(), TwoLosses()
    trained(network, 6)
    speeds = {name: torch.zeros_like(value) for name, value in plain.named_parameters()}
    for step, (images, targets, _) in enumerate(batches(6)):
        parameters = dict(plain.named_parameters())
        total = sum(plain([image / 255 for image in images], targets).values())
        gradients = torch.autograd.grad(total, list(parameters.values()))
        warm = 1 / 3 + 2 / 3 * min(step / 3, 1)
        rate = 0.05 * warm * 0.1 ** ((step >= 4) + (step >= 5))
        for name, gradient in zip(parameters, gradients, strict=True):
            factor, decay = (2, 0) if name.endswith("bias") else (1, 1e-4)
            speeds[name] = 0.9 * speeds[name] + gradient + decay * parameters[name].detach()
            parameters[name].data -= rate * factor * speeds[name]
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_training_in_two_parts_is_one_training():
    given = list(batches(6))
    whole = trained(TwoLosses(0.1), 6, given)
    network = TwoLosses(0.1)
    optimizer = SCHEDULE.optimizer(network)
    begun, drawn = course(TRAINING, network, 6, optimizer=optimizer), iter(given)
    first = [begun.take_step(network, drawn, step) for step in range(3)]
    rest = trained(network, 6, given[3:], first=3, optimizer=optimizer)
    assert first + rest == whole


def test_workers_draw_each_their_own():
    alone, again, other = (
        trained(TwoLosses(1.0), 2, worker=Worker(rank))[0]["loss"] for rank in (0, 0, 1)
    )
    assert alone == again
    assert alone != other


def test_the_loss_is_the_mean_over_workers():
    images, targets, ids = next(batches())
    own = trained(TwoLosses(), 1)[0]
    others = torch.tensor([[4.0, 8.0], [1.0, 1.0]])  # losses, and what they are means over
    both = Told(world=2, wrap=lambda network: network, together=lambda told: told + others)
    (got,) = trained(TwoLosses(), 1, [(images, targets, ids)], worker=both)
    assert got["loss_box"] == pytest.approx((own["loss_box"] + 4) / 2)
    assert got["loss"] == pytest.approx((own["loss"] + 12) / 2)


def test_a_loss_that_is_no_number_stops_before_it_changes_the_weights():
    network = TwoLosses()
    given = list(batches(3))
    given[2][1][1]["boxes"][0, 0] = float("nan")
    begun, drawn = course(TRAINING, network, 3), iter(given)
    for step in range(2):
        begun.take_step(network, drawn, step)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(NotFinite) as caught:
        begun.take_step(network, drawn, 2)
    assert (caught.value.step, caught.value.ids) == (2, ["b2i0", "b2i1", "b2i2", "b2i3"])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_long_gradients_are_cut_where_that_is_asked_for():
    schedule = DetectorSGD(lr=1.0, warmup_steps=0, momentum=0, weight_decay=0, max_norm=1e-3)
    network = TwoLosses()
    before = [p.clone() for p in network.parameters() if p.dim() > 1]
    taken(replace(TRAINING, schedule=schedule), network, batches(1), 1)
    after = [p for p in network.parameters() if p.dim() > 1]
    moved = sum((a - b).square().sum() for a, b in zip(after, before, strict=True)).sqrt()
    assert 0 < moved <= 1.001e-3


# Precision


def test_lowered_parts_compute_in_bf16_and_answer_in_float32():
    layer = nn.Linear(3, 3)
    given = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    with lower_precision([layer], torch.bfloat16):
        low = layer(given)
        outside = torch.mm(given, given.T)
    assert low.dtype == outside.dtype == torch.float32
    assert torch.equal(low.bfloat16().float(), low)
    assert torch.equal(outside, torch.mm(given, given.T))
    assert torch.equal(layer(given), nn.functional.linear(given, layer.weight, layer.bias))


def test_lowered_answers_keep_their_containers():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, given):
            return {"0": self.layer(given), "rest": [self.layer(given), (torch.arange(3),)]}

    with lower_precision([levels := Levels()], torch.bfloat16):
        found = levels(torch.ones(1, 3))
    assert found["0"].dtype == found["rest"][0].dtype == torch.float32
    assert found["rest"][1][0].dtype == torch.int64


def test_a_lowered_part_that_raises_leaves_nothing_behind():
    layer = nn.Linear(3, 3)
    with pytest.raises(RuntimeError), lower_precision([layer], torch.bfloat16):
        layer(torch.ones(1, 4))
    assert not torch.is_autocast_enabled("cpu")
    assert layer(torch.ones(1, 3)).dtype == torch.float32
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_bf16_gives_about_the_same_losses(monkeypatch):
    plain = [one["loss"] for one in trained(TwoLosses())]
    monkeypatch.setattr(objects, "lowered", lambda model: [model.trunk])
    low = losses_of(replace(TRAINING, precision="bf16"), TwoLosses(), batches(6), 6)
    assert low == pytest.approx(plain, rel=0.05)
    assert low != plain


def test_bf16_trains_a_one_stage_detector_on_images_whose_coarsest_level_is_one_cell():
    target = {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "classes": torch.tensor([1])}
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    given, losses = [([image] * 2, [target] * 2, ["a", "b"])] * 8, []
    for precision in ("fp32", "bf16"):
        one = tiny("detector", kind="retinanet", precision=precision)
        network = one.place_on(torch.device("cpu"), one.build(("a", "b"))).train()
        losses.append(losses_of(one, network, given, 8))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)

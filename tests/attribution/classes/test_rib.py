from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, RIB, Companions
from rayseg.attribution.classes.adaptable import AdaptableNetwork
from tests.reference import rib_literal as literal

FAST = {"num_steps": 3, "learning_rate": 1e-3, "margin": 1e9, "explosion_share": 1.0}
"""A tiny network wants large steps; nothing stops it."""
PRESETS = {
    "official": replace(RIB.official(), **FAST, num_companions=3, precision="fp32"),
    "as_written": replace(
        RIB.as_written(), **{**FAST, "margin": 0.5}, num_companions=3, precision="fp32"
    ),
}
ALONE = replace(PRESETS["official"], num_companions=0)
KINDS = ("rib", "sigmoid", "tanh", "softsign")


@pytest.fixture(scope="session")
def make_bank():
    def make(num_classes=3, count=12, side=40):
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (count, side, side, 3), generator=generator).byte()
        tags = torch.zeros(count, num_classes, dtype=torch.bool)
        for number, row in enumerate(tags):
            row[1 if number % 3 else number % num_classes] = True
            row[number % num_classes] |= number % 4 == 1
        boxes = torch.tensor([[0, 0, side, side], [0, 5, side - 9, side]] * (count // 2))
        return Companions(tuple(f"bank{i}" for i in range(count)), pixels, boxes, tags)

    return make


@pytest.fixture
def bank(make_bank):
    return make_bank()


@pytest.fixture
def images(draw_image):
    return torch.from_numpy(np.stack([draw_image(seed=seed) for seed in range(4)]))


def run_one(method, prepared, image, classes, image_id="a"):
    (found,) = method.run(prepared, torch.from_numpy(image)[None], [classes], ids=[image_id])
    return found


def assert_literal(method, network, image, classes, bank=None):
    """Both answers of one image in float64; how far the literal's maps are from CAM's."""
    double = network.double()
    expected = literal.adapt(double, image, classes, method, bank, "a")
    found = run_one(method, method.prepare(double, companions=bank), image, classes)
    wanted = literal.image_maps(expected, image.shape[:2])
    assert found.maps.dtype == torch.float64
    np.testing.assert_allclose(found.maps.numpy(), np.stack(wanted), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.scores, expected.logits[0], rtol=0, atol=1e-8)
    gains = expected.logits[-1] - expected.logits[0]
    torch.testing.assert_close(found.gains, gains, rtol=0, atol=1e-8)
    still = run_one(
        replace(method, num_steps=0), method.prepare(double, companions=bank), image, classes
    )
    return expected, found, np.abs(still.maps.numpy() - np.stack(wanted)).max()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("loss", KINDS)
@pytest.mark.parametrize("pooling", ["gndrp", "gap"])
@pytest.mark.parametrize("num_classes", [3, 80])
@pytest.mark.parametrize("with_companions", [True, False])
def test_rib_is_literal_in_float64(
    tiny_classifier, image, make_bank, preset, loss, pooling, num_classes, with_companions
):
    method = replace(PRESETS[preset], loss=loss, pooling=pooling)
    if not with_companions:
        method = replace(method, num_companions=0)
    network = tiny_classifier(num_classes).eval()
    classes = [2, 0] if num_classes == 3 else [71, 0]
    bank = make_bank(num_classes) if with_companions else None
    _, _, change = assert_literal(method, network, image, classes, bank)
    assert change > 1e-4


@pytest.mark.parametrize(
    "fields",
    [
        {"momentum": 0.9, "weight_decay": 0.3, "head_factor": 3.0, "power": 2.0},
        {"divide_by": "kept", "tau": 0.6},
        {"divide_by": "all", "tau": 0.6, "flip": False},
        {"scales": (1.0, 1.5), "unpooled_scales": (1.0,)},
        {"scales": (1.0, 0.5), "unpooled_scales": ()},
        {"maps": "cam"},
        {"add_last": True},
        {"add_last": True, "maps": "cam", "disjoint": False, "margin_role": "loss", "margin": 0.1},
        {"num_steps": 1},
        {"num_steps": 1, "add_last": True},
    ],
    ids=str,
)
def test_each_setting_is_literal_in_float64(network, image, bank, fields):
    method = replace(PRESETS["official"], **fields)
    assert_literal(method, network, image, [1, 2], bank)


@pytest.mark.parametrize("size_hw", [(37, 50), (48, 64)])
def test_images_of_any_size_are_literal_in_float64(network, draw_image, bank, size_hw):
    assert_literal(PRESETS["official"], network, draw_image(size_hw), [0], bank)


def test_each_setting_changes_the_maps(network, image, bank):
    method = replace(PRESETS["official"], margin_role="loss", margin=1.0)
    prepared = method.prepare(network.double(), companions=bank)
    plain = run_one(method, prepared, image, [0, 2]).maps
    for other in (
        {"learning_rate": 2e-3}, {"head_factor": 1.0}, {"weight_decay": 0.1}, {"momentum": 0.9},
        {"power": 0.0}, {"loss": "sigmoid"}, {"margin": 0.01}, {"pooling": "gap"}, {"tau": 0.8},
        {"divide_by": "kept"}, {"num_companions": 2}, {"disjoint": False},
        {"unpooled_scales": ()}, {"maps": "cam"}, {"add_last": True}, {"seed": 1},
    ):  # fmt: skip
        changed = run_one(replace(method, **other), prepared, image, [0, 2]).maps
        assert (changed - plain).abs().max() > 1e-7, other


def test_steps_that_no_map_would_see_are_not_taken(network, image):
    prepared = ALONE.prepare(network)
    assert run_one(ALONE, prepared, image, [1]).steps == 2
    assert run_one(replace(ALONE, add_last=True), prepared, image, [1]).steps == 3


@pytest.mark.parametrize("stopping_step", [1, 2, 3])
def test_margin_stops_at_the_literals_step(network, image, bank, stopping_step):
    free = replace(PRESETS["official"], num_steps=6)
    sums = literal.adapt(network.double(), image, [1, 2], free, bank, "a").target_sums
    sizes = [abs(value) for value in sums]
    assert sizes == sorted(sizes)
    margin = (sizes[stopping_step - 1] + (sizes[stopping_step - 2] if stopping_step > 1 else 0)) / 2
    method = replace(free, margin=margin)
    expected, found, _ = assert_literal(method, network, image, [1, 2], bank)
    assert (expected.stopped, expected.steps) == ("margin", stopping_step)
    assert found.steps == stopping_step
    assert f"ended after step {stopping_step}: its logits add up to" in found.note


def test_margin_is_held_against_the_size_of_the_sum(network, image):
    network.head.weight.data.neg_()
    method = replace(ALONE, margin=1e-3, learning_rate=0.0)
    (total,) = literal.adapt(network.double(), image, [0], method).target_sums
    assert total < -1e-3
    assert run_one(method, method.prepare(network), image, [0]).steps == 1


def test_margin_does_not_count_companions(network, image, bank):
    method = PRESETS["official"]
    sums = literal.adapt(network.double(), image, [1], method, bank, "a").target_sums
    alone = literal.adapt(network, image, [1], replace(method, num_companions=0)).target_sums
    assert sums[0] == alone[0]
    stopping = replace(method, margin=abs(sums[0]) * 0.999)
    assert run_one(stopping, stopping.prepare(network, companions=bank), image, [1]).steps == 1


@pytest.mark.parametrize(
    ("classes", "threshold", "share", "step"),
    [([2], 0.3, 0.5, 1), ([2], 0.3, 0.7, 2), ([2], 0.3, 0.8, 3), ([2], 0.5, 0.4, 3),
     ([1, 2], 0.5, 0.9, 2)],
)  # fmt: skip
def test_explosion_stops_at_the_literals_step(
    network, image, bank, classes, threshold, share, step
):
    method = replace(PRESETS["official"], num_steps=6)
    method = replace(method, explosion_threshold=threshold, explosion_share=share)
    expected, found, _ = assert_literal(method, network, image, classes, bank)
    assert (expected.stopped, expected.steps) == ("explosion", step)
    assert found.steps == step
    covered = expected.shares[-1]
    assert f"ended after step {step}: its maps cover {covered:.0%} of the image" in found.note


def test_classes_cover_an_image_together(network, image):
    method = replace(ALONE, explosion_threshold=0.5, num_steps=3, learning_rate=0.0)
    alone, together = (
        literal.adapt(network.double(), image, classes, method).shares[0]
        for classes in ([2], [0, 2])
    )
    assert alone < together
    stopping = replace(method, explosion_share=(alone + together) / 2)
    prepared = stopping.prepare(network)
    assert run_one(stopping, prepared, image, [2]).note == ""
    assert "maps cover" in run_one(stopping, prepared, image, [0, 2]).note


def checksum(network):
    """Of every weight and statistic, exact."""
    tensors = dict(network.state_dict())
    if isinstance(network, AdaptableNetwork):
        tensors["moving"] = network.moving
    return {key: value.clone().flatten().numpy().tobytes() for key, value in tensors.items()}


def test_weights_are_those_of_the_start_after_an_image(network, image, bank):
    method = PRESETS["official"]
    prepared = method.prepare(network, companions=bank)
    before, given = checksum(prepared), checksum(network)
    assert run_one(method, prepared, image, [0, 2]).steps == 2
    assert checksum(prepared) == before
    assert checksum(network) == given


def test_weights_are_those_of_the_start_after_fifty_images(network, draw_image, bank):
    method = replace(PRESETS["official"], scales=(1.0,), num_steps=2, num_companions=1)
    prepared = method.prepare(network, companions=bank)
    before, given = checksum(prepared), checksum(network)
    first = run_one(method, prepared, draw_image((32, 32)), [0]).maps
    for seed in range(1, 50):
        run_one(method, prepared, draw_image((32, 32), seed), [seed % 3])
    assert checksum(prepared) == before
    assert checksum(network) == given
    assert torch.equal(run_one(method, prepared, draw_image((32, 32)), [0]).maps, first)


def test_exception_amid_a_step_leaves_weights_and_the_next_image_as_they_were(
    network, draw_image, bank, monkeypatch
):
    method = replace(PRESETS["official"], num_steps=4)
    prepared = method.prepare(network, companions=bank)
    before, given = checksum(prepared), checksum(network)
    expected = run_one(method, prepared, draw_image(seed=1), [1]).maps
    calls = []

    def fail(indices):
        calls.append(indices)
        if len(calls) == 3:  # two steps taken, the views' gradients of the third added up
            assert checksum(prepared) != before
            raise RuntimeError("out of luck")
        return kept(indices)

    kept = prepared.companion_features
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "companion_features", fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            run_one(method, prepared, draw_image(), [0])
    assert checksum(prepared) == before
    assert checksum(network) == given
    assert torch.equal(run_one(method, prepared, draw_image(seed=1), [1]).maps, expected)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("loss", KINDS)
def test_small_groups_of_rows_add_up_to_one_graph(network, image, bank, preset, loss):
    method = replace(PRESETS[preset], loss=loss)
    prepared = method.prepare(network.double(), companions=bank)
    maps = [
        run_one(replace(method, graph_gb=size), prepared, image, [2, 0]).maps
        for size in (1e-9, 100.0)
    ]
    torch.testing.assert_close(*maps, rtol=0, atol=1e-10)


def test_rows_are_grouped_by_the_memory_of_their_graphs(network, image, bank, monkeypatch):
    prepared = PRESETS["official"].prepare(network, companions=bank)
    kept, sizes = prepared.raw_maps, []

    def count(features, classes):
        if torch.is_grad_enabled():
            sizes.append(len(features))
        return kept(features, classes)

    monkeypatch.setattr(prepared, "raw_maps", count)
    for memory_gb, largest in ((1e-9, 1), (100.0, 3)):
        sizes.clear()
        run_one(replace(PRESETS["official"], graph_gb=memory_gb), prepared, image, [1])
        assert max(sizes) == largest


@pytest.mark.parametrize("max_pairs", [1, 100])
def test_images_together_are_images_alone_in_any_order(network, images, bank, max_pairs):
    method = replace(PRESETS["official"], max_pairs=max_pairs, scales=(1.0, 0.5))
    prepared = method.prepare(network.double(), companions=bank)
    classes, ids = [[0], [2, 1], [], [1]], ["a", "b", "c", "d"]
    together = method.run(prepared, images, classes, ids=ids)
    order = [3, 1, 2, 0]
    turned = method.run(
        prepared, images[order], [classes[i] for i in order], ids=[ids[i] for i in order]
    )
    for number, found in enumerate(together):
        (alone,) = method.run(prepared, images[number, None], [classes[number]], ids=[ids[number]])
        for other in (alone, turned[order.index(number)]):
            np.testing.assert_allclose(other.maps, found.maps, rtol=0, atol=1e-10)
            assert (other.steps, other.note) == (found.steps, found.note)


def test_companions_follow_from_the_images_id(network, image, bank):
    method = PRESETS["official"]
    prepared = method.prepare(network, companions=bank)
    one = run_one(method, prepared, image, [1], "a").maps
    assert torch.equal(run_one(method, prepared, image, [1], "a").maps, one)
    assert not torch.equal(run_one(method, prepared, image, [1], "b").maps, one)


@pytest.mark.parametrize("num_steps", [2, 4])
def test_exploding_learning_rate_is_said_and_the_next_image_is_right(network, image, num_steps):
    prepared = ALONE.prepare(network)
    before = checksum(prepared)
    expected = run_one(ALONE, prepared, image, [1]).maps
    wild = replace(ALONE, num_steps=num_steps, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"must be finite, got .* at step"):
        run_one(wild, prepared, image, [1])
    assert checksum(prepared) == before
    assert torch.equal(run_one(ALONE, prepared, image, [1]).maps, expected)


def test_weight_that_is_no_number_is_said(network, image):
    network.trunk[3][0].weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="loss must be finite, got nan at step 0"):
        run_one(ALONE, ALONE.prepare(network), image, [1])


def test_time_that_is_up_ends_an_image_and_is_said(network, image):
    method = replace(ALONE, max_seconds=1e-9)
    found = run_one(method, ALONE.prepare(network), image, [1])
    assert found.steps == 1
    assert found.note == "ended after step 1: 1e-09 seconds were up"
    expected = run_one(replace(ALONE, num_steps=1), ALONE.prepare(network), image, [1])
    assert torch.equal(found.maps, expected.maps)


def test_image_that_takes_all_its_steps_has_no_note(network, image, bank):
    method = replace(PRESETS["official"], max_seconds=1e9)
    assert run_one(method, method.prepare(network, companions=bank), image, [2]).note == ""


def test_companions_that_share_a_class_are_said(network, image, bank):
    method = replace(PRESETS["official"], num_companions=len(bank), num_steps=2)
    found = run_one(method, method.prepare(network, companions=bank), image, [1])
    sharing = int(bank.tags[:, 1].sum())
    assert 0 < sharing < len(bank)
    assert found.note == f"{sharing} companions share a class with it"


@pytest.mark.parametrize("preset", ["official", "as_written"])
def test_zero_steps_equal_cam(network, image, preset):
    still = replace(getattr(RIB, preset)(), num_steps=0, precision="fp32")
    cam = getattr(CAM, preset)()
    expected = replace(cam, precision="fp32")(network, image, [0, 1, 2])
    found = still(network, image, [0, 1, 2])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_learning_rate_zero_equals_cam(network, image, bank, preset):
    method = replace(PRESETS[preset], learning_rate=0.0, precision="fp32")
    cam = replace(getattr(CAM, preset)(), precision="fp32")
    found = run_one(method, method.prepare(network, companions=bank), image, [0, 1, 2])
    torch.testing.assert_close(found.maps, cam(network, image, [0, 1, 2]), rtol=1e-4, atol=1e-4)


def test_bf16_is_close_to_fp32(network, image, bank):
    one, other = (
        run_one(method, method.prepare(network, companions=bank), image, [0, 1, 2]).maps
        for method in (
            replace(PRESETS["official"], precision=precision) for precision in ("fp32", "bf16")
        )
    )
    for a, b in zip(one, other, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.99
    assert (one - other).abs().max() > 0  # or bf16 was not used


def test_inference_mode_of_the_caller_does_not_matter(network, image, bank):
    method = PRESETS["official"]
    prepared = method.prepare(network, companions=bank)
    expected = run_one(method, prepared, image, [1]).maps
    with torch.no_grad():
        assert torch.equal(run_one(method, prepared, image, [1]).maps, expected)

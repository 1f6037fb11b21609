from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, RIB, AdvCAM, Companions, FickleNet, GradCAM, OnRIB
from rayseg.nets.classifier import CamClassifier
from tests.reference import attribution_literal
from tests.reference import rib_literal as literal

RIB_ALONE = replace(
    RIB.official(),
    scales=(1.0, 1.5),
    unpooled_scales=(),
    num_steps=3,
    learning_rate=1e-3,
    margin=1e9,
    explosion_share=1.0,
    num_companions=0,
    precision="fp32",
)
CAM_ALONE = CAM(scales=(1.0, 0.5), precision="fp32")
ADVCAM = AdvCAM(scales=(1.0,), num_steps=3, precision="fp32")


@pytest.fixture
def bank():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (6, 32, 32, 3), generator=generator).byte()
    boxes = torch.tensor([[0, 0, 32, 32]] * 6)
    return Companions(tuple("abcdef"), pixels, boxes, torch.eye(3, dtype=torch.bool).repeat(2, 1))


def run_one(both, prepared, image, classes, image_id="x"):
    (found,) = both.run(prepared, torch.from_numpy(image)[None], [classes], ids=[image_id])
    return found


def added(one, other):
    total = one + other
    return total / (total.max((1, 2), keepdims=True) + 1e-5)


def reached(network, image, classes, method, bank=None):
    """RIB's maps by the literal procedure, and the network after its K-th step."""
    found = literal.adapt(network, image, classes, method, bank, "x")
    maps = literal.image_maps(found, image.shape[:2])
    return np.stack(maps), found.network.eval().requires_grad_(True)


@pytest.mark.parametrize("method", [CAM_ALONE, ADVCAM], ids=["cam", "advcam"])
@pytest.mark.parametrize("add_last", [False, True])
def test_maps_are_ribs_plus_the_methods_on_the_weights_after_the_last_step(
    network, image, our_resize, method, add_last
):
    rib = replace(RIB_ALONE, add_last=add_last)
    both = OnRIB(method, rib)
    found = run_one(both, both.prepare(network), image, [2, 0])
    double = network.double()
    maps, after = reached(double, image, [2, 0], rib)
    after = after.float()  # the method works in float32
    look = attribution_literal.cam if method is CAM_ALONE else attribution_literal.advcam
    settings = {} if method is CAM_ALONE else {"num_steps": 3}
    own = np.stack(
        [look(after, image, c, scales=method.scales, resize=our_resize, **settings) for c in (2, 0)]
    )
    np.testing.assert_allclose(found.maps, added(maps, own), rtol=0, atol=1e-3)
    before = np.stack(
        [look(network.float(), image, c, scales=method.scales, resize=our_resize, **settings)
         for c in (2, 0)]
    )  # fmt: skip
    assert np.abs(own - before).max() > 0.02  # the weights have moved far enough to be seen


def test_companions_of_the_image_move_the_weights(network, image, bank):
    rib = replace(RIB_ALONE, num_companions=2)
    both = OnRIB(CAM_ALONE, rib)
    found = run_one(both, both.prepare(network, companions=bank), image, [1])
    maps, after = reached(network.double(), image, [1], rib, bank)
    own = CAM_ALONE(after.float(), image, [1]).numpy()
    np.testing.assert_allclose(found.maps, added(maps, own), rtol=0, atol=1e-4)


def test_zero_steps_are_twice_the_methods_own_maps(network, image):
    still = replace(RIB_ALONE, num_steps=0, scales=(1.0,))
    method = replace(CAM_ALONE, scales=(1.0,))
    both = OnRIB(method, still)
    found = run_one(both, both.prepare(network), image, [0, 1, 2]).maps
    torch.testing.assert_close(found, method(network, image, [0, 1, 2]), rtol=1e-4, atol=1e-4)


def test_steps_and_notes_are_those_of_both(network, image):
    both = OnRIB(ADVCAM, RIB_ALONE)
    found = run_one(both, both.prepare(network), image, [1])
    assert found.steps == 3 + 2  # RIB's three, and AdvCAM's two climbs between three maps
    assert found.note == ""
    stopping = OnRIB(ADVCAM, replace(RIB_ALONE, max_seconds=1e-9))
    assert "ended after step 1" in run_one(stopping, stopping.prepare(network), image, [1]).note


def test_gain_is_what_both_add_to_the_score(network, image):
    both = OnRIB(CAM_ALONE, RIB_ALONE)
    found = run_one(both, both.prepare(network), image, [2, 1])
    views = attribution_literal.look(image, 1, False, network.head.weight)
    _, after = reached(network.double(), image, [2, 1], RIB_ALONE)
    with torch.no_grad():
        before, later = (one.float()(views)[0, [2, 1]] for one in (network, after))
    torch.testing.assert_close(found.scores, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.gains, later - before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [CAM_ALONE, ADVCAM, GradCAM()], ids=lambda m: type(m).__name__)
def test_weights_are_put_back_and_the_next_image_is_right(network, draw_image, method):
    both = OnRIB(method, RIB_ALONE)
    prepared = both.prepare(network)
    before = prepared.moving.clone()
    given = {key: value.clone() for key, value in network.state_dict().items()}
    first = run_one(both, prepared, draw_image(), [1]).maps
    run_one(both, prepared, draw_image(seed=1), [0, 2])
    assert torch.equal(prepared.moving, before)
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())
    assert torch.equal(run_one(both, prepared, draw_image(), [1]).maps, first)


def test_weights_are_put_back_where_the_method_fails(network, image, monkeypatch):
    both = OnRIB(CAM_ALONE, RIB_ALONE)
    prepared = both.prepare(network)
    before = prepared.moving.clone()

    def fail(*_arguments):
        assert not torch.equal(prepared.moving, before)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(CAM, "locate", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        run_one(both, prepared, image, [1])
    assert torch.equal(prepared.moving, before)


def test_images_together_are_images_alone_and_may_have_no_class(network, draw_image, bank):
    both = OnRIB(CAM_ALONE, replace(RIB_ALONE, num_companions=2))
    prepared = both.prepare(network, companions=bank)
    images = torch.from_numpy(np.stack([draw_image(seed=seed) for seed in range(3)]))
    classes, ids = [[1], [], [2, 0]], ["p", "q", "r"]
    together = both.run(prepared, images, classes, map_stride=4, ids=ids)
    assert [tuple(found.maps.shape) for found in together] == [
        (1, 12, 16),
        (0, 12, 16),
        (2, 12, 16),
    ]
    for number, found in enumerate(together):
        (alone,) = both.run(prepared, images[number, None], [classes[number]], 4, [ids[number]])
        assert torch.equal(alone.maps, found.maps)
    assert together[1].steps == 0


def test_maps_lie_in_0_to_1(network, image):
    both = OnRIB(ADVCAM, RIB_ALONE)
    maps = run_one(both, both.prepare(network), image, [0, 1, 2]).maps
    assert maps.shape == (3, 48, 64)
    assert 0 <= maps.min() <= maps.max() <= 1


def test_real_trunk_works(draw_image):
    torch.manual_seed(0)
    network = CamClassifier("mobilenet_v2", 3).eval()
    both = OnRIB(replace(ADVCAM, num_steps=1), replace(RIB_ALONE, num_steps=1, scales=(1.0,)))
    maps = run_one(both, both.prepare(network), draw_image((33, 40)), [0]).maps
    assert torch.isfinite(maps).all()


def test_companions_are_asked_for_where_rib_uses_them(network):
    assert OnRIB(CAM_ALONE, RIB.official()).uses_companions
    assert not OnRIB(CAM_ALONE, RIB_ALONE).uses_companions
    with pytest.raises(ValueError, match="companions must be given"):
        OnRIB(CAM_ALONE, RIB.official()).prepare(network)


def test_of_an_exploding_image_the_method_sees_the_weights_before_the_last_step(network, image):
    exploding = replace(RIB_ALONE, explosion_share=0.0)  # its second maps cover too much
    both = OnRIB(CAM_ALONE, exploding)
    found = run_one(both, both.prepare(network), image, [1])
    assert found.steps == 1
    alone = exploding.run(network, torch.from_numpy(image)[None], [[1]])[0]
    plain = CAM_ALONE(network, image, [1])
    expected = added(plain.numpy(), alone.maps.numpy())
    np.testing.assert_allclose(found.maps.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "ids", "map_stride", "reason"),
    [
        ([[3]], ["x"], 1, r"classes must lie in 0\.\.2, got 3"),
        ([[-1]], ["x"], 1, r"classes must lie in 0\.\.2, got -1"),
        ([[0], [1]], ["x"], 1, "classes must name those of 1 images, got 2"),
        ([[0]], [], 1, "ids must name 1 images, got 0"),
        ([[0]], ["x"], 3, "map_stride must divide the network's stride 16, got 3"),
    ],
)
def test_bad_input_is_refused_before_anything_is_done(
    network, image, classes, ids, map_stride, reason
):
    with pytest.raises(ValueError, match=reason):
        OnRIB(CAM_ALONE, RIB_ALONE).run(
            network, torch.from_numpy(image)[None], classes, map_stride, ids
        )


def test_methods_of_another_network_are_refused():
    with pytest.raises(ValueError, match="must work on the classifier, got one of the ficklenet"):
        OnRIB(FickleNet(), RIB())

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from rayseg.attribution import CAM, AdvCAM
from rayseg.attribution.classes.views import _resize_bicubic, _resize_in_float, resize_maps
from rayseg.nets.classifier import CamClassifier
from tests.reference import attribution_literal as literal

TERMS = {
    "both": {},
    "no_restriction": {"restrict": 0.0},
    "no_suppression": {"suppress": 0.0},
    "neither": {"restrict": 0.0, "suppress": 0.0},
    "other_values": {"restrict": 30.0, "threshold": 0.2, "suppress": 0.5},
}
FIELDS = {
    "restrict": "restrict_weight",
    "threshold": "restrict_threshold",
    "suppress": "suppress_weight",
}


def as_fields(terms):
    return {FIELDS[name]: value for name, value in terms.items()}


def largest_difference(found, expected):
    """Relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
@pytest.mark.parametrize("classes", [[1], [2, 0], [0, 1, 2]])
def test_official_advcam_is_the_literal_procedure(
    network, draw_image, our_resize, size_hw, classes
):
    image = draw_image(size_hw)
    maps = AdvCAM(num_steps=4, precision="fp32")(network, image, classes)
    for found, target in zip(maps, classes, strict=True):
        expected = literal.advcam(network, image, target, num_steps=4, resize=our_resize)
        assert largest_difference(found, expected) < 1e-4


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_each_term_is_literal_in_float64(network, double_network, image, terms):
    pair = literal.look(image, 1, True, double_network.weight)
    owner, target = torch.zeros(3, dtype=torch.long), torch.tensor([2, 0, 1])
    method = AdvCAM(num_steps=8, **as_fields(terms))
    found = method.locate(double_network, pair[None], owner, target, 1.0)
    for own, one in zip(found.maps, target, strict=True):
        expected = literal.advcam_one_scale(network.double(), pair, int(one), 8, **terms)
        assert largest_difference(own, expected) < 1e-9


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
def test_advcam_as_written_is_the_equations(network, draw_image, size_hw, terms):
    image = draw_image(size_hw)
    method = replace(AdvCAM.as_written(), num_steps=5, precision="fp32", **as_fields(terms))
    maps = method(network, image, [0, 1, 2])
    for target, found in enumerate(maps):
        expected = literal.advcam_as_written(network, image, target, num_steps=5, **terms)
        assert largest_difference(found, expected) < 1e-4


def test_as_written_is_literal_in_float64(network, double_network, draw_image):
    image = draw_image((32, 48))
    views = literal.look(image, 1, False, double_network.weight)[None]
    owner, target = torch.zeros(3, dtype=torch.long), torch.arange(3)
    method = AdvCAM.as_written()
    found = method.locate(double_network, views, owner, target, 1.0)
    assert found.steps == (27,)
    for own, one in zip(found.maps, target, strict=True):
        expected = literal.advcam_as_written(network.double(), image, int(one))
        own_map = literal.on_image_grid([own], (32, 48), 16)  # both divided by their top
        assert largest_difference(own_map, expected) < 1e-9


def test_real_trunk_in_lean_form_is_literal_in_float64(as_double, image):
    torch.manual_seed(0)
    network = CamClassifier("mobilenet_v2", 3).eval()
    lean = as_double(network)
    pair = literal.look(image, 1, True, lean.weight)
    owner, target = torch.zeros(2, dtype=torch.long), torch.tensor([2, 0])
    found = AdvCAM(num_steps=4).locate(lean, pair[None], owner, target, 1.0)
    for own, one in zip(found.maps, target, strict=True):
        expected = literal.advcam_one_scale(network.double(), pair, int(one), 4)
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


def test_each_term_changes_the_map(network, image):
    plain = AdvCAM(scales=(1.0,), num_steps=6)(network, image, [1])
    for terms in TERMS.values():
        if terms:
            other = AdvCAM(scales=(1.0,), num_steps=6, **as_fields(terms))(network, image, [1])
            assert (plain - other).abs().max() > 1e-3, terms


def test_climbing_raises_the_score(network, image):
    images = torch.from_numpy(image)[None]
    (found,) = AdvCAM(num_steps=8, restrict_weight=0.0).run(network, images, [[0, 1, 2]])
    assert (found.gains > 0.1).all()
    assert found.steps == 7


def test_gain_is_what_the_network_says_of_the_climbed_image(network, double_network, image):
    pair = literal.look(image, 1, True, double_network.weight)
    one, target = torch.zeros(1, dtype=torch.long), torch.tensor([1])
    found = AdvCAM(num_steps=2).locate(double_network, pair[None], one, target, 1.0)
    leaf = pair.clone().requires_grad_()
    logits = network.double().head(network.features(leaf)).relu().mean((2, 3)).sum(0)
    (gradient,) = torch.autograd.grad(2 * logits[1] - logits.sum(), leaf)  # no change yet: no loss
    climbed = (pair + 0.08 * gradient / gradient.abs().max()).clamp(pair.min(), pair.max())
    before, after = network(pair)[0, 1], network(climbed)[0, 1]
    torch.testing.assert_close(found.scores[0], before.detach())
    torch.testing.assert_close(found.gains[0], (after - before).detach(), rtol=1e-6, atol=1e-9)


def test_more_restriction_keeps_the_score_lower(network, image):
    images = torch.from_numpy(image)[None]
    gains = [
        AdvCAM(scales=(1.0,), num_steps=8, restrict_weight=weight)
        .run(network, images, [[1]])[0]
        .gains.item()
        for weight in (0.0, 1000.0)
    ]
    assert gains[0] > gains[1]


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(27, 13), (10, 5), (9, 5), (6, 5), (5, 2), (2, 1), (12, 6)]
)
def test_half_scale_takes_half_of_the_maps_or_five(num_steps, expected):
    assert AdvCAM(num_steps=num_steps)._num_maps(0.5) == expected
    assert literal.num_official_maps(num_steps, 0.5) == expected
    assert AdvCAM(num_steps=num_steps)._num_maps(1.5) == num_steps
    assert AdvCAM(num_steps=num_steps, halve_small=False)._num_maps(0.5) == num_steps


def test_half_scale_keeps_one_map_of_a_single_step():
    assert AdvCAM(num_steps=1)._num_maps(0.5) == 1


def test_text_adds_one_map_more_than_it_climbs(network, image):
    assert AdvCAM.as_written()._num_maps(1.0) == 28
    (found,) = AdvCAM.as_written().run(network, torch.from_numpy(image)[None], [[0]])
    assert found.steps == 27


@pytest.mark.parametrize("preset", ["official", "as_written"])
def test_zero_steps_equal_cam(network, image, preset):
    method = getattr(AdvCAM, preset)()
    still = replace(method, num_steps=0)
    expected = getattr(CAM, preset)()(network, image, [0, 1, 2])
    torch.testing.assert_close(still(network, image, [0, 1, 2]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["official", "as_written"])
def test_class_without_any_positive_cell_has_an_empty_map(tiny_classifier, image, preset):
    network = tiny_classifier(seed=0).eval()
    views = literal.look(image, 1, False, network.head.weight)
    assert literal.raw_maps(network, views)[:, 1].max() < 0
    method = getattr(AdvCAM, preset)()
    few = replace(method, num_steps=2, scales=(1.0,), flip=False)
    assert few(network, image, [1]).max() == 0


def test_climb_stays_in_the_range_of_its_own_pair(double_network, draw_image):
    dark, bright = draw_image() // 4, draw_image(seed=1)
    views = torch.stack(
        [literal.look(one, 1, True, double_network.weight) for one in (dark, bright)]
    )
    climbed = AdvCAM(step_size=5.0)._climb(views, torch.randn_like(views))
    for before, after in zip(views, climbed, strict=True):
        assert after.max() == before.max()
        assert after.min() == before.min()


def test_text_climbs_without_division_or_range(double_network, image):
    views = literal.look(image, 1, False, double_network.weight)[None]
    gradient = torch.randn_like(views) * 100
    climbed = AdvCAM.as_written()._climb(views, gradient)
    torch.testing.assert_close(climbed, views + 0.008 * gradient, rtol=0, atol=0)


@pytest.mark.parametrize("method", [CAM(), AdvCAM(num_steps=6)], ids=["cam", "advcam"])
def test_bf16_is_close_to_fp32(network, image, method):
    one, other = (
        replace(method, precision=precision)(network, image, [0, 1, 2])
        for precision in ("fp32", "bf16")
    )
    for a, b in zip(one, other, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.99
    assert (one - other).abs().max() > 0  # or bf16 was not used


@pytest.mark.parametrize("size_hw", [(24, 32), (19, 25), (72, 96), (37, 50), (100, 31), (96, 128)])
@pytest.mark.parametrize("device_path", [False, True])
def test_resize_is_pillows_but_for_single_levels(draw_image, size_hw, device_path):
    image = draw_image((48, 64))
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    resize = _resize_in_float if device_path else _resize_bicubic
    found = resize(planes, size_hw)[0].permute(1, 2, 0).numpy().astype(int)
    size = (size_hw[1], size_hw[0])
    expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(found - expected)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.03


def test_maps_are_stretched_to_whole_cells_and_cropped():
    maps = torch.tensor([[[0.0, 16.0], [32.0, 48.0]]])
    found = resize_maps(maps, (20, 32), stride=16, map_stride=1)[0]
    # between the cells' centres, 8 and 24, a map rises by one a column and two a row
    columns = [0.0] * 8 + [i + 0.5 for i in range(16)] + [16.0] * 8
    rows = [0.0] * 8 + [2 * i + 1.0 for i in range(12)]
    expected = np.array(rows)[:, None] + np.array(columns)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_quarter_maps_lie_over_the_same_pixels():
    maps = torch.arange(6.0).reshape(1, 2, 3)
    found = resize_maps(maps, (30, 41), stride=16, map_stride=4)
    assert found.shape == (1, 8, 11)
    canvas = functional.interpolate(maps[None], (8, 12), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, canvas[:, :, :11], rtol=0, atol=0)


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
def test_literal_grid_is_torchs_bilinear(size_hw):
    maps = torch.rand(1, 3, 4)
    found = resize_maps(maps, size_hw, 16, 1)[0]
    expected = literal.on_image_grid([maps[0]], size_hw, 16)
    np.testing.assert_allclose(found / (found.max() + 1e-5), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"num_steps": -1}, "num_steps must be 0 or more, got -1"),
        ({"maps": "grad"}, "maps must be gradcam or cam, got 'grad'"),
        ({"scales": ()}, "scales must be positive and at least one"),
        ({"scales": (1.0, 0.0)}, "scales must be positive and at least one"),
        ({"precision": "fp16"}, "precision must be auto, fp32 or bf16, got 'fp16'"),
    ],
)
def test_senseless_field_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        AdvCAM(**fields)


@pytest.mark.parametrize(
    "method", [AdvCAM(num_steps=12), replace(AdvCAM.as_written(), num_steps=3)]
)
def test_a_course_is_a_run_for_each_number_of_steps(network, draw_image, method):
    image = draw_image((48, 64))
    lean = method.prepare(network)
    found = list(method.course(lean, torch.from_numpy(image), [2, 0], "a", 4))
    first = 0 if method.add_last else 1
    assert len(found) == method.num_steps + 1 - first
    for steps, one in enumerate(found, first):
        alone = replace(method, num_steps=steps)
        (expected,) = alone.run(lean, torch.from_numpy(image)[None], [[2, 0]], 4, ["a"])
        torch.testing.assert_close(one.maps, expected.maps, rtol=0, atol=1e-5)
        if steps:
            assert one.steps == expected.steps
    assert not list(method.course(lean, torch.from_numpy(image), [], "a", 4))

"""FickleNet against expanded maps with real backward passes, and at its zeros."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.attribution import CAM, GradCAM, LeanNetwork
from rayseg.attribution.classes import ficklenet as module
from rayseg.attribution.classes.base import divide_by_maximum, seeded
from rayseg.attribution.classes.ficklenet import (
    FickleNet,
    LeanFickle,
    draw_selections,
    inside,
    place_maps,
)
from rayseg.attribution.classes.views import resize_maps
from rayseg.nets.ficklenet import FickleClassifier
from tests.reference import attribution_literal
from tests.reference import ficklenet_literal as literal

FEW = FickleNet(num_passes=6, drop_rate=0.6, precision="fp32")


class TinyFickle(FickleClassifier):
    """A FickleNet on the trunk of a tiny classifier."""

    def __init__(self, classifier, kernel=3, drop_rate=0.6, seed=6):
        nn.Module.__init__(self)
        torch.manual_seed(seed)
        self.trunk = classifier.trunk
        depth, number = classifier.head.in_channels, classifier.head.out_channels
        self.head = nn.Conv2d(depth, number, kernel, padding=kernel // 2, bias=False)
        nn.init.normal_(self.head.weight, 0, 0.3)
        self.stride, self.frozen_statistics = classifier.stride, True
        self.drop_rate, self.dilated, self.selection = drop_rate, False, "closed"
        self._seed = None


class DoubleFickle(LeanFickle):
    """The lean network in float64, nothing folded."""

    def __init__(self, network):
        super().__init__(network, "fp32")
        self.plain = network.double().eval()
        self.kernel = network.head.weight.detach()

    def features(self, images):
        return self.plain.features(images.double())


@pytest.fixture
def network(tiny_classifier):
    return TinyFickle(tiny_classifier(stride=8)).eval()


@pytest.fixture
def large(tiny_classifier):
    return TinyFickle(tiny_classifier(stride=8), kernel=9).eval()


def literal_passes(network, image, target, method, image_id="", view="1.0"):
    """Each pass's map at scale 1 by expansion and backward, with the selections of the method."""
    with torch.no_grad():
        mirrored = view.endswith("mirrored")
        like = network.head.weight
        planes = attribution_literal.look(image, 1, mirrored, like)[-1:]
        features = network.eval().features(planes)[0]
    side, size_hw = network.head.kernel_size[0], features.shape[1:]
    drawn = draw_selections(
        method.num_passes, size_hw.numel(), side**2, method.drop_rate,
        seeded(method.seed, f"{image_id}/{view}"),
    )  # fmt: skip
    by_cell = drawn.transpose(1, 2).unflatten(2, size_hw)  # (t, o, h, w)
    windows = [literal.windows_of(one, side) for one in by_cell]
    weight = network.head.weight.detach()
    return torch.stack([literal.map_of_pass(features, weight, own, target) for own in windows])


def on_image(maps, image, stride):
    return divide_by_maximum(resize_maps(maps.float(), image.shape[:2], stride, 1))


@pytest.mark.parametrize("aggregate", ["threshold", "max", "mean"])
@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50)])
def test_maps_are_those_of_expanded_passes(network, draw_image, aggregate, size_hw):
    image = draw_image(size_hw)
    method = replace(FEW, aggregate=aggregate)
    maps = method(network, image, [2, 0], image_id="a")
    network.double()
    for found, target in zip(maps, [2, 0], strict=True):
        passes = literal_passes(network, image, target, method, "a")
        expected = literal.aggregate(passes, aggregate, 0.35)
        torch.testing.assert_close(
            found, on_image(expected[None], image, 8)[0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("form", "within"), [("double", 1e-10), ("float", 1e-6)])
def test_every_pass_is_the_expanded_one(large, draw_image, form, within):
    image = draw_image((40, 48))
    dtype = torch.float64 if form == "double" else torch.float32
    large.to(dtype)
    planes = attribution_literal.look(image, 1, False, large.head.weight)
    with torch.no_grad():
        features = large.features(planes)[0]
    lean = DoubleFickle(large) if form == "double" else LeanFickle(large, "fp32")
    method = replace(FEW, num_passes=4)
    (maps,) = method._passes(place_maps(features, lean.kernel[1:]), seeded(0, "a/1.0"))
    for number, target in enumerate((1, 2)):
        expected = literal_passes(large, image, target, method, "a")
        found = maps[..., number].t().unflatten(1, features.shape[1:])
        assert (found - expected).abs().max() < within * expected.max()


def test_expansion_and_loop_give_the_same_literal_map(network, image):
    network.double()
    with torch.no_grad():
        features = network.features(attribution_literal.look(image, 1, False, network.head.weight))
    weight = network.head.weight.detach()
    windows = torch.rand(*features.shape[2:], 3, 3) < 0.5
    by_loop = literal.map_of_pass(features[0], weight, windows, 1, literal.logits_by_position)
    torch.testing.assert_close(
        literal.map_of_pass(features[0], weight, windows, 1), by_loop, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_nothing_dropped_is_gradcam_of_the_whole_head(network, image, aggregate):
    class Whole(TinyFickle):
        def classify(self, features):
            return self.head(features).mean((2, 3))

    network.__class__ = Whole
    network.double()
    maps = replace(FEW, drop_rate=0.0, aggregate=aggregate, num_passes=2)(network, image, [0, 1])
    for target, found in enumerate(maps):
        expected = attribution_literal.gradcam(network, image, target, (1.0,), False, pooled=False)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("aggregate", ["max", "mean"])
@pytest.mark.parametrize("drop_rate", [0.0, 0.9])
def test_a_head_that_is_its_centre_is_cam(network, tiny_classifier, image, aggregate, drop_rate):
    plain = tiny_classifier(stride=8).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.weight[:, :, 1:2, 1:2] = plain.head.weight
    images, classes = torch.from_numpy(image)[None], [[0, 1, 2]]
    method = replace(FEW, aggregate=aggregate, drop_rate=drop_rate)
    (found,) = method.run(network, images, classes)
    (expected,) = CAM(scales=(1.0,), flip=False, precision="fp32").run(plain, images, classes)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-3, atol=1e-3)


def test_half_as_background_threshold_is_what_any_pass_found(network, image):
    rule, largest = (
        replace(FEW, aggregate=aggregate).run(network, torch.from_numpy(image)[None], [[0, 1]], 8)
        for aggregate in ("threshold", "max")
    )
    # at the network's own stride no cell is blended with its neighbours
    for one, other in zip(rule[0].maps, largest[0].maps, strict=True):
        assert torch.equal(one > 0.4999, other > 0.35)
        assert 0.05 < (one > 0.4999).float().mean() < 0.95


def test_gains_are_none_and_scores_the_logits_of_eval_mode(network, image):
    found = FEW.run(network, torch.from_numpy(image)[None], [[2, 0]])[0]
    with torch.no_grad():
        logits = network(attribution_literal.look(image, 1, False, network.head.weight))[0]
    torch.testing.assert_close(found.scores, logits[[2, 0]], rtol=1e-4, atol=1e-5)
    assert found.gains.tolist() == [0, 0]
    assert found.steps == 0


def test_mirrored_view_is_turned_back_and_has_its_own_selections(network, image):
    method = replace(FEW, flip=True, aggregate="mean")
    found = method(network, image, [1], image_id="a")[0]
    network.double()
    own, mirrored = (
        literal.aggregate(literal_passes(network, image, 1, method, "a", view), "mean", 0)
        for view in ("1.0", "1.0/mirrored")
    )
    expected = on_image((own + mirrored.flip(1))[None], image, 8)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_fewer_passes_are_the_first_of_more():
    places = torch.rand(12, 9, 2)
    few, more = (
        torch.cat(list(replace(FEW, num_passes=n)._passes(places, seeded(0, "a"))), 1)
        for n in (4, 9)
    )
    torch.testing.assert_close(more[:, :4], few, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("numbers", [1, 500, 1000])
def test_block_size_does_not_matter(monkeypatch, network, image, numbers):
    expected = FEW(network, image, [0, 2])
    monkeypatch.setattr(module, "BLOCK_NUMBERS", numbers)
    torch.testing.assert_close(FEW(network, image, [0, 2]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cells", "units"), [(7, 9), (6, 25), (4, 9)])
def test_blocks_of_passes_are_one_stream(cells, units):
    together = draw_selections(6, cells, units, 0.5, seeded(1, "a"))
    generator = seeded(1, "a")
    apart = [draw_selections(n, cells, units, 0.5, generator) for n in (1, 3, 2)]
    assert torch.equal(torch.cat(apart), together)


@pytest.mark.parametrize("drop_rate", [0.0, 0.5, 0.9])
def test_selections_keep_centres_and_the_rest_by_chance(drop_rate):
    kept = draw_selections(50, 200, 9, drop_rate, seeded(0, ""))
    assert kept[..., 4].all()
    others = kept[..., [0, 1, 2, 3, 5, 6, 7, 8]].float()
    # 80,000 draws deviate by 0.0018 at most
    assert others.mean() == pytest.approx(1 - drop_rate, abs=0.01)
    neighbours = others.flatten() - others.mean()
    for lag in range(1, 5):  # four numbers come out of one draw
        related = (neighbours[lag:] * neighbours[:-lag]).mean()
        assert related.abs() < 0.005


def test_selections_of_other_images_and_seeds_differ(network, image):
    first = FEW(network, image, [1], image_id="a")
    for method, image_id in ((FEW, "b"), (replace(FEW, seed=1), "a")):
        assert (method(network, image, [1], image_id=image_id) - first).abs().max() > 0.05


def test_images_of_a_batch_have_the_maps_that_they_have_alone(network, draw_image):
    images = torch.from_numpy(np.stack([draw_image((37, 50), seed) for seed in range(3)]))
    classes, ids = [[0], [], [2, 1]], ["a", "b", "c"]
    together = replace(FEW, max_pairs=9).run(network, images, classes, ids=ids)
    for i, found in enumerate(together):
        (alone,) = FEW.run(network, images[i : i + 1], classes[i : i + 1], ids=ids[i : i + 1])
        torch.testing.assert_close(found.maps, alone.maps, rtol=1e-4, atol=1e-5)


def test_inside_is_where_the_window_lies_on_the_map():
    found = inside(3, 4, 5).view(4, 5, 3, 3)
    for y, x, row, column in torch.cartesian_prod(*map(torch.arange, (4, 5, 3, 3))).tolist():
        position = y - (row - 1), x - (column - 1)
        assert found[y, x, row, column] == (0 <= position[0] < 4 and 0 <= position[1] < 5)


def test_a_class_that_is_nowhere_has_an_empty_map(network, image):
    with torch.no_grad():
        network.head.weight[1] = -network.head.weight[1].abs()
    for aggregate in ("threshold", "max", "mean"):
        maps = replace(FEW, aggregate=aggregate)(network, image, [0, 1])
        assert maps[0].max() > 0.99
        assert maps[1].max() == 0


def test_heads_of_1x1_are_refused_with_the_way_out(tiny_classifier):
    plain = tiny_classifier()
    reason = r"larger than 1x1, got 1x1; train one with train-ficklenet$"
    for network in (plain, LeanNetwork(plain, "fp32"), TinyFickle(plain, kernel=1)):
        with pytest.raises(ValueError, match=reason):
            FickleNet().prepare(network)


def test_other_methods_refuse_a_ficklenet(network):
    with pytest.raises(ValueError, match="head must be 1x1, got 3x3"):
        GradCAM().prepare(network)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("num_passes", 0, "num_passes must be 1 or more, got 0"),
        ("drop_rate", 1.0, r"drop_rate must be in \[0, 1\), got 1.0"),
        ("threshold", 1.0, r"threshold must be in \[0, 1\), got 1.0"),
        ("aggregate", "sum", "aggregate must be threshold, max or mean, got 'sum'"),
    ],
)
def test_values_out_of_range_are_refused(field, value, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        FickleNet(**{field: value})


def test_official_values_are_those_recalled_from_the_paper():
    official = FickleNet.official()
    assert (official.num_passes, official.drop_rate, official.threshold) == (200, 0.9, 0.35)
    assert (official.scales, official.flip) == ((1.0,), False)
    assert FickleNet.as_written() == replace(official, aggregate="max")

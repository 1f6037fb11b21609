"""What every method promises, whatever it computes (DESIGN.md, the contract of a method)."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.attribution import CAM, METHODS, RIB, GradCAM, LeanNetwork
from rayseg.attribution.classes.lean import placed
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.ficklenet import FickleClassifier
from rayseg.nets.seam import PixelCorrelation, SeamClassifier
from tests.attribution.conftest import TinyClassifier, TinySeam

CASES = [(name, preset) for name in METHODS for preset in ("official", "as_written")]
ASK_THE_NETWORK = [case for case in CASES if not issubclass(METHODS[case[0]], RIB)]
"""RIB asks stages, not the network, for features: test_rib.py fails amid a step."""
EQUAL_CAM = [case for case in CASES if METHODS[case[0]].network_kind == "classifier"]
"""test_ficklenet.py and test_seam.py hold the others against their own zeros."""


@pytest.fixture(params=CASES, ids="-".join)
def method(request):
    """Each method and preset in float32, with few steps where it has any."""
    name, preset = request.param
    made = replace(getattr(METHODS[name], preset)(), precision="fp32")
    given = {field.name for field in fields(made)}
    few = {"num_steps": 3, "num_companions": 0, "num_passes": 5, "drop_rate": 0.5}
    return replace(made, **{key: few[key] for key in few.keys() & given})


class TinyFickle(FickleClassifier):
    """The tiny classifier's trunk with a head of windows."""

    def __init__(self, num_classes=3, stride=16):
        nn.Module.__init__(self)
        plain = TinyClassifier(num_classes, stride)
        self.trunk, self.stride, self.frozen_statistics = plain.trunk, stride, True
        self.head = nn.Conv2d(plain.head.in_channels, num_classes, 3, padding=1, bias=False)
        nn.init.normal_(self.head.weight, 0, 0.3)
        self.drop_rate, self.dilated, self.selection = 0.5, False, "closed"
        self._seed = None


@pytest.fixture
def tiny(method):
    """The class of tiny networks that the method works on."""
    kinds = {"classifier": TinyClassifier, "ficklenet": TinyFickle, "seam": TinySeam}
    return kinds[method.network_kind]


@pytest.fixture
def network(tiny):
    return tiny().eval()


@pytest.fixture
def images(draw_image):
    return torch.from_numpy(np.stack([draw_image((37, 50), seed) for seed in range(8)]))


def state_of(network):
    return {
        "tensors": {key: value.clone() for key, value in network.state_dict().items()},
        "gradients": [parameter.grad for parameter in network.parameters()],
        "trained": [parameter.requires_grad for parameter in network.parameters()],
        "modes": [module.training for module in network.modules()],
        "hooks": [
            [len(hooks) for key, hooks in vars(module).items() if key.endswith("_hooks")]
            for module in network.modules()
        ],
        "types": [type(module) for module in network.modules()],
    }


def assert_untouched(network, before):
    after = state_of(network)
    for key, value in before.pop("tensors").items():
        torch.testing.assert_close(after["tensors"][key], value, rtol=0, atol=0)
    del after["tensors"]
    assert after == before


def test_one_map_a_class_float32_finite_in_0_to_1(method, network, image):
    maps = method(network, image, [2, 0])
    assert maps.shape == (2, 48, 64)
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()
    assert 0 <= maps.min() <= maps.max() <= 1
    assert (maps.amax((1, 2)) > 0.99).all()


def test_batch_of_eight_equals_eight_of_one(method, network, images):
    classes = [[0], [1, 2], [2], [0, 1], [1], [0, 2], [2, 1, 0], [1]]
    together = replace(method, max_pairs=100).run(network, images, classes)
    for image, own, found in zip(images, classes, together, strict=True):
        (alone,) = method.run(network, image[None], [own])
        torch.testing.assert_close(found.maps, alone.maps, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.gains, alone.gains, rtol=1e-3, atol=1e-4)
        assert found.steps == alone.steps


@pytest.mark.parametrize("max_pairs", [1, 3])
def test_pairs_in_a_batch_do_not_matter(method, network, images, max_pairs):
    classes = [[0, 1, 2], [1], [], [2, 0]]
    expected = replace(method, max_pairs=100).run(network, images[:4], classes)
    found = replace(method, max_pairs=max_pairs).run(network, images[:4], classes)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.maps, other.maps, rtol=1e-3, atol=1e-4)


def test_other_order_of_classes_is_that_order_of_maps(method, network, image):
    maps = method(network, image, [0, 1, 2])
    turned = method(network, image, [2, 0, 1])
    torch.testing.assert_close(turned, maps[[2, 0, 1]], rtol=1e-3, atol=1e-4)


def test_scores_and_gains_are_those_of_the_image_at_its_own_size(method, network, image):
    images = torch.from_numpy(image)[None]
    small, own = (
        replace(method, scales=scales).run(network, images, [[2, 0]])[0]
        for scales in ((0.75,), (1.0,))
    )
    (both,) = replace(method, scales=(0.75, 1.0)).run(network, images, [[2, 0]])
    torch.testing.assert_close(both.scores, own.scores, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both.scores, small.scores, rtol=1e-3)


def test_image_without_classes_has_no_maps_and_no_steps(method, network, images):
    mixed = replace(method, max_pairs=100).run(network, images[:3], [[1], [], [0, 2]])
    assert [len(found.maps) for found in mixed] == [1, 0, 2]
    alone = method.run(network, images[:1], [[]])[0]
    for found in (mixed[1], alone):
        assert found.maps.shape == (0, 37, 50)
        assert found.scores.shape == found.gains.shape == (0,)
        assert found.steps == 0


def test_no_images_have_no_maps(method, network):
    assert method.run(network, torch.zeros(0, 37, 50, 3, dtype=torch.uint8), []) == []


def test_network_is_left_untouched(method, network, image):
    network.train()
    network.trunk[0].requires_grad_(False)
    network.head.register_forward_hook(lambda *call: None)
    before = state_of(network)
    method(network, image, [0, 1])
    assert_untouched(network, before)


@pytest.mark.parametrize("method", ASK_THE_NETWORK, indirect=True, ids="-".join)
@pytest.mark.parametrize("call", [1, 2])
def test_network_is_left_untouched_after_an_exception(method, tiny, image, call):
    class Failing(tiny):
        calls = 0

        def features(self, images):
            Failing.calls += 1
            if Failing.calls == call:
                raise RuntimeError("out of luck")
            return super().features(images)

        def levels(self, images):
            self.features(images)
            return super().levels(images)

    network = Failing().train()
    before = state_of(network)
    twice = replace(method, scales=(1.0, 0.5))
    with pytest.raises(RuntimeError, match="out of luck"):
        twice(network, image, [0, 1])
    assert torch.is_grad_enabled()
    assert_untouched(network, before)


def test_prepared_network_is_used_as_it_is_and_left_untouched(method, network, image):
    lean = method.prepare(network)
    assert method.prepare(lean) is lean
    before = state_of(lean)
    maps = method(lean, image, [0, 1])
    assert_untouched(lean, before)
    torch.testing.assert_close(maps, method(network, image, [0, 1]), rtol=0, atol=0)


def test_training_mode_of_the_network_does_not_matter(method, network, image):
    expected = method(network.eval(), image, [1])
    torch.testing.assert_close(method(network.train(), image, [1]), expected, rtol=0, atol=0)


def test_second_call_gives_the_same_maps(method, network, image):
    first = method(network, image, [0, 2])
    torch.testing.assert_close(method(network, image, [0, 2]), first, rtol=0, atol=0)


def test_callers_gradient_mode_does_not_matter(method, network, image):
    expected = method(network, image, [1])
    with torch.no_grad():
        torch.testing.assert_close(method(network, image, [1]), expected, rtol=0, atol=0)
    assert not expected.requires_grad


def test_inputs_are_not_changed(method, network, images):
    classes = [[2, 0], [1]]
    kept = images.clone()
    method.run(network, images[:2], classes)
    assert torch.equal(images, kept)
    assert classes == [[2, 0], [1]]


def test_read_only_and_mirrored_arrays_are_taken(method, network, image):
    expected = method(network, image, [1])
    read_only = image.copy()
    read_only.flags.writeable = False
    torch.testing.assert_close(method(network, read_only, [1]), expected, rtol=0, atol=0)
    backwards = image[:, ::-1].copy()[:, ::-1]
    torch.testing.assert_close(method(network, backwards, [1]), expected, rtol=0, atol=0)


def test_method_and_prepared_network_are_picklable(method, network, image):
    assert pickle.loads(pickle.dumps(method)) == method
    lean = pickle.loads(pickle.dumps(method.prepare(network)))
    torch.testing.assert_close(method(lean, image, [1]), method(network, image, [1]))


@pytest.mark.parametrize("method", EQUAL_CAM, indirect=True, ids="-".join)
def test_zero_strength_equals_cam(method, network, image):
    still = replace(method, num_steps=0) if hasattr(method, "num_steps") else method
    plain = CAM(scales=method.scales, flip=method.flip, precision="fp32")
    expected = plain(network, image, [0, 1, 2])
    torch.testing.assert_close(still(network, image, [0, 1, 2]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size_hw", [(48, 64), (37, 50), (17, 16)])
def test_quarter_maps_are_a_quarter_rounded_up(method, network, draw_image, size_hw):
    image = torch.from_numpy(draw_image(size_hw))[None]
    full, quarter = (
        method.run(network, image, [[1]], map_stride=stride)[0].maps for stride in (1, 4)
    )
    assert full.shape[1:] == size_hw
    assert quarter.shape[1:] == tuple(-(-side // 4) for side in size_hw)
    # both are read off the same stretched map: quarter cells lie amid four pixels each
    height, width = (side // 4 * 4 for side in size_hw)
    means = torch.nn.functional.avg_pool2d(full[:, :height, :width], 4)
    both = torch.stack([means.flatten(), quarter[:, : height // 4, : width // 4].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.98


@pytest.mark.parametrize("map_stride", [0, -4, 3, 32])
def test_map_stride_that_does_not_divide_the_networks_is_refused(
    method, network, images, map_stride
):
    with pytest.raises(ValueError, match=f"map_stride must divide .* 16, got {map_stride}"):
        method.run(network, images[:1], [[1]], map_stride=map_stride)


@pytest.mark.parametrize(
    ("images", "classes", "reason"),
    [
        (torch.zeros(1, 32, 32, 3), [[0]], r"uint8 \(n, h, w, 3\), got torch.float32 \(1, 32"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), [[0]], r"got torch.uint8 \(1, 3, 32, 32\)"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), [[0]], r"got torch.uint8 \(32, 32, 3\)"),
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), [[3]], r"lie in 0\.\.2, got 3"),
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), [[0, -1]], r"lie in 0\.\.2, got -1"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), [[0]], "those of 2 images, got 1"),
    ],
)
def test_bad_input_is_refused_with_both_sides(method, network, images, classes, reason):
    with pytest.raises(ValueError, match=reason):
        method.run(network, images, classes)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_any_stride_gives_maps_of_the_image(method, tiny, image, stride):
    maps = method(tiny(stride=stride).eval(), image, [0, 1])
    assert maps.shape == (2, 48, 64)
    assert torch.isfinite(maps).all()


@pytest.fixture(scope="module", params=["mobilenet_v2", "resnet18"])
def real_trunk(request):
    torch.manual_seed(0)
    classifier = CamClassifier(request.param, 3, 16)
    torch.nn.init.normal_(classifier.head.weight)
    return classifier


@pytest.fixture(scope="module")
def real_fickle(real_trunk):
    """A FickleNet on the same trunk."""
    network = FickleClassifier("resnet18", 3, 16, kernel=3)
    depth = real_trunk.head.in_channels
    network.trunk = real_trunk.trunk
    network.head = nn.Conv2d(depth, 3, 3, padding=1, bias=False)
    nn.init.normal_(network.head.weight)
    return network


@pytest.fixture(scope="module")
def real_seam(real_trunk):
    """A SEAM on the same trunk."""
    network = SeamClassifier("resnet18", 3, 16)
    network.trunk, network.head = real_trunk.trunk, real_trunk.head
    with torch.no_grad():
        levels = network.levels(torch.zeros(1, 3, 32, 32))
    network.correlation_head = PixelCorrelation(levels[0].shape[1], levels[1].shape[1])
    return network


def test_real_trunks_work(method, real_trunk, real_fickle, real_seam, draw_image):
    few = replace(method, scales=(1.0,))
    networks = {"classifier": real_trunk, "ficklenet": real_fickle, "seam": real_seam}
    maps = few(networks[method.network_kind], draw_image((33, 40)), [0, 2])
    assert maps.shape == (2, 33, 40)
    assert torch.isfinite(maps).all()
    assert 0 <= maps.min() <= maps.max() <= 1


def test_folding_a_real_trunk_keeps_its_features(real_trunk, draw_image):
    images = torch.from_numpy(draw_image((33, 40))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = real_trunk.eval().features(images)
        found = LeanNetwork(real_trunk, "fp32").features(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_gradcam_is_the_only_one_that_asks_the_head(tiny_classifier, image):
    class Constant(tiny_classifier):
        def classify(self, features):
            return self.head(features * 0).mean((2, 3))

    assert GradCAM(precision="fp32")(Constant().eval(), image, [1]).max() == 0


def test_a_network_elsewhere_is_copied_to_the_device_and_stays_where_it_was(network):
    there = placed(network, torch.device("meta"))
    assert {weight.device.type for weight in there.parameters()} == {"meta"}
    assert {weight.device.type for weight in network.parameters()} == {"cpu"}
    assert placed(network, torch.device("cpu")) is network
    assert placed(network, None) is network

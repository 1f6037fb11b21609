"""BBAM equals a second, literal implementation: one object, one candidate, one cell at a time."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from rayseg.attribution import BBAM, Objects
from rayseg.attribution.classes.base import seeded
from rayseg.nets.detection import Reading
from tests.attribution.tiny_detector import TinyDetector, TinyPoints
from tests.reference import bbam_literal as literal
from tests.reference import bbam_straightforward as straightforward

TINY = {"num_jitters": 30, "stride_base": 4.0, "stride_range": 12.0, "steps": 20, "record": True}
"""Few proposals, and grids of several cells on an image of 72x51 input pixels."""
PRESETS = {
    "official": replace(
        BBAM.official(), **TINY, max_positives=5, iou_levels=(0.6, 0.4, 0.3), precision="fp32"
    ),
    "as_written": replace(BBAM.as_written(), **TINY, iou_levels=(0.4,), precision="fp32"),
}
SWITCHES = {"both": {}, "box only": {"use_class": False}, "class only": {"use_box": False}}
BOXES = {
    "small": (12.0, 9.0, 24.0, 20.0),
    "long": (3.0, 14.5, 38.0, 25.25),
    "large": (3.0, 3.0, 34.5, 22.0),
    "over the edge": (30.0, -4.0, 52.0, 21.0),
}


class SeesAll(nn.Module):
    """Adds to each cell what all cells see.

    Where a grid hides nothing that a candidate sees, its answers are the same up to rounding, and
    the slope of |t - t'| is the sign of a rounding error, on which no two programs agree.
    """

    def forward(self, features):
        return features + 0.3 * features.mean((2, 3), keepdim=True)


def build(kind):
    detector = kind()
    detector.trunk.append(SeesAll())
    return detector


DETECTORS = {"two stages": build(TinyDetector), "one stage": build(TinyPoints)}


@pytest.fixture(scope="module")
def image():
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (34, 48, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request):
    return DETECTORS[request.param]


@pytest.fixture(scope="module")
def two_stages():
    return DETECTORS["two stages"]


def drawn(method, detector, image, box, class_index, image_id):
    """The same numbers in the same order: the proposals' shares, then the anchors' order."""
    identity = torch.tensor(box, dtype=torch.float32).tolist()
    generator = seeded(method.seed, f"{image_id}/{class_index}/{identity}")
    shares = torch.rand(method.num_jitters, 4, generator=generator, dtype=torch.float64)
    draws = (2 * shares - 1) * method.jitter
    fit = detector.fit(tuple(image.shape[:2]))
    candidates = detector.candidates(draws, fit.input_hw)
    order = None
    if candidates.ndim == 1:
        order = torch.randperm(len(candidates), generator=generator)
    return draws, order


def expect(method, detector, image, box, class_index, image_id="a", candidate=None):
    draws, order = drawn(method, detector, image, box, class_index, image_id)
    return literal.bbam(
        detector,
        image,
        box,
        class_index,
        draws,
        order,
        candidate,
        method.iou,
        method.iou_levels,
        method.max_positives,
        method.use_box,
        method.use_class,
        method.sparsity,
        method.tv,
        method.tv_power,
        method.steps,
        method.lr,
        method.stride_base,
        method.stride_range,
        method.fixed_stride,
        method.grid,
        method.reduction,
        method.start,
    )


def find(method, detector, image, objects, image_id="a"):
    (found,) = method.run(detector, image[None], [objects], [image_id])
    return found


def one_object(box, class_index, candidates=None):
    return Objects(torch.tensor([box]), torch.tensor([class_index]), candidates)


def assert_equal(found, expected, method):
    """Grids, losses and the whole course; the search has moved its grid."""
    assert (found.status, found.positives) == ("ok", expected.positives)
    np.testing.assert_allclose(found.grid.numpy(), expected.grid.numpy(), rtol=0, atol=1e-6)
    assert found.box_loss == pytest.approx(expected.box_loss, abs=1e-6)
    assert found.class_loss == pytest.approx(expected.class_loss, abs=1e-6)
    np.testing.assert_allclose(found.curve.numpy(), np.array(expected.curve), rtol=0, atol=1e-6)
    assert len(expected.curve) == method.steps
    assert (expected.grid - expected.start).abs().max() > 0.1
    assert np.min(expected.curve) > 1e-9  # else both would follow their rounding errors


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("preset", PRESETS)
def test_bbam_is_literal_with_either_head(detector, image, preset, switch):
    method = replace(PRESETS[preset], **SWITCHES[switch])
    (found,) = find(method, detector, image, one_object(BOXES["small"], 1))
    expected = expect(method, detector, image, BOXES["small"], 1)
    assert expected.positives > 1
    assert_equal(found, expected, method)


@pytest.mark.parametrize("preset", PRESETS)
def test_objects_of_all_sizes_in_one_batch_are_literal(two_stages, image, preset):
    method = PRESETS[preset]
    objects = Objects(torch.tensor(list(BOXES.values())), torch.tensor([0, 1, 2, 1]))
    found = find(method, two_stages, image, objects)
    for one, box, class_index in zip(found, BOXES.values(), objects.classes.tolist(), strict=True):
        assert_equal(one, expect(method, two_stages, image, box, class_index), method)
    assert len({tuple(one.grid.shape) for one in found}) > 2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_predicted_box_is_literal(detector, image, preset):
    method = PRESETS[preset]
    (seen,) = detector.detect(image[None], 0.0, 3)
    objects = Objects(seen.boxes_xyxy.float(), seen.classes, seen.candidates)
    for place, found in enumerate(find(method, detector, image, objects)):
        box = objects.boxes_xyxy[place].tolist()
        class_index, candidate = int(seen.classes[place]), seen.candidates[place]
        expected = expect(method, detector, image, box, class_index, candidate=candidate)
        assert expected.positives == 1
        assert_equal(found, expected, method)


@pytest.mark.parametrize(
    "settings",
    [
        {"fixed_stride": 9.0},
        {"tv": 0.3, "tv_power": 2.0},
        {"sparsity": 0.0},
        {"lr": 0.11},
        {"iou": "exact", "seed": 7, "jitter": 0.2},
    ],
    ids="-".join,
)
def test_every_setting_means_the_same(two_stages, image, settings):
    method = replace(PRESETS["official"], **settings)
    (found,) = find(method, two_stages, image, one_object(BOXES["long"], 0))
    assert_equal(found, expect(method, two_stages, image, BOXES["long"], 0), method)


@pytest.mark.parametrize("start", ["boxes", "ones"])
@pytest.mark.parametrize("name", BOXES)
def test_the_search_starts_where_the_literal_one_does(two_stages, image, name, start):
    method = replace(PRESETS["official"], steps=0, start=start)
    (found,) = find(method, two_stages, image, one_object(BOXES[name], 2))
    expected = expect(method, two_stages, image, BOXES[name], 2)
    assert torch.equal(found.grid.double(), expected.start)
    assert expected.start.sum() > 0


def test_an_object_that_nobody_predicts_is_missed_in_both(detector, image):
    method = replace(PRESETS["official"], iou_levels=(0.999,))
    (found,) = find(method, detector, image, one_object(BOXES["long"], 0))
    expected = expect(method, detector, image, BOXES["long"], 0)
    assert (found.status, found.positives, expected.positives) == ("missed", 0, 0)
    assert torch.equal(found.grid.double(), expected.grid)


class TinyTorchvision(TinyDetector):
    """A Faster R-CNN of torchvision's round the tiny trunk, proposals' network and all."""

    def make_heads(self):
        self.trunk.append(SeesAll())
        self.trunk.out_channels = 8
        self.network = FasterRCNN(
            self.trunk,
            rpn_anchor_generator=AnchorGenerator(((16,),), ((1.0,),)),
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
            box_head=TwoMLPHead(8 * 9, 16),
            box_predictor=FastRCNNPredictor(16, self.num_classes + 1),
        )
        with torch.no_grad():
            self.network.roi_heads.box_predictor.cls_score.weight.mul_(4)

    def read(self, inputs, owner, candidates):
        heads, size_hw = self.network.roi_heads, tuple(inputs.shape[2:])
        own = [candidates[owner == i] for i in range(len(inputs))]
        order = torch.cat([(owner == i).nonzero()[:, 0] for i in range(len(inputs))]).argsort()
        features = {"0": self.trunk(inputs)}
        pooled = heads.box_head(heads.box_roi_pool(features, own, [size_hw] * len(own)))
        logits, deltas = (part[order] for part in heads.box_predictor(pooled))
        boxes = heads.box_coder.decode(deltas, [candidates])
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([*size_hw[::-1]] * 2))
        p, t = logits.softmax(1), deltas.unflatten(1, (-1, 4))
        return Reading(p[:, 1:], p[:, 0], t[:, 1:], boxes[:, 1:])


def test_the_straightforward_procedure_finds_the_same_grids(image):
    method, detector = PRESETS["official"], TinyTorchvision()
    sink = io.BytesIO()
    Image.fromarray(image.numpy()).save(sink, "png")
    boxes = torch.tensor(list(BOXES.values()))
    with torch.no_grad():
        detector.network.roi_heads.box_predictor.cls_score.bias[2] += 1  # it finds class 1
    found = find(method, detector, image, Objects(boxes, torch.ones(len(boxes), dtype=torch.int64)))
    plain = straightforward.prepare(detector)
    expected = straightforward.bbam(plain, sink.getvalue(), boxes, [1] * len(boxes), "a", method)
    assert [one.status for one in found] == ["ok"] * len(boxes)
    for one, grid in zip(found, expected, strict=True):
        assert grid.std() > 0.1
        np.testing.assert_allclose(one.grid.numpy(), grid.numpy(), rtol=0, atol=1e-6)
    assert all(one.grad is None for one in plain.parameters())

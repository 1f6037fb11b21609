import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from rayseg.nets.detection import Window
from rayseg.nets.detectors.feeding import fit_input
from rayseg.nets.detectors.two_stage import box_losses
from rayseg.nets.inputs import DEVIATION_RGB, MEAN_RGB
from tests.nets.detectors import tiny
from tests.nets.detectors.tiny import assert_same, pictures, questions, regions, targets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def detector():
    return tiny.build("faster_rcnn").double()


@pytest.fixture(scope="module")
def inputs(detector):
    return detector.encode(pictures())


def torchvisions(detector):
    """Its own box heads with its own pooling, on the detector's weights."""
    levels = len(detector.pyramid.layer)
    heads = tiny.build("faster_rcnn").double().boxes if levels == 4 else detector.boxes
    heads.load_state_dict(detector.boxes.state_dict())
    heads.box_roi_pool = MultiScaleRoIAlign([str(level) for level in range(levels)], 7, 2)
    return heads.eval()


@pytest.mark.parametrize("changed", [{}, {"first_level": 3, "anchors": (16, 32, 64, 96)}])
def test_reading_equals_torchvisions_heads_on_the_same_proposals(changed):
    detector = tiny.build("faster_rcnn", **changed).double()
    inputs, number = detector.encode(pictures(size_hw=(90, 128))), 30
    owner = (torch.arange(number) >= number // 2).long()
    boxes = regions(number, inputs.shape[2:])
    with torch.no_grad():
        found = detector.read(inputs, owner, boxes)
        heads = torchvisions(detector)
        per_image, sizes = [boxes[owner == 0], boxes[owner == 1]], [inputs.shape[2:]] * 2
        pooled = heads.box_roi_pool(detector.pyramid(inputs), per_image, sizes)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
    probabilities = logits.softmax(1)
    decoded = heads.box_coder.decode(deltas, per_image)
    bounds = decoded.new_tensor([*inputs.shape[:1:-1]] * 2)
    expected = {
        "probabilities": probabilities[:, 1:],
        "background": probabilities[:, 0],
        "deltas": deltas.view(number, 4, 4)[:, 1:],
        "boxes_xyxy": decoded.clamp(min=0).minimum(bounds)[:, 1:],
    }
    for name, part in tiny.parts(found).items():
        torch.testing.assert_close(part, expected[name], rtol=1e-10, atol=1e-10, msg=name)
    assert probabilities.std(0).min() > 1e-3


def test_detections_equal_torchvisions(detector, inputs):
    fit = detector.fit((64, 88))
    heads, sizes = torchvisions(detector), [fit.content_hw] * 2
    with torch.no_grad():
        features = detector.pyramid(inputs)
        proposals, _ = detector.rpn(ImageList(inputs, sizes), features)
        expected, _ = heads(features, proposals, sizes)
    for one, other in zip(detector.detect(pictures()), expected, strict=True):
        assert len(one.scores) > 5
        torch.testing.assert_close(one.scores, other["scores"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.boxes_xyxy, fit.to_image(other["boxes"]))
        assert torch.equal(one.classes, other["labels"] - 1)


def test_both_stages_read_what_the_pyramid_answers_and_ask_it_once(detector):
    def coarser(_module, _inputs, levels):
        answers.append({name: level.bfloat16().to(level) for name, level in levels.items()})
        return answers[-1]

    fit, answers, stages = detector.fit((64, 88)), [], []
    hook = detector.pyramid.register_forward_hook(coarser)
    stage = detector.pyramid.trunk.stage4.register_forward_hook(lambda *_: stages.append(1))
    try:
        (found,) = detector.detect(pictures(1))
    finally:
        hook.remove()
        stage.remove()
    assert (len(answers), len(stages)) == (1, 1)
    inputs, sizes = detector.encode(pictures(1)), [fit.content_hw]
    with torch.no_grad():
        proposals, _ = detector.rpn(ImageList(inputs, sizes), answers[0])
        ((expected,), _) = torchvisions(detector)(answers[0], proposals, sizes)
    torch.testing.assert_close(found.scores, expected["scores"], rtol=1e-9, atol=1e-9)


def test_images_found_together_are_found_alone(detector):
    images = pictures(3)
    together = detector.detect(images)
    for one, image in zip(together, images, strict=True):
        (alone,) = detector.detect(image[None])
        assert torch.equal(one.scores, alone.scores)
        assert torch.equal(one.candidates, alone.candidates)


def test_candidates_of_detections_read_back(detector, inputs):
    fit = detector.fit((64, 88))
    for i, found in enumerate(detector.detect(pictures(), min_score=0.2, max_objects=7)):
        assert 0 < len(found.scores) <= 7
        assert (found.scores > 0.2).all()
        owner = torch.full_like(found.classes, i)
        scores, _, boxes = detector.read(inputs, owner, found.candidates).of(found.classes)
        torch.testing.assert_close(scores, found.scores)
        torch.testing.assert_close(fit.to_image(boxes), found.boxes_xyxy)


def test_detecting_leaves_mode_and_statistics_as_they_were():
    network = tiny.build("faster_rcnn", frozen_statistics=False).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (found,) = network.detect(pictures(1))
    assert network.training
    assert network.rpn.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    (expected,) = network.eval().detect(pictures(1))
    torch.testing.assert_close(found.scores, expected.scores)


def test_answer_does_not_depend_on_other_candidates(detector, inputs):
    owner, candidates = questions(detector, inputs, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:7]
    whole = detector.read(inputs, owner, candidates)
    some = detector.read(inputs, owner[order], candidates[order])
    alone = detector.read(inputs[1:], owner[owner == 1] - 1, candidates[owner == 1])
    for name, part in tiny.parts(whole).items():
        torch.testing.assert_close(tiny.parts(some)[name], part[order], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            tiny.parts(alone)[name], part[owner == 1], rtol=1e-10, atol=1e-10
        )


def test_no_candidates_have_an_empty_reading(detector, inputs):
    nobody = torch.zeros(0, dtype=torch.int64)
    reading = detector.read(inputs, nobody, inputs.new_zeros(0, 4))
    assert reading.boxes_xyxy.shape == (0, 3, 4)
    assert reading.winners.shape == (0,)


def test_lean_copy_reads_the_same():
    network = tiny.build("faster_rcnn")
    inputs = network.encode(pictures())
    owner, candidates = questions(network, inputs)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lean = network.lean(CPU, "fp32")
    found, expected = (one.read(inputs, owner, candidates) for one in (lean, network))
    assert_same(found, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=0, atol=1e-6)
    assert not any(weight.requires_grad for weight in lean.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_lean_copy_of_a_lean_copy_reads_the_same(detector, inputs):
    owner, candidates = questions(detector, inputs)
    twice = detector.lean(CPU, "fp32").lean(CPU, "fp32")
    assert_same(twice.read(inputs, owner, candidates), detector.read(inputs, owner, candidates))


def test_lean_copy_in_bf16_is_near():
    network = tiny.build("faster_rcnn")
    inputs = network.encode(pictures())
    owner, candidates = questions(network, inputs)
    found = network.lean(CPU, "bf16").read(inputs, owner, candidates)
    expected = network.read(inputs, owner, candidates)
    assert found.probabilities.dtype == torch.float32
    assert 0 < (found.probabilities - expected.probabilities).abs().max() < 0.05


def test_lean_copy_detects_the_same(detector):
    lean = detector.lean(CPU, "fp32")
    for one, other in zip(lean.detect(pictures()), detector.detect(pictures()), strict=True):
        torch.testing.assert_close(one.boxes_xyxy, other.boxes_xyxy)
        torch.testing.assert_close(one.scores, other.scores)


def test_gradient_to_the_inputs_is_the_plain_networks(detector, inputs):
    owner, candidates = questions(detector, inputs)
    gradients = []
    for network in (detector, detector.lean(CPU, "fp32")):
        shown = inputs.clone().requires_grad_()
        reading = network.read(shown, owner, candidates)
        said = reading.probabilities[:, 0].sum() + reading.deltas[:, 2].square().sum()
        gradients.append(torch.autograd.grad(said, shown)[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
    assert gradients[0].abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize(
    "size_hw", [(64, 88), (41, 50), (37, 173), (133, 17), (97, 96), (16, 16), (175, 404), (63, 65)]
)
def test_inputs_equal_torchvisions_and_fit_says_their_sizes(detector, size_hw):
    images = pictures(2, size_hw)
    transform = GeneralizedRCNNTransform(64, 96, list(MEAN_RGB), list(DEVIATION_RGB)).eval()
    expected, _ = transform(list(images.permute(0, 3, 1, 2).double() / 255))
    found, fit = detector.encode(images), detector.fit(size_hw)
    torch.testing.assert_close(found, expected.tensors, rtol=1e-12, atol=1e-12)
    assert fit.image_hw == size_hw
    assert expected.image_sizes == [fit.content_hw] * 2
    assert found.shape[2:] == fit.input_hw
    height, width = fit.content_hw
    assert found[:, :, height:].eq(0).all()
    assert found[:, :, :, width:].eq(0).all()


@pytest.mark.parametrize(("side", "longest"), [(800, 1333), (288, 480), (64, 96)])
def test_fit_counts_as_torchvision_for_every_size(side, longest):
    for height, width in [(a, b) for a in range(33, 900, 41) for b in range(17, 900, 53)]:
        scale = min(side / min(height, width), longest / max(height, width))
        like = torch.empty(1, 1, height, width, device="meta")
        resized = functional.interpolate(like, scale_factor=scale, recompute_scale_factor=True)
        assert fit_input((height, width), side, longest).content_hw == resized.shape[2:]


def test_window_moves_the_boxes(detector):
    boxes = regions(5, (96, 128))
    moved = detector.in_window(boxes, (96, 128), Window(32, 64, 64, 64))
    torch.testing.assert_close(moved, boxes - boxes.new_tensor([64, 32, 64, 32]))


@pytest.mark.parametrize(
    "window",
    [
        Window(16, 0, 64, 64),
        Window(0, 8, 64, 64),
        Window(0, 0, 40, 64),
        Window(0, 0, 64, 33),
        Window(64, 0, 64, 64),
        Window(-32, 0, 64, 64),
        Window(0, 96, 64, 64),
        Window(0, 0, 0, 64),
    ],
)
def test_window_off_the_stride_or_outside_is_refused_with_both_sides(detector, window):
    reason = rf"in the input of \(96, 128\) at multiples of 32, got Window\(top={window.top}, "
    with pytest.raises(ValueError, match=reason) as caught:
        detector.in_window(regions(2, (96, 128)), (96, 128), window)
    assert "\n" not in str(caught.value)


def test_window_that_is_the_whole_input_changes_nothing(detector, inputs):
    _, candidates = questions(detector, inputs)
    size_hw = tuple(inputs.shape[2:])
    moved = detector.in_window(candidates, size_hw, Window(0, 0, *size_hw))
    assert torch.equal(moved, candidates)


def test_losses_are_finite_and_every_trained_weight_has_a_gradient():
    network = tiny.build("faster_rcnn", anchors=(16, 32, 48, 64, 64)).train()
    images = [picture.permute(2, 0, 1) / 255 for picture in pictures()]
    torch.manual_seed(0)
    losses = network(images, [targets((5, 6, 40, 50), (30, 10, 80, 60)), targets()])
    assert set(losses) == {
        *("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    }
    sum(losses.values()).backward()
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
    assert losses["loss_box_reg"] > 0


def test_images_without_objects_teach_background():
    network = tiny.build("faster_rcnn").train()
    losses = network([pictures(1)[0].permute(2, 0, 1) / 255], [targets()])
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    assert all(torch.isfinite(loss) for loss in losses.values())
    before = losses["loss_classifier"].item()
    with torch.no_grad():
        network.boxes.box_predictor.cls_score.bias[0] += 2
    after = network([pictures(1)[0].permute(2, 0, 1) / 255], [targets()])
    assert after["loss_classifier"].item() < before


def test_box_losses_equal_loops():
    torch.manual_seed(0)
    logits, deltas = torch.randn(6, 4).double(), 2 * torch.randn(6, 16).double()
    labels = [torch.tensor([0, 2, 1]), torch.tensor([3, 0, 0])]
    wanted = [torch.randn(3, 4).double(), torch.randn(3, 4).double()]
    found = box_losses(logits, deltas, labels, wanted)
    entropy = distance = 0.0
    for i, label in enumerate(torch.cat(labels).tolist()):
        entropy -= logits[i].log_softmax(0)[label].item()
        for j in range(4 if label else 0):
            gap = abs(deltas[i, 4 * label + j] - torch.cat(wanted)[i, j]).item()
            distance += gap**2 / 2 if gap < 1 else gap - 0.5
    assert found["loss_classifier"].item() == pytest.approx(entropy / 6)
    assert found["loss_box_reg"].item() == pytest.approx(distance / 6)


def test_anchors_must_be_one_a_level():
    with pytest.raises(ValueError, match="anchors must be 5, one a level, got 3"):
        tiny.build("faster_rcnn", channels=8, anchors=(8, 16, 32))

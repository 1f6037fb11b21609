import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS as FCOSNetwork
from torchvision.models.detection import RetinaNet as RetinaNetwork
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from rayseg.nets.detection import Window
from rayseg.nets.detectors.one_stage import FCOS
from rayseg.nets.inputs import DEVIATION_RGB, MEAN_RGB
from tests.nets.detectors import tiny
from tests.nets.detectors.tiny import assert_same, pictures, questions, targets

CPU = torch.device("cpu")
STRIDES = (8, 16, 32, 64, 128)
NETWORKS = {"retinanet": RetinaNetwork, "fcos": FCOSNetwork}


@pytest.fixture(scope="module", params=NETWORKS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def detector(kind):
    return tiny.build(kind).double()


@pytest.fixture(scope="module")
def inputs(detector):
    return detector.encode(pictures())


def anchors_literally(kind, size_hw):
    """All anchors, level by level, row by row; torchvision rounds half their sides."""
    shapes = {
        "retinanet": [(4 * 2 ** (third / 3), r) for r in (0.5, 1, 2) for third in range(3)],
        "fcos": [(1, 1)],
    }[kind]
    found = []
    for stride in STRIDES:
        sides = [(int(stride * scale), ratio**0.5) for scale, ratio in shapes]
        halves = [(round(side * root / 2), round(side / root / 2)) for side, root in sides]
        for top in range(0, size_hw[0], stride):
            for left in range(0, size_hw[1], stride):
                found += [(left - x, top - y, left + x, top + y) for y, x in halves]
    return torch.tensor(found, dtype=torch.float64)


def anchors_of(detector, size_hw):
    """Those that the detector decodes deltas from."""
    levels = [torch.zeros(1, 1, -(-size_hw[0] // s), -(-size_hw[1] // s)) for s in STRIDES]
    images = ImageList(torch.zeros(1, 3, *size_hw), [size_hw])
    (found,) = detector.network.anchor_generator(images, [level.double() for level in levels])
    return found


@pytest.mark.parametrize("size_hw", [(128, 256), (64, 96), (288, 160)])
def test_anchors_lie_a_stride_apart_whatever_the_input(detector, kind, size_hw):
    expected, found = anchors_literally(kind, size_hw), anchors_of(detector, size_hw)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    number = detector.candidates(torch.zeros(0, 4), size_hw)
    assert number.tolist() == list(range(len(expected)))


def test_reading_equals_torchvisions_head_and_coder(detector, kind, inputs):
    every = detector.candidates(torch.zeros(0, 4), tuple(inputs.shape[2:]))
    owner = torch.arange(2).repeat_interleave(len(every))
    with torch.no_grad():
        found = detector.read(inputs, owner, every.repeat(2))
        head = detector.network.head(list(detector.network.backbone(inputs).values()))
    anchors = anchors_literally(kind, tuple(inputs.shape[2:])).repeat(2, 1)
    deltas, scores = head["bbox_regression"].flatten(0, 1), head["cls_logits"].flatten(0, 1)
    centres, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    if kind == "fcos":
        scores = (scores.sigmoid() * head["bbox_ctrness"].flatten(0, 1).sigmoid()).sqrt()
        boxes = torch.cat([centres - deltas[:, :2] * sides, centres + deltas[:, 2:] * sides], dim=1)
    else:
        scores = scores.sigmoid()
        middle, half = centres + deltas[:, :2] * sides, deltas[:, 2:].exp() * sides / 2
        boxes = torch.cat([middle - half, middle + half], dim=1)
    bounds = torch.tensor([*inputs.shape[:1:-1]] * 2)
    torch.testing.assert_close(found.probabilities, scores, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.deltas[:, 0], deltas, rtol=1e-10, atol=1e-10)
    clipped = boxes.clamp(min=0).minimum(bounds)
    torch.testing.assert_close(found.boxes_xyxy[:, 0], clipped, rtol=1e-10, atol=1e-9)
    assert found.background.eq(0).all()
    assert scores.std(0).min() > 1e-3


def test_detections_equal_torchvisions_where_its_anchors_do(kind):
    detector = tiny.build(kind, test_side=128, max_side=128).double()
    options = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 9999}
    other = NETWORKS[kind](
        detector.network.backbone, 3, min_size=128, max_size=128, topk_candidates=9999, **options
    )
    other.double().load_state_dict(detector.network.state_dict())
    images = pictures(2, (128, 128))
    with torch.no_grad():
        expected = other.eval()(list(images.permute(0, 3, 1, 2).double() / 255))
    for one, second in zip(detector.detect(images, 0.05, 20), expected, strict=True):
        # torchvision keeps what clipping leaves without area
        real = (second["boxes"][:, 2:] - second["boxes"][:, :2] > 1e-2).all(1).nonzero()[:20, 0]
        torch.testing.assert_close(one.scores, second["scores"][real])
        torch.testing.assert_close(one.boxes_xyxy, second["boxes"][real])
        assert torch.equal(one.classes, second["labels"][real])


def test_candidates_of_detections_read_back(detector, inputs):
    fit = detector.fit((64, 88))
    for i, found in enumerate(detector.detect(pictures(), max_objects=7)):
        assert 0 < len(found.scores) <= 7
        owner = torch.full_like(found.classes, i)
        scores, _, boxes = detector.read(inputs, owner, found.candidates).of(found.classes)
        torch.testing.assert_close(scores, found.scores)
        torch.testing.assert_close(fit.to_image(boxes), found.boxes_xyxy)


def test_detecting_leaves_mode_and_statistics_as_they_were(kind):
    network = tiny.build(kind, frozen_statistics=False).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (found,) = network.detect(pictures(1))
    assert network.training
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
        own = part[owner == 1]
        torch.testing.assert_close(tiny.parts(alone)[name], own, rtol=1e-10, atol=1e-10)


def test_no_candidates_have_an_empty_reading(detector, inputs):
    nobody = torch.zeros(0, dtype=torch.int64)
    reading = detector.read(inputs, nobody, nobody)
    assert reading.probabilities.shape == (0, 3)
    assert reading.boxes_xyxy.shape == (0, 1, 4)


def test_head_looks_only_at_levels_that_are_asked_for(detector, inputs):
    sizes, each = [], detector.network.anchor_generator.num_anchors_per_location()[0]
    hook = detector.network.head.register_forward_pre_hook(
        lambda _, args: sizes.extend(level.shape[2:] for level in args[0])
    )
    try:
        last = (8 * 12 + 4 * 6) * each  # the first anchor of stride 32
        detector.read(inputs, torch.tensor([0, 1]), torch.tensor([last, last + 1]))
    finally:
        hook.remove()
    assert sizes == [(2, 3)]


def test_lean_copy_reads_the_same(kind):
    network = tiny.build(kind)
    inputs = network.encode(pictures())
    owner, candidates = questions(network, inputs)
    lean = network.lean(CPU, "fp32")
    found, expected = (one.read(inputs, owner, candidates) for one in (lean, network))
    assert_same(found, expected, rtol=1e-5, atol=1e-4)  # deltas of FCOS are in strides
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=0, atol=1e-6)
    assert not any(weight.requires_grad for weight in lean.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_lean_copy_in_bf16_is_near(kind):
    network = tiny.build(kind)
    inputs = network.encode(pictures())
    owner, candidates = questions(network, inputs)
    found = network.lean(CPU, "bf16").read(inputs, owner, candidates)
    expected = network.read(inputs, owner, candidates)
    assert found.probabilities.dtype == found.boxes_xyxy.dtype == torch.float32
    assert 0 < (found.probabilities - expected.probabilities).abs().max() < 0.05


def test_gradient_to_the_inputs_is_the_plain_networks(detector, inputs):
    owner, candidates = questions(detector, inputs)
    gradients = []
    for network in (detector, detector.lean(CPU, "fp32")):
        shown = inputs.clone().requires_grad_()
        reading = network.read(shown, owner, candidates)
        said = reading.probabilities[:, 0].sum() + reading.deltas.square().sum()
        gradients.append(torch.autograd.grad(said, shown)[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
    assert gradients[0].abs().amax((1, 2, 3)).min() > 1e-4


def test_gradient_stays_finite_where_a_score_rounds_to_zero():
    logits = torch.tensor([[-200.0, 3.0]], requires_grad=True)
    scores = FCOS.scores(None, {"cls_logits": logits, "bbox_ctrness": torch.tensor([[-200.0]])})
    (gradient,) = torch.autograd.grad(scores.sum(), logits)
    assert torch.isfinite(gradient).all()


def test_channels_that_fcos_cannot_group_are_refused():
    with pytest.raises(ValueError, match="channels must be a multiple of 32 for FCOS, got 24"):
        tiny.build("fcos", channels=24)


@pytest.mark.parametrize("size_hw", [(64, 88), (41, 50), (175, 404), (133, 17)])
def test_inputs_equal_torchvisions_and_fit_says_their_sizes(detector, size_hw):
    images = pictures(2, size_hw)
    transform = GeneralizedRCNNTransform(64, 96, list(MEAN_RGB), list(DEVIATION_RGB)).eval()
    expected, _ = transform(list(images.permute(0, 3, 1, 2).double() / 255))
    found, fit = detector.encode(images), detector.fit(size_hw)
    torch.testing.assert_close(found, expected.tensors, rtol=1e-12, atol=1e-12)
    assert expected.image_sizes == [fit.content_hw] * 2
    assert found.shape[2:] == fit.input_hw


@pytest.mark.parametrize(
    ("size_hw", "window"),
    [
        ((384, 512), Window(128, 256, 128, 128)),
        ((384, 512), Window(0, 128, 256, 384)),
        ((288, 416), Window(128, 256, 160, 160)),
        ((288, 416), Window(0, 384, 128, 32)),
    ],
)
def test_anchor_of_a_window_is_the_same_anchor(detector, size_hw, window):
    whole = anchors_of(detector, size_hw)
    small = anchors_of(detector, (window.height, window.width))
    corner = torch.tensor([window.left, window.top])
    centres = (whole[:, :2] + whole[:, 2:]) / 2 - corner
    last = torch.tensor([window.width, window.height])
    inside = ((centres >= 0) & (centres < last)).all(1).nonzero()[:, 0]
    found = detector.in_window(inside, size_hw, window)
    torch.testing.assert_close(small[found], whole[inside] - corner.repeat(2), rtol=0, atol=1e-9)
    assert found.tolist() == list(range(len(small)))


def test_whole_input_as_a_window_changes_nothing(detector):
    for size_hw in ((288, 416), (256, 384), (64, 96)):
        every = detector.candidates(torch.zeros(0, 4), size_hw)
        assert torch.equal(detector.in_window(every, size_hw, Window(0, 0, *size_hw)), every)


@pytest.mark.parametrize(
    "window", [Window(64, 0, 128, 128), Window(0, 0, 128, 96), Window(0, 0, 256, 640)]
)
def test_window_off_the_stride_or_outside_is_refused_with_both_sides(detector, window):
    reason = rf"in the input of \(384, 512\) at multiples of 128, got Window\(top={window.top}, "
    with pytest.raises(ValueError, match=reason) as caught:
        detector.in_window(torch.tensor([0]), (384, 512), window)
    assert "\n" not in str(caught.value)


def test_window_without_the_anchor_is_refused(detector):
    anchor = torch.tensor([0, 1])
    for window in (Window(128, 0, 128, 128), Window(0, 128, 128, 128)):
        with pytest.raises(ValueError, match="must hold the cells of all anchors, got Window"):
            detector.in_window(anchor, (256, 256), window)


def test_losses_are_finite_and_every_trained_weight_has_a_gradient(kind):
    network = tiny.build(kind).train()
    images = [picture.permute(2, 0, 1) / 255 for picture in pictures()]
    losses = network(images, [targets((5, 6, 40, 50), (30, 10, 80, 60)), targets()])
    sum(losses.values()).backward()
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
    assert losses["bbox_regression"] > 0


def test_images_without_objects_teach_background(kind):
    network = tiny.build(kind).train()
    image = [pictures(1)[0].permute(2, 0, 1) / 255]
    losses = network(image, [targets()])
    assert losses["bbox_regression"] == 0
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        network.network.head.classification_head.cls_logits.bias -= 2
    assert network(image, [targets()])["classification"] < losses["classification"]

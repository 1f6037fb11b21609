"""What detectors are trained by is what torchvision's own networks say of the same weights."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from torchvision.models import detection
from torchvision.models.detection import roi_heads
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from rayseg.nets.detectors import DetectorDesign, Learning
from rayseg.nets.detectors.design import MaskLearning, MaskRCNNDesign
from rayseg.nets.detectors.mask_rcnn import MaskRCNN
from tests.nets.detectors import tiny
from tests.nets.detectors.tiny import pictures

BOXES = [(10, 6, 70, 60), (40, 30, 120, 122), (4, 70, 36, 120)]


def build(kind):
    """In float64 with images as they are: their sides are multiples of every stride."""
    sides = {"min_sides": (128,), "test_side": 128, "max_side": 256}
    if kind != "mask_rcnn":
        return tiny.build(kind, **sides).double()
    torch.manual_seed(3)
    head = {"channels": 64, "width": 32, "anchors": (16, 32, 48, 64, 96), "regions": 32}
    plain = {"trunk": "resnet18", "grow": False, "mask_loss": "plain"}
    settings = plain | head | sides
    return MaskRCNN(*tiny.apart(settings, MaskRCNNDesign, MaskLearning)).eval().double()


def taught():
    """Images and their targets: one of three classes, one of a single object, one of none."""
    images = [one.permute(2, 0, 1).double() / 255 for one in pictures(3, (128, 128))]
    rows = [(BOXES, [2, 0, 1]), (BOXES[1:2], [2]), ([], [])]
    targets = []
    for boxes, classes in rows:
        held = torch.tensor(boxes).double().reshape(-1, 4)
        masks = torch.zeros(len(boxes), 128, 128, dtype=torch.bool)
        masks[::2] = True  # whole or nothing: neither way to project leaves a share of a cell
        known = {"foreground": masks, "possible": masks, "has_mask": torch.ones(len(boxes)) > 0}
        targets.append({"boxes": held, "classes": torch.tensor(classes).long()} | known)
    return images, targets


def two_stages(ours, parts):
    """torchvision's own network with the weights of ours."""
    sides, ratios = ((16,), (32,), (48,), (64,), (96,)), ((0.5, 1.0, 2.0),) * 5
    common = {
        "rpn_anchor_generator": AnchorGenerator(sides, ratios),
        "box_head": TwoMLPHead(64 * 49, 32),
        "box_predictor": FastRCNNPredictor(32, 4),
        "min_size": 128, "max_size": 256, "box_batch_size_per_image": 32,
    }  # fmt: skip
    if parts:
        common["mask_head"] = MaskRCNNHeads(64, (8,) * 4, 1)
        common["mask_predictor"] = MaskRCNNPredictor(8, 8, 4)
    made = (detection.MaskRCNN if parts else detection.FasterRCNN)(ours.pyramid, **common).double()
    made.rpn.load_state_dict(ours.rpn.state_dict())
    for name in ("box_head", "box_predictor"):
        own = getattr(ours.boxes, name)
        getattr(made.roi_heads, name).load_state_dict(own.state_dict())
    if parts:
        made.roi_heads.mask_head.load_state_dict(parts[0].state_dict())
        weights = parts[1].state_dict()
        for name in ("mask_fcn_logits.weight", "mask_fcn_logits.bias"):  # it has background's, too
            weights[name] = torch.cat([weights[name][:1], weights[name]])
        made.roi_heads.mask_predictor.load_state_dict(weights)
    return made


def one_stage(ours, kind):
    strides = (8, 16, 32, 64, 128)
    if kind == "fcos":
        anchors = AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * 5)
        made = detection.FCOS(ours.network.backbone, 3, 128, 256, anchor_generator=anchors)
    else:
        sides = tuple(
            (4 * s, int(4 * s * 2 ** (1 / 3)), int(4 * s * 2 ** (2 / 3))) for s in strides
        )
        anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
        made = detection.RetinaNet(ours.network.backbone, 3, 128, 256, anchor_generator=anchors)
    made.head.load_state_dict(ours.network.head.state_dict())
    return made.double()


def said(network, images, targets):
    torch.manual_seed(5)  # of the proposals that are drawn
    return network.train()(images, targets)


def assert_same_losses(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert value.item() > 0, name
        # some are float32
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0, check_dtype=False)


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn"])
def test_losses_of_two_stages_equal_torchvisions_but_for_beta(kind, monkeypatch):
    """Background is its label 0; its smooth L1 of the box head has beta 1/9, the authors' 1."""

    def beta_1(*given, beta, **options):
        return functional.smooth_l1_loss(*given, beta=9 * beta, **options)

    theirs = SimpleNamespace(**vars(functional) | {"smooth_l1_loss": beta_1})
    ours, (images, targets) = build(kind), taught()
    own = two_stages(ours, ours.mask_head if kind == "mask_rcnn" else ())
    found = said(ours, images, targets)
    named = [
        {"boxes": t["boxes"], "labels": t["classes"] + 1, "masks": t["foreground"]} for t in targets
    ]
    monkeypatch.setattr(roi_heads, "F", theirs)
    assert_same_losses(found, said(own, images, named))


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_losses_of_one_stage_equal_torchvisions(kind):
    ours, (images, targets) = build(kind), taught()
    found = said(ours, images, targets)
    named = [{"boxes": t["boxes"], "labels": t["classes"]} for t in targets]
    assert_same_losses(found, said(one_stage(ours, kind), images, named))


def test_training_images_have_detectron2s_sides():
    """MIN_SIZE_TRAIN and MAX_SIZE_TRAIN of its schedules."""
    assert Learning().min_sides == tuple(range(480, 801, 32))
    design = DetectorDesign(trunk="resnet18", classes=("cat",))
    assert (design.test_side, design.max_side) == (800, 1333)

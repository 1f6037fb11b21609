"""Detectors of few channels with statistics worth folding and heads that say something."""

from dataclasses import fields

import torch
from torch import nn

from rayseg.nets.detectors import DetectorDesign, Learning, build_detector

CLASSES = ("cat", "dog", "emu")
SMALL = {"channels": 64, "min_sides": (64,), "test_side": 64, "max_side": 96}
SMALL_HEAD = {"width": 32, "anchors": (16, 32, 48, 64, 96), "regions": 32}
LAST = ("cls_score", "bbox_pred", "cls_logits", "bbox_reg", "bbox_ctrness")


def apart(settings, design=DetectorDesign, learning=Learning):
    """A design of three classes and a learning, each of those settings that it has."""
    taught = {part.name for part in fields(learning)} & settings.keys()
    own = {name: value for name, value in settings.items() if name not in taught}
    return design(**{"classes": CLASSES} | own), learning(**{n: settings[n] for n in taught})


def build(kind, trunk="resnet18", **changed):
    """A detector of three classes, in eval mode."""
    torch.manual_seed(3)
    small = SMALL | (SMALL_HEAD if kind == "faster_rcnn" else {})
    made = build_detector(*apart({"kind": kind, "trunk": trunk} | small | changed))
    for name, module in made.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.8, 1.5)
            nn.init.uniform_(module.weight, 0.5, 0.9)
            nn.init.normal_(module.bias, 0, 0.2)
        # new heads say the same of all candidates, whatever they see
        if ".head." in name and isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if name.endswith(LAST) and not name.startswith("rpn"):
            nn.init.normal_(module.weight, 0, 0.1 if kind == "faster_rcnn" else 0.03)
            # boxes of FCOS have no area where this is negative
            nn.init.constant_(module.bias, 2 if kind == "fcos" and "bbox_reg" in name else 0)
    return made.eval()


def pictures(number=2, size_hw=(64, 88), seed=0):
    """RGB images (n, h, w, 3), 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, *size_hw, 3), dtype=torch.uint8, generator=generator)


def regions(number, size_hw, seed=0, dtype=torch.float64):
    """Boxes (m, 4) of all sizes, some of which reach over the edge."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(number, 4, generator=generator, dtype=dtype)
    height, width = size_hw
    scale = torch.tensor([width, height], dtype=dtype)
    corner = (shares[:, :2] * 1.1 - 0.1) * scale
    return torch.cat([corner, corner + shares[:, 2:] ** 2 * scale], 1)


def questions(detector, inputs, number=12, seed=1):
    """Owners and candidates to ask a detector about."""
    size_hw = (inputs.shape[2], inputs.shape[3])
    boxes = regions(number, size_hw, seed, inputs.dtype)
    known = detector.candidates(boxes, size_hw)
    generator = torch.Generator().manual_seed(seed)
    if known.ndim == 1:
        known = known[torch.randint(len(known), (number,), generator=generator)]
    return torch.randint(len(inputs), (number,), generator=generator), known


def parts(reading):
    """All that a reading holds, by name."""
    names = ("probabilities", "background", "deltas", "boxes_xyxy")
    return {name: getattr(reading, name) for name in names}


def assert_same(reading, other, rtol=1e-10, atol=1e-10):
    for name, part in parts(reading).items():
        torch.testing.assert_close(part, parts(other)[name], rtol=rtol, atol=atol, msg=name)


def targets(*boxes):
    """Of one training image, classes in turn."""
    held = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": held, "classes": torch.arange(len(boxes)) % 3}

"""Detectors of a few hundred weights in float64, for whatever asks a detector.

Their networks see little of the image at once (`REACH` pixels of the input), and an image is fed
enlarged and padded, so that pixels, content and input are three different things.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import roi_align

from rayseg.nets.detection import Detections, Detector, InputFit, Reading

REACH = 8
"""No feature depends on input pixels further away than this."""
STRIDE = 4


class _Tiny(Detector):
    """What both share: the trunk, and how images are fed.

    Args:
        num_classes: foreground classes.
        enlarged: input pixels an image pixel.
        seed: of the weights.
    """

    window_stride = STRIDE

    def __init__(self, num_classes=3, enlarged=1.5, seed=3):
        super().__init__()
        self.num_classes, self.enlarged = num_classes, enlarged
        self.register_buffer("mean", torch.tensor([0.2, -0.1, 0.4]).view(3, 1, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 8, 3, 2, 1), nn.Tanh()
            )
            self.make_heads()
        self.double().eval()

    def make_heads(self):
        raise NotImplementedError

    def fit(self, image_hw):
        content = tuple(round(side * self.enlarged) for side in image_hw)
        padded = tuple(-(-side // STRIDE) * STRIDE + STRIDE for side in content)
        return InputFit(tuple(image_hw), content, padded)

    def encode(self, images):
        fit = self.fit(images.shape[1:3])
        planes = images.to(self.mean.device).permute(0, 3, 1, 2).to(self.mean.dtype) / 64 - 2
        content = functional.interpolate(planes, fit.content_hw, mode="bilinear")
        bottom, right = (a - b for a, b in zip(fit.input_hw, fit.content_hw, strict=True))
        return functional.pad(content, (0, right, 0, bottom))

    def lean(self, device, precision):
        del precision  # everything here is float64
        return copy.deepcopy(self).to(device).eval().requires_grad_(False)

    def detect(self, images, min_score=0.05, max_objects=100):
        """Nothing is suppressed: the likeliest of a fixed set of candidates."""
        found = []
        with torch.no_grad():
            fit, inputs = self.fit(images.shape[1:3]), self.encode(images)
            for one in inputs:
                candidates = self.candidates(_tiles(fit, one), fit.input_hw)
                owner = torch.zeros(len(candidates), dtype=torch.int64)
                reading = self.read(one[None], owner, candidates)
                classes = reading.probabilities.argmax(1)
                scores, _, boxes = reading.of(classes)
                kept = scores.argsort(descending=True)[:max_objects]
                kept = kept[scores[kept] >= min_score]
                boxes = fit.to_image(boxes[kept])
                found.append(Detections(boxes, classes[kept], scores[kept], candidates[kept]))
        return found


class TinyDetector(_Tiny):
    """Two stages: a candidate is a box, and both heads look at what is pooled from it."""

    score_threshold = 0.0

    def make_heads(self):
        self.class_head = nn.Linear(8 * 9, self.num_classes + 1)
        self.box_head = nn.Linear(8 * 9, 4 * self.num_classes)
        with torch.no_grad():
            self.class_head.weight.mul_(4)

    def candidates(self, proposals, input_hw):
        return proposals

    def in_window(self, candidates, input_hw, window):
        _refuse_odd(window)
        corner = [window.left, window.top, window.left, window.top]
        return candidates - candidates.new_tensor(corner)

    def read(self, inputs, owner, candidates):
        rois = torch.cat([owner[:, None].to(candidates), candidates], 1)
        pooled = roi_align(self.trunk(inputs), rois, 3, 1 / STRIDE, 2, False).flatten(1)
        probabilities = self.class_head(pooled).softmax(1)
        deltas = self.box_head(pooled).unflatten(1, (self.num_classes, 4))
        boxes = _shift(candidates[:, None], deltas, inputs.shape[2:])
        return Reading(probabilities[:, :-1], probabilities[:, -1], deltas, boxes)


class TinyPoints(_Tiny):
    """One stage: a candidate is the number of a feature cell, and one box serves all classes."""

    score_threshold = 0.2
    side = 24.0

    def make_heads(self):
        self.class_head = nn.Conv2d(8, self.num_classes, 1)
        self.box_head = nn.Conv2d(8, 4, 1)

    def candidates(self, proposals, input_hw):
        del proposals
        return torch.arange(math.prod(_cells(input_hw)))

    def in_window(self, candidates, input_hw, window):
        _refuse_odd(window)
        columns = _cells(input_hw)[1]
        row = candidates // columns - window.top // STRIDE
        column = candidates % columns - window.left // STRIDE
        rows, wide = window.height // STRIDE, window.width // STRIDE
        if (row < 0).any() or (row >= rows).any() or (column < 0).any() or (column >= wide).any():
            raise ValueError(f"window must hold the candidates, got {window}")
        return row * wide + column

    def read(self, inputs, owner, candidates):
        features = self.trunk(inputs)
        scores = self.class_head(features).sigmoid().flatten(2).transpose(1, 2)  # (n, cells, c)
        deltas = self.box_head(features).flatten(2).transpose(1, 2)  # (n, cells, 4)
        columns = features.shape[3]
        places = torch.stack([candidates % columns, candidates // columns], 1) + 0.5
        centres = places.to(inputs) * STRIDE
        anchors = torch.cat([centres - self.side / 2, centres + self.side / 2], 1)[:, None]
        own = deltas[owner, candidates][:, None]
        return Reading(
            scores[owner, candidates],
            torch.zeros(len(owner)).to(inputs),
            own,
            _shift(anchors, own, inputs.shape[2:]),
        )


def _shift(anchors, deltas, input_hw):
    """Boxes moved and scaled by deltas, as Ren et al. put it, with weights (10, 10, 5, 5)."""
    sides = anchors[..., 2:] - anchors[..., :2]
    centres = anchors[..., :2] + sides / 2 + deltas[..., :2] / 10 * sides
    halves = sides * (deltas[..., 2:] / 5).exp() / 2
    boxes = torch.cat([centres - halves, centres + halves], -1)
    corner = boxes.new_tensor([input_hw[1], input_hw[0]] * 2)
    return boxes.clamp(min=0).minimum(corner)


def _tiles(fit, like):
    """Boxes of half the content's sides, on a grid of three by three."""
    height, width = fit.content_hw
    places = [(x / 4, y / 4) for y in range(3) for x in range(3)]
    boxes = [(x * width, y * height, (x + 0.5) * width, (y + 0.5) * height) for x, y in places]
    return like.new_tensor(boxes)


def _cells(input_hw):
    return tuple(-(-side // STRIDE) for side in input_hw)


def _refuse_odd(window):
    sides = (window.top, window.left, window.height, window.width)
    if any(side % STRIDE for side in sides):
        raise ValueError(f"window must be of multiples of {STRIDE}, got {window}")

"""BBAM as the authors' public code runs it, for benchmarks: what is slow there is slow here.

One object at a time, in the detector's own type. Each step decodes the image from its bytes,
resizes and uploads it; the whole detector runs, with its proposals' network and suppression, whose
answers nobody reads; every weight gathers a gradient; the loss is a Python loop over the positives;
loss.backward(). What comes out is the same as of rayseg's BBAM. Facts:
tools/BBAM/BBAM_training_images_multi.py, METHODS 9. Only for two-stage detectors that hold one of
torchvision's networks.
"""

import copy
import io
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from rayseg.attribution.classes.base import seeded
from rayseg.nets.detectors.two_stage import FasterRCNN
from tests.reference.bbam_literal import grid_of, jitter, overlap


def prepare(detector):
    """The plain detector, every weight with a gradient, as the public code has it.

    Its type stays: float32 is what is timed, and in float64 both forms give the same maps (in
    float32 a |t - t'| near 0 may slope up in one and down in the other).
    """
    return copy.deepcopy(detector).eval().requires_grad_(True)


def network_of(detector):
    """The network of torchvision's that a detector holds, or its parts put together as one.

    rayseg's own Faster R-CNN pools regions by matrix products; here torchvision's kernel does.
    """
    if isinstance(detector, FasterRCNN):
        heads = detector.boxes
        names = [str(level) for level in range(len(detector.pyramid.layer))]
        heads.box_roi_pool = MultiScaleRoIAlign(names, 7, 2)
        return SimpleNamespace(backbone=detector.pyramid, rpn=detector.rpn, roi_heads=heads)
    for module in detector.modules():
        if isinstance(module, GeneralizedRCNN):
            return module
    raise TypeError(f"detector must hold a GeneralizedRCNN, got {type(detector).__name__}")


def load(detector, encoded):
    """Input (1, 3, y, x) of an image's bytes; decoded, resized and uploaded."""
    pixels = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
    return detector.encode(torch.from_numpy(pixels)[None])


def run_all(network, inputs, content_hw, proposals):
    """Logits (m, c + 1) and deltas (m, c + 1, 4) of fixed proposals, by a whole forward pass."""
    sizes = [content_hw]
    features = network.backbone(inputs)
    if isinstance(features, torch.Tensor):
        features = {"0": features}  # as torchvision names the map of a trunk without a pyramid
    network.rpn(ImageList(inputs, sizes), features)  # its proposals are thrown away
    heads = network.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(features, [proposals], sizes))
    logits, deltas = heads.box_predictor(pooled)
    heads.postprocess_detections(logits, deltas, [proposals], sizes)
    return logits, deltas.unflatten(1, (-1, 4))


def boxes_of(network, deltas, proposals, input_hw):
    """Predicted boxes (m, c + 1, 4), cut at the input."""
    found = network.roi_heads.box_coder.decode(deltas.flatten(1), [proposals])
    return found.clamp(min=0).minimum(found.new_tensor([*input_hw[::-1]] * 2))


def total_variation(mask, power):
    """As the public code counts it: both diagonals twice."""
    pairs = [
        (mask[:-1], mask[1:]),
        (mask[:, :-1], mask[:, 1:]),
        (mask[:-1, :-1], mask[1:, 1:]),
        (mask[1:, :-1], mask[:-1, 1:]),
        (mask[:-1, 1:], mask[1:, :-1]),
        (mask[1:, 1:], mask[:-1, :-1]),
    ]
    return sum((one - other).abs().pow(power).sum() for one, other in pairs)


def choose(method, box, winners, found, label):
    """Positives: the code's loop over all proposals at each level."""
    chosen = []
    for level in method.iou_levels:
        chosen = []
        for number, (winner, row) in enumerate(zip(winners.tolist(), found, strict=True)):
            if winner == label and overlap(row[label].tolist(), box, method.iou) > level:
                chosen.append(number)
        if method.max_positives and len(chosen) > method.max_positives:
            return chosen[: method.max_positives]
    return chosen


def search(detector, encoded, box_xyxy, class_index, image_hw, image_id, method):
    """The grid of one object."""
    network, label = network_of(detector), class_index + 1
    fit, inputs = detector.fit(image_hw), load(detector, encoded)
    given = torch.as_tensor(box_xyxy, dtype=torch.float32)
    edges = [*fit.content_hw[::-1]] * 2
    box = fit.to_input(given[None])[0].tolist()
    box = [min(max(value, 0.0), edge) for value, edge in zip(box, edges, strict=True)]
    generator = seeded(method.seed, f"{image_id}/{class_index}/{given.tolist()}")
    shares = torch.rand(method.num_jitters, 4, generator=generator, dtype=torch.float64)
    draws = ((2 * shares - 1) * method.jitter).tolist()
    proposals = inputs.new_tensor([jitter(box, row, fit.content_hw) for row in draws])

    with torch.no_grad():
        logits, deltas = run_all(network, inputs, fit.content_hw, proposals)
    found = boxes_of(network, deltas, proposals, fit.input_hw)
    chosen = choose(method, box, logits.argmax(1), found, label)
    stride, cells = grid_of(
        box,
        fit.content_hw,
        method.stride_base,
        method.stride_range,
        method.fixed_stride,
        method.grid,
    )
    mask = inputs.new_zeros(cells)
    if not chosen:
        return mask.cpu()
    for number in chosen:
        x1, y1, x2, y2 = [int(value / stride) for value in found[number, label].tolist()]
        mask[y1:y2, x1:x2] = 1
    mask.requires_grad_()
    optimiser = torch.optim.Adam([mask], lr=method.lr)
    p, t = logits.softmax(1)[chosen, label], deltas[chosen, label]
    kept = proposals[chosen]
    for _ in range(method.steps):
        shown = show(detector, load(detector, encoded), mask, fit.content_hw)
        logits, deltas = run_all(network, shown, fit.content_hw, kept)
        probabilities = logits.softmax(1)
        loss = 0
        for place in range(len(chosen)):
            loss = loss + (t[place] - deltas[place, label]).abs().mean() / 2
            loss = loss + (p[place] - probabilities[place, label]).abs() / 2
        loss = loss / len(chosen) + method.sparsity * mask.abs().sum()
        loss = loss + method.tv * total_variation(mask, method.tv_power)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mask.data.clamp_(0, 1)
    return mask.detach().cpu()


def show(detector, inputs, mask, content_hw):
    """Phi(I, M) on the image; the padding stays."""
    height, width = content_hw
    large = nn.UpsamplingBilinear2d(size=content_hw)(mask[None, None])
    content = inputs[:, :, :height, :width]
    shown = inputs.clone()
    shown[:, :, :height, :width] = detector.mean + (content - detector.mean) * large
    return shown


def bbam(detector, encoded, boxes_xyxy, classes, image_id, method):
    """Grids (y, x) of the objects of one image, one after the other.

    Args:
        detector: as `prepare` makes it.
        encoded: bytes of the image's file.
        boxes_xyxy: (o, 4) in image pixels.
        classes: class index of each.
        image_id: as rayseg's BBAM takes it; the proposals are the same.
        method: a BBAM, of the reduction mean with both heads on.
    """
    settings = (method.reduction, method.start, method.use_box, method.use_class)
    if settings != ("mean", "boxes", True, True):
        raise ValueError(f"method must be an official one with both heads, got {method}")
    with Image.open(io.BytesIO(encoded)) as image:
        image_hw = (image.height, image.width)
    made = [
        search(detector, encoded, box, int(class_index), image_hw, image_id, method)
        for box, class_index in zip(boxes_xyxy, classes, strict=True)
    ]
    detector.zero_grad()
    return made

"""BBAM a second time, slow and literal.

One object at a time, one candidate at a time, loops over positives and over TV's pairs of cells,
torch's own upsampling and optimiser, gradients into all weights. Every function computes in the
type of the detector, so that `detector.double()` gives float64. Rules: METHODS 9, dissertation 5.3
and 5.4.1. Nothing is taken from rayseg's BBAM but the draws, which are arguments.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Found:
    """What came of one object.

    Attributes:
        grid: (y, x) in [0, 1]; zeros where the detector never finds the object.
        start: the grid before the first step.
        positives: number of candidates that are explained.
        box_loss: first term of Eq. 5.2 at the end, whether it is switched on or not.
        class_loss: the second.
        curve: both terms before each step.
    """

    grid: torch.Tensor
    start: torch.Tensor
    positives: int
    box_loss: float = 0.0
    class_loss: float = 0.0
    curve: tuple = ()


def jitter(box, draws, content_hw):
    """One proposal: each coordinate moves by its share of the side; cut at its outer edge."""
    height, width = content_hw
    x1, y1, x2, y2 = box
    dx1, dy1, dx2, dy2 = draws
    across, down = x2 - x1, y2 - y1
    return [
        max(x1 + dx1 * across, 0.0),
        max(y1 + dy1 * down, 0.0),
        min(x2 + dx2 * across, width),
        min(y2 + dy2 * down, height),
    ]


def overlap(a, b, kind):
    """IoU of two boxes; of kind int, that of their coordinates without their fractions."""
    if kind == "int":
        a, b = [int(v) for v in a], [int(v) for v in b]
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    if across < 0 or down < 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - across * down
    return across * down / union if union > 0 else 0.0


def read_one(detector, inputs, candidate, class_index):
    """Probability and deltas of the class, its box, and what wins, of one candidate."""
    reading = detector.read(inputs, torch.zeros(1, dtype=torch.int64), candidate[None])
    probabilities = reading.probabilities[0]
    column = class_index if reading.deltas.shape[1] > 1 else 0
    winner = int(probabilities.argmax())
    if reading.background[0] > probabilities[winner]:
        winner = -1
    return (
        probabilities[class_index],
        reading.deltas[0, column],
        reading.boxes_xyxy[0, column],
        winner,
    )


def choose_positives(detector, inputs, candidates, box, class_index, iou, levels, most):
    """The first level with more than `most` gives its first `most`; else the last level gives all.

    `most` 0 is as many as there are.
    """
    predicts = []
    for candidate in candidates:
        with torch.no_grad():
            probability, _, found, winner = read_one(detector, inputs, candidate, class_index)
        good = winner == class_index and float(probability) >= detector.score_threshold
        predicts.append(overlap(box, found.tolist(), iou) if good else -1.0)
    chosen = []
    for level in levels:
        chosen = [number for number, value in enumerate(predicts) if value > level]
        if most and len(chosen) > most:
            return chosen[:most]
    return chosen


def grid_of(box, content_hw, stride_base, stride_range, fixed_stride, rounding):
    """Stride and cells: s = 16 + 48 sqrt(a)."""
    height, width = content_hw
    area = (box[2] - box[0]) * (box[3] - box[1])
    stride = fixed_stride or stride_base + stride_range * math.sqrt(area / (height * width))
    whole = math.ceil if rounding == "ceil" else int
    return stride, [max(whole(side / stride), 1) for side in content_hw]


def total_variation(mask, power):
    """|difference| to a power over all pairs of neighbours; each diagonal pair counts twice."""
    rows, columns = mask.shape
    total = mask.sum() * 0
    for y in range(rows):
        for x in range(columns):
            for dy, dx, times in ((1, 0, 1), (0, 1, 1), (1, 1, 2), (1, -1, 2)):
                if y + dy < rows and 0 <= x + dx < columns:
                    total = total + times * (mask[y, x] - mask[y + dy, x + dx]).abs() ** power
    return total


def terms(detector, inputs, candidates, targets, class_index, reduction):
    """Both terms of Eq. 5.3: means over the positives."""
    box_loss, class_loss = 0, 0
    for candidate, (p, t) in zip(candidates, targets, strict=True):
        p_now, t_now, _, _ = read_one(detector, inputs, candidate, class_index)
        apart = (t - t_now).abs()
        box_loss = box_loss + (apart.mean() / 2 if reduction == "mean" else apart.sum())
        missing = (p - p_now).abs()
        class_loss = class_loss + (missing / 2 if reduction == "mean" else missing)
    return box_loss / len(candidates), class_loss / len(candidates)


def perturb(inputs, mask, mean, content_hw):
    """Phi: the image where the mask is 1, the mean colour where it is 0; padding stays."""
    height, width = content_hw
    large = nn.UpsamplingBilinear2d(size=content_hw)(mask[None, None])
    shown = inputs.clone()
    content = inputs[:, :, :height, :width]
    shown[:, :, :height, :width] = content * large + mean * (1 - large)
    return shown


def bbam(
    detector,
    image,
    box_xyxy,
    class_index,
    draws=None,
    order=None,
    candidate=None,
    iou="int",
    iou_levels=(0.9, 0.85, 0.8),
    max_positives=100,
    use_box=True,
    use_class=True,
    sparsity=0.007,
    tv=1e-4,
    tv_power=3,
    steps=300,
    lr=0.02,
    stride_base=16,
    stride_range=48,
    fixed_stride=0,
    rounding="floor",
    reduction="mean",
    start="boxes",
):
    """One object.

    Args:
        detector: any Detector; its weights gather gradients, which are dropped at the end.
        image: uint8 (h, w, 3).
        box_xyxy: four numbers in image pixels; what lies in the image counts.
        class_index: the object's.
        draws: of each proposal, four shares of the box's sides.
        order: of a detector without proposals, in which candidates are looked at.
        candidate: of a predicted box, the one that it was predicted from (Eq. 5.1).
    """
    inputs = detector.encode(image[None])
    fit = detector.fit(tuple(image.shape[:2]))
    edges = [fit.content_hw[1], fit.content_hw[0]] * 2
    box = fit.to_input(inputs.new_tensor([list(box_xyxy)]))[0].tolist()
    box = [min(max(value, 0.0), edge) for value, edge in zip(box, edges, strict=True)]
    if candidate is not None:
        chosen = [candidate]
    else:
        proposals = [jitter(box, row, fit.content_hw) for row in draws.tolist()]
        proposals = inputs.new_tensor(proposals)
        candidates = detector.candidates(proposals, fit.input_hw)
        if order is not None:
            candidates = candidates[order]
        picked = choose_positives(
            detector, inputs, candidates, box, class_index, iou, iou_levels, max_positives
        )
        chosen = [candidates[number] for number in picked]

    stride, cells = grid_of(box, fit.content_hw, stride_base, stride_range, fixed_stride, rounding)
    mask = inputs.new_zeros(cells)
    if not chosen:
        return Found(mask, mask.clone(), 0)
    targets = []
    for one in chosen:
        with torch.no_grad():
            p, t, found, _ = read_one(detector, inputs, one, class_index)
        targets.append((p, t))
        x1, y1, x2, y2 = [int(value / stride) for value in found.tolist()]
        mask[y1:y2, x1:x2] = 1
    if start == "ones":
        mask = torch.ones_like(mask)
    first = mask.clone()

    mask.requires_grad_()
    optimiser = torch.optim.Adam([mask], lr=lr)
    curve = []
    for _ in range(steps):
        shown = perturb(inputs, mask, detector.mean, fit.content_hw)
        box_loss, class_loss = terms(detector, shown, chosen, targets, class_index, reduction)
        curve.append((float(box_loss.detach()), float(class_loss.detach())))
        loss = box_loss * use_box + class_loss * use_class
        loss = loss + sparsity * mask.abs().sum() + tv * total_variation(mask, tv_power)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    detector.zero_grad()
    mask = mask.detach()
    with torch.no_grad():
        shown = perturb(inputs, mask, detector.mean, fit.content_hw)
        ends = terms(detector, shown, chosen, targets, class_index, reduction)
    return Found(mask, first, len(chosen), float(ends[0]), float(ends[1]), tuple(curve))

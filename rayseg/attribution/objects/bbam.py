"""BBAM: the smallest part of the image that preserves a detector's answers about an object.

Lee et al., *BBAM: Bounding Box Attribution Map for Weakly Supervised Semantic and Instance
Segmentation*, CVPR 2021; dissertation 5.3.2. With the detector's box head t and class head p:

    M*        = argmin_{M in [0, 1]} lambda ||M||_1 + L_perturb                       (Eq. 5.1)
    L_perturb = 1_box ||t_c - f_box(Phi, o)||_1 + 1_cls ||p_c - f_cls(Phi, o)||_1     (Eq. 5.2)
    Phi(I, M) = I * M + mu * (1 - M)

For a predicted box o is what it was predicted from; for a given one L_perturb is the mean over the
positives of its jittered proposals (Eq. 5.3). M is a grid of stride s(a) = 16 + 48 sqrt(a), with a
the box's share of the image.

The public code (`official`) halves the terms, takes the mean over the four offsets, adds a total
variation, and rounds the grid down. It runs one object at a time, with the proposals' network, its
suppression and the weights' gradients in each step. Here all objects of all images lie in batches,
the image is encoded once, and nothing but the heads' answers is computed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from rayseg.attribution.objects.box_base import BoxAttribution, ObjectMap
from rayseg.attribution.objects.mask_search import Found, Objective, Problem, interpolation, search
from rayseg.attribution.objects.positives import Target
from rayseg.nets.detection import Detector, InputFit, Window
from rayseg.records.bounds import check_least

CPU_PIXELS = 2**18  # a CPU is no faster with more at once, and its graph takes memory
GPU_BYTES_A_PIXEL = 6000  # of a ResNet-101's graph in float32
GPU_SHARE = 0.5  # of what is free: a neighbour on the same GPU plans with the same memory
PIXELS_A_CANDIDATE = 64  # what is pooled from a candidate takes the room of so many pixels


@dataclass(frozen=True)
class BBAM(BoxAttribution):
    """The smallest mask that preserves a detector's answers; with `steps` 0 its predicted boxes.

    Attributes:
        use_box: The box is explained, 1_box (Figure 5.4).
        use_class: The class is explained: 1_cls (Figure 5.4).
        sparsity: Lambda, the weight of the mask's size (0.007; the code's demo on predicted boxes
            0.07).
        tv: Weight of the total variation (code: 1e-4, its demo 1e-3; the text has none).
        tv_power: Exponent of each difference in the total variation (code: 3).
        steps: Number of Adam's steps (300).
        lr: Adam's learning rate (0.02).
        stride_base: Smallest stride s(a) of the mask, in input pixels (16).
        stride_range: How much larger s(a) can get, in input pixels (48).
        fixed_stride: Stride in place of s(a), in input pixels (Figure 5.7b: 24, 48); 0 keeps s(a).
        grid: The image's sides over the stride are rounded down (code) or up (text), to at least 1.
        reduction: How terms are added: mean halves them and averages the four offsets (code); sum
            is the L1 norms (text).
        start: The first mask: boxes is 1 in the union of the positives' predicted boxes, cut to
            whole cells, which for an object below one cell is nothing (code); ones is 1 everywhere.
        region: What a step shows the detector: the image (full), or only what is around the
            object's candidates and boxes, and the mask is 0 elsewhere (windows).
        window_margin: A window is wider than its boxes on each side by this share of their sides.
        window_pixels: A window is wider on each side by at least this many input pixels.
        early_stop: An object ends where its loss moved by less than this share over 20 steps; 0
            never, as published.
        record: Each map comes with the curve of its losses.
    """

    use_box: bool = True
    use_class: bool = True
    sparsity: float = 0.007
    tv: float = 1e-4
    tv_power: float = 3.0
    steps: int = 300
    lr: float = 0.02
    stride_base: float = 16.0
    stride_range: float = 48.0
    fixed_stride: float = 0.0
    grid: Literal["floor", "ceil"] = "floor"
    reduction: Literal["mean", "sum"] = "mean"
    start: Literal["boxes", "ones"] = "boxes"
    region: Literal["full", "windows"] = "full"
    window_margin: float = 0.6
    window_pixels: int = 32
    early_stop: float = 0.0
    record: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.use_box or self.use_class):
            raise ValueError("use_box or use_class must be true, got neither")
        check_least(self, sparsity=0, tv=0, steps=0, lr=0, stride_range=0, fixed_stride=0)
        check_least(self, window_margin=0, window_pixels=0, early_stop=0, stride_base=1, tv_power=1)

    @classmethod
    def as_written(cls) -> Self:
        """Eq. 5.1 to 5.3: L1 norms, no total variation, ceil, all positives above 0.8.

        The text says nothing of the start, which is the code's.
        """
        return cls(
            iou_levels=(0.8,), max_positives=0, iou="exact", tv=0.0, grid="ceil", reduction="sum"
        )

    def check(self, detector: Detector) -> None:
        """Refuses windows of a detector that takes whole inputs only.

        Raises:
            ValueError: both sides are said.
        """
        if self.region == "windows" and not detector.window_stride:
            raise ValueError(
                "region must be full for a detector that takes whole inputs only, got windows"
            )

    def stride(self, share: float) -> float:
        """s(a) in input pixels, of a box with that share of the image."""
        return self.fixed_stride or self.stride_base + self.stride_range * math.sqrt(share)

    def grid_hw(self, share: float, content_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the grid of an object; at least one."""
        stride = self.stride(share)
        round_ = math.ceil if self.grid == "ceil" else math.floor
        height, width = (max(round_(side / stride), 1) for side in content_hw)
        return height, width

    def explain(
        self,
        detector: Detector,
        inputs: Float[Tensor, "n 3 y x"],
        fit: InputFit,
        targets: Sequence[Target],
    ) -> list[ObjectMap]:
        """Searches the grids of all objects, objects of like windows and sizes in one batch."""
        problems = [self._problem(detector, inputs[one.image], fit, one) for one in targets]
        objective = Objective(
            self.use_box, self.use_class, self.reduction, self.sparsity, self.tv, self.tv_power
        )
        found: dict[int, Found] = {}
        for batch in self._batches(problems, targets, inputs.device):
            some = [problems[i] for i in batch]
            made = search(detector, some, objective, self.steps, self.lr, self.early_stop)
            found.update(zip(batch, made, strict=True))
        return [self._map(found[i], len(one.candidates)) for i, one in enumerate(targets)]

    def _batches(
        self, problems: Sequence[Problem], targets: Sequence[Target], device: torch.device
    ) -> Iterator[list[int]]:
        """Places of problems of one input size; like ones after each other, as many as fit.

        Objects of like sizes are pooled from the same levels of a pyramid, and a level that nobody
        in a batch is pooled from is not computed.
        """
        limit = self.max_pixels or _default_pixels(device)
        sizes = [tuple(one.inputs.shape[1:]) for one in problems]
        batch: list[int] = []
        taken = 0
        for i in sorted(range(len(problems)), key=lambda i: (sizes[i], targets[i].share)):
            cost = math.prod(sizes[i]) + PIXELS_A_CANDIDATE * len(problems[i].candidates)
            if batch and (sizes[i] != sizes[batch[0]] or taken + cost > limit):
                yield batch
                batch, taken = [], 0
            batch.append(i)
            taken += cost
        if batch:
            yield batch

    def _problem(
        self, detector: Detector, inputs: Float[Tensor, "3 y x"], fit: InputFit, target: Target
    ) -> Problem:
        window, candidates = self._window(detector, fit, target)
        grid_hw = self.grid_hw(target.share, fit.content_hw)
        rows, columns = (
            _weights(cells, pixels, first, length, target.deltas)
            for cells, pixels, first, length in zip(
                grid_hw,
                fit.content_hw,
                (window.top, window.left),
                (window.height, window.width),
                strict=True,
            )
        )
        free = (rows > 0).any(0)[:, None] & (columns > 0).any(0)
        bottom, right = window.top + window.height, window.left + window.width
        return Problem(
            inputs[:, window.top : bottom, window.left : right],
            rows,
            columns,
            (
                min(bottom, fit.content_hw[0]) - window.top,
                min(right, fit.content_hw[1]) - window.left,
            ),
            self._first_grid(grid_hw, target) * free,
            free,
            candidates,
            target.class_index,
            target.probabilities,
            target.deltas,
        )

    def _first_grid(self, grid_hw: tuple[int, int], target: Target) -> Float[Tensor, "r s"]:
        ones = target.deltas.new_ones(grid_hw)
        if self.start == "ones":
            return ones
        left, top, right, bottom = (target.boxes_xyxy / self.stride(target.share)).int().mT
        y, x = (torch.arange(cells, device=ones.device)[:, None] for cells in grid_hw)
        inside_y, inside_x = (y >= top) & (y < bottom), (x >= left) & (x < right)  # (cells, m)
        return ones * (inside_y[:, None] & inside_x[None]).any(2)

    def _window(self, detector: Detector, fit: InputFit, target: Target) -> tuple[Window, Tensor]:
        """What of the input is shown in each step, and the candidates in it."""
        whole = Window(0, 0, *fit.input_hw)
        if self.region == "full":
            return whole, target.candidates
        boxes = torch.cat([target.box_xyxy[None], target.boxes_xyxy])
        if target.candidates.ndim == 2:
            boxes = torch.cat([boxes, target.candidates])
        left, top, right, bottom = (*boxes[:, :2].amin(0).tolist(), *boxes[:, 2:].amax(0).tolist())
        step = detector.window_stride
        y, height = self._along(top, bottom, fit.input_hw[0], step)
        x, width = self._along(left, right, fit.input_hw[1], step)
        window = Window(y, x, height, width)
        if window == whole:
            return whole, target.candidates
        try:
            return window, detector.in_window(target.candidates, fit.input_hw, window)
        except ValueError:
            if target.candidates.ndim == 2:
                raise
            return whole, target.candidates  # an anchor may lie away from the box that it predicts

    def _along(self, low: float, high: float, length: int, step: int) -> tuple[int, int]:
        """First pixel and length of a window that holds what lies between low and high.

        Both are multiples of the step, but for a window that ends where the input does.
        """
        margin = max(self.window_margin * (high - low), self.window_pixels)
        first, total = math.floor(max(low - margin, 0) / step), math.ceil(length / step)
        units = _few(math.ceil(min(high + margin, length) / step) - first)
        if units >= total:
            return 0, length
        start = min(first, total - units) * step
        return start, min(units * step, length - start)

    def _map(self, found: Found, positives: int) -> ObjectMap:
        curve = found.curve if self.record else None
        last = found.curve.new_tensor([[found.box_loss, found.class_loss]])
        counted = torch.tensor([self.use_box, self.use_class])
        broken = ~torch.cat([found.curve, last])[:, counted].isfinite().all(1)
        if broken.any() or not found.grid.isfinite().all():
            at = int(broken.nonzero()[0, 0]) if broken.any() else found.steps
            reason = f"error: the losses are no numbers after {at} of {self.steps} steps"
            zeros = torch.zeros(found.grid.shape)
            return ObjectMap(zeros, reason, positives, 0.0, 0.0, found.steps, curve)
        return ObjectMap(
            found.grid.float().cpu(),
            "ok",
            positives,
            found.box_loss,
            found.class_loss,
            found.steps,
            curve,
        )


def _weights(
    cells: int, pixels: int, first: int, length: int, like: Tensor
) -> Float[Tensor, "length cells"]:
    """Weights of a grid's cells in the pixels of a window; 0 where it lies in the padding."""
    weights = like.new_zeros(length, cells)
    part = interpolation(cells, pixels, like)[first : first + length]
    weights[: len(part)] = part
    return weights


def _few(units: int) -> int:
    """The next of few lengths (... 8, 10, 12, 14, 16, 20, ...), so that windows come in batches."""
    step = max(1, 2 ** (units.bit_length() - 3))
    return -(-units // step) * step


def _default_pixels(device: torch.device) -> int:
    if device.type != "cuda":
        return CPU_PIXELS
    # What torch keeps for its next tensors is in use to the driver: after one crowded image nothing
    # would seem free, and each later batch would be of one object.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + kept
    return max(int(free * GPU_SHARE) // GPU_BYTES_A_PIXEL, CPU_PIXELS)

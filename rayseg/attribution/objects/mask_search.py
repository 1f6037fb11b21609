"""The search for the smallest part of an image that a detector's answers need, many at once.

Each object has a grid, an Adam state and a loss of its own; what they share is the detector's time.
Grids of different sizes lie in one tensor, padded with cells that stay 0. A grid is enlarged to the
input by two matrix products, M = A_y G A_x^T, with matrices of the object's own:

    shown = mean + (input - mean) * M
    loss  = E_positives [ box term + class term ] + sparsity * sum |G| + tv * TV(G)

Letters of shapes: b objects, y x input pixels, r s cells of the padded grids, m candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rayseg.nets.detection import Detector

STALL_STEPS = 20
"""The loss is compared with what it was so many steps ago."""
BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8  # torch's defaults, which the public code takes
ROUNDINGS = 64
"""Answers that differ by no more than so many roundings of a number are the same answer."""


@dataclass(frozen=True)
class Problem:
    """One object's search.

    Attributes:
        inputs: float (3, y, x), what the detector is shown of the image, unperturbed.
        rows: float (y, r), weights of the grid's rows in each input row; 0 in the padding.
        columns: float (x, s), likewise.
        content_hw: rows and columns of `inputs` that hold the image; the rest is never changed.
        start: float (r, s) the grid to begin with.
        free: bool (r, s) cells that change; the others stay as they are.
        candidates: (m, 4) or (m,), the positives, in `inputs`.
        class_index: the object's class.
        probabilities: float (m,), p_c of the whole unperturbed image.
        deltas: float (m, 4), t_c of the whole unperturbed image.
    """

    inputs: Float[Tensor, "3 y x"]
    rows: Float[Tensor, "y r"]
    columns: Float[Tensor, "x s"]
    content_hw: tuple[int, int]
    start: Float[Tensor, "r s"]
    free: Bool[Tensor, "r s"]
    candidates: Tensor
    class_index: int
    probabilities: Float[Tensor, " m"]
    deltas: Float[Tensor, "m 4"]


@dataclass(frozen=True)
class Objective:
    """What is made small.

    Attributes:
        use_box: the box term counts.
        use_class: the class term counts.
        reduction: mean is mean_4 |t - t'| / 2 and |p - p'| / 2; sum is the plain L1 norms.
        sparsity: lambda, of the grid's L1 norm.
        tv: of its total variation.
        tv_power: of each difference in it.
    """

    use_box: bool
    use_class: bool
    reduction: Literal["mean", "sum"]
    sparsity: float
    tv: float
    tv_power: float


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        grid: float (r, s) in [0, 1].
        box_loss: the box term of that grid, whether it counts or not.
        class_loss: the class term.
        steps: taken.
        curve: float (steps, 2), both terms before each step.
    """

    grid: Float[Tensor, "r s"]
    box_loss: float
    class_loss: float
    steps: int
    curve: Float[Tensor, "steps 2"]


def search(
    detector: Detector,
    problems: Sequence[Problem],
    objective: Objective,
    steps: int,
    learning_rate: float,
    early_stop: float = 0.0,
) -> list[Found]:
    """The grids that make the objective small, by Adam, each clamped to [0, 1] after each step.

    A search that ends in no number goes on alone with it: its grid is NaN, the others are as ever.

    Args:
        problems: of which `inputs` have one size.
        early_stop: a search ends where its loss moved by less than this share over 20 steps; 0
            never.
    """
    found: dict[int, Found] = {}
    batch, state = _Batch(detector, problems), _State.start(problems)
    course = state.grids.new_zeros(steps + 1, len(problems), 2)
    for count in range(steps + 1):
        last = count == steps  # one more look, for the losses of what comes back
        grids = state.grids.requires_grad_(not last)
        terms = batch.terms(grids, objective.reduction)  # (b, 2)
        course[count, state.numbers] = terms.detach()
        loss = batch.loss(grids, terms, objective)
        gradient = grids if last else torch.autograd.grad(loss.sum(), grids)[0]
        state = state.seen(loss.detach())
        if last or early_stop:
            ends = torch.ones_like(loss, dtype=torch.bool) if last else state.stalled(early_stop)
            for i in ends.nonzero()[:, 0].tolist():
                number = int(state.numbers[i])
                found[number] = _settle(state.grids[i], problems[number], course[:, number], count)
            if ends.all():
                break
            if ends.any():
                state, gradient = state.of(~ends), gradient[~ends]
                batch = _Batch(detector, [problems[i] for i in state.numbers.tolist()])
                state, gradient = state.cut(batch), batch.cut(gradient)
        state = state.step(gradient * batch.free, learning_rate, count + 1)
    return [found[i] for i in range(len(problems))]


def _settle(
    grid: Float[Tensor, "r s"], problem: Problem, terms: Float[Tensor, "steps 2"], steps: int
) -> Found:
    rows, columns = problem.start.shape
    terms = terms[: steps + 1].cpu()
    box_loss, class_loss = terms[-1].tolist()
    return Found(grid[:rows, :columns], box_loss, class_loss, steps, terms[:-1])


class _Batch:
    """Problems as tensors: everything that stays as it is during a search."""

    def __init__(self, detector: Detector, problems: Sequence[Problem]):
        self.detector = detector
        inputs = torch.stack([one.inputs for one in problems])
        self.dtype = inputs.dtype
        real = problems[0].rows.dtype
        self.mean = detector.mean.to(real)
        self.contrast = inputs.to(real) - self.mean  # (b, 3, y, x)
        self.rows = _pad([one.rows for one in problems])  # (b, y, r)
        self.columns_t = _pad([one.columns for one in problems]).mT.contiguous()  # (b, s, x)
        self.padding = _padding(problems, self.contrast)  # (b, y, x)
        self.free = _pad([one.free for one in problems])
        own = _pad([torch.ones_like(one.free) for one in problems])
        self.neighbours = [low & high for low, high in _pairs(own)]
        counts = [len(one.candidates) for one in problems]
        device = inputs.device
        numbers = torch.arange(len(problems), device=device)
        self.owner = numbers.repeat_interleave(torch.tensor(counts, device=device))
        self.candidates = torch.cat([one.candidates for one in problems])
        self.classes = torch.tensor([one.class_index for one in problems], device=device)[
            self.owner
        ]
        self.probabilities = torch.cat([one.probabilities for one in problems])
        self.deltas = torch.cat([one.deltas for one in problems])
        self.counts = torch.tensor(counts, device=device, dtype=real)

    def terms(
        self, grids: Float[Tensor, "b r s"], reduction: Literal["mean", "sum"]
    ) -> Float[Tensor, "b 2"]:
        """The box term and the class term of Eq. 5.2, a mean over each object's positives."""
        masks = self.rows @ grids @ self.columns_t  # (b, y, x)
        if self.padding is not None:
            masks = masks + self.padding
        shown = self.mean + self.contrast * masks[:, None]
        reading = self.detector.read(shown.to(self.dtype), self.owner, self.candidates)
        probabilities, deltas, _ = reading.of(self.classes)
        box = distance(self.deltas, deltas)
        class_ = distance(self.probabilities, probabilities)
        box, class_ = (box.mean(1) / 2, class_ / 2) if reduction == "mean" else (box.sum(1), class_)
        both = torch.stack([box, class_], 1).to(grids.dtype)  # (m, 2)
        sums = torch.zeros(len(grids), 2, dtype=grids.dtype, device=grids.device)
        return sums.index_add(0, self.owner, both) / self.counts[:, None]

    def loss(
        self, grids: Float[Tensor, "b r s"], terms: Float[Tensor, "b 2"], objective: Objective
    ) -> Float[Tensor, " b"]:
        """What each object's grid costs."""
        # a term that is switched off must not pass its NaN on, which 0 * NaN would
        counted = [terms[:, i] for i in range(2) if (objective.use_box, objective.use_class)[i]]
        loss = torch.stack(counted).sum(0) + objective.sparsity * grids.abs().sum((1, 2))
        if objective.tv:
            differences = total_variation(grids, self.neighbours, objective.tv_power)
            loss = loss + objective.tv * differences
        return loss

    def cut(self, grids: Float[Tensor, "b r s"]) -> Float[Tensor, "b r s"]:
        """Grids without the padding that only others needed."""
        return grids[:, : self.free.shape[1], : self.free.shape[2]]


@dataclass(frozen=True)
class _State:
    """The state of each search of a batch.

    Attributes:
        numbers: int64 (b,) which problem each is.
        grids: float (b, r, s).
        first: Adam's mean of gradients.
        second: Adam's mean of their squares.
        losses: of the last steps, each (b,), the oldest first.
    """

    numbers: Int[Tensor, " b"]
    grids: Float[Tensor, "b r s"]
    first: Float[Tensor, "b r s"]
    second: Float[Tensor, "b r s"]
    losses: tuple[Float[Tensor, " b"], ...] = ()

    @classmethod
    def start(cls, problems: Sequence[Problem]) -> Self:
        grids = _pad([one.start for one in problems])
        zeros = torch.zeros_like(grids)
        return cls(torch.arange(len(problems), device=grids.device), grids, zeros, zeros)

    def seen(self, loss: Float[Tensor, " b"]) -> _State:
        losses = (*self.losses, loss)[-STALL_STEPS - 1 :]
        return _State(self.numbers, self.grids.detach(), self.first, self.second, losses)

    def stalled(self, share: float) -> Bool[Tensor, " b"]:
        """Whose loss has hardly moved over the last 20 steps."""
        old, new = self.losses[0], self.losses[-1]
        if len(self.losses) <= STALL_STEPS:
            return torch.zeros_like(new, dtype=torch.bool)
        return (old - new).abs() < share * old.abs()

    def step(self, gradient: Float[Tensor, "b r s"], rate: float, count: int) -> _State:
        """Adam (Kingma and Ba, ICLR 2015); a cell without gradient stays where it is."""
        first = self.first.lerp(gradient, 1 - BETAS[0])
        second = BETAS[1] * self.second + (1 - BETAS[1]) * gradient.square()
        fast, slow = (1 - beta**count for beta in BETAS)
        change = rate / fast * first / (second.sqrt() / slow**0.5 + ADAM_EPSILON)
        grids = (self.grids - change).clamp(0, 1)
        return _State(self.numbers, grids, first, second, self.losses)

    def of(self, kept: Bool[Tensor, " b"]) -> _State:
        return _State(
            self.numbers[kept],
            self.grids[kept],
            self.first[kept],
            self.second[kept],
            tuple(loss[kept] for loss in self.losses),
        )

    def cut(self, batch: _Batch) -> _State:
        grids, first, second = map(batch.cut, (self.grids, self.first, self.second))
        return _State(self.numbers, grids, first, second, self.losses)


def distance(wanted: Float[Tensor, "*m"], found: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
    """|wanted - found|; 0, with slope 0, where they are the same up to rounding.

    A matrix product rounds a row by its place among the others (the last rows of a block that is
    not full take another kernel). Where a mask hides nothing that a candidate sees, |t - t'| would
    be one rounding with a slope of its sign: two equal objects of one batch would part by 1e-2 in
    six steps.
    """
    away = (wanted - found).abs()
    rounding = ROUNDINGS * torch.finfo(found.dtype).eps * (1 + wanted.abs())
    return away * ~(away <= rounding)  # what is no number stays none


def total_variation(
    grids: Float[Tensor, "b r s"], neighbours: Sequence[Bool[Tensor, "b r' s'"]], power: float
) -> Float[Tensor, " b"]:
    """Sum of |difference|^power over rows, columns and both diagonals, the diagonals twice.

    Args:
        neighbours: which pairs count: down, right, and the two diagonals, as `own_neighbours` gives
            them for grids without padding.
        power: 3 in the public code, which also counts the diagonals twice.
    """
    sums = [
        ((low - high).abs().pow(power) * counted).sum((1, 2))
        for (low, high), counted in zip(_pairs(grids), neighbours, strict=True)
    ]
    return sums[0] + sums[1] + 2 * (sums[2] + sums[3])


def own_neighbours(grids: Float[Tensor, "b r s"]) -> list[Bool[Tensor, "b r' s'"]]:
    """All pairs of neighbouring cells of grids without padding."""
    return [torch.ones_like(low, dtype=torch.bool) for low, _ in _pairs(grids)]


def _pairs(grids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield grids[:, :-1], grids[:, 1:]
    yield grids[:, :, :-1], grids[:, :, 1:]
    yield grids[:, :-1, :-1], grids[:, 1:, 1:]
    yield grids[:, 1:, :-1], grids[:, :-1, 1:]


def interpolation(cells: int, pixels: int, like: Tensor) -> Float[Tensor, "pixels cells"]:
    """Weights that enlarge cells to pixels linearly, the first on the first, the last on the last.

    The product over both axes is torch's bilinear interpolation with ``align_corners=True``.
    """
    places = torch.arange(pixels, dtype=torch.float64) * ((cells - 1) / max(pixels - 1, 1))
    low = places.floor().long().clamp(max=cells - 1)
    above = places - low
    weights = torch.zeros(pixels, cells, dtype=torch.float64)
    numbers = torch.arange(pixels)
    weights[numbers, low] = 1 - above
    weights[numbers, (low + 1).clamp(max=cells - 1)] += above
    return weights.to(like)


def _pad(parts: Sequence[Tensor]) -> Tensor:
    """Matrices in one tensor, with zeros below and right of the smaller ones."""
    rows, columns = (max(part.shape[axis] for part in parts) for axis in (0, 1))
    whole = parts[0].new_zeros(len(parts), rows, columns)
    for place, part in zip(whole, parts, strict=True):
        place[: part.shape[0], : part.shape[1]] = part
    return whole


def _padding(
    problems: Sequence[Problem], like: Float[Tensor, "b 3 y x"]
) -> Float[Tensor, "b y x"] | None:
    """1 where an input holds nothing of the image; None where all are full."""
    size_hw = (like.shape[2], like.shape[3])
    if all(one.content_hw == size_hw for one in problems):
        return None
    padding = like.new_ones(len(problems), *size_hw)
    for place, one in zip(padding, problems, strict=True):
        place[: one.content_hw[0], : one.content_hw[1]] = 0
    return padding

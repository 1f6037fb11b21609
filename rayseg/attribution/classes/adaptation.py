"""RIB's fine-tuning to one image, step by step; rib.py says what a step does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rayseg.attribution.classes.adaptable import AdaptableNetwork
from rayseg.attribution.classes.base import EPSILON, ScaleResult, equation_cam, seeded
from rayseg.attribution.classes.companions import Draw
from rayseg.attribution.classes.views import merge_views

if TYPE_CHECKING:
    from rayseg.attribution.classes.rib import RIB

SHARED = "companions share a class with it"
"""What an image's note says, behind their number, where no others were left."""


@dataclass(frozen=True)
class Start:
    """One image under theta_0.

    Attributes:
        features: of each scale (v, e, h, w), from the stages that never train.
        maps: raw maps (v, c, h', w') of the scales that are not learned from, else None.
        classes: to localize.
        image_id: companions follow from it.
    """

    features: list[Tensor]
    maps: list[Tensor | None]
    classes: list[int]
    image_id: str


@dataclass(frozen=True)
class AdaptedMaps:
    """What came of one image: maps (k, h', w') of each scale, logits (k,), steps and remarks."""

    maps: list[Tensor]
    scores: Tensor
    gains: Tensor
    steps: int
    note: str


class Adaptation:
    """The fine-tuning to one image; the network's weights move with it."""

    def __init__(
        self, method: RIB, network: AdaptableNetwork, start: Start, reach_end: bool = False
    ):
        self.method, self.network, self.start = method, network, start
        self.began = time.perf_counter()
        self.num_maps = method.num_steps + 1 if method.add_last else max(method.num_steps, 1)
        # a step after the last map would be seen by nobody
        self.num_steps = method.num_steps if reach_end else self.num_maps - 1
        self.tags = torch.zeros(1, network.num_classes, dtype=torch.bool, device=network.device)
        self.tags[:, start.classes] = True
        # of the other classes' logits L_RIB sees nothing
        self.columns = start.classes if method.loss == "rib" else slice(None)
        self.native = method.scales.index(1.0) if 1.0 in method.scales else 0
        self.draws = self._draws()
        self.sums: list[Any] = [0] * len(method.scales)
        self.logits: list[Tensor] = []
        self.loss = torch.zeros((), device=network.device)
        self.reaches_end = reach_end
        self.before: Tensor | None = None
        self.steps, self.overlapping, self.stopped = 0, 0, ""

    def walk(self) -> Iterator[AdaptedMaps]:
        """What is found after each map, k = 0, 1, ..., for as many steps as the limits allow.

        Raises:
            FloatingPointError: the loss or a map is no number.
        """
        for k in range(self.num_maps):
            self.loss = torch.zeros((), device=self.network.device)
            reached = self._look(k)
            if k < self.num_steps and not self.stopped:
                self._join_companions(k)
            if k < self.num_steps and not self.stopped:
                self._step(k, reached)
            yield self._found()
            if self.stopped:
                return

    def run(self) -> AdaptedMaps:
        """What is found in the end; see `walk`."""
        if not self.start.classes:
            none = torch.zeros(0, device=self.network.device)
            return AdaptedMaps([], none, none, 0, "")
        *_, last = self.walk()
        return last

    def _found(self) -> AdaptedMaps:
        maps = [total.relu() for total in self.sums]  # negative only where maps are Eq. 2.1's
        if not all(torch.isfinite(one).all() for one in maps):
            raise FloatingPointError(f"maps must be finite, got others at step {self.steps}")
        gains = self.logits[-1] - self.logits[0]
        return AdaptedMaps(maps, self.logits[0], gains, self.steps, self._note())

    def _draws(self) -> Iterator[Draw]:
        method, start = self.method, self.start
        if self.network.companions is None or not method.num_companions:
            return iter(())
        return self.network.companions.draws(
            start.classes,
            method.num_companions,
            seeded(method.seed, start.image_id),
            method.disjoint,
            start.image_id,
        )

    def _look(self, k: int) -> Tensor:
        """Adds the maps of all scales, and the gradient of those that are learned from."""
        method = self.method
        reached = torch.zeros((), device=self.network.device)
        for s, scale in enumerate(method.scales):
            if self._is_late(k):
                break
            learns = k < self.num_steps and scale not in method.unpooled_scales
            raw, logits = self._raw_maps(k, s, learns)  # (v, k, h', w')
            reached = reached + logits
            rectified = merge_views(raw.relu().transpose(0, 1))  # (k, h', w')
            if method.maps == "cam":
                self.sums[s] = self.sums[s] + equation_cam(merge_views(raw.transpose(0, 1)))
            else:
                self.sums[s] = self.sums[s] + rectified
            if s == self.native:
                self.logits.append(raw[0].mean((1, 2)))
            if s == 0 and k and self._explodes(rectified):
                break
        return reached

    def _explodes(self, rectified: Float[Tensor, "k h' w'"]) -> bool:
        """Whether the maps cover too much; the weights are then those before the last step."""
        method = self.method
        if method.explosion_share >= 1:
            return False
        share = rectified / (rectified.amax((1, 2), keepdim=True) + EPSILON)
        covered = (share > method.explosion_threshold).any(0).float().mean().item()
        if covered <= method.explosion_share:
            return False
        self.stopped = f"its maps cover {covered:.0%} of the image"
        if self.before is not None:
            self.network.moving.copy_(self.before)
        return True

    def _is_late(self, k: int) -> bool:
        """Whether the time is up; an image has its first maps however long they take."""
        limit = self.method.max_seconds
        if k and limit and time.perf_counter() - self.began > limit:
            self.stopped = f"{limit:g} seconds were up"
        return bool(self.stopped)

    def _raw_maps(
        self, k: int, s: int, learns: bool
    ) -> tuple[Float[Tensor, "v k h' w'"], Tensor | float]:
        """Of the classes asked for; the gradient of the loss is added where the scale learns."""
        classes, ready = self.start.classes, self.start.maps[s]
        if k == 0 and ready is not None:
            return ready[:, classes], 0.0
        features = self.start.features[s]
        if not learns:
            with torch.no_grad():
                return self.network.raw_maps(features, classes), 0.0
        tags = self.tags.expand(len(features), -1)
        parts = list(self._descend(features, tags, self.columns))
        maps = torch.cat([part for part, _ in parts])
        reached = sum(logits for _, logits in parts)
        return maps if self.method.loss == "rib" else maps[:, classes], reached

    def _join_companions(self, k: int) -> None:
        """Adds the gradient of the step's companions."""
        draw, bank = next(self.draws, None), self.network.companions
        if draw is None or bank is None:
            return
        self.overlapping = max(self.overlapping, draw.overlapping)
        features = self.network.companion_features(draw.indices)
        tags = bank.tags[draw.indices].to(self.network.device)
        for _ in self._descend(features, tags, slice(None)):
            if self._is_late(k):
                return

    def _descend(
        self,
        features: Float[Tensor, "r e h w"],
        tags: Bool[Tensor, "r c"],
        columns: Sequence[int] | slice,
    ) -> Iterator[tuple[Float[Tensor, "g k h' w'"], Tensor]]:
        """Adds the gradient of rows, a group at a time; yields raw maps and target logits."""
        groups = self.network.groups(features, self._memory_gb())
        for rows, own in zip(groups, tags.split(len(groups[0])), strict=True):
            with torch.enable_grad():
                raw = self.network.raw_maps(rows, columns)
                chosen = own[:, columns]
                logits = self.method.pool(raw, chosen)
                loss = self.method.loss_of(logits, chosen)
                loss.backward()
            self.loss = self.loss + loss.detach()
            yield raw.detach(), (logits.detach() * chosen).sum()

    def _memory_gb(self) -> float:
        if self.method.graph_gb:
            return self.method.graph_gb
        if self.network.device.type == "cpu":
            return 0.5
        free, _ = torch.cuda.mem_get_info(self.network.device)
        return free / 2**30 / 3

    def _step(self, k: int, reached: Tensor) -> None:
        """Moves the weights.

        Raises:
            FloatingPointError: the loss is no number.
        """
        method = self.method
        if not torch.isfinite(self.loss):
            raise FloatingPointError(f"loss must be finite, got {self.loss.item()} at step {k}")
        if self.reaches_end:
            self.before = self.network.moving.clone()
        share = k / (method.decay_steps or method.num_steps)
        rate = method.learning_rate * (1 - share) ** method.power
        self.network.step(rate, method.head_factor, method.weight_decay, method.momentum)
        self.steps += 1
        total = abs(reached.item())
        if method.margin_role == "stop" and total > method.margin:
            self.stopped = f"its logits add up to {total:.4g}"

    def _note(self) -> str:
        remarks = []
        if self.stopped:
            remarks.append(f"ended after step {self.steps}: {self.stopped}")
        if self.overlapping and self.method.disjoint:
            remarks.append(f"{self.overlapping} {SHARED}")
        return "; ".join(remarks)


def together(found: list[AdaptedMaps]) -> list[ScaleResult]:
    """The results of all images, scale by scale."""
    with_maps = [one for one in found if one.maps]
    scores, gains = (
        torch.cat([getattr(one, name) for one in found]) for name in ("scores", "gains")
    )
    steps, notes = tuple(one.steps for one in found), tuple(one.note for one in found)
    return [
        ScaleResult(torch.cat(maps), scores, gains, steps, notes)
        for maps in zip(*(one.maps for one in with_maps), strict=True)
    ]

"""RIB: localization maps by reducing the information bottleneck of the classifier's last layer.

Lee et al., *Reducing Information Bottleneck for Weakly Supervised Semantic Segmentation*, NeurIPS
2021; dissertation 3.4. For each image the classifier is fine-tuned without the activation that
saturates, and its maps on the way are added:

    L_RIB    = - sum_c t_c min(m, y_c)
    theta_k  = theta_{k-1} - lambda * dL_RIB / dtheta_{k-1}
    GNDRP(T) = 1 / |U_tau| * sum_{u in U_tau} T(u),  U_tau = {u : CAM(u) <= tau}
    M        = sum_{0 <= k <= K} CAM(x; theta_k)

The public code (`official`) has no minimum in its loss: m is where it stops. It pools six views of
the image and twenty companions that share no class with it, divides by all positions and not by
|U_tau|, stops where the maps cover the image, and adds K maps, not K + 1. Its GNDRP knows twenty
classes; ours any number, which is where COCO's seeds differ from it.

The stages that never train see each view and each companion once; the step that no map would see
is not taken; the views whose logits are not pooled have no graph; rows whose graphs would not fit
into memory together are taken one group after the other, which is exact, since the loss is a sum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rayseg.attribution.adaptable import AdaptableNetwork
from rayseg.attribution.base import (
    EPSILON,
    Attribution,
    Localization,
    ScaleResult,
    equation_cam,
    seeded,
)
from rayseg.attribution.companions import Companions, Draw
from rayseg.attribution.lean import LeanNetwork
from rayseg.attribution.views import Batch, merge_views
from rayseg.losses import activated_bce, rib_loss

LOSSES = ("rib", "sigmoid", "tanh", "softsign")


@dataclass(frozen=True)
class RIB(Attribution):
    """Fine-tuning to each image without the information bottleneck; with `num_steps` 0 it is CAM.

    Attributes:
        num_steps: K; no image takes more.
        learning_rate: lambda, of the trunk's last two stages.
        head_factor: the head learns this many times faster.
        weight_decay: of all weights that train.
        momentum: of the gradient; 1e-4 since the code passes the weight decay in its place.
        power: of the poly schedule, lambda * (1 - k / K) ** power; 0 is constant.
        loss: rib, or binary cross entropy of an activation that saturates (Table 3.9a).
        margin: m.
        margin_role: stop ends the image once the target logits of its rows add up to more than m
            (code); loss is min(m, y) (text).
        pooling: gndrp leaves high positions out of the labelled classes' logits; gap does not.
        tau: positions above this share of a row's maximum are high.
        divide_by: GNDRP divides by all positions (code) or by the kept ones (text).
        num_companions: other images in each step's batch.
        disjoint: companions share no class with the image (code), or are any others (text).
        unpooled_scales: scales that are looked at but not learned from.
        explosion_threshold: a map is high above this share of its maximum.
        explosion_share: an image ends where the first scale's maps are high on more than this
            share of it; 1 never.
        maps: rectified adds them as they are (code); cam is Eq. 2.1, each divided by its maximum.
        add_last: also the map after the last step is added (text: 0..K; code: 0..K-1).
        max_seconds: an image ends after the step in which it took longer; 0 never. The one setting
            by which results depend on the machine.
        graph_gb: memory for the graph of one group of rows; 0 chooses by device. Changes rounding
            only, as does `cache_gb`.
        cache_gb: memory for the companions' features.
        seed: of the companions, with the image's id.
    """

    num_steps: int = 10
    learning_rate: float = 8e-6
    head_factor: float = 10.0
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    power: float = 0.9
    loss: Literal["rib", "sigmoid", "tanh", "softsign"] = "rib"
    margin: float = 600.0
    margin_role: Literal["stop", "loss"] = "stop"
    pooling: Literal["gndrp", "gap"] = "gndrp"
    tau: float = 0.4
    divide_by: Literal["all", "kept"] = "all"
    num_companions: int = 20
    disjoint: bool = True
    unpooled_scales: tuple[float, ...] = (0.5,)
    explosion_threshold: float = 0.3
    explosion_share: float = 0.7
    maps: Literal["rectified", "cam"] = "rectified"
    add_last: bool = False
    max_seconds: float = 0.0
    graph_gb: float = 0.0
    cache_gb: float = 2.0
    seed: int = 0

    rounding_only: ClassVar[tuple[str, ...]] = ("max_pairs", "graph_gb", "cache_gb")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_steps", "learning_rate", "num_companions", "max_seconds", "graph_gb"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        choices = {
            "loss": LOSSES,
            "margin_role": ("stop", "loss"),
            "pooling": ("gndrp", "gap"),
            "divide_by": ("all", "kept"),
            "maps": ("rectified", "cam"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("tau", "explosion_threshold", "explosion_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.num_steps and not set(self.scales) - set(self.unpooled_scales):
            raise ValueError(f"unpooled_scales must leave one of {self.scales} to learn from")

    @classmethod
    def as_written(cls) -> Self:
        """Chapter 3.4.3 with K = 10, lambda = 8e-6, B = 20, m = 600, tau = 0.4, on the image alone.

        What trains is left as in the code: the text fine-tunes the classifier of Ahn et al., whose
        first stages never train.
        """
        return cls(
            scales=(1.0,),
            flip=False,
            head_factor=1.0,
            weight_decay=0.0,
            momentum=0.0,
            power=0.0,
            margin_role="loss",
            divide_by="kept",
            num_companions=19,
            disjoint=False,
            explosion_share=1.0,
            maps="cam",
            add_last=True,
        )

    @classmethod
    def coco(cls) -> Self:
        """The public code's values for MS COCO."""
        return cls(
            learning_rate=5e-6, num_companions=15, tau=0.5, margin=1000.0, explosion_share=0.8
        )

    @property
    def uses_companions(self) -> bool:
        """Whether a step's batch holds other images."""
        return self.num_steps > 0 and self.num_companions > 0

    def prepare(self, network: nn.Module, companions: Companions | None = None) -> AdaptableNetwork:
        """The copy to fine-tune, with the bank that its companions come from.

        Raises:
            ValueError: no bank where there are to be companions, or another method's copy.
        """
        if isinstance(network, AdaptableNetwork):
            return network
        if isinstance(network, LeanNetwork):
            raise ValueError("network must be a classifier, got the lean copy of another method")
        if self.uses_companions and companions is None:
            raise ValueError(
                f"companions must be given to prepare() for num_companions {self.num_companions}; "
                f"0 does without"
            )
        return AdaptableNetwork(network, self.precision, companions, self.cache_gb)

    def localize(self, network: LeanNetwork, batch: Batch) -> list[ScaleResult]:
        """Fine-tunes to one image after the other; what precedes the first step is done for all."""
        assert isinstance(network, AdaptableNetwork)
        found = []
        for start in self._starts(network, batch):
            with network.adapting():
                found.append(_Adaptation(self, network, start).run())
        return _together(found)

    @contextmanager
    def reaching(
        self, network: AdaptableNetwork, batch: Batch, map_stride: int
    ) -> Iterator[Localization]:
        """Fine-tunes to the one image of a batch, its last step included.

        Yields what `run` gives; inside, the network's weights are theta_K.
        """
        (start,) = self._starts(network, batch)
        with network.adapting():
            results = _together([_Adaptation(self, network, start, reach_end=True).run()])
            (found,) = self.assemble(results, network, batch, map_stride)
            yield found

    def _starts(self, network: AdaptableNetwork, batch: Batch) -> list[_Start]:
        """What theta_0 makes of all images at once, as far as no gradient is asked of it."""
        features: list[Tensor] = []
        maps: list[Tensor | None] = []
        for scale in self.scales:
            views = batch.views(scale, self.flip)
            made = network.first_features(views.flatten(0, 1))
            features.append(made.unflatten(0, views.shape[:2]))
            if scale in self.unpooled_scales:
                with torch.no_grad():
                    raw = network.raw_maps(made, slice(None))
                maps.append(raw.unflatten(0, views.shape[:2]))
            else:
                maps.append(None)
        return [
            _Start(
                [part[i] for part in features],
                [None if part is None else part[i] for part in maps],
                list(own),
                batch.ids[i],
            )
            for i, own in enumerate(batch.classes)
        ]

    def pool(
        self, maps: Float[Tensor, "r c h w"], tags: Bool[Tensor, "r c"]
    ) -> Float[Tensor, "r c"]:
        """Logits of rows: GNDRP of the classes that a row is tagged with, GAP of the others."""
        means = maps.mean((2, 3))
        if self.pooling == "gap":
            return means
        share = maps.detach() / maps.detach().amax((2, 3), keepdim=True)
        if self.divide_by == "all":
            pooled = (maps * (share < self.tau)).mean((2, 3))
        else:
            kept = share <= self.tau
            pooled = (maps * kept).sum((2, 3)) / kept.sum((2, 3)).clamp_min(1)
        return torch.where(tags, pooled, means)

    def loss_of(self, logits: Float[Tensor, "r c"], tags: Bool[Tensor, "r c"]) -> Tensor:
        """The loss of rows, added."""
        targets = tags.to(logits.dtype)
        if self.loss != "rib":
            return activated_bce(logits, targets, self.loss)
        return rib_loss(logits, targets, self.margin if self.margin_role == "loss" else torch.inf)


@dataclass(frozen=True)
class _Start:
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
class _Found:
    """What came of one image: maps (k, h', w') of each scale, logits (k,), steps and remarks."""

    maps: list[Tensor]
    scores: Tensor
    gains: Tensor
    steps: int
    note: str


class _Adaptation:
    """The fine-tuning to one image; the network's weights move with it."""

    def __init__(
        self, method: RIB, network: AdaptableNetwork, start: _Start, reach_end: bool = False
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
        self.draws = self._draws()
        self.sums: list[Any] = [0] * len(method.scales)
        self.logits: list[Tensor] = []
        self.loss = self.reached = torch.zeros((), device=network.device)
        self.steps, self.overlapping, self.stopped = 0, 0, ""

    def run(self) -> _Found:
        """As many steps as the limits allow."""
        if not self.start.classes:
            return _Found([], *torch.zeros(2, 0, device=self.network.device), 0, "")
        for k in range(self.num_maps):
            self.loss = self.reached = torch.zeros((), device=self.network.device)
            self._look(k)
            if self.stopped or k == self.num_steps:
                break
            self._join_companions()
            self._step(k)
            if self.stopped:
                break
        return _Found(
            self.sums, self.logits[0], self.logits[-1] - self.logits[0], self.steps, self._note()
        )

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

    def _look(self, k: int) -> None:
        """Adds the maps of all scales, and the gradient of those that are learned from."""
        method = self.method
        for s, scale in enumerate(method.scales):
            learns = k < self.num_steps and scale not in method.unpooled_scales
            raw = self._raw_maps(k, s, learns)  # (v, k, h', w')
            rectified = merge_views(raw.relu().transpose(0, 1))  # (k, h', w')
            if method.maps == "cam":
                self.sums[s] = self.sums[s] + equation_cam(merge_views(raw.transpose(0, 1)))
            else:
                self.sums[s] = self.sums[s] + rectified
            if s == 0:
                self.logits.append(raw[0].mean((1, 2)))
            if s == 0 and k and method.explosion_share < 1:
                share = rectified / (rectified.amax((1, 2), keepdim=True) + EPSILON)
                covered = (share > method.explosion_threshold).any(0).float().mean().item()
                if covered > method.explosion_share:
                    self.stopped = f"its maps cover {covered:.0%} of the image"
                    return

    def _raw_maps(self, k: int, s: int, learns: bool) -> Float[Tensor, "v k h' w'"]:
        """Of the classes asked for; the gradient of the loss is added where the scale learns."""
        ready = self.start.maps[s]
        if k == 0 and ready is not None:
            return ready[:, self.start.classes]
        features = self.start.features[s]
        if not learns:
            with torch.no_grad():
                return self.network.raw_maps(features, self.start.classes)
        tags = self.tags.expand(len(features), -1)
        maps = torch.cat(self._descend(features, tags, self.columns))
        return maps if self.method.loss == "rib" else maps[:, self.start.classes]

    def _join_companions(self) -> None:
        """Adds the gradient of the step's companions."""
        reached = self.reached  # m is held against the image's own rows
        for draw in self.draws:
            self.overlapping += draw.overlapping
            features = self.network.companion_features(draw.indices)
            bank = self.network.companions
            assert bank is not None
            self._descend(features, bank.tags[draw.indices].to(self.network.device), slice(None))
            break
        self.reached = reached

    def _descend(
        self,
        features: Float[Tensor, "r e h w"],
        tags: Bool[Tensor, "r c"],
        columns: Sequence[int] | slice,
    ) -> list[Float[Tensor, "g k h' w'"]]:
        """Adds the gradient of rows, a group at a time, and returns their raw maps."""
        maps = []
        groups = self.network.groups(features, self._memory_gb())
        for rows, own in zip(groups, tags.split(len(groups[0])), strict=True):
            with torch.enable_grad():
                raw = self.network.raw_maps(rows, columns)
                chosen = own[:, columns]
                logits = self.method.pool(raw, chosen)
                loss = self.method.loss_of(logits, chosen)
                loss.backward()
            self.loss = self.loss + loss.detach()
            self.reached = self.reached + (logits.detach() * chosen).sum()
            maps.append(raw.detach())
        return maps

    def _memory_gb(self) -> float:
        # a CPU's caches hold the graph of few rows
        return self.method.graph_gb or (0.1 if self.network.device.type == "cpu" else 8.0)

    def _step(self, k: int) -> None:
        """Moves the weights.

        Raises:
            FloatingPointError: the loss is no number.
        """
        method = self.method
        if not torch.isfinite(self.loss):
            raise FloatingPointError(f"loss must be finite, got {self.loss.item()} at step {k}")
        rate = method.learning_rate * (1 - k / method.num_steps) ** method.power
        self.network.step(rate, method.head_factor, method.weight_decay, method.momentum)
        self.steps += 1
        reached = abs(self.reached.item())
        if method.margin_role == "stop" and reached > method.margin:
            self.stopped = f"its logits add up to {reached:.4g}"
        elif method.max_seconds and time.perf_counter() - self.began > method.max_seconds:
            self.stopped = f"{method.max_seconds:g} seconds were up"

    def _note(self) -> str:
        remarks = []
        if self.stopped:
            remarks.append(f"ended after step {self.steps}: {self.stopped}")
        if self.overlapping and self.method.disjoint:
            remarks.append(f"{self.overlapping} companions share a class with it")
        return "; ".join(remarks)


def _together(found: list[_Found]) -> list[ScaleResult]:
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

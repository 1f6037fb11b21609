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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from rayseg.attribution.classes.adaptable import AdaptableNetwork
from rayseg.attribution.classes.adaptation import Adaptation, Start, together
from rayseg.attribution.classes.base import Attribution, Localization, ScaleResult, check_input
from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.lean import LeanNetwork, placed
from rayseg.attribution.classes.views import ViewBatch
from rayseg.nets.losses import activated_bce, rib_loss
from rayseg.records.bounds import check_least

LOSSES = ("rib", "sigmoid", "tanh", "softsign")
AT_LEAST_0 = (
    "num_steps", "learning_rate", "head_factor", "weight_decay", "momentum", "power", "margin",
    "num_companions", "max_seconds", "graph_gb", "cache_gb",
)  # fmt: skip


@dataclass(frozen=True)
class RIB(Attribution):
    """Fine-tuning to each image without the information bottleneck; with `num_steps` 0 it is CAM.

    Attributes:
        num_steps: Steps K, the most that an image takes.
        learning_rate: Learning rate lambda of the trunk's last two stages.
        head_factor: The head learns this many times faster.
        weight_decay: Weight decay of all weights that train.
        momentum: Momentum of the gradient; 1e-4 since the code passes the weight decay here.
        power: Exponent of the schedule lambda * (1 - k / K) ** power; 0 keeps the rate constant.
        decay_steps: Takes the place of K in that schedule, so that a run may end before its rate
            does; 0 is K.
        loss: Loss, rib or binary cross entropy of an activation that saturates (Table 3.9a).
        margin: Margin m, used as `margin_role` says.
        margin_role: What m does: stop ends the image once the target logits of its rows add up to
            more than m (code); loss is min(m, y) (text).
        pooling: The labelled classes' logits leave high positions out (gndrp) or keep them (gap).
        tau: Positions above this share of a row's maximum are high.
        divide_by: GNDRP divides by all positions (code) or by the kept ones (text).
        num_companions: Number of other images in each step's batch.
        disjoint: Companions share no class with the image (code), or are any others (text).
        unpooled_scales: Scales that add to the maps but are not learned from.
        explosion_threshold: A map is high above this share of its maximum.
        explosion_share: An image ends where the first scale's maps are high on more than this share
            of it; 1 never.
        maps: Maps are added as they are if rectified (code); cam is Eq. 2.1, each over its maximum.
        add_last: The map after the last step is added too (text: 0..K; code: 0..K-1).
        max_seconds: Seconds after which an image that has its first maps takes no further group of
            rows; 0 sets no limit. It is the one setting by which results depend on the machine.
        graph_gb: Memory in GB for the graph of one group of rows; 0 is a third of what a GPU has
            free, or what a CPU is fast with. It changes rounding only, as does `cache_gb`.
        cache_gb: Memory in GB for the companions' features.
        seed: Seed of the choice of companions, with the image's id.
    """

    num_steps: int = 10
    learning_rate: float = 8e-6
    head_factor: float = 10.0
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    power: float = 0.9
    decay_steps: int = 0
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
        check_least(self, **dict.fromkeys(AT_LEAST_0, 0))
        for name in ("tau", "explosion_threshold", "explosion_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if 0 < self.decay_steps < self.num_steps or self.decay_steps < 0:
            raise ValueError(
                f"decay_steps must be 0 or at least num_steps {self.num_steps}, "
                f"got {self.decay_steps}"
            )
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

    def prepare(
        self,
        network: nn.Module,
        device: torch.device | None = None,
        companions: Companions | None = None,
    ) -> AdaptableNetwork:
        """The copy to fine-tune, with the bank that its companions come from.

        Raises:
            ValueError: no bank where there are to be companions, or another method's copy.
        """
        if isinstance(network, LeanNetwork) and not isinstance(network, AdaptableNetwork):
            raise ValueError("network must be a classifier, got the lean copy of another method")
        bank = network.companions if isinstance(network, AdaptableNetwork) else companions
        if self.uses_companions and bank is None:
            raise ValueError(
                f"companions must be given to prepare() for num_companions {self.num_companions}; "
                f"0 does without"
            )
        if isinstance(network, AdaptableNetwork):
            return network
        return AdaptableNetwork(placed(network, device), self.precision, companions, self.cache_gb)

    def localize(self, network: LeanNetwork, batch: ViewBatch) -> list[ScaleResult]:
        """Fine-tunes to one image after the other; what precedes the first step is done for all."""
        assert isinstance(network, AdaptableNetwork)
        found = []
        for start in self._starts(network, batch):
            with network.adapting():
                found.append(Adaptation(self, network, start).run())
        return together(found)

    def course(
        self,
        network: nn.Module,
        image: UInt8[Tensor, "h w 3"],
        classes: Sequence[int],
        image_id: str = "",
        map_stride: int = 1,
    ) -> Iterator[Localization]:
        """The localization of one image after each of its maps, k = 0, 1, ... (Figure 3.15).

        The last is what `run` gives; an image that ends early has fewer, one without classes none.
        Until the last is taken, or the iterator closed, the prepared network is not at theta_0.

        Raises:
            ValueError: as `run`.
            FloatingPointError: the loss or a map is no number.
        """
        adaptable = self.prepare(network)
        check_input(adaptable, image[None], [classes], [image_id], map_stride)
        if not classes:
            return
        batch = ViewBatch.of(image[None], [classes], [image_id], adaptable.device)
        (start,) = self._starts(adaptable, batch)
        with adaptable.adapting():
            for found in Adaptation(self, adaptable, start).walk():
                yield from self.assemble(together([found]), adaptable, batch, map_stride)

    @contextmanager
    def reaching(
        self, network: AdaptableNetwork, batch: ViewBatch, map_stride: int
    ) -> Iterator[Localization]:
        """Fine-tunes to the one image of a batch, its last step included.

        Yields what `run` gives; inside, the network's weights are theta_K, or those before the
        step that made an image's maps explode.
        """
        (start,) = self._starts(network, batch)
        with network.adapting():
            results = together([Adaptation(self, network, start, reach_end=True).run()])
            (found,) = self.assemble(results, network, batch, map_stride)
            yield found

    def _starts(self, network: AdaptableNetwork, batch: ViewBatch) -> list[Start]:
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
            Start(
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
        largest = maps.detach().amax((2, 3), keepdim=True)
        share = maps.detach() / largest
        if self.divide_by == "all":
            pooled = (maps * (share < self.tau)).mean((2, 3))
        else:
            kept = (share <= self.tau) | (largest <= 0)  # a map that is nowhere has no CAM
            pooled = (maps * kept).sum((2, 3)) / kept.sum((2, 3)).clamp_min(1)
        return torch.where(tags, pooled, means)

    def loss_of(self, logits: Float[Tensor, "r c"], tags: Bool[Tensor, "r c"]) -> Tensor:
        """The loss of rows, added."""
        targets = tags.to(logits.dtype)
        if self.loss != "rib":
            return activated_bce(logits, targets, self.loss)
        return rib_loss(logits, targets, self.margin if self.margin_role == "loss" else torch.inf)

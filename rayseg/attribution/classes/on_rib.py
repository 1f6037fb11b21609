"""Two methods after each other: RIB changes the weights, another method looks with them.

    M = A / max A + R / max R, over its maximum,

where R are RIB's maps of the image and A those that the other method makes of it on the classifier
that RIB reaches: theta_K, or, of an image that ends early, the last weights whose maps did not
explode. The dissertation's Table 4.7 puts AdvCAM and RIB
together and does not say how; this is our reading: both add up what they find on their way, the one
over images, the other over weights, and here the two ways are walked one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from rayseg.attribution.classes.adaptable import AdaptableNetwork
from rayseg.attribution.classes.base import (
    Attribution,
    Localization,
    check_input,
    divide_by_maximum,
)
from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.rib import RIB
from rayseg.attribution.classes.views import ViewBatch


@dataclass(frozen=True)
class OnRIB:
    """Maps of a method on the weights that RIB reaches, and RIB's own added.

    Attributes:
        method: what looks; its hyper-parameters are its own.
        rib: what changes the weights.
    """

    method: Attribution
    rib: RIB

    def __post_init__(self) -> None:
        if self.method.network_kind != self.rib.network_kind:
            raise ValueError(
                f"method must work on the {self.rib.network_kind}, got one of the "
                f"{self.method.network_kind}"
            )

    @property
    def network_kind(self) -> str:
        """What both work on."""
        return self.rib.network_kind

    @property
    def uses_companions(self) -> bool:
        """Whether one of the two needs other images."""
        return self.rib.uses_companions or self.method.uses_companions

    def prepare(
        self,
        network: nn.Module,
        device: torch.device | None = None,
        companions: Companions | None = None,
    ) -> AdaptableNetwork:
        """The copy to work on; make it once where many images follow."""
        return self.rib.prepare(network, device, companions)

    def run(
        self,
        network: nn.Module,
        images: UInt8[Tensor, "n h w 3"],
        classes: Sequence[Sequence[int]],
        map_stride: int = 1,
        ids: Sequence[str] | None = None,
    ) -> list[Localization]:
        """Localization maps of images of one size; see `Attribution.run`."""
        adaptable = self.prepare(network)
        names = [""] * len(images) if ids is None else ids
        check_input(adaptable, images, classes, names, map_stride)
        return [
            self._run_one(adaptable, images[i : i + 1], own, map_stride, names[i])
            for i, own in enumerate(classes)
        ]

    def _run_one(
        self,
        network: AdaptableNetwork,
        image: UInt8[Tensor, "1 h w 3"],
        classes: Sequence[int],
        map_stride: int,
        image_id: str,
    ) -> Localization:
        batch = ViewBatch.of(image, [classes], [image_id], network.device)
        with self.rib.reaching(network, batch, map_stride) as reached:
            if not classes:
                return reached
            prepared = self.method.prepare(network.classifier, companions=network.companions)
            (found,) = self.method.run(prepared, image, [classes], map_stride, [image_id])
        return replace(
            reached,
            maps=divide_by_maximum(found.maps + reached.maps),
            gains=found.scores + found.gains - reached.scores,
            steps=found.steps + reached.steps,
            note="; ".join(filter(None, [reached.note, found.note])),
        )

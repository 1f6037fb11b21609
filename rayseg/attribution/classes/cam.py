"""Class activation maps (CAM).

Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016:

    CAM_c(x) = w_c . f(x) / max(w_c . f(x))                                    (Eq. 2.1)

`official` is IRN's make_cam.py: rectified, added over four scales and their mirror images, then
divided by the maximum; `as_written` is the equation on the image alone.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rayseg.attribution.classes.base import ScaleByScale, ScaleResult
from rayseg.attribution.classes.lean import LeanNetwork
from rayseg.attribution.classes.views import merge_views


@dataclass(frozen=True)
class CAM(ScaleByScale):
    """Class activation maps; the zero of every other method."""

    @classmethod
    def as_written(cls) -> Self:
        """Eq. 2.1: one scale, no mirror image; negative values are cut to 0."""
        return cls(scales=(1.0,), flip=False)

    def locate(
        self,
        network: LeanNetwork,
        views: Float[Tensor, "n v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
        scale: float,
    ) -> ScaleResult:
        """One forward pass for all classes of an image."""
        del scale  # every scale is treated alike
        with torch.no_grad():
            maps = network.class_maps(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        chosen = maps[owner, :, target]  # (m, v, h', w')
        scores = chosen[:, 0].mean((1, 2))
        return ScaleResult(merge_views(chosen.relu()), scores, torch.zeros_like(scores))

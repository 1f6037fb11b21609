"""Grad-CAM.

Selvaraju et al., *Grad-CAM*, ICCV 2017:

    Grad-CAM_c = ReLU( sum_k f_k * dS_c/df_k )                                 (Eq. 2.2)

`official` averages the gradient over the map first, one weight a channel, as the paper and the
common implementations do; `as_written` multiplies element by element, as Eq. 2.2 is in the
dissertation. On a network with a linear head after global average pooling the two are the same and
equal CAM; they differ where `classify` is anything else.
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
class GradCAM(ScaleByScale):
    """Gradient-weighted class activation maps.

    Attributes:
        pooled: The gradient is averaged over the map before it weighs the features.
    """

    pooled: bool = True

    @classmethod
    def as_written(cls) -> Self:
        """Eq. 2.2: element by element, one scale, no mirror image."""
        return cls(scales=(1.0,), flip=False, pooled=False)

    def locate(
        self,
        network: LeanNetwork,
        views: Float[Tensor, "n v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
        scale: float,
    ) -> ScaleResult:
        """One forward pass through the trunk, one gradient through the head a class."""
        del scale  # every scale is treated alike
        with torch.no_grad():
            features = network.features(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        own = features[owner].requires_grad_()  # (m, v, d, h', w')
        with torch.enable_grad():
            logits = network.classify(own.flatten(0, 1)).unflatten(0, own.shape[:2])
            scores = logits.gather(2, target[:, None, None].expand(-1, own.shape[1], 1))[..., 0]
            (gradient,) = torch.autograd.grad(scores.sum(), own)
        # the logit is a mean, so its gradient shrinks with the map and small scales would outweigh
        # large ones; times the number of cells a linear head gives CAM at every scale
        gradient = gradient * (own.shape[3] * own.shape[4])
        if self.pooled:
            gradient = gradient.mean((3, 4), keepdim=True)
        maps = (own.detach() * gradient).sum(2).relu()  # (m, v, h', w')
        first = scores[:, 0].detach()
        return ScaleResult(merge_views(maps), first, torch.zeros_like(first))

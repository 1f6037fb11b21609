"""AdvCAM on SEAM: the image is climbed by the class maps, and the refined maps are added.

Lee et al., *Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic
Segmentation*, CVPR 2021; dissertation, Table 3.4. There is no public code; the author says (METHODS
2, AdvCAM's issues 7 and 8) that the climb is that of AdvCAM's code on the logit GAP(CAM), before
maps are enlarged and before the pixel correlation module, that the maps after the module are added,
and that T was 8 and lambda 2, as far as he remembers. Ours: what restricts the climb is AdvCAM's
map, before the module too.
"""

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from rayseg.attribution.classes.advcam import AdvCAM, Attributed
from rayseg.attribution.classes.base import ScaleByScale
from rayseg.attribution.classes.lean import LeanNetwork
from rayseg.attribution.classes.seam import SEAM, LeanSeam, OnSEAM, present_classes
from rayseg.attribution.classes.views import merge_views


@dataclass(frozen=True)
class AdvCAMOnSEAM(OnSEAM, AdvCAM):
    """Anti-adversarial climbing on SEAM; with `num_steps` 0 it is SEAM.

    Attributes:
        num_steps: Steps T; the authors' adv_iter.
        restrict_weight: Lambda, the weight of keeping high attributions as they were.
        maps: Maps that restrict the climb: ``gradcam`` is the code's Grad-CAM, whose logits are
            those of rectified maps; ``cam`` is Eq. 2.1. What is added are SEAM's either way.
        compete: Classes that take cells from each other in the module: all of the network's, as in
            SEAM's code, or those alone that the image has (present), which is ours.
    """

    num_steps: int = 8
    restrict_weight: float = 2.0
    compete: Literal["all", "present"] = "all"

    @property
    def _still(self) -> ScaleByScale:
        return SEAM(scales=self.scales, flip=self.flip, compete=self.compete)

    def _attribute(
        self,
        network: LeanNetwork,
        images: Float[Tensor, "m v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
    ) -> Attributed:
        assert isinstance(network, LeanSeam)  # prepare made it
        views = images.flatten(0, 1)
        maps, levels = network.look(views)
        seen = self._attributed(network, maps.unflatten(0, images.shape[:2]), target)
        wanted = target.repeat_interleave(images.shape[1])[:, None]
        if self.compete == "present":
            present = present_classes(owner, owner, target, network.num_classes)
            maps = maps * present.repeat_interleave(images.shape[1], 0)
        refined = network.refine(maps, wanted, views, levels).unflatten(0, images.shape[:2])
        return replace(seen, added=merge_views(refined[:, :, 0]))

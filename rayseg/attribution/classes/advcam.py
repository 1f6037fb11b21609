"""AdvCAM: localization maps by anti-adversarial climbing of the image.

Lee et al., *Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic
Segmentation*, CVPR 2021; dissertation 3.3:

    x_t = x_{t-1} + xi * dL/dx                                                 (Eq. 3.5)
    L   = y_c - sum_{k != c} y_k - lambda * || M * |CAM(x_{t-1}) - CAM(x_0)| ||_1  (Eq. 3.6)
    M   = 1(CAM(x_{t-1}) > tau)                                                (Eq. 3.4)
    A   = sum_t CAM(x_t) / max                                                 (Eq. 3.3)

The public code (`official`) differs from the text (`as_written`) in every line: the step is divided
by the largest gradient, the image is kept within its own range, the logits are those of rectified
maps, and CAM is a Grad-CAM of the pair of image and mirror image. That Grad-CAM has a closed form,
so that one forward and one backward pass to the image make a step, where the public code takes two
backward passes with weight gradients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rayseg.attribution.classes.base import (
    Localization,
    ScaleByScale,
    ScaleResult,
    check_input,
    equation_cam,
)
from rayseg.attribution.classes.cam import CAM
from rayseg.attribution.classes.lean import LeanNetwork
from rayseg.attribution.classes.views import ViewBatch, merge_views
from rayseg.records.bounds import check_least


@dataclass(frozen=True)
class Attributed:
    """What a network sees of m pairs of image and class at one step.

    Attributes:
        current: map of the target, which the climb restricts.
        logits: of all classes, added over the views.
        score: the image's logit of the target.
        added: map of the target that the step adds to the result.
    """

    current: Float[Tensor, "m h' w'"]
    logits: Float[Tensor, "m c"]
    score: Float[Tensor, " m"]
    added: Float[Tensor, "m h' w'"]


@dataclass(frozen=True)
class AdvCAM(ScaleByScale):
    """Anti-adversarial climbing; with `num_steps` 0 it is CAM.

    Attributes:
        num_steps: Steps T; the authors' adv_iter.
        step_size: Step size xi.
        restrict_weight: Lambda, the weight of keeping high attributions as they were.
        restrict_threshold: Tau; attributions above this share of the maximum are kept as they were.
        suppress_weight: Weight of the other classes' logits; the paper's 1, 0 switches it off.
        normalise_gradient: The step is xi * g / max|g| when true (code), else xi * g (text).
        clamp: The image stays between its own smallest and largest value (code).
        maps: Maps that are added: ``gradcam`` is the code's Grad-CAM, rectified and weighted over
            the pair; ``cam`` is Eq. 2.1, each map divided by its maximum.
        add_last: The map after the last step is added too (text: 0..T; code: 0..T-1).
        halve_small: Scale 0.5 takes T // 2 steps, or 5 where T is 6 to 10 (code).
    """

    num_steps: int = 27
    step_size: float = 0.08
    restrict_weight: float = 7.0
    restrict_threshold: float = 0.5
    suppress_weight: float = 1.0
    normalise_gradient: bool = True
    clamp: bool = True
    maps: Literal["gradcam", "cam"] = "gradcam"
    add_last: bool = False
    halve_small: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_steps=0)

    @classmethod
    def as_written(cls) -> Self:
        """Eq. 3.3 to 3.6 with T = 27, xi = 0.008, lambda = 7, tau = 0.5, on the image alone."""
        return cls(
            scales=(1.0,),
            flip=False,
            step_size=0.008,
            normalise_gradient=False,
            clamp=False,
            maps="cam",
            add_last=True,
            halve_small=False,
        )

    def locate(
        self,
        network: LeanNetwork,
        views: Float[Tensor, "n v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
        scale: float,
    ) -> ScaleResult:
        """Climbs all pairs at once; nothing in the loop waits for the device."""
        num_maps = self._num_maps(scale)
        if num_maps == 0:
            return self._still.locate(network, views, owner, target, scale)
        *_, last = self._climbs(network, views, owner, target, num_maps)
        return last

    @property
    def _still(self) -> ScaleByScale:
        """What it is without a step."""
        return CAM(scales=self.scales, flip=self.flip)

    def course(
        self,
        network: nn.Module,
        image: UInt8[Tensor, "h w 3"],
        classes: Sequence[int],
        image_id: str = "",
        map_stride: int = 1,
    ) -> Iterator[Localization]:
        """What `run` gives of one image for `num_steps` 1, 2, ... up to its own, in one climb.

        With `add_last` it begins at 0. An image without classes has none.

        Raises:
            ValueError: as `run`.
        """
        lean = self.prepare(network)
        check_input(lean, image[None], [classes], [image_id], map_stride)
        if not classes or not self.num_steps:
            return
        batch = ViewBatch.of(image[None], [classes], [image_id], lean.device)
        owner, target = batch.pairs
        climbs = [
            list(self._climbs(lean, batch.views(s, self.flip), owner, target, self._num_maps(s)))
            for s in self.scales
        ]
        for steps in range(0 if self.add_last else 1, self.num_steps + 1):
            taken = replace(self, num_steps=steps)
            results = [
                climb[max(taken._num_maps(scale), 1) - 1]
                for scale, climb in zip(self.scales, climbs, strict=True)
            ]
            yield from self.assemble(results, lean, batch, map_stride)

    def _climbs(
        self,
        network: LeanNetwork,
        views: Float[Tensor, "n v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
        num_maps: int,
    ) -> Iterator[ScaleResult]:
        """The result after each map; the last takes no step."""
        images = views[owner]  # (m, v, 3, h, w)
        total = first_map = first_score = torch.zeros((), device=views.device)
        for t in range(num_maps):
            climbs = t < num_maps - 1
            with torch.set_grad_enabled(climbs):
                leaf = images.detach().requires_grad_(climbs)
                seen = self._attribute(network, leaf, owner, target)
                if t == 0:
                    first_map, first_score = seen.current.detach(), seen.score.detach()
                total = total + seen.added.detach()
                if climbs:
                    objective = self._objective(seen.current, seen.logits, target, first_map)
                    (gradient,) = torch.autograd.grad(objective, leaf)
                    images = self._climb(images, gradient)
            gains = seen.score.detach() - first_score
            yield ScaleResult(total.relu(), first_score, gains, (t,) * len(views))

    def _num_maps(self, scale: float) -> int:
        steps = self.num_steps
        if self.halve_small and scale == 0.5:
            steps = 5 if 6 <= steps <= 10 else steps // 2
        if self.num_steps and not steps:
            steps = 1
        return steps + 1 if steps and self.add_last else steps

    def _attribute(
        self,
        network: LeanNetwork,
        images: Float[Tensor, "m v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
    ) -> Attributed:
        """What the network sees of the images as they are."""
        del owner  # of each image only its own target is looked at
        raw = network.class_maps(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self._attributed(network, raw, target)

    def _attributed(
        self, network: LeanNetwork, raw: Float[Tensor, "m v c h' w'"], target: Int[Tensor, " m"]
    ) -> Attributed:
        rectified = raw.relu() if self.maps == "gradcam" else raw
        logits = rectified.mean((3, 4)).sum(1)  # (m, c)
        own = torch.arange(len(target), device=target.device)
        chosen = raw[own, :, target]  # (m, v, h', w')
        score = chosen[:, 0].mean((1, 2))
        if self.maps == "gradcam":
            current = merge_views(_gradcam(chosen, network.weight[target]))
        else:
            current = equation_cam(merge_views(chosen))
        return Attributed(current, logits, score, current)

    def _objective(
        self,
        current: Float[Tensor, "m h' w'"],
        logits: Float[Tensor, "m c"],
        target: Int[Tensor, " m"],
        first: Float[Tensor, "m h' w'"],
    ) -> Float[Tensor, ""]:
        """Eq. 3.6, added over the pairs: each image has a gradient from its own term only."""
        wanted = logits.gather(1, target[:, None])[:, 0]
        others = logits.sum(1) - wanted
        largest = current.detach().amax((1, 2), keepdim=True).clamp_min(1e-30)
        restricted = (current.detach() / largest) > self.restrict_threshold
        change = ((current - first).abs() * restricted).sum((1, 2))
        return (wanted - self.suppress_weight * others - self.restrict_weight * change).sum()

    def _climb(
        self, images: Float[Tensor, "m v 3 h w"], gradient: Float[Tensor, "m v 3 h w"]
    ) -> Float[Tensor, "m v 3 h w"]:
        """Eq. 3.5; largest gradient and range are those of a pair, so that pairs stay apart."""
        if self.normalise_gradient:
            gradient = gradient / (gradient.abs().amax((1, 2, 3, 4), keepdim=True) + 1e-12)
        climbed = images + self.step_size * gradient
        if not self.clamp:
            return climbed
        low = images.amin((1, 2, 3, 4), keepdim=True)
        high = images.amax((1, 2, 3, 4), keepdim=True)
        return torch.maximum(torch.minimum(climbed, high), low)


def _gradcam(
    chosen: Float[Tensor, "m v h' w'"], weight: Float[Tensor, "m d"]
) -> Float[Tensor, "m v h' w'"]:
    """The public code's Grad-CAM of S_c = sum ReLU(w_c . f), without a backward pass.

    The code averages the gradient over the map and divides by the number of positive entries of the
    whole gradient. With n_b active cells in view b and P_c positive entries of w_c that leaves
    ReLU(w_c . f_b) * n_b / (P_c * sum_b n_b); the factor is a constant of the climb (METHODS 3).
    """
    active = (chosen.detach() > 0).sum((2, 3), keepdim=True).to(chosen.dtype)
    positive = (weight > 0).sum(1).view(-1, 1, 1, 1)
    counted = (positive * active.sum(1, keepdim=True)).clamp_min(1)
    return chosen.relu() * (active / counted)

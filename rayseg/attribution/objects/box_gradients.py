"""Gradients of a detector's predictions: SimpleGrad, SmoothGrad and Grad-CAM an object.

What the dissertation holds BBAM against (5.5, Figures 5.7(c) and 5.8):

    SimpleGrad   max over channels of |dS/dx|
    SmoothGrad   the same of the mean gradient over noisy copies of x
    Grad-CAM     ReLU(sum_k mean(dS/df_k) f_k)

S is an output of the detector, averaged over the candidates that predict the object, which are
BBAM's positives, found by the same rule. By default it is the probability of the object's class,
p_c; `use_box` and `use_class` choose among it and the four offsets t_c of the box head. Every
output gives a map of its own, over its maximum; their mean is the object's. The distance
|t_c - t_c'| of Eq. 5.2 cannot take their place: on the image itself it is 0 and has no slope.

The dissertation does not say which output it explains; the probability alone is the usual choice.
There are no two presets: nothing public of the authors makes these maps.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rayseg.attribution.classes.base import seeded
from rayseg.attribution.objects.box_base import BoxAttribution, ObjectMap
from rayseg.attribution.objects.mask_search import interpolation
from rayseg.attribution.objects.positives import Target
from rayseg.nets.detection import Detector, InputFit
from rayseg.records.bounds import check_least


@dataclass(frozen=True)
class Asked:
    """One output, as `mean_output` counts them, of a frozen detector about one object."""

    detector: Detector
    image: Float[Tensor, "3 y x"]
    content_hw: tuple[int, int]
    target: Target
    output: int

    def gradient(self, inputs: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "3 y x"]:
        """`input_gradient` at the image, perturbed or not."""
        return input_gradient(self.detector, inputs, self.target, self.output)


@dataclass(frozen=True)
class BoxGradient(BoxAttribution):
    """What the gradient methods share: outputs in, a map of input pixels out, reduced to a grid.

    Attributes:
        use_class: The probability of the object's class is explained.
        use_box: The four offsets of the box head are explained.
        cell: Approximate distance of the grid's points in input pixels; BBAM's finest stride.
    """

    use_class: bool = True
    use_box: bool = False
    cell: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.use_class or self.use_box):
            raise ValueError("use_class or use_box must be true, got false for both")
        check_least(self, cell=1)

    @classmethod
    def as_written(cls) -> Self:
        """Positives by the text's rule: all above an IoU of 0.8."""
        return cls(iou_levels=(0.8,), max_positives=0, iou="exact")

    def grid_hw(self, share: float, content_hw: tuple[int, int]) -> tuple[int, int]:
        """One point more than cells; the same for objects of all sizes."""
        del share
        rows, columns = (max(round(side / self.cell), 1) + 1 for side in content_hw)
        return rows, columns

    def explain(
        self,
        detector: Detector,
        inputs: Float[Tensor, "n 3 y x"],
        fit: InputFit,
        targets: Sequence[Target],
    ) -> list[ObjectMap]:
        """One object at a time; see `BoxAttribution.explain`."""
        return [self._explain(detector, inputs[one.image], fit, one) for one in targets]

    @abstractmethod
    def pixel_map(self, asked: Asked) -> Float[Tensor, "y x"]:
        """How much each input pixel matters to one output; not negative, not normalised."""

    def _explain(
        self, detector: Detector, image: Float[Tensor, "3 y x"], fit: InputFit, target: Target
    ) -> ObjectMap:
        height, width = fit.content_hw
        outputs = [0] * self.use_class + [1, 2, 3, 4] * self.use_box
        asked = [Asked(detector, image, fit.content_hw, target, output) for output in outputs]
        parts = [self.pixel_map(one) for one in asked]
        content = torch.stack(parts).float()[:, :height, :width]  # (r, h, w)
        grids = reduce_to_grid(content, self.grid_hw(target.share, fit.content_hw))
        grid = _over_maximum(_over_maximum(grids).mean(0, keepdim=True))[0].cpu()
        status = "ok" if grid.isfinite().all() else "error: the gradient is not finite"
        if status != "ok":
            grid = torch.zeros_like(grid)
        return ObjectMap(grid, status, len(target.probabilities), 0.0, 0.0, 0)


@dataclass(frozen=True)
class SimpleGrad(BoxGradient):
    """The gradient with respect to the pixels, its largest absolute value over the channels.

    Simonyan et al., *Deep Inside Convolutional Networks*, ICLR 2014.
    """

    def pixel_map(self, asked: Asked) -> Float[Tensor, "y x"]:
        """One forward and one backward pass."""
        return asked.gradient(asked.image[None]).abs().amax(0)


@dataclass(frozen=True)
class SmoothGrad(BoxGradient):
    """SimpleGrad of the mean gradient over noisy copies of the image.

    Smilkov et al., *SmoothGrad: Removing Noise by Adding Noise*, arXiv 2017.

    Attributes:
        num_copies: Noisy copies of the image (Smilkov et al.: more than 50 change little).
        noise: Standard deviation of the noise, as a share of the range of the input's values
            (Smilkov et al.: 0.1 to 0.2).
    """

    num_copies: int = 50
    noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_copies=1, noise=0)

    def pixel_map(self, asked: Asked) -> Float[Tensor, "y x"]:
        """As many passes as copies; noise follows from seed, image id, object and copy.

        The padding of the input has none.
        """
        image = asked.image
        height, width = asked.content_hw
        content = image[:, :height, :width]
        deviation = self.noise * (content.amax() - content.amin())
        total = torch.zeros_like(image, dtype=torch.promote_types(image.dtype, torch.float32))
        at_once = self._copies_at_once(image)
        for start in range(0, self.num_copies, at_once):
            numbers = range(start, min(start + at_once, self.num_copies))
            noise = torch.stack(
                [_noise(content, self.seed, f"{asked.target.name}/{one}") for one in numbers]
            )
            noisy = image.repeat(len(numbers), 1, 1, 1)
            noisy[:, :, :height, :width] += deviation * noise.to(image)
            total += asked.gradient(noisy)
        return (total / self.num_copies).abs().amax(0)

    def _copies_at_once(self, image: Float[Tensor, "3 y x"]) -> int:
        # a pyramid at 1333x800 holds about 2 GB for its gradient
        limit = self.max_pixels or (1 << 20 if image.device.type == "cpu" else 1 << 23)
        return max(limit // (image.shape[1] * image.shape[2]), 1)


@dataclass(frozen=True)
class BoxGradCAM(BoxGradient):
    """Grad-CAM on the detector's trunk: features weighted by their mean gradient.

    Selvaraju et al., *Grad-CAM*, ICCV 2017.

    The detector names the module whose output is looked at in an attribute `feature_layer`.
    """

    def check(self, detector: Detector) -> None:
        """Refuses a detector that does not say what is looked at; raises as `feature_module`."""
        feature_module(detector)

    def pixel_map(self, asked: Asked) -> Float[Tensor, "y x"]:
        """One forward pass, and one backward pass down to the features."""
        with torch.enable_grad(), _outputs_of(feature_module(asked.detector)) as made:
            # frozen weights alone would leave no graph
            leaf = asked.image[None].detach().requires_grad_()
            value = mean_output(asked.detector, leaf, asked.target, asked.output)
            if len(made) != 1:
                raise ValueError(f"feature_layer must be passed once a reading, got {len(made)}")
            (features,) = made
            (gradient,) = torch.autograd.grad(value, features)
        weights = gradient[0].mean((1, 2), keepdim=True)  # (d, 1, 1)
        cells = (weights * features[0].detach()).sum(0).relu().float()  # (h', w')
        size_hw = (asked.image.shape[1], asked.image.shape[2])
        return functional.interpolate(cells[None, None], size_hw, mode="bilinear")[0, 0]


def mean_output(
    detector: Detector, inputs: Float[Tensor, "n 3 y x"], target: Target, output: int
) -> Float[Tensor, ""]:
    """One output, averaged over an object's candidates and added over inputs.

    Args:
        output: 0 for the probability of its class, 1 to 4 for an offset of its box.
    """
    number, candidates = len(inputs), target.candidates
    owner = torch.arange(number, device=inputs.device).repeat_interleave(len(candidates))
    every = candidates.repeat(number, *[1] * (candidates.ndim - 1))
    reading = detector.read(inputs, owner, every)
    probabilities, deltas, _ = reading.of(torch.full_like(owner, target.class_index))
    values = deltas[:, output - 1] if output else probabilities  # (n * m,)
    return values.sum() / len(candidates)


def input_gradient(
    detector: Detector, inputs: Float[Tensor, "n 3 y x"], target: Target, output: int
) -> Float[Tensor, "3 y x"]:
    """Gradient of `mean_output` with respect to the pixels, added over the inputs."""
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(mean_output(detector, leaf, target, output), leaf)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).sum(0)


def reduce_to_grid(
    maps: Float[Tensor, "r h w"], grid_hw: tuple[int, int]
) -> Float[Tensor, "r y x"]:
    """Weighted means of a map round the points of a grid whose corners lie on the map's corners.

    A pixel counts for a point as much as the point counts for it where the grid is enlarged again
    (bilinear, corners on corners); a constant map gives the same constant.
    """
    rows, columns = (
        _weights(side, points).to(maps)
        for side, points in zip(maps.shape[1:], grid_hw, strict=True)
    )
    return rows @ maps @ columns.T


def _weights(side: int, points: int) -> Float[Tensor, "points side"]:
    """Shares of a side's pixels in each of the points spread over it; each row adds up to 1."""
    shares = interpolation(points, side, torch.empty(0, dtype=torch.float64)).T
    return shares / shares.sum(1, keepdim=True)


def _over_maximum(maps: Float[Tensor, "r y x"]) -> Float[Tensor, "r y x"]:
    largest = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)


def _noise(like: Float[Tensor, "3 h w"], seed: int, name: str) -> Float[Tensor, "3 h w"]:
    return torch.randn(like.shape, generator=seeded(seed, name))


def feature_module(detector: Detector) -> nn.Module:
    """The module that a detector names as the last of its trunk."""
    name = getattr(detector, "feature_layer", "")
    known = dict(detector.named_modules())
    if not name or name not in known:
        raise ValueError(
            f"feature_layer must name a module of {type(detector).__name__}, which Grad-CAM looks "
            f"at, got {name!r}"
        )
    return known[name]


@contextmanager
def _outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Gathers what a module gives while the context lasts."""
    made: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: made.append(output))
    try:
        yield made
    finally:
        hook.remove()

"""The copy of a classifier whose weights a method changes for one image and then puts back.

Its first stages stay as they are, so that their features are computed once an image; they are
folded and lean. The weights of the last stages and the head lie in one flat tensor each with its
gradient: a step is two products, and putting them back is one copy.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from rayseg.attribution.companions import Companions
from rayseg.attribution.lean import LeanNetwork, _is_pointwise, _suit_cpu, check_head
from rayseg.inputs import Precision, choose_dtype

FROZEN_STAGES = 3
"""Stem, stage1 and stage2, which the authors' classifier cuts off by a detach."""
GROUP = 8
"""Companions whose features are computed together; fixed, so that rounding is too."""


class AdaptableNetwork(LeanNetwork):
    """A copy of a classifier whose last stages and head can be fine-tuned and put back.

    Args:
        network: a CAM classifier whose trunk is a sequence of stages; left as it was.
        precision: of the activations; weights and their gradients are float32, or float64 where
            the network's are.
        companions: the bank to draw from, where there is one.
        cache_gb: memory for features of companions; those used last are kept.

    Attributes:
        classifier: a plain classifier whose weights are those of the moment.
        moving: all weights that train, the head's last.
        gradient: theirs, added up until `step`.

    Raises:
        ValueError: a trunk of too few stages, or companions of other classes.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: Precision = "auto",
        companions: Companions | None = None,
        cache_gb: float = 2.0,
    ):
        nn.Module.__init__(self)
        check_head(network, 1)
        self.classifier: Any = copy.deepcopy(network).eval()
        self.classifier.requires_grad_(False).to(memory_format=torch.channels_last)
        head = self.classifier.head.weight
        stages = list(self.classifier.trunk.children())
        if len(stages) <= FROZEN_STAGES:
            raise ValueError(
                f"the trunk must have more than {FROZEN_STAGES} stages, got {len(stages)}"
            )
        if companions is not None and companions.tags.shape[1] != len(head):
            raise ValueError(
                f"companions must be tagged with {len(head)} classes, "
                f"got {companions.tags.shape[1]}"
            )
        self.precision, self.companions, self.cache_gb = precision, companions, cache_gb
        self.dtype = choose_dtype(precision, head.device)
        if head.dtype == torch.float64:
            self.dtype = torch.float64
        self.stride: int = self.classifier.stride
        last = nn.Sequential(*stages[FROZEN_STAGES:])
        weights = [*last.parameters(), head]
        self.moving, self.gradient = _flatten(weights)
        self.start = self.moving.clone()
        self._head_size = head.numel()
        self._velocity: Tensor | None = None
        # shares its weights with the classifier, whose modules stay plain
        self._last = copy.deepcopy(last, {id(weight): weight for weight in weights})
        self._first = fuse(copy.deepcopy(nn.Sequential(*stages[:FROZEN_STAGES])))
        self._first.to(self.dtype).to(memory_format=torch.channels_last)
        if head.device.type == "cpu":
            _suit_cpu(self._first, self.dtype)
            _suit_training(self._last, self.dtype)
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._cell_bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # views of one tensor would each be pickled with the whole of it
        plain = copy.deepcopy(self.classifier)
        return type(self), (plain, self.precision, self.companions, self.cache_gb)

    @property
    def weight(self) -> Float[Tensor, "c d"]:  # type: ignore[override]
        """The head's weights of the moment."""
        return self.classifier.head.weight.flatten(1)

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d h' w'"]:
        """Features under the weights of the moment, in the weights' type."""
        return self.last_features(self.first_features(images))

    def classify(self, features: Float[Tensor, "n d h' w'"]) -> Float[Tensor, "n c"]:
        """Logits of features."""
        return self.classifier.classify(features)

    def first_features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e h' w'"]:
        """What the stages that never train make of normalised images, without gradients."""
        with torch.no_grad():
            images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
            return self._first(images)

    def last_features(self, features: Float[Tensor, "n e h' w'"]) -> Float[Tensor, "n d h' w'"]:
        """What the stages that train make of `first_features`."""
        with torch.autocast(features.device.type, self.dtype, self.dtype == torch.bfloat16):
            made = self._last(features)
        return made.to(self.moving.dtype)

    def raw_maps(
        self, features: Float[Tensor, "n e h' w'"], classes: Sequence[int] | slice
    ) -> Float[Tensor, "n k h' w'"]:
        """w_c . f of these classes, of images whose `first_features` are given."""
        weight = self.classifier.head.weight[classes]
        return functional.conv2d(self.last_features(features), weight)

    def companion_features(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b e h' w'"]:
        """`first_features` of the bank's crops; computed once while they fit into the cache."""
        return torch.stack([self._group(i // GROUP)[i % GROUP] for i in indices.tolist()])

    def _group(self, number: int) -> Float[Tensor, "g e h' w'"]:
        if number not in self._cache:
            assert self.companions is not None
            stop = min((number + 1) * GROUP, len(self.companions))
            crops = self.companions.images(torch.arange(number * GROUP, stop), self.device)
            self._cache[number] = self.first_features(crops)
            held = sum(part.nbytes for part in self._cache.values())
            while held > self.cache_gb * 2**30 and len(self._cache) > 1:
                held -= self._cache.popitem(last=False)[1].nbytes
        self._cache.move_to_end(number)
        return self._cache[number]

    def groups(
        self, features: Float[Tensor, "n e h' w'"], memory_gb: float
    ) -> Sequence[Float[Tensor, "r e h' w'"]]:
        """Rows whose graph fits into that memory together, at least one at a time."""
        self._cell_bytes = self._cell_bytes or self._measure(features)
        row = self._cell_bytes * features.shape[2] * features.shape[3]
        return features.split(max(int(memory_gb * 2**30 / row), 1))

    def _measure(self, features: Tensor) -> int:
        """Bytes that the graph keeps for each cell of `first_features`."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        few = features[:1, :, :8, :8]
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            self.last_features(few)
        for weight in self._last.parameters():
            kept.pop(weight.data_ptr(), None)
        return sum(kept.values()) // (few.shape[2] * few.shape[3]) + 1

    @contextmanager
    def adapting(self) -> Iterator[None]:
        """The weights may move inside; after it they are those of the start, whatever happened."""
        self._velocity = None
        self.gradient.zero_()
        try:
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        """Puts the weights of the start back."""
        self.moving.copy_(self.start)

    def step(
        self, learning_rate: float, head_factor: float, weight_decay: float, momentum: float
    ) -> None:
        """One step of stochastic gradient descent, as torch's SGD takes it."""
        change = self.gradient.add(self.moving, alpha=weight_decay)
        if self._velocity is None:
            self._velocity = change
        else:
            self._velocity.mul_(momentum).add_(change)
        sizes = [len(self.moving) - self._head_size, self._head_size]
        rates = (learning_rate, learning_rate * head_factor)
        parts = zip(self.moving.split(sizes), self._velocity.split(sizes), rates, strict=True)
        for weights, velocity, rate in parts:
            weights.sub_(velocity, alpha=rate)
        self.gradient.zero_()


def _flatten(weights: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Moves weights into one tensor and gives them gradients in another, their layout unchanged."""
    total = sum(weight.numel() for weight in weights)
    flat, gradient = (weights[0].detach().new_zeros(total) for _ in range(2))
    place = 0
    for weight in weights:
        layout = weight.shape, weight.stride(), place
        weight.data = flat.as_strided(*layout).copy_(weight.detach())
        weight.requires_grad_().grad = gradient.as_strided(*layout)
        place += weight.numel()
    return flat, gradient


def _suit_training(network: nn.Module, dtype: torch.dtype) -> None:
    """As `suit_cpu`, for convolutions whose weights train; in place."""
    for name, child in network.named_children():
        if not isinstance(child, nn.Conv2d):
            if isinstance(child, nn.ReLU | nn.ReLU6):
                child.inplace = False  # in place on a product's view, autograd copies the view
            _suit_training(child, dtype)
        elif _is_pointwise(child):
            setattr(network, name, _TrainedPointwise(child))
        elif dtype == torch.bfloat16 and child.groups == child.in_channels > 1:
            setattr(network, name, _FloatDepthwise(child))


class _TrainedPointwise(nn.Module):
    """A 1x1 convolution as a matrix product over the channels of each cell."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n e h w"]:
        weight, bias = self.layer.weight.flatten(1), self.layer.bias
        return functional.linear(inputs.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class _FloatDepthwise(nn.Module):
    """A depthwise convolution in float32, whose bf16 gradients have no kernel worth the name."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h' w'"]:
        with torch.autocast(inputs.device.type, enabled=False):
            return self.layer(inputs.float())

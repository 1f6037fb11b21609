"""The copy of a classifier whose weights a method changes for one image and then puts back.

Its first stages stay as they are, so that their features are computed once an image; they are
folded and lean. The weights of the last stages and the head lie in one flat tensor each with its
gradient: a step is two products, and putting them back is one copy.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, fx, nn
from torch.nn import functional

from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.lean import LeanNetwork, check_head, is_pointwise, suit_cpu
from rayseg.nets.inputs import Precision, choose_dtype
from rayseg.nets.suited import fold_normalisation, is_strided_depthwise


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

    serves_all: ClassVar[bool] = False

    def __init__(
        self,
        network: nn.Module,
        precision: Precision = "auto",
        companions: Companions | None = None,
        cache_gb: float = 2.0,
    ):
        nn.Module.__init__(self)
        check_head(network, 1)
        classifier: Any = copy.deepcopy(network).eval()
        classifier.requires_grad_(False).to(memory_format=torch.channels_last)
        head: nn.Parameter = classifier.head.weight
        stages = list(classifier.trunk.children())
        frozen: int = classifier.adapts_from
        if len(stages) <= frozen:
            raise ValueError(f"the trunk must have more than {frozen} stages, got {len(stages)}")
        if companions is not None and companions.tags.shape[1] != len(head):
            raise ValueError(
                f"companions must be tagged with {len(head)} classes, "
                f"got {companions.tags.shape[1]}"
            )
        self.precision, self.companions, self.cache_gb = precision, companions, cache_gb
        self.dtype = choose_dtype(precision, head.device)
        if head.dtype == torch.float64:
            self.dtype = torch.float64
        self.classifier = classifier
        self.stride: int = classifier.stride
        last = nn.Sequential(*stages[frozen:])
        weights = [*last.parameters(), head]
        self.moving, self.gradient = _flatten(weights)
        self.start = self.moving.clone()
        self._head_size = head.numel()
        self._velocity: Tensor | None = None
        self._adapts = False
        # shares its weights with the classifier, whose modules stay plain
        shared = {id(weight): weight for weight in weights}
        self._last = _fold_for_training(copy.deepcopy(last, shared))
        self._first = fold_normalisation(nn.Sequential(*stages[:frozen]))
        self._first.to(self.dtype).to(memory_format=torch.channels_last)
        if head.device.type == "cpu":
            suit_cpu(self._first, self.dtype)
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
        # a product over channels, as all 1x1 convolutions
        cells = self.last_features(features).permute(0, 2, 3, 1)
        return functional.linear(cells, self.weight[classes]).permute(0, 3, 1, 2)

    def companion_features(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b e h' w'"]:
        """`first_features` of the bank's crops; computed once while they fit into the cache."""
        return torch.cat([self._companion(i) for i in indices.tolist()])

    def _companion(self, index: int) -> Float[Tensor, "1 e h' w'"]:
        # one at a time, so that rounding does not depend on which are in the cache
        if index not in self._cache:
            assert self.companions is not None
            crop = self.companions.images(torch.tensor([index]), self.device)
            self._cache[index] = self.first_features(crop)
            most = max(int(self.cache_gb * 2**30 / self._cache[index].nbytes), 1)
            if len(self._cache) > most:
                self._cache.popitem(last=False)
        self._cache.move_to_end(index)
        return self._cache[index]

    def groups(
        self, features: Float[Tensor, "n e h' w'"], memory_gb: float
    ) -> Sequence[Float[Tensor, "r e h' w'"]]:
        """Rows whose graph fits into that memory together, at least one at a time."""
        self._cell_bytes = self._cell_bytes or self._measure(features)
        row = self._cell_bytes * features.shape[2] * features.shape[3]
        return features.split(max(int(memory_gb * 2**30 / row), 1))

    def _measure(self, features: Tensor) -> int:
        """Bytes that the graph keeps for each further cell of `first_features`."""
        blank = features.new_zeros(1, features.shape[1], 8, 16)
        few, more = (self._graph_bytes(blank[..., :width]) for width in (8, 16))
        return (more - few) // 64 + 1

    def _graph_bytes(self, features: Tensor) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            self.last_features(features)
        return sum(kept.values())

    @contextmanager
    def adapting(self) -> Iterator[None]:
        """The weights may move inside; after it they are those of the start, whatever happened.

        Raises:
            RuntimeError: they are moving for another image, whose course was not ended.
        """
        if self._adapts:
            raise RuntimeError("the network must be at its start, got one amid another image")
        self._adapts = True
        self._velocity = None
        self.gradient.zero_()
        try:
            yield
        finally:
            self.restore()
            self._adapts = False

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


def _fold_for_training(stages: nn.Sequential) -> nn.Module:
    """The stages with each convolution and the batch normalisation behind it as one, to train.

    What is normalised by stored statistics is an affine map, which can be multiplied into the
    convolution's weights; done anew at each pass, gradients reach the weights of both as they were.
    """
    traced = fx.symbolic_trace(stages)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False  # in place on a product's view, autograd copies the view
        if not isinstance(layer, nn.Conv2d):
            continue
        follower = next(iter(node.users)) if len(node.users) == 1 else None
        norm = modules.get(str(follower.target)) if follower is not None else None
        folds = isinstance(norm, nn.BatchNorm2d)
        traced.set_submodule(node.target, _FoldedConvolution(layer, norm if folds else None))
        if follower is not None and folds:
            follower.replace_all_uses_with(node)
            traced.graph.erase_node(follower)
    traced.recompile()
    return traced


class _FoldedConvolution(nn.Module):
    """A convolution and the normalisation behind it as one convolution, both with gradients."""

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None):
        super().__init__()
        self.layer, self.norm = layer, norm
        self.is_pointwise = is_pointwise(layer)
        self.is_strided_depthwise = is_strided_depthwise(layer)

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n e h' w'"]:
        weight, bias = self._folded()
        if self.is_pointwise and inputs.device.type == "cpu":
            # as a product over channels, see lean.py
            cells = functional.linear(inputs.permute(0, 2, 3, 1), weight.flatten(1), bias)
            return cells.permute(0, 3, 1, 2)
        if self.is_strided_depthwise and inputs.device.type == "cpu":
            # whose gradient has no bf16 kernel worth the name
            with torch.autocast("cpu", enabled=False):
                return self._convolve(inputs.to(weight.dtype), weight, bias)
        return self._convolve(inputs, weight, bias)

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        weight, bias, norm = self.layer.weight, self.layer.bias, self.norm
        if norm is None:
            return weight, bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        slope = norm.weight * (norm.running_var + norm.eps).rsqrt()
        mean = norm.running_mean if bias is None else norm.running_mean - bias
        return weight * slope[:, None, None, None], norm.bias - mean * slope

    def _convolve(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer = self.layer
        return functional.conv2d(
            inputs, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )

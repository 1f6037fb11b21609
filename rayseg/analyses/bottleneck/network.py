"""The toy network: its training, the gradient maps of its layers, and RIB on one image."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from rayseg.nets.losses import multilabel_soft_margin, rib_loss

LAYERS = 6
"""Five convolutions and the fully connected layer."""
NUM_CLASSES = 2
_WIDTHS = (1, 16, 16, 32, 32, 64)
_HALVED_AFTER = (1, 3)  # convolutions; a cell of the last feature then sees most of a digit
Weights = dict[str, Tensor]


class ToyNetwork(nn.Module):
    """Five 3 x 3 convolutions with ReLU, the mean over the cells, one fully connected layer.

    Two poolings between the convolutions halve the features. With the mean before the last layer it
    is the classifier that a CAM is taken of, p = sigmoid(w' GAP(T_5)).

    Args:
        seed: of its weights; torch's own generator is left as it was.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.convolutions = nn.ModuleList(
                nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(_WIDTHS)
            )
            self.head = nn.Linear(_WIDTHS[-1], NUM_CLASSES)

    def forward(
        self, images: Float[Tensor, "n h w"]
    ) -> tuple[list[Float[Tensor, "n d h' w'"]], Float[Tensor, "n c"]]:
        """The features T_1 to T_5 after their ReLU, and the logits."""
        features: list[Tensor] = []
        current = images[:, None]  # (n, 1, h, w)
        for place, convolution in enumerate(self.convolutions):
            features.append(convolution(current).relu())
            current = features[-1]
            if place in _HALVED_AFTER:
                current = functional.max_pool2d(current, 2)  # (n, d, h / 2, w / 2)
        return features, self.head(current.mean((2, 3)))


def one_hot(classes: Int64[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """t_c of each image."""
    return functional.one_hot(classes, NUM_CLASSES).float()


def train(
    network: ToyNetwork,
    images: Float[Tensor, "n h w"],
    classes: Int64[Tensor, " n"],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Adam on the sigmoid cross entropy; the network is changed in place.

    Source: L_BCE of dissertation 3.4.3; it names no optimiser for the toy network.
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=order).split(batch_size):
            _, logits = network(images[batch])
            loss = multilabel_soft_margin(logits, one_hot(classes[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def predicted(network: ToyNetwork, images: Float[Tensor, "n h w"]) -> Int64[Tensor, " n"]:
    """The class of the highest logit."""
    with torch.no_grad():
        return network(images)[1].argmax(1)


def layer_maps(
    network: ToyNetwork, images: Float[Tensor, "n h w"], classes: Int64[Tensor, " n"]
) -> Float[Tensor, "6 n h w"]:
    """|G_l|: by how much each pixel moves the sum of all of T_l; G_6, the logit of the class.

    Source: dissertation 3.4.2, G_l = grad_x sum_{u,v} T_l(u, v) and G_6 = grad_x y^c.
    """
    images = images.detach().requires_grad_()
    features, logits = network(images)
    own = logits.gather(1, classes[:, None])[:, 0]
    sums = [*(feature.sum() for feature in features), own.sum()]
    # An image's gradient has nothing of the others in it: no layer mixes images.
    maps = [torch.autograd.grad(one, images, retain_graph=True)[0] for one in sums]
    return torch.stack(maps).abs()  # (6, n, h, w)


def rib_maps(
    network: ToyNetwork,
    image: Float[Tensor, "h w"],
    label: Int64[Tensor, ""],
    companions: Iterator[tuple[Float[Tensor, "b h w"], Int64[Tensor, " b"]]],
    learning_rate: float,
    margin: float,
) -> Iterator[tuple[Float[Tensor, "h w"], float]]:
    """|G_6| of an image and its class's logit under theta_0, then after each RIB iteration.

    The adapted weights are new tensors; the network keeps its own.

    Args:
        network: theta_0.
        image: the one that the weights are adapted to.
        label: its class.
        companions: other images and their classes, newly chosen for each iteration; as many
            iterations are made as come out of it.
        learning_rate: lambda, of plain gradient descent.
        margin: m; a logit above it has no gradient.

    Source: dissertation 3.4.3, theta_k = theta_{k-1} - lambda grad L_RIB.
    """
    weights: Weights = {name: value.detach() for name, value in network.named_parameters()}
    yield _last_map(network, weights, image, label)
    for others, labels in companions:
        images = torch.cat([image[None], others])
        targets = one_hot(torch.cat([label[None], labels]))
        weights = _descended(network, weights, images, targets, learning_rate, margin)
        yield _last_map(network, weights, image, label)


def _descended(
    network: ToyNetwork,
    weights: Weights,
    images: Float[Tensor, "b h w"],
    targets: Float[Tensor, "b c"],
    learning_rate: float,
    margin: float,
) -> Weights:
    free = {name: value.detach().requires_grad_() for name, value in weights.items()}
    _, logits = functional_call(network, free, (images,))
    slopes = torch.autograd.grad(rib_loss(logits, targets, margin), list(free.values()))
    return {
        name: weights[name] - learning_rate * slope
        for name, slope in zip(free, slopes, strict=True)
    }


def _last_map(
    network: ToyNetwork, weights: Weights, image: Float[Tensor, "h w"], label: Int64[Tensor, ""]
) -> tuple[Float[Tensor, "h w"], float]:
    image = image.detach().requires_grad_()
    _, logits = functional_call(network, weights, (image[None],))
    logit = logits[0, label]
    return torch.autograd.grad(logit, image)[0].abs(), logit.item()


def high_gradient_ratio(
    maps: Float[Tensor, "*s n h w"],
    tops: Float[Tensor, "*s n"],
    region: Bool[Tensor, "n h w"],
    threshold: float,
) -> Float[Tensor, "*s"]:
    """HGR: the share of a region's pixels with a high gradient, averaged over the images.

    Args:
        maps: not negative.
        tops: what counts as 1 in each map, for instance its maximum.
        region: true on the region's pixels, at least one an image.
        threshold: high is above this share of `tops`.

    Source: dissertation 3.4.2.
    """
    high = (maps > threshold * tops[..., None, None]) & region
    return (high.sum((-2, -1)).double() / region.sum((-2, -1))).mean(-1)

"""The toy experiment a second time: pixel by pixel, difference by difference, in plain loops."""

import copy

import numpy as np
import torch


def ratio(maps, tops, regions, region, threshold):
    """HGR of one stack of maps (n, h, w)."""
    shares = []
    for one, top, places in zip(maps, tops, regions, strict=True):
        high = whole = 0
        for row in range(one.shape[0]):
            for column in range(one.shape[1]):
                if places[row, column] == region:
                    whole += 1
                    high += one[row, column] / top > threshold
        shares.append(high / whole)
    return sum(shares) / len(shares)


def layer_values(network, image, label):
    """Sum of T_1 to T_5 and the class's logit, for one image."""
    with torch.no_grad():
        current, sums = image[None, None], []
        for place, convolution in enumerate(network.convolutions):
            current = torch.clamp(convolution(current), min=0)
            sums.append(current.sum().item())
            if place in (1, 3):
                current = halved(current)
        pooled = current.sum((2, 3)) / (current.shape[2] * current.shape[3])
        logits = pooled @ network.head.weight.T + network.head.bias
        return np.array([*sums, logits[0, label].item()])


def halved(feature):
    """The highest of each two by two cells."""
    corners = [feature[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.stack(corners).amax(0)


def layer_gradients(network, image, label, step=1e-7):
    """|G_1| to |G_6| of one image by central differences."""
    found = np.zeros((6, *image.shape))
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            above, below = image.clone(), image.clone()
            above[row, column] += step
            below[row, column] -= step
            difference = layer_values(network, above, label) - layer_values(network, below, label)
            found[:, row, column] = np.abs(difference / (2 * step))
    return found


def adapted(network, image, label, companions, learning_rate, margin):
    """A copy of the network after gradient descent on -sum min(m, y_c), by backward()."""
    network = copy.deepcopy(network)
    for others, labels in companions:
        images = [image, *others]
        wanted = [int(label), *labels.tolist()]
        network.zero_grad()
        total = 0
        for one, want in zip(images, wanted, strict=True):
            logit = network(one[None])[1][0, want]
            if logit < margin:
                total = total - logit
        if torch.is_tensor(total):
            total.backward()
            with torch.no_grad():
                for weight in network.parameters():
                    weight.sub_(learning_rate * weight.grad)
    return network

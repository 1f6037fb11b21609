"""DeepLab-v2's head, its input scales and the losses of segmenters a second time, by loops.

numpy float64 throughout, one image at a time: features and logits are (d, h, w) and (l, h, w).
"""

import math
from fractions import Fraction

import numpy as np


def aspp(features, weights, biases, rates):
    """The sum over branches of a 3x3 convolution whose taps lie rate cells apart."""
    _, height, width = features.shape
    logits = np.zeros((len(biases[0]), height, width))
    for weight, bias, rate in zip(weights, biases, rates, strict=True):
        for y in range(height):
            for x in range(width):
                logits[:, y, x] += bias
                for i in range(3):
                    for j in range(3):
                        row, column = y + (i - 1) * rate, x + (j - 1) * rate
                        if 0 <= row < height and 0 <= column < width:
                            logits[:, y, x] += weight[:, :, i, j] @ features[:, row, column]
    return logits


def bilinear(planes, size_hw):
    """Mixes the four old cells around each new cell's centre; the edges of both grids coincide."""
    rows, columns = (
        [min(max((i + 0.5) * old / new - 0.5, 0), old - 1) for i in range(new)]
        for old, new in zip(planes.shape[1:], size_hw, strict=True)
    )
    resized = np.zeros((len(planes), *size_hw))
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            top, left = math.floor(row), math.floor(column)
            for r, share_r in ((top, 1 - row + top), (top + 1, row - top)):
                for c, share_c in ((left, 1 - column + left), (left + 1, column - left)):
                    if share_r * share_c > 0:
                        resized[:, y, x] += share_r * share_c * planes[:, r, c]
    return resized


def multi_scale(image, base, scales):
    """deeplab-pytorch's MSC: the logits of every scale, and their maximum on the first's grid."""
    each = []
    for scale in scales:
        size_hw = [math.floor(scale * side) for side in image.shape[1:]]
        each.append(base(image if scale == 1 else bilinear(image, size_hw)))
    top = each[0].copy()
    for logits in each[1:]:
        top = np.maximum(top, bilinear(logits, top.shape[1:]))
    return [*each, top]


def label_under(labels, y, x, size_hw):
    """The label of the pixel in which the centre of cell (y, x) lies."""
    row, column = (
        math.floor((i + Fraction(1, 2)) * Fraction(pixels, cells))
        for i, pixels, cells in zip((y, x), labels.shape, size_hw, strict=True)
    )
    return int(labels[row, column])


def pixel_losses(logits, labels):
    """(label, cross entropy) of each cell that is not 255."""
    _, height, width = logits.shape
    found = []
    for y in range(height):
        for x in range(width):
            label = label_under(labels, y, x, (height, width))
            if label != 255:
                odds = [math.exp(value) for value in logits[:, y, x]]
                found.append((label, -math.log(odds[label] / sum(odds))))
    return found


def mean_loss(batch, labels):
    """The mean over all counted pixels of a batch, which is one of DeepLab-v2's four terms."""
    losses = [
        loss
        for logits, wanted in zip(batch, labels, strict=True)
        for _, loss in pixel_losses(logits, wanted)
    ]
    return sum(losses) / len(losses)


def balanced_loss(batch, labels):
    """DSRG's: the mean over images of background's mean plus foreground's mean."""
    total = 0.0
    for logits, wanted in zip(batch, labels, strict=True):
        pairs = pixel_losses(logits, wanted)
        background = [loss for label, loss in pairs if label == 0]
        foreground = [loss for label, loss in pairs if label != 0]
        total += sum(background) / max(len(background), 1)
        total += sum(foreground) / max(len(foreground), 1)
    return total / len(batch)

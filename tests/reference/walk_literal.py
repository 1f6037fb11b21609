"""The random walks a second time: dense matrices in float64, squared."""

import numpy as np

from tests.reference import pairs_literal


def edge_affinity(edge, radius):
    """1 - max over the path, for every two pixels; 1 of a pixel with itself."""
    height, width = edge.shape
    matrix = np.eye(height * width)
    for down, right in pairs_literal.pairs(radius):
        path = pairs_literal.path((down, right))
        for y in range(height - down):
            for x in range(max(0, -right), width - max(0, right)):
                source, target = y * width + x, (y + down) * width + x + right
                greatest = max(edge[y + cell_y, x + cell_x] for cell_y, cell_x in path)
                matrix[source, target] = matrix[target, source] = 1 - greatest
    return matrix


def feature_affinity(features, radius, quirk, summed):
    """PSA's; with the quirk only pairs whose source is not near the left, right or lower border."""
    _, height, width = features.shape
    matrix = np.eye(height * width)
    for y in range(height):
        for x in range(width):
            if quirk and not (y <= height - radius and radius - 1 <= x <= width - radius):
                continue
            for down, right in pairs_literal.pairs(radius):
                if y + down >= height or not 0 <= x + right < width:
                    continue
                gaps = np.abs(features[:, y, x] - features[:, y + down, x + right])
                source, target = y * width + x, (y + down) * width + x + right
                value = np.exp(-(gaps.sum() if summed else gaps.mean()))
                matrix[source, target] = matrix[target, source] = value
    return matrix


def walk(maps, affinity, beta, log_steps):
    """Maps (k, h, w) as rows times the transition matrix, squared log_steps times."""
    powers = affinity.astype(np.float64) ** beta
    transition = powers / powers.sum(0, keepdims=True)
    for _ in range(log_steps):
        transition = transition @ transition
    return (maps.reshape(len(maps), -1) @ transition).reshape(maps.shape)


def edge_walk(maps, edge, radius, beta, log_steps):
    return walk(maps * (1 - edge), edge_affinity(edge, radius), beta, log_steps)


def mean_affinity(features, beta, summed):
    """Of each pixel to those around it, to the power; 0 where there are none."""
    _, height, width = features.shape
    found = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        values = []
        for a in range(max(0, y - 1), min(height, y + 2)):
            for b in range(max(0, x - 1), min(width, x + 2)):
                if (a, b) != (y, x):
                    gaps = np.abs(features[:, y, x] - features[:, a, b])
                    values.append(np.exp(-(gaps.sum() if summed else gaps.mean())) ** beta)
        found[y, x] = sum(values) / len(values) if values else 0
    return found

"""IRNet's and AffinityNet's labels, affinities and losses once more: loops over single pairs.

Everything is float64. Pairs are found by looking at every pixel and every neighbour; a pair is the
key (source row, source column, down, right).
"""

import math

import numpy as np

SMALL = 1e-5


def pairs_of(height, width, radius):
    """Every pair whose source has all its neighbours in the grid."""
    reach = radius - 1
    found = []
    for row in range(height - reach):
        for column in range(reach, width - reach):
            for down in range(radius):
                for right in range(-reach, radius):
                    near = math.hypot(down, right) < radius
                    if near and (down > 0 or right > 0):
                        found.append((row, column, down, right))
    return found


def path_of(down, right):
    """Pixels of the rectangle between both ends that are nearer than 1 to the line."""
    length = math.hypot(down, right)
    columns = range(min(0, right), max(0, right) + 1)
    return [
        (y, x)
        for y in range(down + 1)
        for x in columns
        if (down * x - right * y) ** 2 / length**2 < 1
    ]


def kinds_of(labels, radius):
    """What each pair is: background, foreground, different, or nothing where a label is 255."""
    found = {}
    for row, column, down, right in pairs_of(*labels.shape, radius):
        near, far = labels[row, column], labels[row + down, column + right]
        kind = "background" if near == far == 0 else "foreground"
        kind = kind if near == far else "different"
        found[row, column, down, right] = "" if 255 in (near, far) else kind
    return found


def shrunk_by_nearest(labels, cell):
    """The lower right pixel of the four around each cell's centre."""
    height, width = (side // cell for side in labels.shape)
    return np.array(
        [[labels[y * cell + cell // 2, x * cell + cell // 2] for x in range(width)]
         for y in range(height)]
    )  # fmt: skip


def shrunk_by_majority(labels, cell):
    """The lowest of the labels that most pixels of each cell have."""
    height, width = (side // cell for side in labels.shape)
    small = np.zeros((height, width), labels.dtype)
    for y in range(height):
        for x in range(width):
            block = labels[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].ravel().tolist()
            small[y, x] = min(set(block), key=lambda one: (-block.count(one), one))
    return small


def edge_affinity(edges, pair):
    """1 minus the strongest edge on the path."""
    row, column, down, right = pair
    return 1 - max(edges[row + y, column + x] for y, x in path_of(down, right))


def feature_affinity(features, pair, distance="mean"):
    """exp(-|f_i - f_j|)."""
    row, column, down, right = pair
    apart = [abs(one[row, column] - one[row + down, column + right]) for one in features]
    return math.exp(-(sum(apart) / len(apart) if distance == "mean" else sum(apart)))


def affinity_loss(affinities, kinds):
    """PSA's: a quarter for each kind of like pairs, half for others; over all images together."""
    losses = {"background": [], "foreground": [], "different": []}
    for affinity, kind in zip(affinities, kinds, strict=True):
        if kind == "different":
            losses[kind].append(-math.log(1 + SMALL - affinity))
        elif kind:
            losses[kind].append(-math.log(affinity + SMALL))
    means = {kind: sum(one) / len(one) if one else 0.0 for kind, one in losses.items()}
    return means["background"] / 4 + means["foreground"] / 4 + means["different"] / 2


def displacement_loss(displacements, pairs, kinds):
    """IRN's: on objects D_i - D_j is the offset from i to j, on background nothing."""
    foreground, background = [], []
    for field, (row, column, down, right), kind in zip(displacements, pairs, kinds, strict=True):
        apart = field[:, row, column] - field[:, row + down, column + right]
        if kind == "foreground":
            foreground += [abs(apart[0] - down), abs(apart[1] - right)]
        elif kind == "background":
            background += [abs(apart[0]), abs(apart[1])]
    means = [sum(one) / len(one) if one else 0.0 for one in (foreground, background)]
    return sum(means) / 2

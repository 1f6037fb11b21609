"""Instances from tags a second time: pixel by pixel, with the dense walk."""

import math

import numpy as np
import torch
from torch.nn import functional

from tests.reference import walk_literal


def at(field, y, x):
    """Bilinear between cells, as written out."""
    up, low, left, far = math.floor(y), math.ceil(y), math.floor(x), math.ceil(x)
    down, right = y - up, x - left
    return (
        field[low][far] * down * right
        + field[low][left] * down * (1 - right)
        + field[up][far] * (1 - down) * right
        + field[up][left] * (1 - down) * (1 - right)
    )


def parts_of(mask):
    """Connected by four neighbours, in the order of their first cells."""
    left = [tuple(map(int, one)) for one in np.argwhere(mask)]
    found, seen = [], set()
    for start in left:
        if start in seen:
            continue
        part, queue = {start}, [start]
        while queue:
            y, x = queue.pop()
            for cell in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= cell[0] < mask.shape[0] and 0 <= cell[1] < mask.shape[1]
                if inside and mask[cell] and cell not in part:
                    part.add(cell)
                    queue.append(cell)
        seen |= part
        found.append(part)
    return found


def groups(displacements, rounds, weak_displacement):
    """The place of the weak region of each cell's centroid, -1 where that is in none."""
    height, width = displacements.shape[1:]
    weak = np.sqrt((displacements**2).sum(0)) < weak_displacement
    regions = {cell: i for i, part in enumerate(parts_of(weak)) for cell in part}
    found = np.zeros((height, width), int)
    for start_y in range(height):
        for start_x in range(width):
            y, x = float(start_y), float(start_x)
            for _ in range(rounds):
                step_y, step_x = at(displacements[0], y, x), at(displacements[1], y, x)
                y = min(max(y + step_y, 0), height - 1)
                x = min(max(x + step_x, 0), width - 1)
            found[start_y, start_x] = regions.get((round(y), round(x)), -1)
    return found


def instances(maps, classes, edge, displacements, size, settings, stride=4):
    """(class, score, set of pixels) of each; settings: a `TagInstances`."""
    membership = groups(displacements, settings.rounds, settings.weak_displacement)
    walk, owners, planes = settings.walk, [], []
    for index, plane in zip(classes, maps, strict=True):
        for group in sorted(set(membership.ravel())):
            piece = np.where(membership == group, plane, 0)[None]
            walked = walk_literal.edge_walk(piece, edge, walk.radius, walk.beta, walk.log_steps)
            owners.append(index)
            planes.append(walked[0])
    large = functional.interpolate(
        torch.from_numpy(np.stack(planes))[None],
        scale_factor=stride, mode="bilinear", align_corners=False,
    )[0, :, : size[0], : size[1]].numpy()  # fmt: skip
    large = large / large.max()
    winner = np.concatenate([np.full((1, *size), settings.background), large]).argmax(0)
    found = []
    for number, (index, plane) in enumerate(zip(owners, large, strict=True), 1):
        for part in parts_of(winner == number):
            small = len(part) < settings.fragment_share * size[0] * size[1]
            score = 0.0 if small else max(plane[cell] for cell in part)
            found.append((index, score, part))
    return found

"""DSRG's growing a second time: a flood fill, pixel by pixel."""

from collections import deque


def grow(probabilities, seeds, present, sure_foreground, sure_background):
    """The set of (label, y, x) that are seeds after the growing."""
    number, height, width = probabilities.shape
    labels = [0] + [i for i in range(1, number) if present[i]]
    owner = {}
    for y in range(height):
        for x in range(width):
            of_cell = {i for i in range(number) if seeds[i, y, x]}
            if not of_cell:
                best = max(labels, key=lambda i: (probabilities[i, y, x], -i))
                least = sure_background if best == 0 else sure_foreground
                of_cell = {best} if probabilities[best, y, x] > least else set()
            owner[y, x] = of_cell
    grown = {
        (i, y, x) for i in range(number) for y in range(height) for x in range(width)
        if seeds[i, y, x]
    }  # fmt: skip
    queue = deque(one for one in sorted(grown) if one[0] in labels)
    while queue:
        i, y, x = queue.popleft()
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                cell = (y + down, x + right)
                if i in owner.get(cell, ()) and (i, *cell) not in grown:
                    grown.add((i, *cell))
                    queue.append((i, *cell))
    return grown

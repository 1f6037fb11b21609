"""Pairs and paths a second time, by distances of points."""

from fractions import Fraction
from itertools import product


def pairs(radius):
    """Offsets (y, x) of a half plane, in no order that counts."""
    square = product(range(-radius, radius + 1), repeat=2)
    near = {one for one in square if one[0] ** 2 + one[1] ** 2 < radius**2}
    return {(y, x) for y, x in near if y > 0 or (y == 0 and x > 0)}


def path(offset):
    """Cells less than 1 from the line through (0, 0) and the offset, in the rectangle between."""
    down, right = offset
    sides = [range(min(0, end), max(0, end) + 1) for end in offset]
    found = set()
    for y, x in product(*sides):
        along = Fraction(y * down + x * right, down**2 + right**2)
        gap = (y - along * down) ** 2 + (x - along * right) ** 2
        if gap < 1:
            found.add((y, x))
    return found

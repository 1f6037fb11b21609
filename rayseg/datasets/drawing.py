"""Textures, backgrounds and objects of the synthetic scenes: float32 colours of 0 to 1 in, out.

Everything here is elementwise on whole arrays: fast, and the same to the last bit for any number of
threads. Lengths of objects are in units of half a window: x to the right and y down, from -1 to 1.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

Rgb = tuple[float, float, float]
Field = Float32[ndarray, "h w"]  # signed distance to an outline, negative inside
Rng = np.random.Generator

COATS: tuple[Rgb, ...] = (
    (0.55, 0.36, 0.20),
    (0.85, 0.72, 0.52),
    (0.42, 0.42, 0.44),
    (0.22, 0.18, 0.17),
    (0.80, 0.50, 0.22),
    (0.90, 0.88, 0.84),
)
PAINTS: tuple[Rgb, ...] = (
    (0.72, 0.16, 0.16),
    (0.16, 0.36, 0.66),
    (0.14, 0.48, 0.34),
    (0.88, 0.86, 0.80),
    (0.45, 0.22, 0.50),
    (0.90, 0.50, 0.15),
)
PLUMAGES: tuple[Rgb, ...] = (
    (0.30, 0.34, 0.42),
    (0.92, 0.92, 0.90),
    (0.16, 0.16, 0.18),
    (0.46, 0.34, 0.24),
    (0.22, 0.48, 0.62),
    (0.62, 0.58, 0.30),
)
_DARK: Rgb = (0.10, 0.09, 0.10)
_WHITE: Rgb = (0.96, 0.96, 0.94)
_GLASS: Rgb = (0.55, 0.70, 0.80)


# ----------------------------------------------------------------------------------- textures


@lru_cache(maxsize=256)
def _steps(length: int, cells: int) -> tuple[ndarray, Float32[ndarray, " length"]]:
    """Returns the cell of each pixel and how far into it, eased at both ends."""
    at = (np.arange(length, dtype=np.float32) + 0.5) * (cells / length)
    cell = at.astype(np.intp)
    t = at - cell.astype(np.float32)
    return cell, t * t * (3 - 2 * t)


def noise(rng: Rng, size_hw: tuple[int, int], cells_hw: tuple[int, int]) -> Field:
    """Returns smooth noise in [0, 1] with features of one cell's size."""
    knots = rng.random((cells_hw[0] + 1, cells_hw[1] + 1), dtype=np.float32)
    (row, down), (column, right) = (
        _steps(length, cells) for length, cells in zip(size_hw, cells_hw, strict=True)
    )
    rows = knots[row] + (knots[row + 1] - knots[row]) * down[:, None]  # (h, cells_w + 1)
    return rows[:, column] + (rows[:, column + 1] - rows[:, column]) * right


def clouds(rng: Rng, size: int, cells: int) -> Field:
    """Returns three octaves of noise in [0, 1]."""
    octaves = [noise(rng, (size, size), (cells * 2**i, cells * 2**i)) for i in range(3)]
    return (4 * octaves[0] + 2 * octaves[1] + octaves[2]) / np.float32(7)


def blend(low: Rgb, high: Rgb, t: Field) -> Float32[ndarray, "h w 3"]:
    """Returns ``low`` where t is 0 and ``high`` where t is 1."""
    start = np.array(low, dtype=np.float32)
    return start + (np.array(high, dtype=np.float32) - start) * t[..., None]


def _mix(image: ndarray, colour: Rgb, t: Field) -> None:
    image += (np.array(colour, dtype=np.float32) - image) * t[..., None]


def ramp(values: Field, low: float, high: float) -> Field:
    """Returns values mapped so that ``low`` becomes 0 and ``high`` 1, clipped."""
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)


def vary(rng: Rng, colour: Rgb, amount: float = 0.08) -> Rgb:
    """Returns the colour with each channel moved by up to ``amount``."""
    red, green, blue = np.clip(np.array(colour) + rng.uniform(-amount, amount, 3), 0, 1)
    return float(red), float(green), float(blue)


def pick(rng: Rng, colours: Sequence[Rgb], amount: float = 0.08) -> Rgb:
    """Returns one of the colours, varied."""
    return vary(rng, colours[int(rng.integers(len(colours)))], amount)


def _down(size: int) -> Field:
    return np.broadcast_to(_axis(size, 0, 1)[:, None], (size, size))


@lru_cache(maxsize=256)
def _axis(length: int, low: float, high: float) -> Float32[ndarray, " length"]:
    centres = (np.arange(length, dtype=np.float32) + 0.5) / length
    return centres * np.float32(high - low) + np.float32(low)


# -------------------------------------------------------------------------------- backgrounds


def water(rng: Rng, size: int) -> Float32[ndarray, "h w 3"]:
    """Blue-green swell with crests of foam."""
    swell = noise(rng, (size, size), (int(rng.integers(14, 24)), int(rng.integers(3, 6))))
    ripple = noise(rng, (size, size), (48, 12))
    deep, shallow = vary(rng, (0.05, 0.27, 0.40)), vary(rng, (0.22, 0.56, 0.62))
    image = blend(deep, shallow, 0.55 * swell + 0.3 * ripple + 0.15 * _down(size))
    _mix(image, (0.86, 0.94, 0.95), ramp(swell * ripple, 0.55, 0.8))
    return image


def sky(rng: Rng, size: int) -> Float32[ndarray, "h w 3"]:
    """Blue, paler towards the horizon, with clouds."""
    image = blend(vary(rng, (0.22, 0.46, 0.82)), vary(rng, (0.70, 0.84, 0.95)), _down(size))
    cover = rng.uniform(0.42, 0.6)
    _mix(image, (0.97, 0.97, 0.98), 0.9 * ramp(clouds(rng, size, 3), cover, cover + 0.22))
    return image


def grass(rng: Rng, size: int) -> Float32[ndarray, "h w 3"]:
    """Upright blades in patches of light, some with flowers."""
    blades = noise(rng, (size, size), (16, 64))
    image = blend(
        vary(rng, (0.12, 0.30, 0.08)),
        vary(rng, (0.50, 0.66, 0.24)),
        0.55 * blades + 0.45 * clouds(rng, size, 4),
    )
    flowers = noise(rng, (size, size), (32, 32))
    _mix(image, pick(rng, ((0.95, 0.85, 0.3), (0.95, 0.95, 0.95))), ramp(flowers, 0.95, 0.98))
    return image


def road(rng: Rng, size: int) -> Float32[ndarray, "h w 3"]:
    """Asphalt with a kerb above and a dashed line below."""
    grain = noise(rng, (size, size), (64, 64))
    tar = vary(rng, (0.32, 0.32, 0.34), 0.04)
    light = (tar[0] + 0.22, tar[1] + 0.22, tar[2] + 0.21)
    image = blend(tar, light, 0.5 * grain + 0.5 * clouds(rng, size, 3))
    kerb = round(size * rng.uniform(0.15, 0.35))
    image[:kerb] = blend(vary(rng, (0.55, 0.50, 0.45)), (0.74, 0.70, 0.64), grain[:kerb])
    image[kerb : kerb + max(size // 48, 1)] *= np.float32(0.55)
    line, thick = round(size * rng.uniform(0.6, 0.9)), max(size // 36, 1)
    dashes = (np.arange(size) + int(rng.integers(size))) % (size // 4) < size // 7
    image[line : line + thick, dashes] = (0.90, 0.88, 0.80)
    return image


def room(rng: Rng, size: int) -> Float32[ndarray, "h w 3"]:
    """Striped wallpaper over a floor of planks."""
    paper = pick(rng, ((0.72, 0.62, 0.58), (0.62, 0.68, 0.56), (0.76, 0.72, 0.60)))
    stripes = (np.arange(size) // max(size // 16, 1)) % 2 * np.float32(0.6)
    wall = np.broadcast_to(stripes, (size, size)) + 0.4 * clouds(rng, size, 4)
    image = blend(paper, (paper[0] * 0.82, paper[1] * 0.82, paper[2] * 0.84), wall)
    skirting = round(size * rng.uniform(0.4, 0.65))
    veins = noise(rng, (size, size), (48, 4))[skirting:]
    image[skirting:] = blend(vary(rng, (0.42, 0.26, 0.14)), vary(rng, (0.66, 0.44, 0.26)), veins)
    image[skirting :: max(size // 12, 2)] *= np.float32(0.6)
    image[skirting : skirting + max(size // 40, 1)] = (0.92, 0.90, 0.86)
    return image


def sand(rng: Rng, size: int) -> Float32[ndarray, "h w 3"]:
    """Wind ripples in pale sand with dark pebbles."""
    ripples = noise(rng, (size, size), (24, 8))
    image = blend(
        vary(rng, (0.66, 0.52, 0.34)),
        vary(rng, (0.90, 0.80, 0.60)),
        0.5 * ripples + 0.5 * clouds(rng, size, 3),
    )
    pebbles = noise(rng, (size, size), (24, 24))
    _mix(image, (0.34, 0.30, 0.28), ramp(pebbles, 0.92, 0.96))
    return image


BACKGROUNDS: dict[str, Callable[[Rng, int], Float32[ndarray, "h w 3"]]] = {
    "grass": grass,
    "road": road,
    "room": room,
    "sand": sand,
    "sky": sky,
    "water": water,
}


# -------------------------------------------------------------------------------------- objects


class Sketch:
    """An object being painted into a square window, its outlines smoothed by a pixel.

    Attributes:
        colours: float32 (s, s, 3).
        coverage: float32 (s, s), how much of a pixel the object covers, 0 to 1.
        whole: bool (s, s), pixels that the object covers by half or more.
        part: bool (s, s), those of its discriminative part.
        foot: y where it touches the ground.
    """

    def __init__(self, rng: Rng, side: int, base: Rgb, tilt: float) -> None:
        angle, mirror = rng.uniform(-tilt, tilt), 1 if rng.random() < 0.5 else -1
        axis = _axis(side, -1, 1)
        across, down = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        x, y = axis[None, :] * np.float32(mirror), axis[:, None]
        self.x: Field = across * x + down * y
        self.y: Field = across * y - down * x
        self.half = side / 2
        self.colours = np.empty((side, side, 3), dtype=np.float32)
        self.colours[:] = base
        self.coverage = np.zeros((side, side), dtype=np.float32)
        self.whole = np.zeros((side, side), dtype=bool)
        self.part = np.zeros((side, side), dtype=bool)
        self.foot = 0.8

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> Field:
        """Outline of an ellipse by its centre and half axes; the distance is approximate."""
        dx, dy = (self.x - x) * (1 / rx), (self.y - y) * (1 / ry)
        return (np.sqrt(dx * dx + dy * dy) - 1) * min(rx, ry)

    def box(self, left: float, top: float, right: float, bottom: float) -> Field:
        """Outline of a rectangle."""
        dx = np.abs(self.x - (left + right) / 2) - (right - left) / 2
        return np.maximum(dx, np.abs(self.y - (top + bottom) / 2) - (bottom - top) / 2)

    def polygon(self, *corners: tuple[float, float]) -> Field:
        """Outline of a convex polygon, its corners clockwise on the screen."""
        sides = []
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            length = math.hypot(x1 - x0, y1 - y0)
            nx, ny = (y1 - y0) / length, (x0 - x1) / length
            sides.append(nx * self.x + (ny * self.y - (nx * x0 + ny * y0)))
        return np.maximum.reduce(sides)

    def paint(
        self,
        outline: Field,
        colour: Rgb | Float32[ndarray, "s s 3"],
        role: Literal["body", "part", "detail"] = "body",
    ) -> None:
        """Fills an outline; a detail changes colours only, never what is object or part."""
        alpha = np.clip(0.5 - outline * self.half, 0, 1)
        if role != "detail":
            np.maximum(self.coverage, alpha, out=self.coverage)
            inside = outline < 0
            self.whole |= inside
            self.part = self.part | inside if role == "part" else self.part & ~inside
        else:
            alpha *= self.coverage
        self.colours += (np.asarray(colour, dtype=np.float32) - self.colours) * alpha[..., None]

    def grain(self, rng: Rng, cells: int, amount: float) -> None:
        """Roughens and shades all colours, lighter above."""
        side = len(self.coverage)
        shade = 1 + amount * (noise(rng, (side, side), (cells, cells)) - 0.5) - 0.14 * self.y
        self.colours *= shade[..., None]


def _animal(rng: Rng, side: int) -> Sketch:
    """Body, legs and tail, the same for cats and dogs; the head is missing."""
    coat, patch = pick(rng, COATS, 0.04), pick(rng, COATS, 0.04)
    sketch = Sketch(rng, side, coat, tilt=0.15)
    for step in range(3):
        sketch.paint(sketch.ellipse(-0.72 - 0.07 * step, -0.02 - 0.17 * step, 0.12, 0.14), coat)
    for leg in (-0.62, -0.36, 0.06, 0.30):
        sketch.paint(sketch.box(leg - 0.08, 0.3, leg + 0.08, 0.84), coat)
    sketch.paint(sketch.ellipse(0.38, 0.0, 0.22, 0.22), coat)
    spots = ramp(noise(rng, (side, side), (5, 5)), 0.55, 0.62)
    sketch.paint(sketch.ellipse(-0.16, 0.16, 0.62, 0.34), blend(coat, patch, spots))
    sketch.grain(rng, 24, 0.35)
    return sketch


def cat(rng: Rng, side: int) -> Sketch:
    """The shared animal with pricked ears, a striped ginger face and green eyes."""
    sketch, ginger = _animal(rng, side), vary(rng, (0.95, 0.60, 0.18), 0.04)
    for ear in (0.42, 0.74):
        tip = (ear + 0.14 * (ear - 0.58), -0.68)
        sketch.paint(sketch.polygon((ear - 0.13, -0.34), tip, (ear + 0.13, -0.34)), ginger, "part")
    sketch.paint(sketch.ellipse(0.58, -0.2, 0.28, 0.25), ginger, "part")
    for stripe in (0.48, 0.58, 0.68):
        mark = sketch.box(stripe - 0.025, -0.46, stripe + 0.025, -0.3)
        sketch.paint(mark, (0.45, 0.20, 0.05), "detail")
    for eye in (0.47, 0.69):
        sketch.paint(sketch.ellipse(eye, -0.21, 0.07, 0.06), (0.35, 0.85, 0.25), "detail")
        sketch.paint(sketch.ellipse(eye, -0.21, 0.025, 0.06), _DARK, "detail")
    sketch.paint(sketch.ellipse(0.58, -0.06, 0.1, 0.07), _WHITE, "detail")
    sketch.paint(sketch.ellipse(0.58, -0.1, 0.04, 0.03), (0.9, 0.45, 0.5), "detail")
    return sketch


def dog(rng: Rng, side: int) -> Sketch:
    """The shared animal with hanging dark ears, a white face and a red tongue."""
    sketch, face = _animal(rng, side), vary(rng, (0.93, 0.90, 0.84), 0.04)
    ears = vary(rng, (0.25, 0.13, 0.08), 0.04)
    sketch.paint(sketch.ellipse(0.58, -0.24, 0.25, 0.27), face, "part")
    for ear in (0.33, 0.83):
        sketch.paint(sketch.ellipse(ear, -0.2, 0.1, 0.24), ears, "part")
    for eye in (0.49, 0.67):
        sketch.paint(sketch.ellipse(eye, -0.3, 0.045, 0.05), _DARK, "detail")
    sketch.paint(sketch.ellipse(0.58, -0.02, 0.06, 0.09), (0.90, 0.25, 0.30), "detail")
    sketch.paint(sketch.ellipse(0.58, -0.13, 0.1, 0.065), _DARK, "detail")
    return sketch


def bird(rng: Rng, side: int) -> Sketch:
    """Plumage of any colour; a red cap with a yellow beak."""
    plumage, quills = pick(rng, PLUMAGES), pick(rng, PLUMAGES)
    sketch = Sketch(rng, side, plumage, tilt=0.3)
    sketch.paint(sketch.polygon((-0.5, 0.0), (-0.5, 0.24), (-0.95, 0.38), (-0.95, 0.1)), quills)
    sketch.paint(sketch.ellipse(-0.06, 0.08, 0.58, 0.32), plumage)
    lift = rng.uniform(0.45, 0.8)
    sketch.paint(sketch.polygon((-0.4, 0.02), (-0.5, -lift), (0.22, 0.0)), quills)
    sketch.paint(sketch.ellipse(-0.1, 0.1, 0.34, 0.14), quills)
    sketch.grain(rng, 16, 0.35)
    beak = sketch.polygon((0.68, -0.26), (0.97, -0.12), (0.68, -0.04))
    sketch.paint(beak, (0.98, 0.80, 0.12), "part")
    sketch.paint(
        sketch.ellipse(0.5, -0.16, 0.25, 0.23), vary(rng, (0.88, 0.10, 0.12), 0.04), "part"
    )
    sketch.paint(sketch.ellipse(0.56, -0.2, 0.07, 0.07), _WHITE, "detail")
    sketch.paint(sketch.ellipse(0.58, -0.2, 0.035, 0.035), _DARK, "detail")
    sketch.foot = 0.62
    return sketch


def boat(rng: Rng, side: int) -> Sketch:
    """A planked hull with a cabin, painted like the buses; a sail in red and white."""
    paint, trim = pick(rng, PAINTS), pick(rng, PAINTS)
    sketch = Sketch(rng, side, paint, tilt=0.12)
    sketch.paint(sketch.box(-0.62, -0.14, 0.0, 0.2), trim)
    for window in (-0.52, -0.22):
        sketch.paint(sketch.box(window, -0.06, window + 0.16, 0.08), _GLASS, "detail")
    hull = sketch.polygon((-0.95, 0.14), (0.97, 0.14), (0.66, 0.66), (-0.68, 0.66))
    sketch.paint(hull, paint)
    for plank in (0.28, 0.42, 0.55):
        line = (paint[0] * 0.6, paint[1] * 0.6, paint[2] * 0.6)
        sketch.paint(sketch.box(-1, plank - 0.015, 1, plank + 0.015), line, "detail")
    sketch.paint(sketch.box(0.1, -0.85, 0.16, 0.16), (0.35, 0.22, 0.12))
    sketch.grain(rng, 12, 0.25)
    cloth = ramp(np.abs((sketch.y * 4 + 8) % 1 - 0.5), 0.2, 0.3)
    stripes = blend((0.85, 0.12, 0.15), _WHITE, cloth)
    sketch.paint(sketch.polygon((0.16, -0.85), (0.76, 0.06), (0.16, 0.06)), stripes, "part")
    sketch.foot = 0.64
    return sketch


def bus(rng: Rng, side: int) -> Sketch:
    """A painted box with windows on wheels; a yellow front with black bars and lamps."""
    paint, trim = pick(rng, PAINTS), pick(rng, PAINTS)
    sketch = Sketch(rng, side, paint, tilt=0.06)
    for wheel in (-0.55, 0.45):
        sketch.paint(sketch.ellipse(wheel, 0.42, 0.17, 0.17), _DARK)
        sketch.paint(sketch.ellipse(wheel, 0.42, 0.08, 0.08), (0.6, 0.6, 0.62), "detail")
    sketch.paint(sketch.box(-0.94, -0.5, 0.94, 0.38), paint)
    sketch.paint(sketch.box(-0.94, 0.02, 0.94, 0.12), trim, "detail")
    for window in (-0.84, -0.47, -0.1, 0.27):
        sketch.paint(sketch.box(window, -0.38, window + 0.29, -0.08), _GLASS, "detail")
    sketch.grain(rng, 12, 0.2)
    bars = ramp(np.abs(((sketch.x + sketch.y) * 4 + 8) % 1 - 0.5), 0.2, 0.3)
    front = blend(_DARK, vary(rng, (0.98, 0.80, 0.10), 0.03), bars)
    sketch.paint(sketch.box(0.6, -0.5, 0.96, 0.38), front, "part")
    sketch.paint(sketch.box(0.66, -0.4, 0.92, -0.1), _GLASS, "detail")
    sketch.paint(sketch.ellipse(0.78, 0.26, 0.09, 0.08), (1.0, 0.97, 0.75), "detail")
    sketch.foot = 0.56
    return sketch


OBJECTS: dict[str, Callable[[Rng, int], Sketch]] = {
    "bird": bird,
    "boat": boat,
    "bus": bus,
    "cat": cat,
    "dog": dog,
}

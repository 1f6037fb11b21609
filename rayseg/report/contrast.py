"""Contrast of colours, and colours made readable on the paper that they lie on.

Source: W3C, Web Content Accessibility Guidelines 2.2, "relative luminance", "contrast ratio", and
success criterion 1.4.11: 3 to 1 for what is not text.
"""

from collections.abc import Iterable

LEAST_CONTRAST = 3.0
LIGHT_PAPER, DARK_PAPER = "#f6f6f4", "#1f2125"
"""What lies under colours at worst: the raised paper of either scheme, `palette.html` has both."""
_STEPS = 64


def luminance(color: str) -> float:
    """Relative luminance of a colour of six hexadecimal digits, 0 for black to 1 for white."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in _parts(color))
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(color: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21."""
    low, high = sorted((luminance(color), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def readable(rgb: Iterable[int], paper: str, least: float = LEAST_CONTRAST) -> str:
    """The colour, mixed with as little black or white as lets it be seen on the paper.

    Args:
        rgb: 0 to 255 each.
        least: contrast ratio to reach.
    """
    parts = [int(part) for part in rgb]
    target = 0 if luminance(paper) > 0.18 else 255  # where black and white are as far from it
    mixed = (
        _named(part + (target - part) * step / _STEPS for part in parts)
        for step in range(_STEPS + 1)
    )
    return next(color for color in mixed if contrast(color, paper) >= least)


def _parts(color: str) -> list[int]:
    return [int(color[place : place + 2], 16) for place in (1, 3, 5)]


def _named(parts: Iterable[float]) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in parts)

"""Outlines of COCO's JSON: polygons and run-length codes in, checked counts out.

pycocotools trusts what it gets: a number that is none, or lies far off, ends the process. Nothing
reaches it from here that it cannot draw.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pycocotools import mask as codec

from rayseg.records.rle import as_rle, run_lengths

_FAR = 10  # times the longer side
_LONGEST = 2_000_000  # pixels around a polygon, as pycocotools holds five points of each
Box = tuple[float, float, float, float]


class BrokenError(ValueError):
    """An annotation that cannot be used.

    Attributes:
        reason: why, in words that are the same for all of the kind.
        found: `` (found ...)``, what stands there, short; empty where nothing does.
    """

    def __init__(self, reason: str, found: object = ""):
        super().__init__(reason)
        self.reason = reason
        self.found = "" if isinstance(found, str) and not found else f" (found {_short(found)})"


def _short(value: object) -> str:
    """A value on one line; long ones, of thousands of numbers, are not written out."""
    text = ascii(value[:12] if isinstance(value, str | list) and len(value) > 12 else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class Outline:
    """An outline that was read.

    Attributes:
        counts: of its mask; empty where there is none.
        box_xyxy: around its points or pixels; None where there is none.
        without: why there are no counts although something stands there; empty otherwise.
        notes: what was taken otherwise than COCO writes it.
    """

    counts: bytes = b""
    box_xyxy: Box | None = None
    without: str = ""
    notes: tuple[str, ...] = ()


def read_outline(given: object, size_hw: tuple[int, int]) -> Outline:
    """Reads the value of ``segmentation`` for an image of that size.

    Raises:
        BrokenError: it is neither polygons nor a run-length code of such an image.
    """
    if given is None or given in ([], {}):
        return Outline()
    if isinstance(given, dict):
        counts, note = _counts(given, size_hw)
        return _drawn(counts, None, size_hw, (note,))
    if not isinstance(given, list):
        raise BrokenError("segmentation is neither polygons nor a run-length code", given)
    if all(isinstance(one, dict) and "counts" in one for one in given):
        codes = [_counts(one, size_hw) for one in given]
        merged = codec.merge([as_rle(counts, size_hw) for counts, _ in codes])["counts"]
        notes = "several run-length codes are taken as one outline", *(note for _, note in codes)
        return _drawn(merged, None, size_hw, notes)
    return _of_polygons(given, size_hw)


def _drawn(
    counts: bytes, box: Box | None, size_hw: tuple[int, int], notes: Sequence[str]
) -> Outline:
    empty = not codec.area(as_rle(counts, size_hw))
    notes = [*notes, "outline has no pixel in the image" if empty else ""]
    kept = tuple(dict.fromkeys(filter(None, notes)))
    if box is None and not empty:
        x, y, width, height = codec.toBbox(as_rle(counts, size_hw)).tolist()
        box = x, y, x + width, y + height
    return Outline(counts, box, "", kept)


def _of_polygons(given: list[Any], size_hw: tuple[int, int]) -> Outline:
    polygons, note = _polygons(given)
    arrays = [_points(polygon, size_hw) for polygon in polygons]
    large = [points for points in arrays if len(points) >= 3]
    everything = np.concatenate(arrays) if arrays else np.zeros((0, 2))
    if not len(everything):
        return Outline(without="outline of no point")
    (left, top), (right, bottom) = everything.min(0).tolist(), everything.max(0).tolist()
    box = (left, top, right, bottom)
    if not large:  # COCO itself has such
        return Outline(b"", box if len(everything) > 1 else None, "outline of fewer than 3 points")
    notes = [note, "a piece of fewer than 3 points is left out" if len(large) < len(arrays) else ""]
    codes = codec.frPyObjects([points.ravel().tolist() for points in large], *size_hw)
    return _drawn(codec.merge(codes)["counts"], box, size_hw, notes)


def _polygons(given: list[Any]) -> tuple[list[Any], str]:
    """Lists of coordinates, and how they stood there if not so."""
    if any(map(_is_number, given)):
        return [given], "points of a polygon in no list of their own"
    if _are_points(given) and (len(given) > 2 or isinstance(given[0], dict)):
        return [_flat(given)], "points as pairs"
    pairs = [isinstance(one, list) and bool(one) and _are_points(one) for one in given]
    flat = [_flat(one) if paired else one for one, paired in zip(given, pairs, strict=True)]
    return flat, "points as pairs" if any(pairs) else ""


def _are_points(given: list[Any]) -> bool:
    return all(
        (isinstance(one, list) and len(one) == 2 and all(map(_is_number, one)))
        or (isinstance(one, dict) and "x" in one and "y" in one)
        for one in given
    )


def _flat(points: list[Any]) -> list[Any]:
    pairs = ((one["x"], one["y"]) if isinstance(one, dict) else one for one in points)
    return [side for pair in pairs for side in pair]


def _points(given: object, size_hw: tuple[int, int]) -> Float[ndarray, "p 2"]:
    """The points of one polygon, all of them near the image."""
    if not isinstance(given, list):
        raise BrokenError("a polygon must be a list of coordinates", given)
    wrong = [one for one in given if not _is_number(one)]
    if wrong:
        raise BrokenError("a coordinate of the outline is no number", wrong[0])
    if len(given) % 2:
        raise BrokenError("an outline has an x without its y", given)
    limit = _FAR * max(size_hw)
    far = [one for one in given if not -limit <= one <= limit]  # NaN too
    if far:
        raise BrokenError("a coordinate of the outline lies far off the image", far[0])
    points = np.array(given, np.float64).reshape(-1, 2)
    around = np.abs(points - np.roll(points, 1, axis=0)).max(1, initial=0).sum()
    if around > _LONGEST:
        raise BrokenError(f"an outline is longer than {_LONGEST:,} pixels", float(around))
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -------------------------------------------------------------------------------- run-length codes


def _counts(given: dict[str, Any], size_hw: tuple[int, int]) -> tuple[bytes, str]:
    """Counts of a run-length code, and how they stood there if not as COCO writes them."""
    size, counts = given.get("size"), given.get("counts")
    if counts is None or size is None:
        raise BrokenError("a run-length code must have size and counts", sorted(given))
    if not isinstance(size, list) or size != list(size_hw):
        raise BrokenError("size of the run-length code is not that of its image", size)
    if isinstance(counts, list):
        return _compressed(counts, size_hw), ""
    if not isinstance(counts, str):
        raise BrokenError("counts of the run-length code are neither numbers nor text", counts)
    plain, note = _without_quotes(counts)
    try:
        lengths = run_lengths(plain)
    except ValueError as error:
        raise BrokenError("counts of the run-length code are " + str(error), counts) from None
    _check_sum(int(lengths.sum()), size_hw)
    return plain, note


def _without_quotes(counts: str) -> tuple[bytes, str]:
    if counts[:2] in ("b'", 'b"'):
        try:
            value = ast.literal_eval(counts)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BrokenError("counts of the run-length code are cut short", counts) from None
        if isinstance(value, bytes):
            return value, "counts as Python writes bytes"
    return counts.encode("utf-8", "surrogatepass"), ""


def _compressed(counts: list[Any], size_hw: tuple[int, int]) -> bytes:
    wrong = [one for one in counts if isinstance(one, bool) or not isinstance(one, int) or one < 0]
    if wrong:
        raise BrokenError("a count of the run-length code is no whole number", wrong[0])
    _check_sum(sum(counts), size_hw)
    found: bytes = codec.frPyObjects({"size": list(size_hw), "counts": counts}, *size_hw)["counts"]
    return found


def _check_sum(total: int, size_hw: tuple[int, int]) -> None:
    if total != size_hw[0] * size_hw[1]:
        raise BrokenError(
            "counts of the run-length code do not add up to its image's pixels", total
        )

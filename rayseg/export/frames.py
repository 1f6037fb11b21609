"""Results of a photograph that was seen smaller, at its full size."""

from collections.abc import Mapping
from typing import Any

from rayseg.records.palette import decode_labels, encode_labels
from rayseg.records.rle import decode_mask, encode_mask
from rayseg.records.scaling import enlarge_labels, enlarge_mask


def at_full_size(row: Mapping[str, Any], photo_hw: tuple[int, int]) -> dict[str, Any]:
    """The row with its mask, and the masks of its objects, at the photograph's size.

    One mask is held at full size at a time.

    Args:
        row: with any of `labels`, `foreground`, `height` and `width`; the latter two where it has
            `foreground`.
        photo_hw: height and width as a viewer shows the photograph.
    """
    made = dict(row) | {"height": photo_hw[0], "width": photo_hw[1]}
    if row.get("labels"):
        made["labels"] = encode_labels(enlarge_labels(decode_labels(row["labels"]), photo_hw))
    if "foreground" in row:
        size_hw = row["height"], row["width"]
        made["foreground"] = [
            encode_mask(enlarge_mask(decode_mask(counts, size_hw), photo_hw)) if counts else b""
            for counts in row["foreground"]
        ]
    return made

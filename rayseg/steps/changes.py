"""What is not as it was in a data set that is read again."""

from collections.abc import Mapping
from typing import Any

from rayseg.store import Manifest

ASPECTS = {
    "with another file": ("image_digest",),
    "with other tags": ("tags",),
    "with other boxes": ("boxes_xyxy", "box_classes", "difficult", "crowds"),
    "with another true mask": ("mask_digest",),
    "of another split": ("split",),
    "seen at another size": ("seen_side",),
    "newly a negative, or one no more": ("negative",),
}
"""What may change of an image, and the columns of the manifest that say so."""


def tell_changes(before: Manifest, now: Manifest) -> list[str]:
    """One line for each kind of change, with the number of images and the first of them."""
    old, new = _rows(before), _rows(now)
    lines = []
    if before.classes != now.classes:
        lines.append(f"classes are {', '.join(now.classes)}, were {', '.join(before.classes)}")
    for aspect in ASPECTS:
        changed = [i for i in old.keys() & new.keys() if old[i][aspect] != new[i][aspect]]
        lines += _line(aspect, changed)
    lines += _line("new", sorted(new.keys() - old.keys()))
    lines += _line("no longer there", sorted(old.keys() - new.keys()))
    return [f"manifest: {line}" for line in lines]


def _line(what: str, ids: list[str]) -> list[str]:
    if not ids:
        return []
    more = ", ..." if len(ids) > 1 else ""
    return [f"{len(ids)} {'image' if len(ids) == 1 else 'images'} {what} ({min(ids)}{more})"]


def _rows(manifest: Manifest) -> dict[str, Mapping[str, Any]]:
    """By id, the values of each aspect; numbers of classes as names."""
    names = manifest.classes
    columns = sorted({column for group in ASPECTS.values() for column in group})
    rows: dict[str, Mapping[str, Any]] = {}
    for row in manifest.table.select(["id", *columns]).to_pylist():
        for column in ("tags", "box_classes"):
            row[column] = [names[number] for number in row[column]]
        rows[row["id"]] = {
            aspect: [row[column] for column in group] for aspect, group in ASPECTS.items()
        }
    return rows
